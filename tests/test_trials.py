"""Trials: what a file of them may say, what is run, each stage once, and the tables that come of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest
import yaml
from conftest import PARAMS, REPOSITORY, copy_study, patch_root, stage_in

from rdlib import __main__ as command
from rdlib.errors import UserError
from rdlib.evidence import paper
from rdlib.profile import load_profile
from rdlib.study import curves, trials
from rdlib.study.specification import BASELINES

CELL = "gsm/strong/small"
FASTER = {"reward_model.learning_rate": 2e-3}
T = ("0.00003", "usual")


@pytest.fixture
def root(study, tmp_path, monkeypatch):
    """A copy of the finished tiny study, as the repository of trials, whose one seed is here none of the released."""
    copy_study(study, tmp_path, "nothing")
    patch_root(monkeypatch, tmp_path)
    monkeypatch.setattr(trials, "ROOT", tmp_path)
    content = yaml.safe_load((tmp_path / PARAMS).read_text())
    content["grid"]["seeds"] = [7]
    (tmp_path / PARAMS).write_text(yaml.safe_dump(content))
    return tmp_path


def written(root, **changes) -> str:
    group = {"question": "Which?", "cells": [CELL], "stage": "05_reward_model", "method": "ours"}
    group |= {"trials": [{"name": "usual"}, {"name": "faster", "settings": FASTER}]}
    content = {"profile": PARAMS, "seeds": [0], "groups": {"rate": group | changes}}
    (root / "trials.yaml").write_text(yaml.safe_dump(content))
    return "trials.yaml"


def test_each_trial_is_run_once_and_its_curve_is_the_stages(root, capsys):
    command.run("trials", [written(root), "--jobs", "1", "--out", "out"])
    table = pd.read_csv(root / "out" / "rate.csv").set_index("trial")
    assert json.loads(table["settings"]["usual"]) == {} and json.loads(table["settings"]["faster"]) == FASTER
    found_curves = pd.read_csv(root / "out" / "rate_curves.csv")
    usual = stage_in(root, "05_reward_model")
    assert "already there" not in capsys.readouterr().out.replace(usual.label, "")
    history = usual.table("history")[["step", "pos_neg_auc"]].dropna()
    found = found_curves[found_curves["trial"] == "usual"]
    assert found["step"].tolist() == history["step"].tolist()
    assert found["value"].tolist() == pytest.approx(history["pos_neg_auc"].tolist(), rel=1e-5)
    for name, part in found_curves.groupby("trial"):
        first_best = part.loc[part["value"].idxmax()]
        assert (table["best"][name], table["best_step"][name]) == (first_best["value"], first_best["step"])
        assert table["steps"][name] == part["step"].max() and table["start"][name] == part["value"].iloc[0]
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.parquet")}
    command.run("trials", ["trials.yaml", "--jobs", "1", "--out", "out"])  # again: nothing is made anew
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.parquet")} == before
    provenance = json.loads((root / "out" / "rate_provenance.json").read_text())
    assert provenance["seeds"][0]["seed"] == 0 and provenance["command"].endswith("--groups rate")


def test_ppos_curve_is_in_optimizer_steps(study):
    stage = stage_in(study, "06_ppo")
    found = curves.curve(stage)
    history = stage.jsonl("history").dropna(subset="validation_agreement")
    assert found["step"].tolist() == (4 * history["update"]).tolist()  # two epochs of two minibatches
    assert found["value"].tolist() == history["validation_agreement"].tolist()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"seeds": [7]}, "use seed 7, which .* releases"),
        ({"cells": ["gsm/strong"]}, "name the cell 'gsm/strong'"),
        ({"cells": ["gsm/strong/tiny"]}, "name the cell 'gsm/strong/tiny'"),
        ({"stage": "07_evaluate"}, "no validation curve"),
        ({"method": "sft"}, "no validation curve"),
        ({"trials": []}, "bad entry groups.rate.trials"),
        ({"colour": 1}, "bad entry groups.rate.colour"),
        ({"trials": [{"name": "x", "settings": {"ppo.speed": 1}}]}, "names no setting"),
    ],
)
def test_what_cannot_be_tried_is_refused_before_anything_runs(root, changes, problem):
    with pytest.raises(UserError, match=problem):
        command.run("trials", [written(root, **changes), "--jobs", "1"])


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_seeds_run_apart_are_those_run_together(tmp_path, name):
    rows = [
        (cell, seed, trial, 0.1 * seed + i / 7) for seed in (9, 100, 101) for i, cell in enumerate("ba") for trial in T
    ]
    table = pd.DataFrame(rows, columns=["cell", "seed", "trial", "value"])
    trials.write(tmp_path / "together", "rate", {name: table})
    for seed in (101, 9, 100, 9):  # the last time in place of what is there
        part = table[table["seed"] == seed]
        trials.write(tmp_path / "apart", "rate", {name: part}, others={9, 100, 101} - {seed})
    read = pd.read_csv if name.endswith("csv") else pd.read_parquet
    one, other = (tmp_path / folder / f"rate_{name}" for folder in ("together", "apart"))
    pd.testing.assert_frame_equal(read(one), read(other))
    if name.endswith("csv"):
        assert one.read_bytes() == other.read_bytes() and b"0.00003" in one.read_bytes()
    trials.write(
        tmp_path / "apart", "rate", {name: table[table["seed"] == 9]}, others={100}
    )  # 101 is asked for no more
    assert sorted(set(read(other)["seed"])) == [9, 100]


def test_some_of_the_seeds(root):
    command.run("trials", [written(root, seeds=[0, 1]), "--jobs", "1", "--out", "out", "--seeds", "0"])
    assert set(pd.read_csv(root / "out" / "rate.csv")["seed"]) == {0}
    there = json.loads((root / "out" / "rate_provenance.json").read_text())
    assert [one["seed"] for one in there["seeds"]] == [0]
    with pytest.raises(UserError, match="rate have no seed 2: give some of 0 and 1"):
        command.run("trials", ["trials.yaml", "--seeds", "2"])


def test_unknown_groups_and_files(root):
    with pytest.raises(UserError, match="no trials speed: it has rate"):
        command.run("trials", [written(root), "--groups", "speed"])
    with pytest.raises(UserError, match="cannot be read"):
        command.run("trials", ["missing.yaml"])


def test_inputs_are_made_before_what_reads_them(root):
    """A variant from the vote on: its own labels, warm-up, samples and reward model, in this order, two at a time."""
    flipped = {"voting.flip_share": 0.2}
    command.run(
        "trials", [written(root, trials=[{"name": "flipped", "settings": flipped}]), "--jobs", "2", "--out", "out"]
    )
    stage = stage_in(root, "05_reward_model").with_overrides(flipped)
    assert all(one.done for one in (stage, *stage.upstream()))
    assert len(pd.read_csv(root / "out" / "rate.csv")) == 1


# ---- what was chosen


def test_the_reference_has_what_the_rule_chooses():
    """The highest mean over the cells of the best values; of equals the fewest steps."""
    asked = trials.load_trials(REPOSITORY / "params/trials/settings.yaml")
    reference = load_profile(REPOSITORY / asked.profile).model_dump()
    folder, tried = REPOSITORY / "figures/trials/settings", {}
    for name, group in asked.groups.items():
        keys = {tuple(trial.settings) for trial in group.trials}
        assert len(keys) == 1
        if len(group.trials) > 1 and not group.settings:  # of one, or of another reward, nothing is chosen
            tried.setdefault(keys.pop(), []).append(pd.read_csv(folder / f"{name}.csv"))
    assert len(tried) == 7 + len(BASELINES)  # settings of SFT, warm-up, reward model and PPO; a rate of each baseline
    for (key,), tables in tried.items():
        found = pd.concat(tables).groupby("settings").agg(best=("best", "mean"), steps=("steps", "mean"))
        first = found.sort_values(["best", "steps"], ascending=[False, True]).index[0]
        assert paper.lookup(reference, key) == json.loads(first)[key]


def test_settings_of_a_group_are_those_of_all_its_trials():
    asked = trials.load_trials(REPOSITORY / "params/trials/settings.yaml")
    runs = trials.runs_of(asked, "vote_rate")
    assert {run.stage.profile.reward.source for run in runs} == {"vote"}
    assert len({run.stage.profile.ppo.learning_rate for run in runs}) == len(asked.groups["vote_rate"].trials)


SLOW = """
import os, sys, time
from pathlib import Path
from rdlib.study import trials

class Slow:
    folder, inputs = Path(sys.argv[1]), {}

    def upstream(self):
        return []

    def run(self):
        Path(sys.argv[1]).write_text(str(os.getpid()))
        time.sleep(60)

if __name__ == "__main__":
    trials.run_stages([Slow()], 1)
"""


def test_killed_a_run_leaves_no_worker_that_goes_on(tmp_path):
    """A second run of the same command would share the stage's folder with it."""
    (tmp_path / "slow.py").write_text(SLOW)
    words = [sys.executable, str(tmp_path / "slow.py"), str(tmp_path / "worker")]
    with subprocess.Popen(words, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}) as run:
        _until(lambda: (tmp_path / "worker").is_file() and (tmp_path / "worker").read_text())
        worker = int((tmp_path / "worker").read_text())
        run.kill()
    _until(lambda: not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE)


def _until(true) -> None:
    ends = time.time() + 50
    while not true():
        assert time.time() < ends
        time.sleep(0.1)
