"""PPO ends when its rollouts are of no use, and only then."""

from __future__ import annotations

import pytest

from rdlib.errors import UserError
from rdlib.method.rollout_guard import RolloutGuard, shares

GOOD = [f"Step {n} of the plan gives\n#### {n}" for n in range(10)]
READ = [str(n) for n in range(10)]
ENDED, CUT = [[1, 2, 0]] * 10, [[1, 2, 3]] * 10


def guard(learns_form: bool = False) -> RolloutGuard:
    return RolloutGuard("mine/ours/06_ppo", {0}, 64, learns_form)


def test_shares_by_hand():
    texts = ["a b c d e", "a b c d e", "", "#### 4"]
    found = shares(texts, ["1", None, None, "4"], [True, True, False, True])
    assert found == {"cut": 0.25, "empty": 0.25, "unreadable": 0.5, "equal": 0.5}
    assert shares(["#### 4"] * 4, ["4"] * 4, [True] * 4)["equal"] == 0  # short answers may be equal


@pytest.mark.parametrize(
    ("texts", "given", "sequences", "words"),
    [
        (GOOD, READ, CUT, r"100% of the rollouts were cut at max_tokens \(64\): raise the dataset's max_tokens"),
        ([""] * 10, [None] * 10, ENDED, "are empty: raise ppo.kl_coef"),
        (GOOD, [None] * 10, ENDED, "hold no answer that can be read"),
        (["it is so and so for all"] * 10, READ, ENDED, "are one text, whatever the question"),
    ],
)
def test_three_bad_updates_in_a_row_end_it(texts, given, sequences, words):
    watching = guard()
    for _ in range(2):
        watching(texts, given, sequences)
    watching(GOOD, READ, ENDED)  # a good one between
    for _ in range(2):
        watching(texts, given, sequences)
    with pytest.raises(UserError, match=f"mine/ours/06_ppo: in 3 updates in a row .*{words}"):
        watching(texts, given, sequences)


def test_without_a_warm_up_the_form_may_be_learnt_first():
    watching = guard(learns_form=True)
    for _ in range(9):
        watching(GOOD, [None] * 10, CUT)
    with pytest.raises(UserError, match="empty"):
        for _ in range(3):
            watching([""] * 10, [None] * 10, CUT)


def test_nine_of_ten_are_not_nearly_all():
    watching = guard()
    for _ in range(9):
        watching(GOOD, READ, [*CUT[:9], ENDED[0]])
