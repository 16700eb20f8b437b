"""The follow-up experiments: which runs, and a group run on the tiny study."""

from __future__ import annotations

from itertools import product

import pandas as pd
import pytest
import yaml
from conftest import PARAMS, REPOSITORY, copy_study, patch_root, stage_in

from rdlib import __main__ as command
from rdlib.errors import UserError
from rdlib.evidence import followups, gallery
from rdlib.evidence.result_tables import TRIAL_COLUMNS
from rdlib.profile import load_profile
from rdlib.study import open_ends, trials

FILE = REPOSITORY / open_ends.FILE
GSM, MMLU = "gsm/strong/small", "mmlu/strong/small"
PPO_TRIALS = [" | ".join(parts) for parts in product(*followups.PPO_FACTORS.values())]


# ---- which runs


@pytest.fixture(scope="module")
def runs():
    asked = trials.load_trials(FILE)
    return {group: trials.runs_of(asked, group) for group in asked.groups}


def test_the_groups_are_those_that_are_shown_and_measured(runs):
    shown = {name for exhibit in gallery.EXHIBITS.values() for name in exhibit.experiments if ":" in name}
    assert {name.rpartition(":")[2] for name in shown} == set(runs)
    assert {open_ends.RANKING, open_ends.SEEING} <= set(runs)
    for found in runs.values():
        assert {run.stage.seed for run in found} == {100, 101}
        assert len({(run.stage.folder) for run in found}) == len(found), "two trials are the same"


def test_ppos_trials_are_every_combination_and_do_what_they_say(runs):
    found = {run.trial.name: run.stage.profile for run in runs["ppo_on_mmlu"] if run.stage.seed == 100}
    assert set(found) == set(PPO_TRIALS)
    usual = next(run for run in runs["ppo_on_mmlu"] if not run.stage.variant)
    assert usual.trial.name == "reward model | all questions | long warm-up"
    for name, profile in found.items():
        reward, questions, warm_up = name.split(" | ")
        assert profile.reward.source == reward.replace(" ", "_")
        assert profile.ppo.queries == {"all questions": "all", "without Q_fail": "labelled"}[questions]
        long = usual.stage.profile.sft
        assert (profile.sft == long) == (warm_up == "long warm-up")
        assert warm_up == "long warm-up" or most_steps(profile) < shortest_warm_up() / 2


def most_steps(profile):
    """The most optimizer steps that a warm-up on micro-mmlu can take, were every question labelled."""
    texts = profile.datasets["mmlu"].train * profile.sft.responses_per_question
    return profile.sft.epochs * texts / profile.sft.batch_size


def shortest_warm_up():
    """The fewest steps that the study's own warm-up took in the trials on micro-mmlu."""
    tried = pd.read_csv(REPOSITORY / "figures" / "trials" / "settings" / "warmup_responses.csv", dtype={"trial": str})
    chosen = str(load_profile(REPOSITORY / "params" / "reference.yaml").sft.responses_per_question)
    return tried[(tried["trial"] == chosen) & tried["cell"].str.startswith("mmlu")]["steps"].min()


@pytest.mark.parametrize("group", ["reward_model", "teacher_style"])
def test_one_trial_is_the_study_itself(runs, group):
    usual = {run.trial.name for run in runs[group] if not run.stage.variant and run.stage.method == "ours"}
    assert usual == {followups.BASE}
    known = [trial.removeprefix("judged by") for trial in (run.trial.name for run in runs["teacher_style"])]
    assert any(trial != run.trial.name for trial, run in zip(known, runs["teacher_style"], strict=True))


def test_as_many_methods_are_hot_as_are_compared(runs):
    for run in runs["hot_teacher"]:
        assert run.stage.profile.teacher_sampling.heat == followups.heat_of(run.trial.name) > 1
    assert all(followups.heat_of(run.trial.name) == 1 for run in runs["distillation"])
    assert {run.trial.name.split(" | ")[0] for run in runs["hot_teacher"]} == {
        followups.OURS,
        followups.DISTILLATION,
    }


def test_texts_and_rates_of_sft_are_exchanged(runs):
    usual = load_profile(REPOSITORY / "params" / "reference.yaml").sft
    rates = {"rate of SFT": usual.learning_rate, "rate of the warm-up": usual.learning_rate_of_warmup}
    assert len(set(rates.values())) == 2
    found = {run.trial.name: run.stage for run in runs["sft_rate"]}
    assert set(found) == {" | ".join(parts) for parts in product(("all texts", "agreeing texts"), rates)}
    for name, stage in found.items():
        texts, rate = name.split(" | ")
        assert stage.method == {"all texts": "sft", "agreeing texts": "ours_wo_r"}[texts]
        own = stage.profile.sft
        assert (own.learning_rate if stage.method == "sft" else own.learning_rate_of_warmup) == rates[rate]
    assert not found[followups.SFT].variant and not found[followups.SFT_AS_WARM_UP].variant
    measured = [one for run in runs["sft_rate"] for one in open_ends.measuring(run)]
    assert {one.name for one in measured} == {open_ends.ANSWERS, open_ends.EVALUATION}
    assert {one.method for one in measured} == {"sft", "ours_wo_r"}


def test_the_warm_up_is_measured_where_one_is_read(runs):
    for found in runs.values():
        for run in found:
            warmed = [one for one in open_ends.measuring(run) if one.method == "ours_wo_r"]
            trained = run.stage.name == "03_sft_warmup" or run.stage.method == "ours_wo_d"
            assert trained or [one.name for one in warmed] == [open_ends.ANSWERS]


# ---- a group on the tiny study


@pytest.fixture
def root(study, tmp_path, monkeypatch):
    """A copy of the tiny study, whose own seed is none of its trials'."""
    root = copy_study(study, tmp_path)
    patch_root(monkeypatch, root)
    monkeypatch.setattr(trials, "ROOT", root)
    content = yaml.safe_load((root / PARAMS).read_text())
    content["grid"]["seeds"] = [7]
    (root / PARAMS).write_text(yaml.safe_dump(content))
    return root


def run_group(root, name, **group):
    """Run a group of one cell and seed into `out`."""
    group = {"question": "Which?", "cells": [GSM]} | group
    (root / "ends.yaml").write_text(yaml.safe_dump({"profile": PARAMS, "seeds": [0], "groups": {name: group}}))
    command.run("open-ends", ["ends.yaml", "--profile", PARAMS, "--jobs", "1", "--out", "out"])


def test_a_group_is_run_measured_and_written(root):
    run_group(root, "reward_model", stage="06_ppo", method="ours", trials=[{"name": "usual"}])
    for name in TRIAL_COLUMNS.keys() - {"tested.parquet"}:
        path = root / "out" / f"reward_model_{name}"
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
        assert set(TRIAL_COLUMNS[name].split()) <= set(table) and len(table), name
    answers = pd.read_parquet(root / "out" / "reward_model_answers.parquet")
    summary, history = stage_in(root, "06_ppo").json("summary"), stage_in(root, "06_ppo").jsonl("history")
    agreement = history["validation_agreement"].dropna()
    means = answers.dropna(subset="agrees").groupby("when")["agrees"].mean()
    assert means["kept"] == pytest.approx(summary["validation_agreement"])
    assert means["start"] == pytest.approx(agreement.iloc[0])
    assert means["end"] == pytest.approx(agreement.iloc[-open_ends.LAST :].mean())
    assert means["warm-up"] == pytest.approx(stage_in(root, "03_sft_warmup", "ours_wo_r").json("summary")["best"])
    ranked = pd.read_parquet(root / "out" / "reward_model_ranking.parquet")
    assert set(ranked["strategy"]) >= {"reward", "majority", "any"} and (root / "out" / "reward_model.csv").is_file()
    spent = pd.read_csv(root / "out" / "reward_model_costs.csv").set_index("when")["gflop"]
    assert spent["kept"] > spent["warm-up"] > 0
    with pytest.raises(UserError, match="no trials speed: it has reward_model"):
        command.run("open-ends", ["ends.yaml", "--profile", PARAMS, "--groups", "speed"])


def test_the_group_on_perturbed_questions_reads_the_tests_of_seeds_that_are_not_released(root):
    run_group(root, "sft_rate", stage="03_sft_warmup", method="ours_wo_r", trials=[{"name": "a | b"}])
    tested = pd.read_parquet(root / "out" / "sft_rate_tested.parquet")
    right = tested.groupby("benchmark")["correct"].mean()
    summary = stage_in(root, "07_evaluate", "ours_wo_r").json("summary")
    assert right.to_dict() == pytest.approx(summary["accuracy"]) and set(right.index) == {"gsm", "gsm_plus"}
    answers = pd.read_parquet(root / "out" / "sft_rate_answers.parquet")
    assert set(answers["when"]) == {"kept"}  # and no warm-up of its own
    assert pd.read_csv(root / "out" / "sft_rate_costs.csv")["when"].tolist() == ["kept"]


def test_three_times_the_responses_are_three_times_those_of_the_profile():
    asked = yaml.safe_load((REPOSITORY / "params" / "trials" / "open_ends.yaml").read_text(encoding="utf-8"))
    trial = next(t for t in asked["groups"]["reward_model"]["trials"] if t["name"].startswith("three times"))
    usual = load_profile(REPOSITORY / asked["profile"]).reward_model.samples_per_kind
    assert trial["settings"] == {"reward_model.samples_per_kind": 3 * usual}
