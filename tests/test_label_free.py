"""Nothing is trained or chosen by gold answers of any split.

With every gold answer wrong, every stage of Ours and of SFT writes the same, byte for byte. The other methods, the
baselines and the ablations' variants train where asking for a gold answer is an error.
(`test_own_study.py` trains without a gold answer in existence, and poisons the vote on held-out questions.)
"""

from __future__ import annotations

import pandas as pd
import pytest
from conftest import PARAMS, make_root, patch_root, stage_in, tiny_settings

from rdlib import artifacts
from rdlib.method import held_out
from rdlib.micro import gsm, mmlu
from rdlib.settings import Dataset
from rdlib.study import experiments
from rdlib.study.specification import BASELINES, STAGES
from rdlib.tasks import data
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
PPO = ("04_student_responses", "05_reward_model", "06_ppo")
FLIPPED = {"teacher_sampling.samples_per_temperature": 4, "sft.responses_per_question": 3, "voting.flip_share": 0.2}
FLIPPED |= {"reward_model.lam": 0.25, "reward_model.teacher_share": 0.75, "reward.mismatch": "minus"}
# What else is trained: method, overrides, stages; tests/test_baselines.py trains the baselines so. Together the
# overrides are all that ablations and questions make.
OTHERS = [
    ("ours_wo_d", {}, PPO),
    ("ours", FLIPPED, PPO),
    ("ours", {"reward_model.source": "teacher", "reward.mismatch": "none"}, PPO[1:]),
    ("ours", {"reward.source": "vote"}, PPO[2:]),
]


def without_files_of_gold(patch: pytest.MonkeyPatch) -> None:
    """Make it an error to read a file of gold answers."""
    read = artifacts.read_parquet

    def no_gold(path, *args):
        assert "gold" not in path.name, "a training stage read the gold answers"
        return read(path, *args)

    patch.setattr(artifacts, "read_parquet", no_gold)


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    """A study run while every gold answer was wrong and no file of gold answers could be read."""
    root = make_root(tmp_path_factory.mktemp("poisoned"))
    with pytest.MonkeyPatch.context() as patch:
        for problem in (gsm.GsmProblem, mmlu.MmluProblem):
            patch.setattr(problem, "answer", property(lambda self: "-1"))
        without_files_of_gold(patch)
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


def no_answer(*args):
    """What stands for every way to a gold answer while nothing may ask for one."""
    raise AssertionError("a training stage asked for a gold answer")


def without_any_gold_answer(patch: pytest.MonkeyPatch) -> None:
    """Make it an error to ask for a gold answer in any way."""
    without_files_of_gold(patch)
    for problem in (gsm.GsmProblem, mmlu.MmluProblem):
        patch.setattr(problem, "answer", property(no_answer))
    for way in ("load", "worked_examples", "run_gold"):
        patch.setattr(data, way, no_answer)


@pytest.mark.parametrize(("method", "overrides", "names"), OTHERS, ids=[f"{m}-{len(o)}" for m, o, _ in OTHERS])
@pytest.mark.slow
def test_other_methods_and_variants_train_where_no_gold_answer_can_be_asked_for(
    poisoned, monkeypatch, method, overrides, names
):
    without_any_gold_answer(monkeypatch)
    for name in names:
        stage = stage_in(poisoned, name, method)
        stage = stage.with_overrides(overrides) if overrides else stage
        assert stage.run_with_inputs().done


def test_these_are_all_the_variants_that_ablations_and_questions_train(study, monkeypatch):
    patch_root(monkeypatch, study)
    found = [
        run.stage for one in experiments.named(["ablations", "questions"]) for run in experiments.runs(one, PARAMS, [0])
    ]
    asked = [stage.all_overrides for stage in found]
    covered = {key for _, overrides, _ in OTHERS for key in overrides}
    assert {key for one in asked for key in one} <= covered, "add the new override to OTHERS"
    methods = {method for _, method in TRAINING} | {method for method, _, _ in OTHERS} | set(BASELINES)
    assert {stage.method for stage in found} <= methods | {"teacher"}


# ---- questions of other sources


def shown(questions: list) -> list:
    """All of the questions that `00_data` writes for the stages."""
    return [(q.id, q.split, q.question, q.options, q.group) for q in questions]


@pytest.mark.parametrize("name", ["gsm", "mmlu"])
def test_generated_questions_do_not_depend_on_their_answers(monkeypatch, tmp_path, name):
    settings = Dataset(**tiny_settings()["datasets"][name])
    before = data.load(name, settings, tmp_path)
    for problem in (gsm.GsmProblem, mmlu.MmluProblem):
        monkeypatch.setattr(problem, "answer", property(lambda self: "-1"))
    after = data.load(name, settings, tmp_path)
    assert shown(after) == shown(before) and {q.answer for q in after} == {"-1"}


def test_held_out_are_questions_by_whether_they_have_an_answer_and_not_by_which():
    questions, gold = pd.DataFrame({"id": ["a", "b", "c"]}), pd.Series({"a": "1", "b": None, "c": "2"})
    found = [held_out.unanswered(questions, one)["id"].tolist() for one in (gold, gold.replace({"1": "9", "2": "8"}))]
    assert found == [["b"], ["b"]]


def test_no_stage_that_trains_comes_after_gold_answers_or_the_vote_on_held_out_questions(cell):
    def closure(stage) -> set[str]:
        return {stage.name}.union(*(closure(upstream) for upstream in stage.inputs.values()))

    judge = (
        "00_gold",
        "01_held_out",
        "02_judgement",
        "07_evaluate",
        "13_judged_responses",
        "13_validation_answers",
        "13_perturbed_answers",
        "13_sampled_responses",
    )
    for name in STAGES.keys() - set(judge):
        for method in STAGES[name].methods or (None,):
            assert closure(cell.at(name, method)).isdisjoint(judge), (name, method)
    assert not any("01_held_out" in one.stage for spec in STAGES.values() for one in spec.inputs)
