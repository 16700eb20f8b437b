"""Part b: one PPO update (rollout, scoring, optimisation), ours against the PPOTrainer of TRL 1.12.0.

Both train the same micro student from the same files, in a process of their own with one thread: the same queries,
episodes, minibatches, epochs, learning rate, sampling temperature and longest response. Two cases: responses that end
by themselves, as the study has them, and responses that are all as long as the limit, where neither trainer can save
anything. TRL is given the batch sizes that suit it: an optimizer step's minibatch goes through its networks at once.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch

from bench import micro, roofline
from bench.report import Row, Skipped
from bench.timing import in_turn, middle, speed_up
from rdlib.engines import models
from rdlib.paths import ROOT

TRL_PYTHON = ROOT / ".venv-trl" / "bin" / "python"
PROGRAMS = {"ours": (sys.executable, "bench.ppo_ours"), "trl": (str(TRL_PYTHON), "bench.ppo_trl")}
CASES = {
    "own": "responses that end by themselves",
    "full": "responses all as long as the limit",
}


def prepare(folder: Path, student: str, quick: bool) -> dict:
    """Write the reward model, and return the settings of both trainers."""
    _, tokenizer = micro.load(student)
    scorer = models.load_scorer(micro.student(student), tokenizer.pad_token_id)
    torch.manual_seed(0)
    torch.nn.init.normal_(scorer.score.weight, std=0.02)
    scorer.save_pretrained(folder / "scorer")
    episodes = 16 if quick else 256
    return {
        "policy": micro.student(student),
        "scorer": str(folder / "scorer"),
        "prompts": micro.gsm_prompts(tokenizer, 2 * episodes),
        "episodes": episodes,
        "minibatch": episodes // 4,
        "epochs": 1,
        "limit": 112,
        "learning_rate": 3e-4,
        "updates": 2,  # after the first, which is not counted
        "work": str(folder / "work"),
    }


def updates(program: tuple[str, str], spec: Path, seed: int) -> dict:
    """What a new process of one trainer reports: the seconds of its updates but the first, and what else it tells."""
    python, module = program
    done = subprocess.run([python, "-m", module, str(spec), str(seed)], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{module} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run(rounds: int, quick: bool) -> list[Row]:
    """Ours against TRL, for each student in both cases."""
    if not TRL_PYTHON.exists():
        raise Skipped("There is no .venv-trl: `python3 scripts/trl_environment.py` builds it.")
    rows = []
    for student in ("small", "large"):
        with tempfile.TemporaryDirectory() as name:
            spec = prepare(Path(name), student, quick)
            for case in CASES:
                rows += _compare(student, case, spec, Path(name) / f"{case}.json", rounds)
    return rows


def _compare(student: str, case: str, spec: dict, path: Path, rounds: int) -> list[Row]:
    path.write_text(json.dumps(spec | {"ends": case == "own"}))
    lengths: list[float] = []

    def seconds(name: str, number: int) -> float:
        found = updates(PROGRAMS[name], path, number)
        lengths.extend([found["length"]] if "length" in found else [])
        return sum(found["seconds"]) / len(found["seconds"])

    found = in_turn({name: partial(seconds, name) for name in PROGRAMS}, rounds)
    usual = {name: middle(times)[0] for name, times in found.items()}
    length, result = middle(lengths)[0], f"a PPO update, {student} student, {CASES[case]}"
    settings = (
        f"{spec['episodes']} episodes, minibatches of {spec['minibatch']}, {spec['epochs']} epoch, at most "
        f"{spec['limit']} tokens at temperature 1, {length:.0f} on the mean; policy, reference, value and reward model "
        f"of one size; TRL 1.12.0 in .venv-trl with the study's other pins"
    )
    value, shown = speed_up(found["ours"], found["trl"]), {n: f"{s:.2f} s" for n, s in usual.items()}
    work = flops(spec, length)
    share = 100 * work / roofline.peak_flops() / usual["ours"]
    near = f"{work / 1e9:.0f} GFLOP an update; one thread: {roofline.peak_flops() / 1e9:.0f} GFLOP/s measured"
    return [
        Row("b", result, *value, "x", 3.0, False, shown["ours"], shown["trl"], settings),
        Row("b", f"{result}: share of the roofline (arithmetic)", *[share] * 3, "%", settings=near),
        *_spending(result, spec | {"ends": case == "own", "profile": True, "work": spec["work"] + "-profiled"}, path),
    ]


def _spending(result: str, spec: dict, path: Path) -> list[Row]:
    """What our time goes into, by torch's profiler: how much a faster matrix product could still bring."""
    path.write_text(json.dumps(spec))
    found = updates(PROGRAMS["ours"], path, 0)
    speed = f"{found['flops'] / 1e9:.0f} GFLOP/s in them, of {roofline.peak_flops() / 1e9:.0f} measured"
    rest = "norms, rotary embeddings, activations, residuals, softmax, sampling, optimizer, the overhead of every call"
    return [
        Row("b", f"{result}: time in matrix products", *[100 * found["products"]] * 3, "%", settings=speed),
        Row("b", f"{result}: time in attention", *[100 * found["attention"]] * 3, "%", settings=f"the rest: {rest}"),
    ]


def flops(spec: dict, length: float) -> float:
    """FLOPs of one of our updates: two a weight and token forwards, four more backwards (attention left out).

    Forwards: sampling, and once policy, reference, value and reward model. Each epoch: policy and value model, forwards
    and backwards.
    """
    weights = models.parameter_count(spec["policy"])
    prompt = sum(map(len, spec["prompts"])) / len(spec["prompts"])
    return spec["episodes"] * (prompt + length) * weights * (2 * 5 + 6 * 2 * spec["epochs"])
