"""One table or figure alone: found by its name, drawn from results, and trained again with all that it needs."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import yaml
from conftest import PARAMS, REPOSITORY, copy_study, make_root, patch_root, tiny_settings
from excerpts import excerpt

from rdlib.__main__ import main
from rdlib.evidence import gallery
from rdlib.profile import load_profile
from rdlib.study import dag, retrain
from rdlib.study.jobs import study_jobs

KINDS = sorted({(exhibit.experiments, exhibit.last or "") for exhibit in gallery.EXHIBITS.values()})


# ---- training again


@pytest.fixture
def one_cell(tmp_path, monkeypatch):
    """A repository whose profile has one dataset, teacher and student."""
    root = make_root(tmp_path)
    content = tiny_settings() | {"teachers": {"strong": "models/strong"}, "students": {"small": "models/small"}}
    del content["datasets"]["mmlu"]
    (root / PARAMS).write_text(yaml.safe_dump(content))
    patch_root(monkeypatch, root)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "+".join(kind[0]) + kind[1] or "nothing")
def test_its_jobs_make_all_that_they_read_before_they_read_it(one_cell, kind):
    name = next(e.name for e in gallery.EXHIBITS.values() if (e.experiments, e.last or "") == kind)
    of_study = {stage.folder for job in study_jobs(PARAMS, [0], questions=True) for stage in job.stages}
    jobs, made = retrain.jobs_behind(name, PARAMS, [0]), set()
    assert bool(jobs) == any(":" not in name for name in kind[0])
    for job in jobs:
        assert all(any(other is before for other in jobs) for before in job.after)
        for stage in job.stages:  # what no job of the study makes, as a variant's inputs, its own job makes
            assert {one.folder for one in stage.upstream()} & of_study <= made, job.name
            made.add(stage.folder)


def test_a_figure_about_one_ablation_needs_one_chain():
    jobs = retrain.jobs_behind("figure_5_lambda", "params/micro.yaml", [3])
    chain = "00_data 01_teacher_responses 02_pseudo_labels 03_sft_warmup 04_student_responses 05_reward_model"
    assert [job.notebook for job in jobs] == [*chain.split(), "08_ablation_lambda"]
    assert all([b.name for b in job.after] == [a.name] for a, job in zip(jobs, jobs[1:], strict=False))
    assert {stage.seed for job in jobs for stage in job.stages} == {3}
    arms = retrain.jobs_behind("question_r3", "params/micro.yaml", [0])
    assert [job.parameters["student"] for job in arms if job.notebook == "13_reviewer_runs"] == ["strong"]


def test_minutes_follow_from_what_the_released_run_took(tmp_path):
    """Two stages of known seconds, and a measured seed that took a minute for 100 s of its stages."""
    folder = excerpt(tmp_path / "results") / "seed0"
    profile = load_profile(REPOSITORY / "params/micro.yaml")
    jobs = retrain.jobs_behind("figure_5_lambda", "params/micro.yaml", [5])
    stages = [stage for job in jobs for stage in job.stages if stage.name in ("03_sft_warmup", "05_reward_model")]
    rows = [stage.columns | {"seed": 0, "stage": stage.name, "seconds": 10.0} for stage in stages]
    rows.append(
        stages[0].columns | {"method": "sft", "seed": 0, "stage": "07_evaluate", "seconds": 100.0 - 10 * len(rows)}
    )
    table = pd.DataFrame(rows).drop_duplicates().assign(tokens_generated=0, tokens_trained=0)
    table.to_csv(folder / "costs.csv", index=False)
    (folder / "measured.json").write_text(json.dumps({"minutes": table.seconds.sum() / 100, "questions": False}))
    found = retrain.minutes_of(stages[:2], tmp_path / "results", "micro")
    assert found == pytest.approx(2 * 10.0 / 100)
    assert retrain.minutes_of(stages, tmp_path / "results", "other") is None
    assert retrain.minutes_of(stages, tmp_path / "none", "micro") is None
    text = retrain.told("figure_5_lambda", jobs, profile, tmp_path / "results")
    assert "rests on 7 notebooks, 0 of them done" in text and "about 1 minutes" in text
    assert "rests on no training" in retrain.told("figure_2_pipeline", [], profile)


def test_telling_starts_nothing(tmp_path, at_root, capsys, monkeypatch):
    at_root(make_root(tmp_path))
    monkeypatch.setattr(dag, "_follow", lambda *a: pytest.fail("it started something"))
    assert main(["study", "--profile", PARAMS, "--seeds", "0", "--for", "figure_5_lambda", "--dry-run"]) == 0
    assert "rests on 7 notebooks, 0 of them done" in capsys.readouterr().out
    assert main(["study", "--profile", PARAMS, "--for", "figure_5"]) == 2
    assert "did you mean figure_5_lambda?" in capsys.readouterr().err


@pytest.mark.slow
def test_what_was_trained_again_is_gathered_and_drawn(study, tmp_path, at_root):
    root = at_root(copy_study(study, tmp_path / "root"))
    jobs = retrain.jobs_behind("figure_5_lambda", PARAMS, [0])
    for job in jobs:
        for stage in job.stages:
            stage.run_with_inputs()
    paths = retrain.draw("figure_5_lambda", PARAMS, [0], jobs)
    out = root / "runs/tiny/retrained/figure_5_lambda"
    assert {path.relative_to(out).name for path in paths} == {f"figure_5_lambda.{e}" for e in ("csv", "pdf", "png")}
    assert sorted(pd.read_csv(out / "figure_5_lambda.csv")["lam"].unique()) == [0.0, 0.5, 1.0]
    assert not (out / "results/seed0/correctness.parquet").exists()  # nothing was evaluated
    made = json.loads((out / "results/seed0/provenance.json").read_text())
    assert made["command"].endswith(f"--profile {PARAMS} --seeds 0 --for figure_5_lambda")
    assert "finished" not in retrain.told("figure_5_lambda", jobs, load_profile(root / PARAMS))
    assert "it only needs drawing" in retrain.told("figure_5_lambda", jobs, load_profile(root / PARAMS))
