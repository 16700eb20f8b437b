"""Part j: sampling from a real model of 0.5B on a CPU, against transformers.generate and a llama.cpp server.

Qwen2.5-Coder-0.5B-Instruct answers eight word problems, four samples each, all 48 tokens long: no end token ends one.
All hold weights out of one GGUF file: llama.cpp its 4 bits as they are, the others what these say in float32, or in
bfloat16 where the processor has instructions for it. `generate` gets all rows as one batch, padded on the left.
llama.cpp gets all requests at once, a slot a sample. Each contestant is a process of its own, with one thread and
without the portable mode. Counted are the processor's seconds of that process, of a server's without its client's, from
the prompts to the texts; loading and a first short sample are not.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import psutil
import torch

from bench.report import Row, Skipped
from bench.timing import in_turn, middle
from rdlib import numerics
from rdlib.engines import models
from rdlib.engines.generation import Request
from rdlib.engines.transformers_engine import TransformersEngine
from rdlib.paths import ROOT
from rdlib.tasks import prompts

CHECKPOINT = ROOT / ".real/qwen2.5-coder-0.5b-instruct"
GGUF = ROOT / ".real/qwen2.5-coder-0.5b-instruct-q4.gguf"
LLAMA_PYTHON = ROOT / ".venv-llama/bin/python"
SAMPLES, TOKENS, TEMPERATURE = 4, 48, 0.7
SLOT, LONGEST_START = 256, 300  # tokens of a server's slot; seconds
# What makes llama.cpp sample from the model's own distribution, as the others do, and end nowhere
NEUTRAL = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "repeat_penalty": 1.0, "ignore_eos": True}
WARM_UP = "How many legs have three horses?"
QUESTIONS = (
    "A baker fills 14 trays with 9 rolls each and sells 87 rolls before noon. How many rolls are left?",
    "Ines reads 18 pages on each weekday and 35 pages on Saturday and on Sunday. How many pages is that a week?",
    "A tank of 240 litres loses 3 litres an hour and gains 7 litres an hour. It holds 60 litres now. When is it full?",
    "Tickets cost 12 euros for adults and half of that for children. What do 3 adults and 5 children pay together?",
    "A train leaves at 9:40 and arrives at 13:05 after two stops of 10 minutes each. For how long did it move?",
    "Omar has three times as many stamps as Lea, and together they have 96. How many stamps has Omar?",
    "A rope of 45 metres is cut into pieces of 4 metres. How many whole pieces are there, and how much is left over?",
    "A shop lowers a price of 80 euros by a quarter and then raises it by 10 percent. What does the thing cost now?",
)
WAYS = ("ours", "generate")
NUMBERS = ("float32", "bfloat16")


def prompt_of(question: str) -> prompts.Prompt:
    """A question as the user's only message."""
    return prompts.Prompt((("user", question),), question)


def prepare(folder: str, quick: bool) -> dict:
    """The input of every contestant: the questions as texts and as the token ids of the model's chat template."""
    tokenizer = models.load_tokenizer(folder)
    questions = QUESTIONS[: 2 if quick else None]
    return {
        "folder": folder,
        "questions": questions,
        "prompts": [prompts.encode(tokenizer, prompt_of(question)) for question in questions],
        "warm_up": prompts.encode(tokenizer, prompt_of(WARM_UP)),
        "samples": SAMPLES,
        "tokens": 4 if quick else TOKENS,
    }


class Here:
    """A model in this process, and the two ways to sample from it."""

    def __init__(self, spec: dict, weights: str):
        self.spec = spec
        self.model = models.load_causal_lm(spec["folder"], weights=weights)
        self.tokenizer = models.load_tokenizer(spec["folder"])
        self.model.generation_config.eos_token_id = None  # so that `generate` looks for no end, and forbids none

    def ours(self, asked: list[list[int]], tokens: int, seed: int) -> list[list[int]]:
        """Our engine; returns the tokens of every response."""
        engine = TransformersEngine(self.model, self.tokenizer, len(asked) * self.spec["samples"], tokens)
        engine.end_tokens = engine.end_tokens[:0]
        requests = [Request(prompt, self.spec["samples"], TEMPERATURE) for prompt in asked]
        return [completion.tokens for group in engine.generate(requests, seed) for completion in group]

    def generate(self, asked: list[list[int]], tokens: int, seed: int) -> list[list[int]]:
        """All rows as one batch, and their texts, which our engine gives too."""
        torch.manual_seed(seed)
        padded = self.tokenizer.pad({"input_ids": asked}, padding_side="left", return_tensors="pt")
        output = self.model.generate(
            **padded,
            do_sample=True,
            temperature=TEMPERATURE,
            top_k=0,
            top_p=1.0,
            num_return_sequences=self.spec["samples"],
            max_new_tokens=tokens,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        responses = output[:, padded["input_ids"].shape[1] :]
        self.tokenizer.batch_decode(responses, skip_special_tokens=True)
        return responses.tolist()


def sampled(spec: dict, way: str, weights: str, seed: int) -> float:
    """The processor's seconds of one way to sample in this process, with the model held as `weights`."""
    sample = getattr(Here(spec, weights), way)
    sample([spec["warm_up"]], 2, seed)
    start = time.process_time()
    responses = sample(spec["prompts"], spec["tokens"], seed)
    seconds = time.process_time() - start
    assert [len(one) for one in responses] == [spec["tokens"]] * spec["samples"] * len(spec["prompts"])
    return seconds


def in_a_process(spec: Path, *words: object) -> dict:
    """What a new process of this module says, in torch's own numerics and with one thread."""
    kept = {name: value for name, value in os.environ.items() if name not in numerics.MODE}
    command = [sys.executable, "-m", "bench.real_sampling", str(spec), *map(str, words)]
    kept |= {numerics.SWITCH: numerics.NATIVE, **numerics.THREADS}
    done = subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"bench.real_sampling {' '.join(command[4:])} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(spec: Path, way: str = "", weights: str = "", seed: str = "0") -> dict:
    """In that process: seconds of a way; without one, whether this processor computes with bfloat16."""
    torch.set_num_threads(1)
    assert numerics.record()["numerics"] == numerics.NATIVE
    if not way:
        return {"bfloat16": numerics.computes_bfloat16()}
    return {"seconds": sampled(json.loads(spec.read_text()), way, weights, int(seed))}


class Server:
    """A llama.cpp server with one thread and a slot for every sample, while the `with` block lasts."""

    def __init__(self, slots: int, log: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        options = {"--port": self.port, "--parallel": slots, "--ctx-size": slots * SLOT, "--threads": 1}
        words = [LLAMA_PYTHON, ROOT / "scripts/llama_server.py", GGUF, *(w for pair in options.items() for w in pair)]
        self.command, self.log = [str(word) for word in words], log

    def __enter__(self) -> Server:
        with self.log.open("w") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT)
        deadline = time.time() + LONGEST_START
        while not self._is_ready():
            if self.process.poll() is not None or time.time() > deadline:
                self.__exit__()
                raise RuntimeError(f"The llama.cpp server did not start:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.5)
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait(30)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def ask(self, question: str, samples: int, tokens: int, seed: int) -> tuple[int, list[str]]:
        """Samples of a question; returns the tokens that the server read, and what ended each sample.

        Its count of new tokens is of one sample alone.
        """
        body = {"messages": prompt_of(question).chat, "n": samples, "max_tokens": tokens, "seed": seed}
        body |= {"temperature": TEMPERATURE, **NEUTRAL}
        came = httpx.post(f"http://127.0.0.1:{self.port}/v1/chat/completions", json=body, timeout=600)
        said = came.raise_for_status().json()
        return said["usage"]["prompt_tokens"], [choice["finish_reason"] for choice in said["choices"]]

    def seconds(self) -> float:
        """What the process has used of the processor."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system


def served(spec: dict, log: Path, seed: int) -> float:
    """The processor's seconds of a new server for all requests, which are sent at once."""
    questions = spec["questions"]
    with Server(spec["samples"] * len(questions), log) as server, ThreadPoolExecutor(len(questions)) as clients:
        server.ask(WARM_UP, spec["samples"], 2, seed)
        start = server.seconds()
        asked = [clients.submit(server.ask, q, spec["samples"], spec["tokens"], seed) for q in questions]
        try:
            answers = [one.result() for one in asked]
        except httpx.HTTPError as error:
            raise RuntimeError(f"The llama.cpp server broke off ({error}):\n{log.read_text()[-2000:]}") from error
        seconds = server.seconds() - start
    assert answers == [(len(prompt), ["length"] * spec["samples"]) for prompt in spec["prompts"]]
    return seconds


def run(rounds: int, quick: bool) -> list[Row]:
    """Every contestant in turn; raises Skipped where a model or the server is missing."""
    if not (CHECKPOINT.is_dir() and GGUF.is_file() and LLAMA_PYTHON.exists()):
        raise Skipped(
            "The real model or its server is missing: `.venv/bin/python scripts/real_models.py student "
            "student-checkpoint` and `python3 scripts/llama_environment.py` fetch them (2.5 GB)."
        )
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "spec.json"
        spec = prepare(str(CHECKPOINT), quick)
        path.write_text(json.dumps(spec))
        numbers = NUMBERS if in_a_process(path)["bfloat16"] else NUMBERS[:1]
        contestants: dict[str, Callable[[int], float]] = {
            f"{way} {weights}": partial(_seconds, path, way, weights) for weights in numbers for way in WAYS
        }
        contestants["llama.cpp"] = partial(served, spec, Path(name) / "llama.log")
        found = in_turn(contestants, rounds)
    return rows_of(found, spec)


def _seconds(path: Path, way: str, weights: str, number: int) -> float:
    return in_a_process(path, way, weights, number)["seconds"]


def rows_of(found: dict[str, list[float]], spec: dict) -> list[Row]:
    """Our engine against each other one, in the numbers that it computes with; without aims."""
    tokens = len(spec["questions"]) * spec["samples"] * spec["tokens"]
    shown = {name: f"{tokens / middle(seconds)[0]:,.1f} tokens/s a core" for name, seconds in found.items()}
    narrow = "ours bfloat16" in found
    pairs = [(f"ours {w}", f"generate {w}", f"generate in {w}, batched by hand") for w in NUMBERS[: 1 + narrow]]
    pairs += [(f"ours {w}", "llama.cpp", "a llama.cpp server in 4 bits") for w in NUMBERS[: 1 + narrow]]
    pairs += [("ours bfloat16", "ours float32", "itself in float32")] if narrow else []
    settings = _settings(spec) + ("" if narrow else "; this processor has no instructions for bfloat16")
    rows = []
    for ours, other, words in pairs:
        ratios = middle([b / a for a, b in zip(found[ours], found[other], strict=True)])
        result = f"sampling, a real model of 0.5B, our engine in {ours.split()[1]}, against {words}"
        rows.append(Row("j", result, *ratios, "x", ours=shown[ours], other=shown[other], settings=settings))
    return rows


def _settings(spec: dict) -> str:
    sizes = [len(prompt) for prompt in spec["prompts"]]
    return (
        f"Qwen2.5-Coder-0.5B-Instruct, native numerics, one thread; {len(sizes)} word problems of {min(sizes)} to "
        f"{max(sizes)} tokens x {spec['samples']} at temperature {TEMPERATURE}, {spec['tokens']} new tokens each, "
        f"which are counted, over the processor's seconds; llama.cpp (a build for AVX2) multiplies 4-bit weights, "
        f"which the others hold as float32 or bfloat16: less memory, other roundings and so other probabilities"
    )


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *sys.argv[2:])))
