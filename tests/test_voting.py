"""Majority vote, Q_fail, propagation and the counts of Figure 4."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdlib.method import voting
from rdlib.method.voting import judgement, majority_vote, propagate, pseudo_labels

VOTES = [
    (["4", "4", "4", "5"], 0.5, "4", 0.75),
    (["4", "4", "5", "5"], 0.5, None, 0.5),  # the share must be above the threshold, not at it
    (["4", "4", "5", "5"], 0.49, "4", 0.5),  # a tie goes to the smaller text, whatever the order
    (["5", "5", "4", "4"], 0.49, "4", 0.5),
    (["4", None, None, None], 0.2, "4", 0.25),  # unextractable responses count in the denominator
    (["4", "4", None, None], 0.5, None, 0.5),
    (["4", "4", "4", None], 0.5, "4", 0.75),
    ([None, None], 0.0, None, 0.0),
    ([], 0.0, None, 0.0),
    (["4"], 0.0, "4", 1.0),
    (["4"], 1.0, None, 1.0),
    (["A", "B", "C", "D"], 0.0, "A", 0.25),
    (["10", "9"], 0.0, "10", 0.5),
]


@pytest.mark.parametrize(("answers", "threshold", "label", "share"), VOTES)
def test_vote(answers, threshold, label, share):
    assert majority_vote(answers, threshold) == (label, share)


answer = st.sampled_from(["1", "2", "3", None])
shares = st.floats(0, 1)


@given(st.lists(answer, min_size=1, max_size=25), shares)
def test_second_implementation(answers, threshold):
    best = max((answers.count(a) for a in answers if a is not None), default=0)
    winners = sorted({a for a in answers if a is not None and answers.count(a) == best})
    expected = winners[0] if winners and best / len(answers) > threshold else None
    assert majority_vote(answers, threshold) == (expected, best / len(answers))


def responses(rows) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["id", "split", "confidence", "answer"])
    return frame.assign(text="text")


ANSWERS = {"q1": ("44-", "47-"), "q2": ("123", "999"), "q3": ("---", "5")}  # of the high and the low set; "-": none
TABLE = responses(
    [
        (key, "validation" if key == "q3" else "train", confidence, None if answer == "-" else answer)
        for key, both in ANSWERS.items()
        for confidence, answers in zip(("high", "low"), both, strict=True)
        for answer in answers
    ]
)


def test_only_the_high_confidence_set_votes():
    labels = pseudo_labels(TABLE, 0.5).set_index("id")
    assert labels["pseudo_label"]["q1"] == "4"
    assert labels["pseudo_label"][["q2", "q3"]].isna().all()
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
        assert labelled["positive"].dtype == bool
        assert labelled["pseudo_label"].eq("4").all()
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


def test_stage_writes_the_failure_ratio(cell):
    stage = cell.at("02_pseudo_labels")
    labels, summary = stage.table("labels"), stage.json("summary")
    assert summary["questions"] == len(labels) == 24
    assert summary["failed"] == labels["pseudo_label"].isna().sum()
    assert summary["failure_ratio"] == summary["failed"] / 24
    again = voting.pseudo_labels(cell.at("01_teacher_responses").table("responses"), stage.profile.voting.threshold)
    pd.testing.assert_frame_equal(again, labels, check_dtype=False)


def teacher_answers(**given: list[str | None]) -> pd.DataFrame:
    rows = [(key, answer, "train", "high") for key, answers in given.items() for answer in answers]
    return pd.DataFrame(rows, columns=["id", "answer", "split", "confidence"])


def test_a_flipped_label_is_the_teachers_second_choice_or_another_questions():
    responses = teacher_answers(a=["1", "1", "1", "2", "2", "9"], b=["5"] * 4, c=["1", None, "2", "3"])
    labels = voting.pseudo_labels(responses, 0.4)
    assert labels["pseudo_label"].fillna("-").tolist() == ["1", "5", "-"]
    flipped = voting.flip(labels, responses, 1.0, seed=0).set_index("id")["pseudo_label"]
    assert flipped["a"] == "2" and flipped["b"] == "1" and pd.isna(flipped["c"])
    assert voting.flip(labels, responses, 0.0, seed=0).equals(labels)


@given(st.integers(2, 60), st.floats(0, 1), st.integers(0, 5))
def test_the_share_of_flipped_labels_is_the_one_asked_for(count, share, seed):
    responses = teacher_answers(**{f"q{i}": [str(i % 7)] * 3 for i in range(count)})
    labels = voting.pseudo_labels(responses, 0.5)
    flipped = voting.flip(labels, responses, share, seed)
    changed = int((flipped["pseudo_label"] != labels["pseudo_label"]).sum())
    assert changed == round(share * count)
    assert flipped.equals(voting.flip(labels, responses, share, seed))
