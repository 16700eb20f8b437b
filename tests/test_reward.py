"""Eq. 7 by hand: every variant of the correctness validation, Q_fail, and answers that cannot be extracted."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rdlib.method import scoring
from rdlib.method.metrics import COMPARISONS
from rdlib.method.reward import STUDENT_KINDS, mismatch_reward, reward, scale_of
from rdlib.method.rl import AnswerReader, RewardFunction
from rdlib.settings import Dataset, Reward
from rdlib.tasks.answers import extract
from rdlib.tasks.prompts import zero_shot

SCORES = [2.0, -3.0, 0.5, -0.5, 4.0, -4.0, 1.5]
ANSWERS = ["7", "7", "8", "8", "8", None, None]
LABELS = ["7", "7", "7", "7", None, "7", None]
#          right, right, wrong, wrong, Q_fail, no answer, no answer in Q_fail
EXPECTED = {
    "negative_abs": [2.0, -3.0, -0.5, -0.5, 4.0, -5.0, -5.0],
    "minus": [2.0, -3.0, -0.5, -1.5, 4.0, -5.0, -5.0],
    "clip": [2.0, -3.0, 0.0, -0.5, 4.0, -5.0, -5.0],
    "fixed": [2.0, -3.0, -1.0, -1.0, 4.0, -5.0, -5.0],
    "none": [2.0, -3.0, 0.5, -0.5, 4.0, -5.0, -5.0],
}


def settings(variant="negative_abs", constant=1.0, no_answer=-5.0) -> Reward:
    return Reward(no_answer=no_answer, mismatch=variant, mismatch_constant=constant)


@pytest.mark.parametrize("variant", EXPECTED)
def test_by_hand(variant):
    assert reward(torch.tensor(SCORES), ANSWERS, LABELS, settings(variant)).tolist() == EXPECTED[variant]


def test_the_vote_alone_by_hand():
    vote = Reward(no_answer=-5.0, mismatch="negative_abs", mismatch_constant=1.0, source="vote")
    assert reward(torch.tensor(SCORES), ANSWERS, LABELS, vote).tolist() == [1, 1, 0, 0, 0, 0, 0]


def test_constants():
    changed = reward(torch.tensor(SCORES), ANSWERS, LABELS, settings("minus", constant=0.25, no_answer=-9.0)).tolist()
    assert changed == [2.0, -3.0, 0.25, -0.75, 4.0, -9.0, -9.0]
    fixed = reward(torch.tensor(SCORES), ANSWERS, LABELS, settings("fixed", constant=2.5)).tolist()
    assert fixed[2:4] == [-2.5, -2.5]


def scored(*scores):
    """A table of the reward model's scores."""
    return pd.DataFrame({"kind": "student_positive", "score": scores})


def test_scores_of_one_scale():
    """1, 2, 3 and 6 have a mean square deviation of 14 / 4; the constants of Eq. 7 stay as they are."""
    unit = settings("minus").model_copy(update={"scale": "unit"})
    scale = scale_of(scored(1.0, 2.0, 3.0, 6.0), unit)
    assert scale == pytest.approx(math.sqrt(3.5))
    changed = reward(torch.tensor([4.0, 4.0, 4.0]), ["7", "8", None], ["7", "7", "7"], unit, scale)
    assert changed.tolist() == pytest.approx([4 / scale, 4 / scale - 1, -5])
    assert scale_of(scored(2.0, 2.0), unit) == scale_of(scored(1.0, 2.0), settings()) == 1


@pytest.mark.parametrize("source", ["vote", "vote_first"])
def test_the_votes_rewards_have_the_scale_of_its_ones_and_zeros(source):
    """The student's agree in three of four, so the deviation is sqrt(3/4 * 1/4); the teacher's do not count."""
    assert COMPARISONS["pos_neg"] == STUDENT_KINDS
    unit = settings().model_copy(update={"scale": "unit", "source": source})
    kinds = ["student_positive"] * 3 + ["student_negative"] + ["teacher_positive"] * 5
    table = pd.DataFrame({"kind": kinds, "score": 7.0})
    scale = scale_of(table, unit)
    assert scale == pytest.approx(math.sqrt(3) / 4)
    given = reward(torch.tensor([4.0, 4.0, 4.0]), ["7", "8", None], ["7", "7", "7"], unit, scale)
    assert given.tolist() == pytest.approx([4 / math.sqrt(3), 0, 0])
    assert scale_of(table[:3], unit) == scale_of(table, unit.model_copy(update={"scale": "raw"})) == 1


numbers = st.floats(-100, 100, width=32)


@given(st.lists(numbers, min_size=1, max_size=8))
def test_a_mismatch_is_never_better_than_its_score(values):
    scores = torch.tensor(values)
    for variant in EXPECTED:
        corrected = mismatch_reward(scores, variant, 1.0)
        assert corrected.shape == scores.shape
        if variant in ("negative_abs", "clip"):
            assert (corrected <= 0).all()
        if variant != "fixed":
            assert (corrected <= scores).all()


def test_ppo_reads_answers_as_the_engines_show_them(small):
    """A rollout goes on behind a stop string; and a letter is one of the query's own options."""
    settings = Dataset(
        source="questions", answer="choice", path="q", train=None, validation=None, test=None, max_tokens=64
    )
    asked = [zero_shot(settings, "Which?", ["zinc", "iron", "tin"][:count]) for count in (2, 3)]
    read = AnswerReader(small[1], asked, "choice")
    text = "The answer is (C).\n\nQuestion: And which?\nAnswer: The answer is (A)."
    assert [read(0, text), read(1, text)] == [None, "C"]


def test_reward_function_scores_extracts_and_reports(monkeypatch):
    """As PPO calls it, for questions 2, 0, 1 of three, whose labels are 7, 8 and none."""
    monkeypatch.setattr(scoring, "score", lambda model, sequences, pad: torch.tensor([1.0, 2.0, 3.0]))
    function = RewardFunction(None, ["7", "8", None], lambda _, text: extract(text, "number"), settings(), pad=0)
    rewards, info = function([2, 0, 1], ["#### 7", "#### 8", "nothing"], [[1], [2], [3]])
    assert rewards.tolist() == [1.0, -2.0, -5.0]
    function.scale = 4.0
    assert function([2, 0, 1], ["#### 7", "#### 8", "nothing"], [[1], [2], [3]])[0].tolist() == [0.25, -0.5, -5.0]
    assert info["rm_score"].tolist() == [1.0, 2.0, 3.0]
    assert info["extractable"].tolist() == [1.0, 1.0, 0.0]
    assert torch.isnan(info["agreement"][0])
    assert info["agreement"][1:].tolist() == [0.0, 0.0]
