"""One table or figure alone: found by its name, drawn from results, and trained again with all that it needs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import long_tables
import pandas as pd
import pytest
import yaml
from conftest import PARAMS, REPOSITORY, make_root, patch_root, tiny_settings
from excerpts import excerpt

from rdlib.__main__ import main
from rdlib.errors import UserError
from rdlib.evidence import gallery
from rdlib.study import estimate, workflow
from rdlib.study.jobs import exhibit_jobs, exhibit_runs

# ---- training again


@pytest.fixture
def one_cell(tmp_path, monkeypatch):
    """A repository whose profile has one dataset, teacher and student."""
    root = make_root(tmp_path)
    content = tiny_settings() | {"teachers": {"strong": "models/strong"}, "students": {"small": "models/small"}}
    del content["datasets"]["mmlu"]
    content["sft"]["learning_rate_of_warmup"] = 2 * content["sft"]["learning_rate"]
    shutil.copytree(REPOSITORY / "params", root / "params")
    (root / PARAMS).write_text(yaml.safe_dump(content))
    patch_root(monkeypatch, root)


SETTINGS_ALONE = {"figure_2_pipeline", "table_5_hyperparameters_sft", "table_6_hyperparameters_ppo", "provenance"}


@pytest.mark.parametrize("name", gallery.EXHIBITS)
def test_what_an_exhibit_depends_on_is_true(one_cell, name):
    """Its jobs make the stages that its rows are of, and before them all that these read; else it needs no training."""
    exhibit = gallery.EXHIBITS[name]
    assert bool(exhibit.experiments) == (name not in SETTINGS_ALONE)
    if not exhibit.experiments:
        assert "depends on no training" in estimate.exhibit_line(name, [])
        return
    if "rounding" in exhibit.experiments:
        with pytest.raises(
            UserError, match="--experiments main` and `python -m .*params/rounding.yaml --experiments r"
        ):
            exhibit_jobs(name, PARAMS, [0])
        return
    profile, seeds = ("params/reference.yaml", None) if ":" in exhibit.experiments[0] else (PARAMS, [0])
    jobs, made = exhibit_jobs(name, profile, seeds), set()
    assert jobs and "depends on" in estimate.exhibit_line(name, jobs)
    for job in jobs:
        assert all(any(other is before for other in jobs) for before in job.after)
        assert job.notebook[:2] in ("08", "09", "10", "11") or _read_outside(job) <= made, job.name
        made |= {stage.folder for stage in job.stages}
    stages = {(stage.name, stage.method) for job in jobs for stage in job.stages}
    assert {
        (one.stage.name, one.stage.method) for _, runs in exhibit_runs(exhibit, profile, seeds) for one in runs
    } <= stages


def _read_outside(job) -> set:
    own = {stage.folder for stage in job.stages}
    return {one.folder for stage in job.stages for one in stage.inputs.values()} - own


@pytest.mark.parametrize(
    ("name", "last", "variant"),
    [
        ("same_rate", ("07_evaluate", "sft"), "sft.learning_rate"),
        ("table_3_reward_model_auc", ("05_reward_model", "ours"), ""),
        ("question_r5", ("06_ppo", "ours"), "reward.source"),
        ("figure_question_r4_threshold", ("02_judgement", None), ""),
        ("open_ppo", ("13_validation_answers", "ours"), "ppo.queries"),
    ],
)
def test_an_exhibit_comes_with_the_runs_that_only_it_needs(name, last, variant):
    jobs = exhibit_jobs(name, "params/reference.yaml", None if name == "open_ppo" else [0])
    found = [stage for job in jobs for stage in job.stages if (stage.name, stage.method) == last]
    assert any(variant in stage.variant and bool(variant) == bool(stage.variant) for stage in found)
    later = {"06_ppo", "07_evaluate"} if last[0] in ("05_reward_model", "02_judgement") else set()
    assert not later & {stage.name for job in jobs for stage in job.stages}


def test_a_figure_about_one_ablation_needs_one_chain():
    jobs = exhibit_jobs("figure_5_lambda", "params/micro.yaml", [3])
    chain = "00_data 01_teacher_responses 02_pseudo_labels 03_sft_warmup 04_student_responses 05_reward_model"
    assert [job.notebook for job in jobs] == [*chain.split(), "08_ablation_lambda"]
    assert {stage.seed for job in jobs for stage in job.stages} == {3}


def test_minutes_follow_from_what_the_released_run_took(tmp_path):
    """Two stages of known seconds, and a measured seed that took a minute for 100 s of its stages."""
    folder = excerpt(tmp_path / "results") / "seed0"
    jobs = exhibit_jobs("figure_5_lambda", "params/reference.yaml", [5])
    stages = [stage for job in jobs for stage in job.stages if stage.name in ("03_sft_warmup", "05_reward_model")]
    rows = [stage.columns | {"seed": 0, "stage": stage.name, "seconds": 10.0} for stage in stages]
    rows.append(
        stages[0].columns | {"method": "sft", "seed": 0, "stage": "07_evaluate", "seconds": 100.0 - 10 * len(rows)}
    )
    table = pd.DataFrame(rows).drop_duplicates().assign(tokens_generated=0, tokens_trained=0)
    for path in folder.iterdir():
        if path.name != "settings.json":
            path.unlink()
    long_tables.write(folder, 0, costs=table.assign(experiment="main", arm=table["method"]))
    (folder / "measured.json").write_text(json.dumps({"minutes": table.seconds.sum() / 100, "questions": False}))
    found = estimate.minutes_of(stages[:2], tmp_path / "results")
    assert found == pytest.approx(2 * 10.0 / 100)
    others = [replace(stage, profile_path="params/smoke.yaml") for stage in stages]
    assert estimate.minutes_of(others, tmp_path / "results") is None
    assert estimate.minutes_of(stages, tmp_path / "none") is None
    text = estimate.exhibit_line("figure_5_lambda", jobs, tmp_path / "results")
    assert text.endswith(
        "depends on lambda: 14 notebooks. They take about 1 minutes, two at a time, by the released run."
    )


def test_a_dry_run_starts_nothing(tmp_path, at_root, capsys, monkeypatch):
    at_root(make_root(tmp_path))
    monkeypatch.setattr(workflow, "follow", lambda *_: pytest.fail("it started something"))
    assert main(["study", "--profile", PARAMS, "--seeds", "0", "--for", "figure_5_lambda", "--dry-run"]) == 0
    assert "depends on lambda: 7 notebooks" in capsys.readouterr().out
