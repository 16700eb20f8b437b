"""The estimate before a run: counted by hand for the paper's profile, and held to what a small study really did."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY, make_root, stage_in

from rdlib.__main__ import main
from rdlib.errors import UserError
from rdlib.evidence import ledger, paper
from rdlib.profile import load_profile
from rdlib.settings import Hardware
from rdlib.study import estimate
from rdlib.study.jobs import stages_to_run, study_jobs
from rdlib.study.opening import make_stage
from rdlib.study.specification import BASELINES
from rdlib.study.stage import Stage

PAPER = "params/paper.yaml"
PROFILES = [f"params/{name}.yaml" for name in ("micro", "smoke", "single_gpu", "paper")]
CELL = {"dataset": "gsm", "teacher": "strong", "student": "small"}


def work(name: str, profile: str = PAPER, **axes) -> estimate.Work:
    return estimate.work_of(Stage(name, profile, **CELL | {"method": "ours"} | axes))


def test_counts_of_the_papers_runs_by_hand():
    assert work("01_teacher_responses", method=None) == estimate.Work(7473, 7473 * 46, 7473 * 46 * 190)
    assert work("03_sft_warmup", method="sft").trained == 6726 * 50 * (130 + 190) * 4
    assert work("04_student_responses").samples == 7473 * 30
    assert work("05_reward_model").trained == 6726 * 3 * 4 * (130 + 190) * 4
    assert work("06_ppo") == estimate.Work(
        6726, 200 * 240, 200 * 240 * 190, 200 * 240 * (130 + 190), 4 * 200 * 240 * (130 + 190)
    )
    assert work("07_evaluate").samples == 1319 + 10552
    assert work("07_evaluate", dataset="mmlu").samples == 1805


def test_hours_are_operations_over_the_peak_that_is_reached():
    stage = Stage("01_teacher_responses", PAPER, dataset="gsm", teacher="strong")
    row = estimate.row_of(stage)
    operations = 2 * 70.6e9 * 7473 * 46 * 190
    assert row["hours"] == pytest.approx(operations / (989e12 * 0.15) / 3600)


def test_a_real_study_did_no_more_than_estimated_and_not_much_less(study):
    """The tiny study labels most questions, so the bounds are near; PPO and evaluation are known beforehand."""
    cell = stage_in(study, "07_evaluate")
    for name, method in (("01_teacher_responses", None), ("04_student_responses", "ours"), ("07_evaluate", "ours")):
        stage = cell.at(name, method)
        table = stage.table("answers" if name == "07_evaluate" else "responses")
        sampled = table if "temperature" not in table else table[(table["temperature"] > 0) | (table["sample"] == 0)]
        expected = estimate.work_of(stage)
        assert 0.5 * expected.samples <= len(sampled) <= expected.samples
        assert expected.generated / 4 < sampled["tokens"].sum() < 3 * expected.generated
    for name, method in (("03_sft_warmup", "ours_wo_r"), ("05_reward_model", "ours"), ("06_ppo", "ours")):
        stage = cell.at(name, method)
        assert stage.json("summary")["tokens_trained"] < 2 * estimate.work_of(stage).trained


@pytest.mark.parametrize("profile", PROFILES)
def test_the_dry_run_names_every_stage_of_every_profile(profile, capsys):
    seeds = [7]  # a seed that nobody has run here
    assert main(["study", "--profile", profile, "--dry-run", "--questions", "--seeds", *map(str, seeds)]) == 0
    shown = capsys.readouterr().out
    stages = {stage.name for job in study_jobs(profile, seeds, questions=True) for stage in job.stages}
    for name in stages:
        assert name in shown
    has_gpus = load_profile(REPOSITORY / profile).hardware.gpus > 0
    assert ("GPU hours" in shown) == has_gpus


def test_the_profile_for_own_questions_asks_for_the_file_and_takes_it(tmp_path, capsys):
    """As shipped it names a file that is not there; with one it is estimated."""
    profile = "params/own_questions.yaml"
    assert main(["study", "--profile", profile, "--dry-run"]) == 2
    assert "questions.jsonl" in capsys.readouterr().err
    content = yaml.safe_load((REPOSITORY / profile).read_text())
    content["datasets"]["mine"]["path"] = str(tmp_path / "q.jsonl")
    (tmp_path / "q.jsonl").write_text("".join(json.dumps({"question": f"What is {n} + 1?"}) + "\n" for n in range(50)))
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    assert main(["study", "--profile", str(tmp_path / "own.yaml"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "06_ppo" in said and "does not fit" not in said
    teacher = next(line for line in said.splitlines() if line.startswith("01_teacher_responses"))
    assert teacher.split()[-2] == "0.00"  # GPU hours: the server's are not ours
    # 45 questions at four temperatures, of which one is greedy, and 5 held out at the first two, which the teacher's
    # own evaluation asks for too
    assert "Asked of the server of teacher: 190 requests (750 where it gives one sample at a time)" in said
    assert "750 responses of gpt-4o-mini of at most 0.29 million tokens" in said and "0 responses are in the st" in said


def test_the_dry_run_starts_nothing_and_leaves_out_what_is_done(tmp_path, at_root, capsys):
    root = at_root(make_root(tmp_path))
    assert main(["study", "--profile", "tiny.yaml", "--dry-run"]) == 0
    assert not (root / "runs").exists()
    jobs = study_jobs("tiny.yaml", [0])
    before = stages_to_run(jobs)
    assert len({stage.folder for stage in before}) == len(before)
    make_stage("00_data", "tiny.yaml", dataset="gsm").run()
    assert len(stages_to_run(study_jobs("tiny.yaml", [0]))) == len(before) - 1
    assert estimate.summary(estimate.estimate([]), before[0].profile) == "Everything is done: nothing to do."


def test_a_model_of_unknown_size_is_a_clear_error():
    content = yaml.safe_load((REPOSITORY / PAPER).read_text())
    assert all("parameters" in model for model in (content["teachers"] | content["students"]).values())
    stage = Stage("01_teacher_responses", PAPER, dataset="gsm", teacher="strong")
    object.__setattr__(
        stage, "profile", load_profile(REPOSITORY / PAPER).model_copy(update={"teachers": {"strong": "a/b"}})
    )
    with pytest.raises(UserError, match="The size of a/b is not known: give its `parameters`"):
        ledger.parameters_of(stage)


def test_what_does_not_fit_is_said():
    profile = load_profile(REPOSITORY / "params/single_gpu.yaml")
    counts = ("questions", "samples", "mtokens_generated", "mtokens_trained", "hours", "disk_gb", *estimate.PARTS)
    row = dict.fromkeys(counts, 1) | {
        "source": "a file",
        "advice": "raise it",
        "limit_gib": 80.0,
    }
    table = pd.DataFrame([row | {"stage": "06_ppo", "cell": "gsm/strong/small/ours", "gpu_memory_gib": 90.0}])
    said = estimate.summary(table, profile).splitlines()
    assert said[-1] == (
        "06_ppo (gsm/strong/small/ours) does not fit: it wants about 90 GiB of each GPU and may take 80: raise it."
    )
    assert "does not fit" not in estimate.summary(table.assign(gpu_memory_gib=70.0), profile)
    assert "No stage uses a GPU." in estimate.summary(table.assign(gpu_memory_gib=0.0), profile)


# ---- the paper's profile


def test_cells_of_the_papers_profile_are_its_tables_5_and_6():
    """The tables' batch sizes are those of a GPU: 74 and 70 cannot be split over four, nor 2."""
    table = paper.load("hyperparameters")
    names = {
        axis: {v: k for k, v in known.items()}
        for axis, known in (("teacher", paper.TEACHERS), ("student", paper.STUDENTS))
    }
    names["dataset"] = {v: k for k, v in paper.BENCHMARKS.items()}
    seen = 0
    for row in table.itertuples():
        for teacher in paper.TEACHERS if pd.isna(row.teacher) else [names["teacher"][row.teacher]]:
            axes = {
                "dataset": names["dataset"][row.dataset],
                "teacher": teacher,
                "student": names["student"][row.student],
            }
            profile = Stage("06_ppo", PAPER, method="ours", **axes).profile
            size = profile.ppo.minibatch_size if row.stage == "ppo" else getattr(profile, row.stage).batch_size
            assert size == row.batch_size * row.gpus
            seen += 1
    assert seen == 8 + 8 + 8


def test_a_cells_settings_enter_its_key_and_no_other():
    def key(student: str) -> str:
        return Stage("03_sft_warmup", PAPER, dataset="gsm", teacher="strong", student=student, method="sft").recipe

    assert key("small") != key("large")
    stage = Stage("03_sft_warmup", PAPER, dataset="gsm", teacher="strong", student="large", method="sft")
    assert stage.variant == ""  # a cell's own settings are no override
    assert stage.with_overrides({"sft.batch_size": 296}).variant == ""
    assert stage.with_overrides({"sft.batch_size": 336}).variant == "sft.batch_size=336"


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([{"dataset": "gms", "settings": {}}], "cells names the dataset 'gms'"),
        ([{"student": "small", "settings": {"sft.batchsize": 3}}], "cells sets 'sft.batchsize', which is no setting"),
        ([{"student": "small"}], "lacks the key 'cells.0.settings'"),
        ([{"students": "small", "settings": {}}], "unknown key 'cells.0.students'"),
    ],
)
def test_bad_cells_are_refused_in_words(tmp_path, cells, message):
    content = yaml.safe_load((REPOSITORY / PAPER).read_text()) | {"cells": cells}
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=message):
        load_profile(path)


def test_a_bad_value_in_a_cell_is_refused(tmp_path):
    content = yaml.safe_load((REPOSITORY / PAPER).read_text())
    content["cells"] = [{"student": "small", "settings": {"sft.batch_size": 0}}]
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match="sft.batch_size"):
        Stage("03_sft_warmup", "p.yaml", root=tmp_path, method="sft", **CELL).profile  # noqa: B018


@pytest.mark.parametrize("dataset", ["gsm", "mmlu"])
def test_every_baseline_of_the_evidence_may_take_the_operations_of_ppo(dataset):
    """So that none is behind Ours for want of training; its patience ends it before."""

    def most(name: str, method: str) -> float:
        stage = Stage(name, "params/reference.yaml", dataset, "strong", "small", method)
        work = estimate.work_of(stage)
        sizes = ledger.parameters_of(stage), ledger.parameters_of_reader(stage)
        return ledger.flops(name, sizes[0], work.generated, work.trained, work.read, sizes[1])

    ppo = most("06_ppo", "ours")
    assert {method: most("13_baseline", method) >= ppo for method in BASELINES} == dict.fromkeys(BASELINES, True)


@pytest.mark.parametrize(("given", "expected"), [(0.1, 1e11), (None, math.nan), ("measured", 2e9)])
def test_hours_of_a_core_are_operations_over_what_it_reaches(monkeypatch, given, expected):
    monkeypatch.setattr(estimate, "measured_peak", lambda weights: 2e9)
    profile = load_profile(REPOSITORY / "params/micro.yaml")
    profile = profile.model_copy(update={"hardware": Hardware(cpu_tflops=given)})
    assert estimate.peak_of(profile) == pytest.approx(expected, nan_ok=True)
    table = pd.DataFrame([estimate.row_of(make_stage("00_data", "params/micro.yaml", dataset="gsm"))]).assign(hours=7.0)
    shown = estimate.summary(table, profile)
    assert ("core_hours" in shown, "7.0 hours of one core" in shown) == (True, given is not None)


def test_what_a_core_reaches_is_measured():
    assert 1e8 < estimate.measured_peak("float32", size=256, seconds=0.05) < 1e13
