"""The reviewers' questions: the tables by hand, and the whole of it on the tiny study."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import yaml
from conftest import PARAMS, copy_study, stage_in, tiny_settings

from rdlib.errors import UserError
from rdlib.evidence import gallery, ledger, result_tables, tables
from rdlib.study import results
from rdlib.study.experiments import ablation_cells, named, runs


def test_operations_by_hand():
    assert ledger.flops("01_teacher_responses", 10, 100, 0) == 2 * 10 * 100
    assert ledger.flops("03_sft_warmup", 10, 0, 100) == 6 * 10 * 100
    # sampling, and one pass each of policy, reference, value model and reward model; two networks trained
    assert ledger.flops("06_ppo", 10, 100, 200, 4 * 150) == 10 * (2 * 100 + 2 * 4 * 150 + 2 * 6 * 200)


def test_the_teacher_that_reads_what_a_student_samples_is_counted(study):
    assert ledger.flops("13_baseline", 10, 100, 150, 20, 30) == 10 * (2 * 120 + 6 * 150) + 30 * 2 * 150
    stages = {method: stage_in(study, "13_baseline", method) for method in ("grpo", "distillation")}
    assert ledger.parameters_of_reader(stages["grpo"]) == 0
    teacher = ledger.parameters_of_reader(stages["distillation"])
    assert teacher == ledger.parameters_of(stage_in(study, "01_teacher_responses")) > 0
    rows = pd.DataFrame(
        {"stage": ["13_baseline"], "parameters": [10], "tokens_generated": [40], "tokens_trained": [20]}
    )
    assert ledger.ledger(rows)["flops"].tolist() == [2000]  # of results that do not tell the reader
    assert ledger.ledger(rows.assign(reader_parameters=5))["flops"].tolist() == [2200]


@pytest.mark.slow
def test_the_questions_are_answered_on_the_tiny_study(study, tmp_path, at_root):
    root = copy_study(study, tmp_path / "root")
    content = tiny_settings()
    content["teachers"], content["students"] = {"strong": "models/strong"}, {"small": "models/small"}
    del content["datasets"]["mmlu"]
    content["grid"] |= {"flip_share": [0.4]}
    (root / PARAMS).write_text(yaml.safe_dump(content))
    at_root(root)
    (cell,) = ablation_cells(PARAMS, 0)
    found_runs = [run for one in named(["questions"]) for run in runs(one, PARAMS, [0])]
    for run in found_runs:
        run.stage.run_with_inputs()
    folder = results.collect_questions(PARAMS, [0]) / "seed0"
    written = {*result_tables.QUESTION_COLUMNS, result_tables.QUESTION_TRAININGS, result_tables.ANSWERED}
    assert {path.name for path in folder.iterdir()} == written
    made = json.loads((folder / "question_provenance.json").read_text())
    assert made["command"].endswith("--seeds 0 --experiments study ablations questions") and len(made["stages"]) > 30
    found = pd.read_parquet(folder / "reviewers.parquet")
    for name in ("reviewers.parquet", "judged.parquet", "over_optimisation.csv", "question_costs.csv"):
        table = found if name == "reviewers.parquet" else tables.read_table(folder / name, "")
        assert set(table["cell"]) == {"gsm/strong/small"}, name
    equal = pd.read_parquet(folder / "judged.parquet").groupby(["id", "text"])
    assert len(equal) > 1 and (equal["answer"].nunique(dropna=False) == 1).all()
    tokens, score = equal["tokens"].agg(["min", "max"]), equal["score"].agg(["min", "max"])
    alike = tokens["max"] == tokens["min"]  # a text cut off may equal one that ended
    assert alike.mean() > 0.9 and (score["max"] - score["min"])[alike].max() < 1e-4
    for run in (run for run in found_runs if run.experiment != "RM"):
        own = found[(found.question == run.experiment) & (found.arm == run.arm)]
        own = own[own.level.isna()] if run.level is None else own[own.level == run.level]
        accuracy = own.groupby("benchmark")["correct"].mean().to_dict()
        assert accuracy == run.stage.json("summary")["accuracy"], run
    costs = pd.read_csv(folder / "question_costs.csv")
    ours = costs[(costs.question == "R1") & (costs.arm == "Ours")]
    assert sorted(ours.stage) == sorted(s.name for s in {s.folder: s for s in _working(cell)}.values())
    (folder / "judged.parquet").rename(folder / "kept")
    (folder / "judged.parquet").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"judged\.parquet can't be read"):
        _ = result_tables.Evidence((folder,)).judged
    (folder / "kept").rename(folder / "judged.parquet")
    correctness = found.rename(columns={"arm": "method"}).assign(
        variant="", teacher="strong", student="small", group=""
    )
    correctness.to_parquet(folder / "correctness.parquet")
    (folder / "settings.json").write_text(json.dumps(cell.profile.model_dump()))
    paths = gallery.draw_all(result_tables.Evidence((folder,)), tmp_path, "13_reviewer_questions")
    assert len(paths) == 8 * 2 + 11 * 3 and all(path.stat().st_size for path in paths)


def _working(stage):
    yield from (s for s in (stage,) if "teacher" in s.spec.axes and s.name[:2] != "02")
    for upstream in stage.inputs.values():
        yield from _working(upstream)
