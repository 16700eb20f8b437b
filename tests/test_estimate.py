"""The estimate before a run: counted by hand for the paper's profile, and compared with what a small study did."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
import yaml
from conftest import REPOSITORY, make_root, stage_in

from rdlib.__main__ import main
from rdlib.engines.budget import Spent
from rdlib.errors import UserError
from rdlib.evidence import ledger, paper
from rdlib.profile import load_profile
from rdlib.settings import Hardware, Model
from rdlib.study import estimate
from rdlib.study.estimate import Workload
from rdlib.study.jobs import stages_to_run, study_jobs
from rdlib.study.outlook import Outlook
from rdlib.study.specification import BASELINES
from rdlib.study.stage import Stage, make_stage

PAPER = "params/paper.yaml"
CELL = {"dataset": "gsm", "teacher": "strong", "student": "small"}


def work(name: str, profile: str = PAPER, **axes) -> Workload:
    return estimate.workload_of(Stage(name, profile, **CELL | {"method": "ours"} | axes))


def test_counts_of_the_papers_runs_by_hand():
    assert work("01_teacher_responses", method=None) == Workload(7473, 7473 * 46, 7473 * 46 * 190)
    assert work("03_sft_warmup", method="sft").trained == 6726 * 50 * (130 + 190) * 4
    assert work("04_student_responses").samples == 7473 * 30
    assert work("05_reward_model").trained == 6726 * 3 * 4 * (130 + 190) * 4
    assert work("06_ppo") == Workload(
        6726, 200 * 240, 200 * 240 * 190, 200 * 240 * (130 + 190), 4 * 200 * 240 * (130 + 190)
    )
    assert work("07_evaluate").samples == 1319 + 10552
    assert work("07_evaluate", dataset="mmlu").samples == 1805
    row = estimate.row_of(Stage("01_teacher_responses", PAPER, dataset="gsm", teacher="strong"))
    operations = 2 * 70.6e9 * 7473 * 46 * 190
    assert row["hours"] == pytest.approx(operations / (989e12 * 0.15) / 3600)


def test_a_real_study_did_no_more_than_estimated_and_not_much_less(study):
    """The tiny study labels most questions, so the bounds are near; PPO and evaluation are known beforehand."""
    cell = stage_in(study, "07_evaluate")
    for name, method in (("01_teacher_responses", None), ("04_student_responses", "ours"), ("07_evaluate", "ours")):
        stage = cell.at(name, method)
        table = stage.table("answers" if name == "07_evaluate" else "responses")
        sampled = table if "temperature" not in table else table[(table["temperature"] > 0) | (table["sample"] == 0)]
        expected = estimate.workload_of(stage)
        assert 0.5 * expected.samples <= len(sampled) <= expected.samples
        assert expected.generated / 4 < sampled["tokens"].sum() < 3 * expected.generated
    for name, method in (("03_sft_warmup", "ours_wo_r"), ("05_reward_model", "ours"), ("06_ppo", "ours")):
        stage = cell.at(name, method)
        assert stage.json("summary")["tokens_trained"] < 2 * estimate.workload_of(stage).trained


@pytest.mark.parametrize("dataset", ["gsm", "mmlu"])
def test_every_baseline_of_the_evidence_may_take_the_operations_of_ppo(dataset):
    """So no baseline loses to Ours for want of training; its patience ends it earlier."""

    def operations(name: str, method: str) -> float:
        stage = Stage(name, "params/reference.yaml", dataset, "strong", "small", method)
        found, reader = estimate.workload_of(stage), ledger.parameters_of_reader(stage)
        return ledger.flops(name, ledger.parameters_of(stage), found.generated, found.trained, found.read, reader)

    ppo = operations("06_ppo", "ours")
    assert [method for method in BASELINES if operations("13_baseline", method) < ppo] == []


@pytest.mark.parametrize(("given", "expected"), [(0.1, 1e11), (None, math.nan), ("measured", 2e9)])
def test_hours_of_a_core_are_operations_over_what_it_reaches(monkeypatch, given, expected):
    assert 1e8 < estimate.measured_peak("float32", size=256, seconds=0.02) < 1e13
    monkeypatch.setattr(estimate, "measured_peak", lambda weights: 2e9)
    profile = load_profile(REPOSITORY / "params/micro.yaml")
    profile = profile.model_copy(update={"hardware": Hardware(cpu_tflops=given)})
    assert estimate.peak_of(profile) == pytest.approx(expected, nan_ok=True)
    table = pd.DataFrame([estimate.row_of(make_stage("00_data", "params/micro.yaml", dataset="gsm"))]).assign(hours=7.0)
    shown = estimate.summary(table, profile)
    assert ("core_hours" in shown, "7.0 hours of one core" in shown) == (True, given is not None)


def test_a_model_of_unknown_size_is_a_clear_error():
    stage = Stage("01_teacher_responses", PAPER, dataset="gsm", teacher="strong")
    profile = load_profile(REPOSITORY / PAPER).model_copy(update={"teachers": {"strong": "a/b"}})
    object.__setattr__(stage, "profile", profile)
    with pytest.raises(UserError, match="The size of a/b is not known: give its `parameters`"):
        ledger.parameters_of(stage)


# ---- the dry run


@pytest.mark.parametrize("name", ["reference", "single_gpu", "paper"])
def test_the_dry_run_names_every_stage_and_how_long_they_take(name, capsys):
    profile, seeds = f"params/{name}.yaml", [7]  # a seed that nobody has run here
    everything = ["study", "ablations", "questions"]
    assert main(["study", "--profile", profile, "--dry-run", "--seeds", "7", "--experiments", *everything]) == 0
    shown = capsys.readouterr().out
    stages = {stage.name for job in study_jobs(profile, seeds, everything) for stage in job.stages}
    assert [stage for stage in stages if stage not in shown] == []
    assert ("GPU hours" in shown) == (load_profile(REPOSITORY / profile).hardware.gpus > 0)
    assert ("They take about" in shown) == (name == "reference")  # of the others no run is released


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
    before = stages_to_run(study_jobs("tiny.yaml", [0]))
    assert len({stage.folder for stage in before}) == len(before)
    make_stage("00_data", "tiny.yaml", dataset="gsm").run()
    assert len(stages_to_run(study_jobs("tiny.yaml", [0]))) == len(before) - 1
    assert estimate.summary(estimate.estimate([]), before[0].profile) == "Everything is done: nothing to do."


def test_a_paid_teacher_has_a_least_time_and_a_highest_cost():
    prices = {"input": 0.5, "output": 2.0, "currency": "EUR"}  # for a million tokens
    model = Model(model="m", engine="openai", base_url="http://x/v1", requests_per_minute=30, prices=prices)
    look = Outlook("strong", model, requests=900, calls=900, most=Spent(900, 4_000_000, 1_000_000))
    assert look.lines() == [
        "Asked of the server of strong: 900 requests of about 4.00 million tokens in all, 900 responses of m of at "
        "most 1.00 million tokens in all; 0 responses are in the store already.",
        "  At requests_per_minute 30: 0.50 h at least.",
        "  It costs at most 4.00 EUR.",
    ]


def test_a_profile_without_a_stage_on_a_gpu_says_so():
    row = estimate.row_of(Stage("00_data", "params/single_gpu.yaml", dataset="gsm"))
    said = estimate.summary(pd.DataFrame([row]), load_profile(REPOSITORY / "params/single_gpu.yaml"))
    assert said.endswith("No stage uses a GPU.")


def test_the_memory_table_of_the_docs_is_of_the_present_code():
    """`python -m rdlib memory` writes it."""
    pd.testing.assert_frame_equal(pd.read_csv(REPOSITORY / "docs/memory.csv"), estimate.docs_table())


# ---- the settings of the paper's cells


def test_cells_of_the_papers_profile_are_its_tables_5_and_6():
    """The tables' batch sizes are those of a GPU: 74 and 70 cannot be split over four, nor 2."""
    axes = {"dataset": paper.BENCHMARKS, "teacher": paper.TEACHERS, "student": paper.STUDENTS}
    names = {axis: {shown: name for name, shown in known.items()} for axis, known in axes.items()}
    seen = 0
    for row in paper.load("hyperparameters").itertuples():
        for teacher in paper.TEACHERS if pd.isna(row.teacher) else [names["teacher"][row.teacher]]:
            dataset, student = names["dataset"][row.dataset], names["student"][row.student]
            profile = Stage("06_ppo", PAPER, dataset, teacher, student, "ours").profile
            size = profile.ppo.minibatch_size if row.stage == "ppo" else getattr(profile, row.stage).batch_size
            assert size == row.batch_size * row.gpus
            seen += 1
    assert seen == 8 + 8 + 8


def test_a_cells_settings_enter_its_key_and_no_other():
    small, large = (Stage("03_sft_warmup", PAPER, "gsm", "strong", student, "sft") for student in ("small", "large"))
    assert small.recipe != large.recipe
    assert large.variant == large.with_overrides({"sft.batch_size": 296}).variant == ""  # its own settings
    assert large.with_overrides({"sft.batch_size": 336}).variant == "sft.batch_size=336"


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([{"dataset": "gms", "settings": {}}], "cells names the dataset 'gms'"),
        ([{"student": "small", "settings": {"sft.batchsize": 3}}], "cells sets 'sft.batchsize', which is no setting"),
        ([{"student": "small"}], "lacks the key 'cells.0.settings'"),
        ([{"student": "small", "settings": {"sft.batch_size": 0}}], "sft.batch_size"),
    ],
)
def test_bad_cells_are_refused_in_words(tmp_path, cells, message):
    content = yaml.safe_load((REPOSITORY / PAPER).read_text()) | {"cells": cells}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=message):
        Stage("03_sft_warmup", "p.yaml", root=tmp_path, method="sft", **CELL).profile  # noqa: B018
