"""Diversity of a policy's samples before and after PPO, by hand and by properties."""

import math

import pandas as pd
import pytest

from rdlib.errors import UserError
from rdlib.evidence import sharpening


def judged(policy, answers, correct, texts=None, key="q", seed=0, cell="gsm/strong/small"):
    """A question's samples: answers ("" for none), which of them are right, and numbers of equal texts."""
    rows = {"answer": [a or None for a in answers], "correct": [a in correct for a in answers]}
    rows |= {"text": texts or list(range(len(answers))), "sample": range(len(answers)), "score": 0.0}
    return pd.DataFrame(rows).assign(policy=policy, id=key, seed=seed, cell=cell)


def values(table):
    return {(row.measure, row.k): row.value for row in table.itertuples()}


def test_measures_of_a_question_by_hand():
    found = values(sharpening.by_question(judged("before", ["7", "7", "8", ""], {"7"}, [0, 0, 1, 2]), [1, 2, 4]))
    assert found["pass@k", 1] == 0.5
    assert found["pass@k", 2] == pytest.approx(1 - 1 / 6)  # of six pairs only (8, none) has no right answer
    assert found["pass@k", 4] == found["maj@k", 4] == 1.0
    assert found["majority's share", 0] == 0.5
    assert found["vote entropy", 0] == pytest.approx(math.log(3) - 2 / 3 * math.log(2))
    assert (found["distinct answers", 0], found["distinct texts", 0]) == (2, 3)


def test_a_question_without_any_answer_has_no_diversity_of_votes():
    found = values(sharpening.by_question(judged("before", ["", ""], set()), [1, 2]))
    assert found["vote entropy", 0] == found["majority's share", 0] == found["distinct answers", 0] == 0
    assert found["distinct texts", 0] == 2


def test_a_sharpened_policy_gains_at_one_sample_and_loses_at_many():
    parts = []
    for seed in (0, 1):
        for key, before, after in (("a", ["1", "1", "2", "2"], ["1"] * 4), ("b", ["3", "4", "4", "4"], ["4"] * 4)):
            parts += [judged("before", before, {"1", "3"}, key=key, seed=seed)]
            parts += [judged("after", after, {"1", "3"}, key=key, seed=seed)]
    table = sharpening.changes(pd.concat(parts), [1, 4]).set_index(["measure", "k"])
    assert table.loc[("pass@k", 1), "change"] == pytest.approx(0.5 - (0.5 + 0.25) / 2)
    assert table.loc[("pass@k", 4), "change"] == -0.5
    assert table.loc[("vote entropy", 0), "change"] < 0
    assert table.loc[("pass@k", 1), ["n", "sd"]].tolist() == [2, 0]


def test_more_samples_than_there_are_is_an_error_in_one_sentence():
    with pytest.raises(UserError, match=r"^pass@8 needs 8 samples a question, and q has 2: take a smaller k"):
        sharpening.by_question(judged("before", ["1", "2"], {"1"}), [1, 8])
