"""Stages 1 and 2: the plan of the teacher's samples, the majority vote, Q_fail, propagation, and Figure 4's counts."""

from __future__ import annotations

import pandas as pd
import pytest
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st

from rdlib.method.teacher import repeat_greedy, sampling_plan
from rdlib.method.voting import flip, judgement, majority_vote, propagate, pseudo_labels
from rdlib.profile import load_profile
from rdlib.settings import TeacherSampling
from rdlib.tasks.answers import extract

# ---- what the teacher is asked


QUESTIONS = pd.DataFrame({"id": ["q1", "q2"], "split": ["train", "validation"]})
TEMPERATURES = {"high_temperatures": [0.0, 0.2], "low_temperatures": [1.0], "samples_per_temperature": 5}


@pytest.mark.parametrize(("heat", "low"), [(1.0, 1.0), (2.0, 2.0)])
def test_plan_by_hand(heat, low):
    """A hot teacher is sampled hotter."""
    plan = sampling_plan(QUESTIONS, TeacherSampling(**TEMPERATURES, heat=heat))
    of_one = [("train", "high", 0.0, 1), ("train", "high", 0.2 * heat, 5), ("train", "low", low, 5)]
    assert plan.to_records(index=False).tolist()[:3] == [("q1", *row) for row in of_one] and len(plan) == 6


def test_the_papers_numbers_of_responses():
    """Section 3.1: 5 samples at each of four and of six temperatures, 20 and 30 responses."""
    sampling = load_profile(REPOSITORY / "params/micro.yaml").teacher_sampling
    plan = sampling_plan(QUESTIONS, sampling)
    counted = plan.assign(n=plan["n"].where(plan["temperature"] > 0, sampling.samples_per_temperature))
    assert counted.groupby(["id", "confidence"])["n"].sum().tolist() == [20, 30, 20, 30]
    assert sampling.high_temperatures == [0.0, 0.1, 0.2, 0.3]


def test_greedy_responses_are_counted_in_full_and_cost_once():
    responses = pd.DataFrame({"temperature": [0.0, 0.2, 0.2], "sample": [0, 0, 1], "text": list("abc")})
    responses = responses.assign(id="q1", confidence="high", tokens=[9, 8, 7])
    repeated = repeat_greedy(responses, 4)
    assert list(zip(repeated["text"], repeated["sample"], strict=True)) == [*zip("aaaabc", [0, 1, 2, 3, 0, 1])]  # noqa: B905
    assert repeated["tokens"].sum() == responses["tokens"].sum()
    pd.testing.assert_frame_equal(repeat_greedy(responses, 1), responses)


def test_stage_1_writes_every_response_and_hot_ones_differ_more(cell):
    responses = cell.at("01_teacher_responses").table("responses")
    questions = cell.at("00_data").table("questions")
    assert set(responses["id"]) == set(questions["id"][questions["split"].isin(["train", "validation"])])
    assert set(responses.groupby(["id", "confidence"]).size()) == {6}  # two temperatures of three samples in each set
    distinct = responses.groupby(["temperature", "id"])["text"].nunique().groupby("temperature").agg(["mean", "max"])
    assert distinct["max"][0.0] == 1 and distinct["mean"][1.0] > distinct["mean"][0.3]
    extracted = [extract(text, "number") for text in responses["text"]]
    assert [None if pd.isna(a) else a for a in responses["answer"]] == extracted
    assert not (cell.at("01_teacher_responses").folder / "shards").exists()


# ---- the vote

VOTES = [
    (["4", "4", "4", "5"], 0.5, "4", 0.75),
    (["4", "4", "5", "5"], 0.5, None, 0.5),  # the share must be above the threshold, not at it
    (["4", "4", "5", "5"], 0.49, "4", 0.5),  # a tie goes to the smaller text, whatever the order
    (["5", "5", "4", "4"], 0.49, "4", 0.5),
    (["4", None, None, None], 0.2, "4", 0.25),  # unextractable responses count in the denominator
    ([None, None], 0.0, None, 0.0),
    ([], 0.0, None, 0.0),
    (["4"], 1.0, None, 1.0),
    (["10", "9"], 0.0, "10", 0.5),
]


@pytest.mark.parametrize(("answers", "threshold", "label", "share"), VOTES)
def test_vote(answers, threshold, label, share):
    assert majority_vote(answers, threshold) == (label, share)


@given(st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=25), st.floats(0, 1))
def test_the_vote_by_a_second_implementation(answers, threshold):
    best = max((answers.count(a) for a in answers if a is not None), default=0)
    winners = sorted({a for a in answers if a is not None and answers.count(a) == best})
    expected = winners[0] if winners and best / len(answers) > threshold else None
    assert majority_vote(answers, threshold) == (expected, best / len(answers))


# ---- labels

ANSWERS = {"q1": ("44-", "47-"), "q2": ("123", "999"), "q3": ("---", "5")}  # of the high and the low set; "-": none
TABLE = pd.DataFrame(
    [
        (key, "validation" if key == "q3" else "train", confidence, None if answer == "-" else answer, "text")
        for key, both in ANSWERS.items()
        for confidence, answers in zip(("high", "low"), both, strict=True)
        for answer in answers
    ],
    columns=["id", "split", "confidence", "answer", "text"],
)


def test_only_the_high_confidence_set_votes():
    labels = pseudo_labels(TABLE, 0.5)
    assert labels["pseudo_label"].fillna("-").tolist() == ["4", "-", "-"]
    assert labels["share"].tolist() == [2 / 3, 1 / 3, 0.0]
    assert labels["extractable"].tolist() == [2 / 3, 1.0, 0.0]
    assert labels["split"].tolist() == ["train", "train", "validation"]


def test_propagation_labels_both_sets_and_leaves_q_fail_out(tmp_path):
    """Also of tables in files: Parquet turns None into NaN or NA, by which nothing may change."""
    labels = pseudo_labels(TABLE, 0.5)
    TABLE.to_parquet(tmp_path / "r.parquet")
    labels.to_parquet(tmp_path / "l.parquet")
    read = pd.read_parquet(tmp_path / "r.parquet"), pd.read_parquet(tmp_path / "l.parquet")
    for labelled in (propagate(TABLE, labels), propagate(*read)):
        assert labelled["id"].unique().tolist() == ["q1"]
        assert labelled["positive"].tolist() == [True, True, False, True, False, False]
        assert labelled["positive"].dtype == bool and labelled["pseudo_label"].eq("4").all()
    assert pseudo_labels(read[0], 0.5)["share"].tolist() == labels["share"].tolist()


def test_judgement_by_hand():
    labels = pseudo_labels(TABLE, 0.5)
    # q1 has six responses: 4 4 - 4 7 -. Judged positive: the three 4s.
    right = judgement(TABLE, labels, pd.Series({"q1": "4", "q2": "9", "q3": "5"}))
    counts = {"questions": 3, "failed": 2, "labelled": 1, "label_correct": 1}
    assert right == counts | {"responses": 6, "judged_right": 6, "positives": 3, "positives_right": 3}
    # With gold 7 the three 4s are judged wrongly positive and the 7 wrongly negative: 2 of 6 are judged right.
    wrong = judgement(TABLE, labels, pd.Series({"q1": "7", "q2": "9", "q3": "5"}))
    assert (wrong["label_correct"], wrong["judged_right"], wrong["positives_right"]) == (0, 2, 0)
    # Without a gold answer nothing of a question is judged
    without = judgement(TABLE, labels, pd.Series({"q1": None, "q2": "9", "q3": "5"}))
    assert (without["failed"], without["labelled"], without["responses"]) == (2, 0, 0)


def test_stage_writes_the_failure_ratio(cell):
    stage = cell.at("02_pseudo_labels")
    labels, summary = stage.table("labels"), stage.json("summary")
    assert summary["questions"] == len(labels) == 24
    assert summary["failed"] == labels["pseudo_label"].isna().sum() == 24 * summary["failure_ratio"]
    again = pseudo_labels(cell.at("01_teacher_responses").table("responses"), stage.profile.voting.threshold)
    pd.testing.assert_frame_equal(again, labels, check_dtype=False)


def teacher_answers(**given: list[str | None]) -> pd.DataFrame:
    rows = [(key, answer, "train", "high") for key, answers in given.items() for answer in answers]
    return pd.DataFrame(rows, columns=["id", "answer", "split", "confidence"])


def test_a_flipped_label_is_the_teachers_second_choice_or_another_questions():
    responses = teacher_answers(a=["1", "1", "1", "2", "2", "9"], b=["5"] * 4, c=["1", None, "2", "3"])
    labels = pseudo_labels(responses, 0.4)
    assert labels["pseudo_label"].fillna("-").tolist() == ["1", "5", "-"]
    flipped = flip(labels, responses, 1.0, seed=0)["pseudo_label"].fillna("-").tolist()
    assert flipped == ["2", "1", "-"]


@settings(max_examples=30)
@given(st.integers(2, 60), st.floats(0, 1), st.integers(0, 5))
def test_the_share_of_flipped_labels_is_the_one_asked_for(count, share, seed):
    responses = teacher_answers(**{f"q{i}": [str(i % 7)] * 3 for i in range(count)})
    labels = pseudo_labels(responses, 0.5)
    flipped = flip(labels, responses, share, seed)
    assert (flipped["pseudo_label"] != labels["pseudo_label"]).sum() == round(share * count)
    assert flipped.equals(flip(labels, responses, share, seed))
