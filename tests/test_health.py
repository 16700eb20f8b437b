"""The sentence on what PPO did to a student: each case in words, and the numbers behind it by hand."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from rdlib.evidence import health
from rdlib.evidence.health import Change, Health, sentence

ROSE = Health(
    cell="mine/teacher/student",
    questions=400,
    gain=6.2,
    deviation=42.0,
    agreement=Change(52.0, 58.2, 14.0, low=2.1, high=10.3),
    reward=Change(-0.2, 0.4, error=0.05),
    tokens=Change(90.0, 85.0),
    distinct=Change(0.99, 0.98),
    answered=Change(0.97, 0.99),
)
SAMPLES = {
    "votes": Change(0.87, 0.76, low=-0.19, high=-0.04),
    "majority": Change(0.715, 0.752),
    "answers": Change(5.18, 4.6),
    "texts": Change(10.2, 8.9),
}
SPREAD = (
    "(vote entropy from 0.87 to 0.76 nats, majority's share from 72% to 75%, distinct answers from 5.2 to 4.6, "
    "distinct texts from 10.2 to 8.9)."
)
ENTROPY = {"entropy": Change(0.42, 0.31, error=0.02)}
FLAT = {"reward": Change(0.1, 0.12, error=0.05)}


def gain(points: float, low: float, high: float) -> dict:
    """Another difference in agreement, in points, with its interval."""
    return {"gain": points, "agreement": Change(52.0, 58.2, 14.0, low=low, high=high)}


UNSURE, FELL = gain(-0.5, -4.6, 3.6), gain(-6.0, -9.0, -3.0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "Agreement rose by 6.2 points (95 % CI 2.1 to 10.3, 400 held-out questions)."),
        ({"gold": True}, "Accuracy rose by 6.2 points (95 % CI"),
        (FLAT, "rose by 6.2 points (95 % CI 2.1 to 10.3, 400 held-out questions), though reward did not rise."),
        (UNSURE, "Reward rose (from -0.20 to 0.40) while agreement did not: -0.5 points (95 % CI -4.6 to 3.6"),
        (UNSURE, "reward hacking is suspected, so read the answers that changed in 06_ppo.ipynb."),
        (FELL, "reward hacking is suspected"),
        (gain(0.3, -0.4, 0.9), "reward hacking is suspected"),
        (FELL | FLAT, "Agreement fell by 6.0 points (95 % CI -9.0 to -3.0"),
        (UNSURE | FLAT, "Whether agreement changed is unclear: -0.5 points (95 % CI -4.6 to 3.6"),
        (gain(2.0, -2.1, 6.1), "is unclear: +2.0 points"),
        (
            gain(0.4, -0.3, 1.1) | {"questions": 9000, "deviation": 33.0} | FLAT,
            "Agreement stayed as it was, to within a point or so: +0.4 points",
        ),
        (gain(0.0, 0.0, 0.0) | {"deviation": 0.0} | FLAT, "Nothing changed in agreement: each"),
        (
            {"kept_start": True},
            "PPO changed nothing: it kept the model that it began with, the warm-up's (agreement 58 %",
        ),
        ({"tokens": Change(90.0, 59.0)}, "; answers grew short (from 90 to 59 tokens)."),
        ({"distinct": Change(0.9, 0.4)}, "; answers grew equal (distinct texts from 90% to 40%)."),
        ({"answered": Change(0.97, 0.9)}, "; fewer answers can be read (from 97% to 90%)."),
        (SAMPLES, f"held-out questions); samples grew surer {SPREAD}"),
        (SAMPLES | ENTROPY, f"held-out questions); samples grew surer {SPREAD}"),
        (SAMPLES | {"votes": Change(0.87, 0.76, low=0.01, high=0.2)}, f"; samples grew less sure {SPREAD}"),
        (ENTROPY, "held-out questions); rollouts grew surer (entropy from 0.42 to 0.31 nats a token)."),
        ({"questions": 0, "agreement": Change()}, "no held-out question has a vote of the teacher or a gold answer."),
        ({"questions": 0}, 'the warm-up was not evaluated (ARGS="--methods ours_wo_r"'),
    ],
)
def test_each_case_in_words(changes, expected):
    said = sentence(replace(ROSE, **changes))
    assert expected in said and said.endswith(".") and ". " not in said and "nan" not in said and said[0].isupper()


def test_no_worry_without_a_reason():
    """Nothing is known, all is well, or it is within noise; and a policy that was not kept has no entropy."""
    unsure = SAMPLES | {"votes": Change(0.87, 0.86, low=-0.05, high=0.03)}
    noise, unkept = {"entropy": Change(0.42, 0.31, error=0.1)}, ENTROPY | {"kept_start": True}
    unknown = {"reward": Change(), "tokens": Change(), "distinct": Change()}
    for one in (
        Health("a/b/c"),
        *(replace(ROSE, **changes) for changes in ({}, unknown, unsure | ENTROPY, noise, unkept)),
    ):
        assert ";" not in sentence(one) and "sure" not in sentence(one)


def test_how_many_questions_it_takes_by_hand():
    """(1.96 + 0.84)^2 42^2 / 2^2 = 3461 for a gain of two points; of five at most; of one at least."""
    assert replace(ROSE, gain=2.0).questions_needed == 3500
    assert replace(ROSE, gain=9.0).questions_needed == 560
    assert replace(ROSE, gain=0.1).questions_needed == 14_000


def history(rewards, agreement=None) -> pd.DataFrame:
    rows = {"update": range(len(rewards)), "seed": 0, "reward": rewards}
    return pd.DataFrame(rows).assign(validation_agreement=agreement or [0.5] * len(rewards))


def test_a_reward_rose_where_it_rose_by_more_than_its_noise():
    change = health.along_ppo(history([9.0, *[0.0, 0.2] * 10, *[1.0, 1.2] * 10]), "reward")
    assert (change.before, change.after) == (pytest.approx(0.1), pytest.approx(1.1))
    assert change.error == pytest.approx((2 * 0.0111111 / 10) ** 0.5, rel=1e-3) and change.direction == 1
    assert health.along_ppo(history([9.0, *[-5.0, 5.0] * 10]), "reward").direction == 0
    assert health.along_ppo(history([0.0, 0.1, 5.0]), "reward").direction == 0  # two updates tell nothing of noise


def test_ppo_kept_its_start_where_no_update_of_any_seed_was_better():
    flat, better = history([0] * 3, [0.5, 0.4, 0.5]), history([0] * 3, [0.5, None, 0.6]).assign(seed=1)
    assert health._kept_start(flat) and not health._kept_start(better)
    assert not health._kept_start(pd.concat([flat, better])) and not health._kept_start(flat.head(0))


def test_the_table_has_what_the_sentence_says():
    table = health.table([ROSE]).set_index("measure")
    row = table.loc["agreement (%)"]
    assert row[["before_training", "after_warmup", "after_ppo", "change_low", "change_high"]].tolist() == [
        *(14.0, 52.0, 58.2, 2.1, 10.3)
    ]
    assert table.loc["greedy answers that can be read (%)", "change"] == pytest.approx(2.0)
    assert "vote entropy of a question's samples (nats)" not in table.index
    of_samples = health.table([replace(ROSE, **SAMPLES, **ENTROPY)]).set_index("measure")
    row = of_samples.loc["vote entropy of a question's samples (nats)"]
    assert row[["after_warmup", "after_ppo", "change_low", "change_high"]].tolist() == [0.87, 0.76, -0.19, -0.04]
    assert of_samples.loc["majority's share of a question's samples (%)", "change"] == pytest.approx(3.7)
    assert of_samples.loc["entropy of PPO's first and last updates (nats a token)", "change"] == pytest.approx(-0.11)
    assert health.verdict([ROSE, ROSE]).count("**mine/teacher/student: Agreement rose") == 2
