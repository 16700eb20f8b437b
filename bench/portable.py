"""Part g: what the portable numerical mode costs against torch's own choice (rdlib.numerics), in processor time alike.

The mode is a process's own, so each contestant is a process of its own with one thread. Both do the same work with the
fused AdamW: sampling, a step of SFT and of the reward model, and PPO updates as in part b.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench import micro, ppo_ours, ppo_update
from bench.report import Row
from bench.timing import in_turn, middle, seconds_of, speed_up
from rdlib import numerics
from rdlib.engines import generation, models
from rdlib.engines.transformers_engine import TransformersEngine
from rdlib.method import reward_model, scoring
from rdlib.paths import ROOT

SAMPLES, LIMIT, ROWS = 30, 112, 512  # as in part a
STEPS = 8  # of SFT and of the reward model, after the first, which is not counted
WORDS = {
    "sampling": "sampling",
    "sft": "a step of SFT (32 responses)",
    "reward_model": "a step of the reward model (72 responses of 12 queries)",
    "ppo": "a PPO update",
    "products": "matrix products of a layer and its gradient",
    "mkl_products": "the same products by MKL",
}
TOKENS, TIMES = 2304, 40  # rows of the products, and how often they are done


class Work:
    """The work of one contestant for one student; each method returns its seconds."""

    def __init__(self, spec: dict):
        import torch

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.spec = spec | {"work": f"{spec['work']}-{os.getpid()}"}  # no checkpoint of another contestant's
        self.model, self.tokenizer = micro.load(spec["student"])
        engine = TransformersEngine(self.model, self.tokenizer, ROWS, LIMIT)
        requests = [generation.Request(prompt, SAMPLES, 1.0) for prompt in spec["prompts"][: spec["questions"]]]
        self.sample = lambda: engine.generate(requests, 0)
        rows = [request.prompt + one.tokens for request in requests for one in engine.generate([request], 0)[0]]
        self.rows = rows[:: max(1, len(rows) // 72)][:72]

    def sampling(self) -> float:
        """30 responses to each question."""
        return seconds_of(self.sample)

    def sft(self) -> float:
        """Steps on whole sequences."""
        ids, mask = scoring.pad_right(self.rows[:32], self.tokenizer.pad_token_id)
        labels = ids.masked_fill(mask == 0, -100)
        return _seconds_of_steps(self.model, lambda: self.model(input_ids=ids, labels=labels).loss)

    def reward_model(self) -> float:
        """Steps with the loss of Eq. 6: two responses of each kind a query."""
        import torch

        pad = self.tokenizer.pad_token_id
        scorer = models.load_scorer(self.spec["policy"], pad)
        ids, mask = scoring.pad_right(self.rows, pad)
        kinds, queries = torch.arange(len(ids)) % 3, torch.arange(len(ids)) // 6

        def loss():
            scores = scoring.score_batch(scorer, ids, mask, queries)
            return reward_model.reward_model_loss(scores, kinds, queries, 0.5, "convex")

        return _seconds_of_steps(scorer, loss)

    def ppo(self) -> float:
        """PPO updates, by the program of part b."""
        seconds = ppo_ours.main(self.spec, 0)["seconds"]
        return sum(seconds) / len(seconds)

    def products(self) -> float:
        """The products that torch makes."""
        return self._products(lambda a, b, _: a @ b)

    def mkl_products(self) -> float:
        """Those into a given tensor, which the mode leaves to MKL."""
        import torch

        return self._products(lambda a, b, out: torch.mm(a, b, out=out))

    def _products(self, multiply: Callable) -> float:
        """A layer's output, and the gradients of its input and its weights, with the vocabulary as its width."""
        import torch

        config = self.model.config
        x, w = torch.randn(TOKENS, config.hidden_size), torch.randn(config.vocab_size, config.hidden_size)
        y = torch.empty(TOKENS, config.vocab_size)
        pairs = [(x, w.t(), y), (y, w, torch.empty_like(x)), (y.t(), x, torch.empty_like(w))]

        def work() -> None:
            for a, b, out in pairs * TIMES:
                multiply(a, b, out)

        work()
        return seconds_of(work) / TIMES


def _seconds_of_steps(model, loss: Callable) -> float:
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        loss().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()
    return seconds_of(lambda: [step() for _ in range(STEPS)]) / STEPS


def measure(mode: str, spec: Path, _: int) -> dict[str, float]:
    """The seconds of every kind of work in a new process in one numerical mode."""
    kept = {name: value for name, value in os.environ.items() if name not in numerics.MODE}
    words = [sys.executable, "-m", "bench.portable", str(spec)]
    done = subprocess.run(words, cwd=ROOT, env=kept | {numerics.SWITCH: mode}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"bench.portable failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("numerics") == mode, f"the process was not in the mode {mode}"
    return found


def run(rounds: int, quick: bool) -> list[Row]:
    """The mode against torch's own choice, for each student and kind of work."""
    rows = []
    for student in ("small", "large"):
        with tempfile.TemporaryDirectory() as name:
            spec = ppo_update.prepare(Path(name), student, quick)
            spec |= {"student": student, "questions": 4 if quick else 34, "ends": True}
            path = Path(name) / "spec.json"
            path.write_text(json.dumps(spec))
            modes = (numerics.PORTABLE, numerics.NATIVE)
            found = in_turn({mode: partial(measure, mode, path) for mode in modes}, rounds)
            rows += [_row(student, kind, found, spec) for kind in WORDS]
    return rows


def _row(student: str, kind: str, found: dict[str, list[dict[str, float]]], spec: dict) -> Row:
    ours, theirs = ([one[kind] for one in found[mode]] for mode in (numerics.PORTABLE, numerics.NATIVE))
    value = speed_up(theirs, ours)
    shown = [f"{middle(seconds)[0]:.3g} s" for seconds in (ours, theirs)]
    settings = {
        "sampling": f"{spec['questions']} micro-gsm questions x {SAMPLES} at temperature 1, at most {LIMIT} tokens",
        "ppo": f"{spec['episodes']} episodes, minibatches of {spec['minibatch']}, {spec['epochs']} epoch",
        "products": f"{TOKENS} tokens",
        "mkl_products": f"{TOKENS} tokens; MKL_CBWR=COMPATIBLE against MKL's own choice",
    }.get(kind, "micro-gsm questions with responses of the student itself")
    name = f"{WORDS[kind]}, {student} student: the same bytes everywhere against torch's own choice"
    return Row("g", name, *value, "times as long", 1.5, True, *shown, settings)


if __name__ == "__main__":
    work = Work(json.loads(Path(sys.argv[1]).read_text()))
    seconds = {kind: getattr(work, kind)() for kind in WORDS}
    print(json.dumps(seconds | {"numerics": numerics.record()["numerics"]}))
