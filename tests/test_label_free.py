"""Training never sees a gold answer: with every gold answer wrong, the artifacts are the same."""

from __future__ import annotations

import ast

import pytest
from conftest import REPOSITORY, make_root, stage_in

from rdlib import artifacts
from rdlib.micro import gsm, mmlu
from rdlib.study.specification import STAGES
from rdlib.tasks.questions import read_questions

TRAINING = [
    ("00_data", None),
    ("01_teacher_responses", None),
    ("02_pseudo_labels", None),
    ("03_sft_warmup", "ours_wo_r"),
    ("03_sft_warmup", "sft"),
    ("04_student_responses", "ours"),
    ("05_reward_model", "ours"),
    ("06_ppo", "ours"),
]


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    """A study run while every gold answer was wrong and no file of gold answers could be read."""
    root = make_root(tmp_path_factory.mktemp("poisoned"))
    read = artifacts.read_parquet

    def no_gold(path, *args):
        assert "gold" not in path.name, "a training stage read the gold answers"
        return read(path, *args)

    with pytest.MonkeyPatch.context() as patch:
        for problem in (gsm.GsmProblem, mmlu.MmluProblem):
            patch.setattr(problem, "answer", property(lambda self: "-1"))
        patch.setattr(artifacts, "read_parquet", no_gold)
        for name, method in TRAINING:
            stage_in(root, name, method).run()
        stage_in(root, "00_gold").run()
        assert (read_questions(stage_in(root, "00_data").folder, "train")["id"].str.len() > 0).all()
    return root


@pytest.mark.parametrize(("name", "method"), TRAINING)
def test_artifacts_do_not_depend_on_gold_answers(study, poisoned, name, method):
    expected = artifacts.hash_files(stage_in(study, name, method).folder)
    assert any(file.endswith((".parquet", ".safetensors")) for file in expected)
    assert artifacts.hash_files(stage_in(poisoned, name, method).folder) == expected


def test_the_poison_worked(study, poisoned):
    """Else the test above would prove nothing: with it, every evaluation is wrong."""
    assert (stage_in(poisoned, "00_gold").table("gold")["answer"] == "-1").all()
    assert (stage_in(study, "00_gold").table("gold")["answer"] != "-1").all()
    stage = stage_in(poisoned, "07_evaluate", "ours")
    stage.run()
    assert stage.json("summary")["accuracy"] == {"gsm": 0.0, "gsm_plus": 0.0}
    assert stage.table("answers")["text"].tolist() == stage_in(study, "07_evaluate").table("answers")["text"].tolist()


def test_only_judgement_evaluation_and_results_read_gold_answers():
    """In the source: who calls `read_gold`, and who names an `answer` of a problem."""
    readers = set()
    for path in (REPOSITORY / "rdlib").rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                names = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)}
                readers |= {(path.stem, function.name)} if "read_gold" in names else set()
    judging = {("voting", "run_judgement"), ("evaluate", "run"), ("judged", "judge"), ("held_out", "run")}
    judging |= {("evaluate", "run_validation"), ("open_ends", "graded_along")}
    assert readers == judging | {("results", "gather_questions"), ("results", "_thresholds")}


def test_no_stage_that_trains_comes_after_gold_answers_or_the_vote_on_held_out_questions(cell):
    def closure(stage) -> set[str]:
        return {stage.name}.union(*(closure(upstream) for upstream in stage.inputs.values()))

    judge = ("00_gold", "01_held_out", "02_judgement", "07_evaluate", "13_judged_responses", "13_validation_answers")
    for name in STAGES.keys() - set(judge):
        for method in STAGES[name].methods or (None,):
            assert closure(cell.at(name, method)).isdisjoint(judge), (name, method)
    assert not any("01_held_out" in one.stage for spec in STAGES.values() for one in spec.inputs)
