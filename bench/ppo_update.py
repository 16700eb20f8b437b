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
from pathlib import Path

import torch

from bench import micro
from bench.report import Row, Skipped
from bench.timing import in_turn, speed_up
from rdlib import models
from rdlib.study import ROOT

TRL_PYTHON = ROOT / ".venv-trl" / "bin" / "python"
PROGRAMS = {"ours": (sys.executable, "bench.ppo_ours"), "trl": (str(TRL_PYTHON), "bench.ppo_trl")}
CASES = {
    "own": "responses that end by themselves",
    "full": "responses all as long as the limit",
}


def prepare(folder: Path, student: str, quick: bool) -> dict:
    """Write the reward model, and return what both trainers are told."""
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


def updates(program: tuple[str, str], spec: Path, seed: int) -> float:
    """Seconds an update in a new process, the mean of its updates but the first."""
    python, module = program
    words = [python, "-m", module, str(spec), str(seed)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{module} failed:\n{done.stderr[-2000:]}")
    seconds = json.loads(done.stdout.splitlines()[-1])
    return sum(seconds) / len(seconds)


def run(rounds: int, quick: bool) -> list[Row]:
    """Ours against TRL in both cases, with the larger student."""
    if not TRL_PYTHON.exists():
        raise Skipped("There is no .venv-trl: `python3 scripts/trl_environment.py` builds it.")
    student = "large"
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = prepare(folder, student, quick)
        for case, words in CASES.items():
            path = folder / f"{case}.json"
            path.write_text(json.dumps(spec | {"ends": case == "own"}))
            contestants = {
                name: lambda number, program=program, path=path: updates(program, path, number)
                for name, program in PROGRAMS.items()
            }
            found = in_turn(contestants, rounds)
            rows.append(_row(f"a PPO update, {student} student, {words}", spec, found))
    return rows


def _row(result: str, spec: dict, found: dict[str, list[float]]) -> Row:
    shown = {name: f"{sorted(seconds)[len(seconds) // 2]:.2f} s" for name, seconds in found.items()}
    settings = (
        f"{spec['episodes']} episodes, minibatches of {spec['minibatch']}, {spec['epochs']} epoch, at most "
        f"{spec['limit']} tokens at temperature 1; policy, reference, value and reward model of one size; "
        f"TRL 1.12.0 in .venv-trl with the study's other pins"
    )
    return Row(
        "b", result, *speed_up(found["ours"], found["trl"]), "x", 3.0, False, shown["ours"], shown["trl"], settings
    )
