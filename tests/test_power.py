"""Power: variances and sizes computed by hand, the known limits, and simulations with known variances."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import nct, norm, t

from rdlib.errors import UserError
from rdlib.evidence import power, power_tables, stats
from rdlib.evidence.power import Answered, Benchmark, Components
from rdlib.evidence.result_tables import open_results
from rdlib.paths import ROOT

Z = norm.ppf(0.975)


def parts_of(seeds, questions, between_seeds=0.0, between_questions=0.0, rest=0.0):
    return Components(seeds, between_seeds, (Benchmark(questions, 1.0, between_questions, rest),))


def test_components_by_hand():
    """Two seeds, three questions: effects of seeds -1/2, 1/2, of questions -1, 0, 1, and a rest of -+1/4, 0, +-1/4."""
    rest = np.array([[-0.25, 0.0, 0.25], [0.25, 0.0, -0.25]])
    values = np.array([[-0.5], [0.5]]) + np.array([-1.0, 0.0, 1.0]) + rest
    found = power.components([Answered(values)])
    # mean squares: rest 0.25 / 2, questions 2 * 2 / 2, seeds 3 * 0.5
    assert found.benchmarks[0].rest == pytest.approx(0.125)
    assert found.benchmarks[0].between_questions == pytest.approx((2 - 0.125) / 2)
    assert found.between_seeds == pytest.approx((1.5 - 0.125) / 3)
    assert found.variance == pytest.approx((1.5 + 2 - 0.125) / 6)


def test_what_cannot_be_estimated():
    values = np.array([[1.0, 0.0], [0.0, 1.0]])  # seeds and questions differ by less than the rest alone makes them
    found = power.components([Answered(values)])
    assert (found.between_seeds, found.benchmarks[0].between_questions, found.benchmarks[0].rest) == (0, 0, 1)
    with pytest.raises(UserError, match="need two seeds"):
        power.components([Answered(np.zeros((1, 5)))])
    found = power_tables.estimates(study(1))
    assert power_tables.power_table(found).empty and power_tables.plans(found).empty


def test_known_variances_are_found():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        values = rng.normal(0, 0.3, (6, 1)) + rng.normal(0, 0.5, 80) + rng.normal(0, 0.4, (6, 80))
        one = power.components([Answered(values)])
        found.append((one.between_seeds, one.benchmarks[0].between_questions, one.benchmarks[0].rest))
    assert np.mean(found, axis=0) == pytest.approx([0.09, 0.25, 0.16], rel=0.1)


def test_cells_that_share_seeds_and_questions_are_not_counted_as_independent():
    rng = np.random.default_rng(1)
    seeds, questions = rng.normal(0, 0.1, (5, 1)), rng.normal(0, 0.5, 400)
    one = pd.DataFrame(seeds + questions + rng.normal(0, 0.3, (5, 400)))
    alone = power.components([Answered(one.to_numpy())])
    same = power_tables.mean_over_cells({("gsm", "strong", "small"): one, ("gsm", "weak", "small"): one})
    assert power.components(same).variance == pytest.approx(alone.variance)
    other = pd.DataFrame(seeds + rng.normal(0, 0.5, 400) + rng.normal(0, 0.3, (5, 400)))
    apart = power_tables.mean_over_cells({("gsm", "strong", "small"): one, ("mmlu", "strong", "small"): other})
    found = power.components(apart)
    assert found.between_seeds == pytest.approx(alone.between_seeds, rel=0.3)  # the seeds are shared
    assert found.of_questions == pytest.approx(alone.of_questions / 2, rel=0.3)  # the questions are not


def test_questions_of_one_problem_count_as_one_by_hand():
    """Problems of two and of one question: 3/2 of the sum of a problem's differences from the mean, 2 problems a 3."""
    table = pd.DataFrame([[1.0, 0.0, 0.5]], columns=["gsm-plus-0000", "gsm-plus-0001", "gsm-plus-0006"])
    shifted = pd.concat([table, table + 1], ignore_index=True)
    # mean 0.5; the first problem's left: 0.5 - 0.5, the second's 0
    assert power_tables.of_problems([shifted], [1.0]).tolist() == [[0.5, 0.5], [1.5, 1.5]]
    table.iloc[0] = [1.0, 1.0, 0.0]  # mean 2/3: 2/3 + 2/3 * (1/3 + 1/3) and 2/3 - 2/3 * 2/3
    assert power_tables.of_problems([table], [1.0])[0] == pytest.approx([10 / 9, 2 / 9])
    # with the tests of three problems (mean 1/3, as questions weigh 1 of 3): shares of a half each
    tests = pd.DataFrame([[1.0, 0.0, 0.0]], columns=[f"gsm-test-000{i}" for i in range(3)])
    found = power_tables.of_problems([tests, table], [0.5, 0.5])[0]
    assert found == pytest.approx([0.5 * 1 + 0.5 * (2 / 3 + 2 / 3), 0.5 * 0 + 0.5 * (2 / 3 - 2 / 3), 0.5 * 2 / 3])
    assert found.mean() == pytest.approx(0.5 * (1 / 3 + 2 / 3))


def test_variances_of_problems_are_those_that_intervals_have():
    """A mean over a benchmark and its perturbations: half-width by the variances, and of the bootstrap itself."""
    rng = np.random.default_rng(2)
    problems, seeds = rng.normal(0, 0.4, 300), rng.normal(0, 0.01, (5, 1))
    cells = {}
    for name, split, gains in (("gsm", "test", problems), ("gsm_plus", "plus", np.repeat(problems[:100], 6))):
        values = gains + seeds + rng.normal(0, 0.3, (5, len(gains)))
        columns = [f"gsm-{split}-{i:04d}" for i in range(len(gains))]
        cells[name, "strong", "small"] = pd.DataFrame(values, columns=columns).rename_axis("seed")
    together = stats.drawn_together({name: table.columns for (name, *_), table in cells.items()})
    long = [table.reset_index().melt("seed", var_name="id") for table in cells.values()]
    draws = [stats.mean_draws(table, *together[cell[0]]) for cell, table in zip(cells, long, strict=True)]
    interval = stats.mean_of(draws).interval()
    (part,) = power_tables.mean_over_cells(cells)
    assert part.differences.shape == (5, 300) and part.differences.mean() == pytest.approx(interval.estimate)
    assert power.half_width(power.components([part])) == pytest.approx((interval.high - interval.low) / 2, rel=0.06)


def test_seeds_leave_the_variance_of_the_questions():
    parts = parts_of(5, 1000, 0.01**2, 0.2**2, 0.3**2)
    assert parts.variance == pytest.approx(0.01**2 / 5 + 0.2**2 / 1000 + 0.3**2 / 5000)
    assert parts.at(seeds=10**9).variance == pytest.approx(0.2**2 / 1000)
    assert parts.at(times=1e12).variance == pytest.approx(0.01**2 / 5)
    # z-test at the limit: 1.5 pp over a standard error of 0.632 pp is 2.37, and 2.80 would be needed
    assert power.seeds_needed(parts, 0.015) == math.inf
    assert math.isfinite(power.questions_needed(parts, 0.02))


@pytest.mark.parametrize("seeds", [2, 5, 40])
@pytest.mark.parametrize("effect", [0.5, 3.0])
def test_without_variance_of_questions_it_is_the_noncentral_t(seeds, effect):
    critical = t.ppf(0.975, seeds - 1)
    expected = nct.sf(critical, seeds - 1, effect) + nct.cdf(-critical, seeds - 1, effect)
    found = power.power(parts_of(seeds, 10, between_seeds=seeds), effect)  # a standard error of 1
    assert found == pytest.approx(expected, abs=2e-3)


def test_without_variance_of_seeds_it_is_the_normal_approximation():
    parts = parts_of(5, 100, between_questions=100.0)  # a standard error of 1
    for effect in (0.0, 1.0, 2.8015852, 4.0):
        assert power.power(parts, effect) == pytest.approx(norm.sf(Z - effect) + norm.cdf(-Z - effect), abs=1e-9)
    assert power.detectable(parts) == pytest.approx(2.8015852, abs=1e-4)
    assert power.half_width(parts) == pytest.approx(Z)


def test_sizes_by_hand():
    # one question's difference has a standard deviation of 0.5: 0.05 needs (2.8016 * 0.5 / 0.05)^2 = 784.9 questions
    parts = parts_of(5, 100, between_questions=0.25)
    assert 100 * power.questions_needed(parts, 0.05) == pytest.approx(784.9, rel=1e-3)
    assert power.seeds_needed(parts, 0.05) == math.inf
    # a t-test of one mean: a difference of one standard deviation needs 10 seeds for 80 % (G*Power: 10, power 0.803)
    parts = parts_of(5, 10**6, between_seeds=1.0)
    assert power.seeds_needed(parts, 1.0) == 10
    assert power.power(parts.at(seeds=10), 1.0) == pytest.approx(0.8031, abs=2e-3)
    assert power.power(parts.at(seeds=9), 1.0) < 0.8
    assert power.questions_needed(parts, 1.0) == math.inf
    nothing = parts_of(3, 10)  # no variance: any difference is found
    assert power.power(nothing, 0.001) == 1 and power.power(nothing, 0.0) == 0 and power.detectable(nothing) == 0
    assert power.seeds_needed(nothing, 0.001) == 2


def test_the_detectable_difference_has_the_power_and_shrinks_with_seeds_and_questions():
    parts = parts_of(5, 1000, 0.01**2, 0.15**2, 0.3**2)
    assert power.power(parts, power.detectable(parts)) == pytest.approx(0.8, abs=1e-4)
    assert power.detectable(parts.at(seeds=8)) < power.detectable(parts) > power.detectable(parts.at(times=2))
    needed = power.seeds_needed(parts, 0.018)
    assert power.power(parts.at(seeds=needed), 0.018) >= 0.8 > power.power(parts.at(seeds=needed - 1), 0.018)
    times = power.questions_needed(parts, 0.018)
    assert power.power(parts.at(times=times), 0.018) == pytest.approx(0.8, abs=1e-4)


def test_a_cautious_plan_takes_the_upper_limit_of_the_seeds_variance():
    # five seeds: 4 / chi-squared quantile of 20 % at 4 degrees, 1.6488
    found = power.cautious(parts_of(5, 1000, between_seeds=0.04))
    assert found.between_seeds == pytest.approx(0.04 * 4 / 1.6488, rel=1e-4)
    assert power.cautious(parts_of(5, 1000, rest=1.0)).between_seeds > 0


def test_needed_half_width():
    assert power.needed_half_width(1.5) == pytest.approx(1.5 * 1.959964 / 2.801585)
    assert power.needed_half_width(1.5) == pytest.approx(1.0494, abs=1e-4)
    assert power.needed_half_width(0.7) == pytest.approx(0.4897, abs=1e-4)
    # it is the half-width at which that difference has 80 % power, where the questions decide
    parts = parts_of(5, 1000, between_questions=1000 * (0.015 / 2.801585) ** 2)
    assert power.half_width(parts) == pytest.approx(power.needed_half_width(0.015), rel=1e-5)
    assert power.power(parts, 0.015) == pytest.approx(0.8, abs=1e-5)


def shares_of_intervals_without_zero(parts, difference, runs=500):
    """How often the interval of `stats`, over made-up answers with these variances, excludes zero."""
    rng, (benchmark,), hits = np.random.default_rng(3), parts.benchmarks, 0
    shape = (parts.seeds, int(benchmark.questions))
    index = {"seed": np.repeat(range(shape[0]), shape[1]), "id": np.tile(range(shape[1]), shape[0])}
    for _ in range(runs):
        values = difference + rng.normal(0, math.sqrt(parts.between_seeds), (shape[0], 1))
        values = values + rng.normal(0, math.sqrt(benchmark.between_questions), shape[1])
        values = values + rng.normal(0, math.sqrt(benchmark.rest), shape)
        draws = stats.mean_draws(pd.DataFrame({**index, "value": values.ravel()}), "x", resamples=400)
        interval = draws.interval()
        hits += interval.low > 0 or interval.high < 0
    return hits / runs


def test_the_power_computed_is_that_of_the_intervals_that_verdicts_depend_on():
    parts = parts_of(5, 200, 0.03**2, 0.4**2, 0.4**2)
    expected = power.power(parts, 0.10)
    assert 0.4 < expected < 0.95
    # 500 runs: three standard errors are at most 0.067, and a bootstrap of 400 resamples is a little rough itself
    assert shares_of_intervals_without_zero(parts, 0.10) == pytest.approx(expected, abs=0.08)


def answers(method, correct, variant="", benchmark="gsm", student="small"):
    """Answers of some seeds, (seeds, questions), as correctness.parquet has them."""
    seeds, questions = np.indices(correct.shape)
    keys = {"benchmark": benchmark, "teacher": "strong", "student": student, "method": method, "variant": variant}
    ids = [f"{benchmark}-{i}" for i in questions.ravel()]
    return pd.DataFrame({**keys, "seed": seeds.ravel(), "id": ids, "correct": correct.ravel()})


def study(seeds):
    rng = np.random.default_rng(7)
    draw = lambda share: rng.random((seeds, 50)) < share  # noqa: E731
    parts = [answers(m, draw(s), student=k) for m, s in (("ours", 0.8), ("sft", 0.5)) for k in ("small", "large")]
    parts.append(answers("ours", draw(0.6), "reward.mismatch=minus"))
    return SimpleNamespace(correctness=pd.concat(parts, ignore_index=True))


def test_the_table_has_a_row_a_cell_and_one_for_the_mean():
    correct = study(3).correctness
    table = power_tables.power_table(power_tables.estimates(study(3)))
    assert list(zip(table.claim, table.cell, strict=True)) == [
        ("C1", "gsm/strong/small"),
        ("C1", "gsm/strong/large"),
        ("C1", power_tables.MEAN),
        ("C9", "gsm/strong/small"),
    ]
    assert table.smallest_pp.tolist() == [1.5, 1.5, 0.7, 1.5] and (table.seeds == 3).all()
    ours, sft = (correct[correct.method == m].loc[correct.variant == ""].correct.mean() for m in ("ours", "sft"))
    assert table.difference_pp[2] == pytest.approx(100 * (ours - sft))
    variance = table.se_seeds_pp**2 + table.se_questions_pp**2 + table.se_rest_pp**2
    assert ((table.half_width_pp / np.sqrt(variance)).between(Z, 1.5 * t.ppf(0.975, 2))).all()
    plans = power_tables.plans(power_tables.estimates(study(3)))
    assert len(plans) == 2 * len(power_tables.SEEDS) * len(power_tables.TIMES)
    assert plans[plans.claim == "C9"].mean_power_pct.isna().all()


def test_a_cell_of_policies_that_are_all_the_same_tells_no_variance():
    results = study(3)
    correct = results.correctness
    same = correct[(correct.student == "small") & (correct.variant == "")]
    ours = same[same.method == "ours"].drop(columns="variant").assign(variant="reward.mismatch=minus")
    results.correctness = pd.concat([correct[correct.variant == ""], ours], ignore_index=True)
    assert power_tables.power_table(power_tables.estimates(results)).claim.unique().tolist() == ["C1"]


@pytest.mark.skipif(not (ROOT / "figures/results").is_dir(), reason="no reference run has been released yet")
def test_all_released_seeds_answered_the_same_questions():
    """So the questions' variance does not shrink with seeds, as `stats.mean_draws` and `power` have it."""
    correct = open_results(Path(ROOT / "figures/results")).correctness
    for _, rows in correct.groupby("benchmark"):
        assert len({frozenset(part.id) for _, part in rows.groupby("seed")}) == 1
