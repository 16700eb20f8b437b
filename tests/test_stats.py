"""Intervals against known values, and the properties a paired, hierarchical bootstrap must have."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import sem, t

from rdlib.errors import UserError
from rdlib.evidence import stats
from rdlib.method import metrics


def answers(correct, seed=0, ids=None):
    ids = [f"q{i}" for i in range(len(correct))] if ids is None else ids
    return pd.DataFrame({"seed": seed, "id": ids, "correct": np.asarray(correct, dtype=bool)})


def scores(positives, negatives, seed=0):
    """One positive and one negative response for each query."""
    n = len(positives)
    kinds = ["student_positive"] * n + ["student_negative"] * n
    return pd.DataFrame({"seed": seed, "id": [*range(n)] * 2, "kind": kinds, "score": [*positives, *negatives]})


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe (1998), Table I, method 3 (score interval without continuity correction).
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_against_published_intervals(successes, n, low, high):
    interval = stats.wilson(successes, n)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)
    assert interval.estimate == successes / n and interval.n == n
    assert math.isnan(stats.wilson(0, 0).low)


def test_difference_is_paired_question_by_question():
    first, second = answers([1, 1, 0, 1]), answers([0, 1, 0, 1])
    table = stats.paired_table(first, second.sample(frac=1, random_state=1))
    assert dict(zip(table.id, table.value, strict=True)) == {"q0": 1, "q1": 0, "q2": 0, "q3": 0}
    assert stats.paired_difference(first, second, "x").estimate == 0.25


def test_pairing_narrows_the_interval_of_two_methods_that_agree():
    rng = np.random.default_rng(0)
    first = rng.random(400) < 0.5
    second = first.copy()
    second[:20] = ~second[:20]
    paired = stats.paired_difference(answers(first), answers(second), "x").interval()
    width = paired.high - paired.low
    assert width < 0.06 < 2 * 1.96 * math.sqrt(2 * 0.25 / 400)  # unpaired: 0.139 wide
    assert width == pytest.approx(2 * 1.96 * math.sqrt(20 / 400 / 400), rel=0.15)


def test_other_questions_are_refused():
    with pytest.raises(UserError, match="make study"):
        stats.paired_difference(answers([1, 0]), answers([1, 0], ids=["q1", "q2"]), "x")
    with pytest.raises(UserError, match="make study"):
        stats.paired_difference(answers([1, 0]), answers([1, 0], seed=1), "x")


def test_one_seed_gives_wilson_and_several_the_hierarchical_bootstrap():
    one = answers([1] * 30 + [0] * 70)
    assert stats.accuracy_interval(one, "x") == stats.wilson(30, 100)
    seeds = pd.concat([answers([1] * k + [0] * (100 - k), seed=s) for s, k in enumerate((10, 50, 90))])
    interval = stats.accuracy_interval(seeds, "x")
    assert interval.estimate == pytest.approx(0.5) and interval.n == 100
    assert interval.high - interval.low > 0.45  # seeds that disagree: wider than one seed's 0.19
    assert (interval.low, interval.high) == (0, 1)  # Student's t of three would go on to -0.5 and 1.5


def test_means_and_differences_of_draws_go_resample_by_resample():
    a, b = stats.Draws(0.5, np.array([0.4, 0.6]), 10), stats.Draws(0.1, np.array([0.0, 0.2]), 12)
    difference = a - b
    assert difference.estimate == 0.4 and difference.values.tolist() == [0.4, pytest.approx(0.4)]
    mean = stats.mean_of([a, b])
    assert mean.estimate == pytest.approx(0.3) and mean.values.tolist() == [0.2, pytest.approx(0.4)]
    spread = stats.spread_of([a, b])
    assert spread.estimate == 0.4 and spread.values.mean() == pytest.approx(0.4)


def test_auc_draws_equal_the_auc_of_each_resample():
    rng = np.random.default_rng(1)
    table = scores(rng.normal(1, 1, 6).round(), rng.normal(0, 1, 6).round())
    assert math.isnan(stats.auc_draws(table, "pos_pos", "x").interval().low)  # no teacher's response
    assert math.isnan(stats.auc_draws(table[:0], "pos_neg", "x").estimate)
    draws = stats.auc_draws(table, "pos_neg", "x", resamples=20)
    assert draws.estimate == metrics.comparison_auc(table, "pos_neg")
    for weights, value in zip(stats.bootstrap_weights(6, "x", 20), draws.values, strict=True):
        resample = pd.concat([table[table.id == i] for i, times in enumerate(weights) for _ in range(int(times))])
        assert value == pytest.approx(metrics.comparison_auc(resample, "pos_neg"))


def test_auc_draws_queries_of_one_problem_together():
    """Four stems of three queries: the interval is that of four queries, each with the responses of its three."""
    rng = np.random.default_rng(3)
    positives, negatives = np.repeat(rng.normal(1, 1, 4), 3), np.repeat(rng.normal(0, 1, 4), 3)
    table = scores(positives, negatives)
    stems = [f"mmlu-validation-{i // 3:04d}.{i % 3 + 1}" for i in range(12)]
    whole = table.assign(id=table.id.map(dict(enumerate(stems))))
    merged = table.assign(id=table.id // 3)
    found, expected = (stats.auc_draws(one, "pos_neg", "x", resamples=50) for one in (whole, merged))
    np.testing.assert_allclose(found.values, expected.values)


def test_t_interval_over_seeds():
    interval = stats.seed_interval([1.0, 2.0, 3.0])
    assert (interval.low, interval.high) == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)))
    single = stats.seed_interval([2.0, math.nan])
    assert single.estimate == 2 and math.isnan(single.low) and single.n == 1


def coverage(ids, seeds: float, problems: float, noise: float, of=100, runs=150) -> float:
    """How often the interval of a mean over 5 seeds covers 0; standard deviations of seeds, problems and the rest."""
    rng, hits = np.random.default_rng(5), 0
    index, each = {"seed": np.repeat(range(5), len(ids)), "id": [*ids] * 5}, len(ids) // of
    for _ in range(runs):
        values = np.repeat(rng.normal(0, problems, of), each) + rng.normal(0, seeds, (5, 1))
        values = values + rng.normal(0, noise, (5, len(ids)))
        interval = stats.mean_draws(pd.DataFrame({**index, "value": values.ravel()}), "x", resamples=400).interval()
        hits += interval.low <= 0 <= interval.high
    return hits / runs


@pytest.mark.parametrize(
    ("seeds", "problems", "noise"),
    [(0.0, 0.5, 0.3), (0.02, 0.5, 0.3), (0.1, 0.2, 0.3)],
    ids=["questions alone", "both", "seeds above all"],
)
def test_intervals_over_seeds_and_questions_cover_at_the_stated_rate(seeds, problems, noise):
    # 150 runs: a true rate of 0.95 gives 0.90 to 0.99 with a chance of 0.99
    assert 0.90 <= coverage(range(100), seeds, problems, noise) <= 0.995


def test_intervals_cover_where_questions_of_one_problem_are_gained_together():
    assert 0.90 <= coverage(perturbed(100, 6), 0.0, 0.3, 0.1) <= 0.995
    assert coverage(range(600), 0.0, 0.3, 0.1) < 0.85  # questions on their own would be too sure


def perturbed(problems, each):
    """Ids of `each` perturbations of each of some problems, in order; micro-gsm-plus has six of each."""
    return [f"gsm-plus-{6 * problem + k:04d}" for problem in range(problems) for k in range(each)]


def test_questions_of_one_problem_are_drawn_together_by_hand():
    """Two problems of two questions, one of one: a resample is the mean of the questions of the problems drawn."""
    values = [1.0, 0.0, 1.0, 1.0, -1.0]
    ids = ["gsm-plus-0000", "gsm-plus-0005", "gsm-plus-0006", "gsm-plus-0007", "gsm-plus-0012"]
    draws = stats.mean_draws(pd.DataFrame({"seed": 0, "id": ids, "value": values}), "x", resamples=50)
    for (first, second, third), value in zip(stats.bootstrap_weights(3, "x", 50), draws.values, strict=True):
        drawn = [1.0, 0.0] * int(first) + [1.0, 1.0] * int(second) + [-1.0] * int(third)
        assert value == pytest.approx(np.mean(drawn))
    assert draws.estimate == pytest.approx(0.4) and draws.n == 5


@pytest.mark.parametrize("seeds", [1, 4])
def test_problems_of_one_question_change_nothing(seeds):
    """To the byte what resampling questions gives, here done as before problems were known, whatever the ids."""
    rng, questions = np.random.default_rng(4), 301
    values = rng.integers(-1, 2, (seeds, questions)).astype(float)
    weights = stats.bootstrap_weights(questions, "gsm")
    columns = np.stack([weights @ row.astype(np.float32) / np.float32(questions) for row in values])
    means = np.array([float(row.astype(np.float32).mean(dtype=np.float64)) for row in values])
    expected = columns.mean(axis=0, dtype=np.float64)
    if seeds > 1:
        expected = expected + stats.student_weights(seeds) @ (means - means.mean())
    for ids in ([f"gsm-test-{i:04d}" for i in range(questions)], perturbed(questions, 1), [*range(questions)]):
        index = {"seed": np.repeat(range(seeds), questions), "id": ids * seeds}
        found = stats.mean_draws(pd.DataFrame({**index, "value": values.ravel()}), "gsm")
        assert found.values.tobytes() == expected.tobytes()


def test_a_single_seeds_interval_counts_problems_where_their_questions_are_answered_alike():
    alike = np.repeat([1] * 15 + [0] * 35, 6)
    interval, few = stats.accuracy_interval(answers(alike, ids=perturbed(50, 6)), "x"), stats.wilson(15, 50)
    assert interval.estimate == pytest.approx(0.3) and interval.n == 300
    assert (interval.low, interval.high) == pytest.approx((few.low, few.high), abs=0.003)  # 50 / 49 apart
    apart = np.tile([1, 0], 150)  # each problem half right: no more than questions on their own would say
    assert stats.accuracy_interval(answers(apart, ids=perturbed(50, 6)), "x") == stats.wilson(150, 300)
    right = stats.accuracy_interval(answers([1] * 300, ids=perturbed(50, 6)), "x")
    assert (right.low, right.high, right.n) == pytest.approx((stats.wilson(50, 50).low, 1.0, 300))


def test_a_test_question_goes_with_what_was_made_from_it():
    tests, made = [f"gsm-test-{i:04d}" for i in range(5)], perturbed(2, 3)
    found = stats.drawn_together({"gsm": tests, "gsm_plus": made, "mmlu": ["a", "b"], "mine": ["a", "b"]})
    assert found["gsm"] == found["gsm_plus"] == ("gsm", tests)
    assert found["mmlu"] == ("mmlu", ["a", "b"]) and found["mine"] == ("mine", ["a", "b"])  # equal names, not problems
    table = pd.DataFrame({"seed": 0, "id": made, "value": [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]})
    draws = stats.mean_draws(table, *found["gsm_plus"], resamples=60)
    for weights, value in zip(stats.bootstrap_weights(5, "gsm", 60), draws.values, strict=True):
        drawn = weights[:2].sum()
        assert value == pytest.approx(weights[0] / drawn) if drawn else math.isnan(value)


def of_seeds(*means):
    """Draws of values that differ between seeds alone."""
    table = pd.DataFrame({"seed": range(len(means)), "value": means}).merge(pd.DataFrame({"id": range(50)}), "cross")
    return stats.mean_draws(table, "x")


@pytest.mark.parametrize("means", [(0.0, 0.1), (0.3, 0.1, 0.1), (0.2, 0.5, 0.1, 0.4, 0.4)])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.996])
def test_where_seeds_alone_differ_the_interval_is_students_at_every_level(means, level):
    found, half = of_seeds(*means).interval(level), t.ppf((1 + level) / 2, len(means) - 1) * sem(means)
    assert found.estimate == pytest.approx(np.mean(means))
    assert (found.low, found.high) == pytest.approx((np.mean(means) - half, np.mean(means) + half), abs=0.25 * half)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1 if level < 0.99 else 0.25)


def test_proportions_of_seeds_that_differ_are_known_less_well():
    near, wilson = stats.proportion_draws(30, 100, "x").interval(), stats.wilson(30, 100)
    assert (near.low, near.high) == pytest.approx((wilson.low, wilson.high), abs=0.01)
    alike, apart = (stats.proportion_draws(30, 100, "x", seeds).interval() for seeds in ([0.3, 0.3], [0.25, 0.35]))
    assert alike == stats.proportion_draws(30, 100, "x").interval()
    assert apart.high - apart.low > 3 * (alike.high - alike.low)  # t of two seeds: +-0.64


def test_p_value_counts_resamples_beyond_zero():
    values = np.array([-1.0] * 2 + [1.0] * 97)
    assert stats.p_value(stats.Draws(0.9, values, 5)) == pytest.approx(2 * 3 / 100)
    assert stats.p_value(stats.Draws(0.0, np.zeros(99), 5)) == 1.0
    assert math.isnan(stats.p_value(stats.Draws(math.nan, np.full(9, np.nan), 0)))


def test_holm_by_hand():
    # sorted .01 .02 .03 .04 -> 4 x .01, 3 x .02, max(2 x .03, .06), max(.04, .06)
    assert stats.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert stats.holm([0.6, 0.9]) == [1.0, 1.0] and stats.holm([]) == []
    adjusted = stats.holm([0.01, math.nan, 0.02])
    assert adjusted[0] == pytest.approx(0.02) and math.isnan(adjusted[1]) and adjusted[2] == pytest.approx(0.02)


def test_effect_size_by_hand():
    assert stats.cohens_h(0.5, 0.5) == 0
    assert stats.cohens_h(1.0, 0.0) == pytest.approx(math.pi)
    assert stats.cohens_h(0.75, 0.5) == pytest.approx(math.pi / 6)


def test_an_interval_as_columns():
    interval = stats.Interval(0.5, 0.25, 0.75, 9)
    assert interval.columns("auc") == {"auc": 0.5, "auc_low": 0.25, "auc_high": 0.75}
    assert interval.columns("study", "pct") == {"study_pct": 50, "study_low_pct": 25, "study_high_pct": 75}
    ends = [(1, 2), (-2, -1), (0, 1), (-1, 1)]
    assert [stats.Interval(0, *one, 9).direction for one in ends] == ["up", "down", "", ""]
