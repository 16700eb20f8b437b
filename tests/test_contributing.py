"""The recipes of CONTRIBUTING.md, followed in a copy of the repository."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import PARAMS, REPOSITORY, make_root

pytestmark = pytest.mark.slow
TEXT = (REPOSITORY / "CONTRIBUTING.md").read_text()


def recipe(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def changes(title: str) -> list[tuple[str, str, str]]:
    """(file, kind, block) of each change that a recipe makes; the file is the last that is named before the block."""
    parts = re.split(r"^```(python|diff)\n(.*?)^```\n", recipe(title), flags=re.DOTALL | re.MULTILINE)
    triples = zip(parts[::3], parts[1::3], parts[2::3], strict=False)
    return [
        (re.findall(r"`((?:rdlib|params)/[\w/]+\.(?:py|yaml))`", before)[-1], kind, block)
        for before, kind, block in triples
    ]


def apply(diff: str, text: str) -> str:
    """A text with the lines of a diff's "+" in, those of its "-" out; both and the context must be there, once."""
    lines = diff.splitlines()
    old = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
    new = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))
    assert text.count(old) == 1, old
    return text.replace(old, new)


@pytest.fixture
def copy(tmp_path) -> Path:
    """A repository of its own: code, notebooks, profiles and models."""
    root = make_root(tmp_path / "copy")
    for name in ("rdlib", "notebooks", "params"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def follow(title: str, root: Path) -> None:
    """Make the changes of a recipe in a copy."""
    made = changes(title)
    assert made
    for name, kind, block in made:
        path = root / name
        assert path.exists() == (kind == "diff"), name
        path.write_text(apply(block, path.read_text()) if kind == "diff" else block)


def run(root: Path, *words: str) -> str:
    """A Python of the copy, from its folder; its output."""
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, *words], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_stage(root: Path, name: str, **parameters: str) -> Path:
    """Make a stage of the copy with all that comes before it; returns its folder."""
    parameters |= {"profile": PARAMS, "dataset": "gsm", "teacher": "strong"}
    code = "from rdlib.study.stage import open_stage; print(open_stage(*%r).run_with_inputs().folder)"
    return Path(run(root, "-c", code % ((name, parameters),)).splitlines()[-1])


def test_a_dataset(copy):
    settings = yaml.safe_load((copy / "params/own_questions.yaml").read_text())
    settings["name"] = "another"
    settings["datasets"]["mine"] |= {"path": "questions.jsonl", "answer": "math"}
    (copy / "params/mine.yaml").write_text(yaml.safe_dump(settings))
    rows = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(20)]
    (copy / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = re.search(r"^```\n(.+)\n```", recipe("Add a dataset"), re.MULTILINE)[1]
    run(copy, *shlex.split(command)[1:])
    questions = pd.read_parquet(copy / "runs/another/mine/seed0/00_data/questions.parquet")
    assert questions["split"].value_counts().to_dict() == {"train": 16, "validation": 2, "test": 2}
    assert "What is " in (copy / "out.ipynb").read_text()


def test_an_engine(copy):
    follow("Add an engine", copy)
    profile = yaml.safe_load((copy / PARAMS).read_text())
    profile["teachers"]["strong"] = {"model": "none", "engine": "echo"}
    (copy / PARAMS).write_text(yaml.safe_dump(profile))
    labels = pd.read_parquet(run_stage(copy, "02_pseudo_labels") / "labels.parquet")
    assert len(labels) == 24 and set(labels["pseudo_label"]) == {"7"}


def test_a_method(copy):
    follow("Add a method", copy)
    folder = run_stage(copy, "07_evaluate", student="small", method="greedy")
    assert folder.parts[-3:] == ("greedy", "seed0", "07_evaluate")
    trained = json.loads((folder.with_name("13_baseline") / "summary.json").read_text())
    assert trained["examples"] == 16
    code = "from rdlib.study import experiments as e; print([r.arm for r in e.runs(e.load()['R1'], %r, [0])])"
    assert "greedy SFT" in run(copy, "-c", code % PARAMS)


def test_a_figure(copy):
    follow("Add a figure", copy)
    shutil.copytree(REPOSITORY / "figures/results/seed0", copy / "figures/results/seed0")
    run(copy, "-m", "rdlib", "figures", "figures/results", "figures", "--name", "figure_seconds")  # make figures
    assert {f"figure_seconds.{kind}" for kind in ("csv", "pdf", "png")} <= set(os.listdir(copy / "figures"))
    assert set(pd.read_csv(copy / "figures/figure_seconds.csv")["stage"]) >= {"00_data", "06_ppo"}
