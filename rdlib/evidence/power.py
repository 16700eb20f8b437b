"""Power of a paired difference in accuracy: how many seeds and questions make it significant.

    parts = components([Answered(differences)])              # from released answers: (seeds, questions) in {-1, 0, 1}
    power(parts, 0.015), detectable(parts), seeds_needed(parts, 0.015), questions_needed(parts, 0.015)

All seeds of a study answer the same questions, so a difference d of seed s at question q is taken as

    d[s, q] = mean + seed[s] + question[q] + rest[s, q],

a two-way random-effects model without replication. Its variances are found from the mean squares (the ANOVA estimator:
Searle, Casella and McCulloch, Variance Components, 1992, chapter 4), and with S seeds and Q questions

    Var(estimate) = seeds / S + (questions + rest / S) / Q.

With more and more seeds questions / Q is left: the variance from the choice of test questions does not shrink with
the number of seeds. A mean over cells has the same form. Cells share seeds, and cells of a benchmark share questions,
so these are averaged by question before anything is estimated. Where several questions were made from one problem,
"question" means the problem with all of them, which is what `rdlib.evidence.stats` resamples.

The test is that of every verdict: does the 95 % interval of `rdlib.evidence.stats` exclude zero? Its half-width is
sqrt(z^2 Vq + t^2 Vs). Vq is the variance over questions, with the normal quantile z. Vs is the variance over seeds,
estimated from S seeds, with Student's t of S - 1 degrees of freedom. Power is averaged over the possible estimates of
Vs, which are chi-squared distributed. Without variance over questions this is the noncentral t distribution with S - 1
degrees of freedom; without variance over seeds it is the normal approximation (Cohen, Statistical Power Analysis, 1988,
chapter 2).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import chi2, norm, t

from rdlib.errors import UserError
from rdlib.evidence.stats import LEVEL

POWER = 0.80  # that is wanted
MOST_SEEDS = 10_000  # as good as no number of seeds
QUANTILES = (np.arange(400) + 0.5) / 400


@dataclass(frozen=True)
class Answered:
    """Differences (seeds, questions or problems) on one set of them, and the weight of their mean in the whole."""

    differences: np.ndarray
    weight: float = 1.0


@dataclass(frozen=True)
class Benchmark:
    """One set of questions (problems): how many, their weight in the mean, and the variances of a single difference."""

    questions: float
    weight: float
    between_questions: float
    rest: float


@dataclass(frozen=True)
class Components:
    """The variance components of a mean difference, as shares (not per cent) squared, and their number of seeds."""

    seeds: int
    between_seeds: float
    benchmarks: tuple[Benchmark, ...]

    def at(self, seeds: int | None = None, times: float = 1.0) -> Components:
        """The same variances with other numbers of seeds and questions (`times` the present ones)."""
        more = tuple(replace(one, questions=one.questions * times) for one in self.benchmarks)
        return replace(self, seeds=seeds or self.seeds, benchmarks=more)

    @property
    def of_questions(self) -> float:
        """What the choice of questions adds to the variance of the estimate, whatever the number of seeds."""
        return sum(b.weight**2 * b.between_questions / b.questions for b in self.benchmarks)

    @property
    def over_questions(self) -> float:
        """Variance of the estimate over questions, those of all seeds drawn together."""
        return self.of_questions + self.rest

    @property
    def over_seeds(self) -> float:
        """Variance of the estimate over seeds: that of single seeds' estimates divided by their number."""
        return self.between_seeds / self.seeds + self.rest

    @property
    def variance(self) -> float:
        """Variance of the estimate; the rest, which is in both parts, counts once."""
        return self.of_questions + self.rest + self.between_seeds / self.seeds

    @property
    def rest(self) -> float:
        """Variance of the estimate by what neither seed nor question explains."""
        return sum(b.weight**2 * b.rest / b.questions for b in self.benchmarks) / self.seeds


def components(parts: Sequence[Answered]) -> Components:
    """The variance components of a weighted mean of differences, all of the same seeds; negative estimates become 0.

    UserError with fewer than two seeds or questions, where the components cannot be separated.
    """
    (seeds, *others), benchmarks = {part.differences.shape[0] for part in parts}, []
    if others or min(min(part.differences.shape) for part in parts) < 2:
        raise UserError("The variances of a difference need two seeds and two questions at least: run more seeds.")
    for part in parts:
        values, questions = part.differences, part.differences.shape[1]
        left = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
        rest = float((left**2).sum()) / ((seeds - 1) * (questions - 1))
        between = float(values.mean(axis=0).var(ddof=1)) - rest / seeds
        benchmarks.append(Benchmark(questions, part.weight, max(0.0, between), rest))
    means = sum(part.weight * part.differences.mean(axis=1) for part in parts)
    inside = sum(b.weight**2 * b.rest / b.questions for b in benchmarks)
    return Components(seeds, max(0.0, float(means.var(ddof=1)) - inside), tuple(benchmarks))


def cautious(parts: Components) -> Components:
    """The same with the variance of seeds' estimates at its upper limit: few seeds estimate it badly.

    Planning by that limit (80 %, one-sided, by the chi-squared distribution) is what Browne advises for small pilots
    (Statistics in Medicine 14, 1995): a variance seen too small plans too few.
    """
    inside, free = parts.seeds * parts.rest, parts.seeds - 1
    high = (parts.between_seeds + inside) * free / chi2.ppf(0.2, free)
    return replace(parts, between_seeds=high - inside)


def half_width(parts: Components, share: float | np.ndarray = 1.0) -> float | np.ndarray:
    """Half-width of the interval that `rdlib.evidence.stats` gives where the seeds' estimate of Vs is `share` of it."""
    upper = (1 + LEVEL) / 2
    normal, student = norm.ppf(upper), t.ppf(upper, parts.seeds - 1)
    return np.sqrt(normal**2 * parts.over_questions + student**2 * parts.over_seeds * share)


@lru_cache(maxsize=64)
def _shares(free: int) -> np.ndarray:
    """Equally likely estimates of a variance, as shares of it: chi-squared by its degrees of freedom."""
    return chi2.ppf(QUANTILES, free) / free


def power(parts: Components, difference: float) -> float:
    """Chance that the interval of a true `difference` (a share) excludes zero, on either side."""
    if parts.variance == 0:
        return 1.0 if difference else 0.0
    half, deviation = half_width(parts, _shares(parts.seeds - 1)), math.sqrt(parts.variance)
    return float(np.mean(ndtr((difference - half) / deviation) + ndtr((-difference - half) / deviation)))


def detectable(parts: Components) -> float:
    """The minimum detectable difference (a share): the smallest whose interval excludes zero with the wanted power."""
    if parts.variance == 0:
        return 0.0
    most = float(20 * half_width(parts) + 10 * math.sqrt(parts.variance))
    return float(brentq(lambda difference: power(parts, difference) - POWER, 0.0, most, xtol=1e-7))


def seeds_needed(parts: Components, difference: float) -> float:
    """The fewest seeds, at least two, that detect a difference with the wanted power; infinity: none do."""
    if power(parts.at(seeds=MOST_SEEDS), difference) < POWER:
        return math.inf
    more = range(2, MOST_SEEDS)
    return more[0] + bisect_left(more, POWER, key=lambda seeds: power(parts.at(seeds=seeds), difference))


def questions_needed(parts: Components, difference: float) -> float:
    """How many times the present questions detect a difference with the wanted power; infinity: none do."""
    if power(parts.at(times=1e6), difference) < POWER:
        return math.inf
    missing = lambda logarithm: power(parts.at(times=math.exp(logarithm)), difference) - POWER  # noqa: E731
    fewest = math.log(2 / min(one.questions for one in parts.benchmarks))
    return math.exp(brentq(missing, fewest, math.log(1e6))) if missing(fewest) < 0 else math.exp(fewest)


def needed_half_width(difference: float, level: float = LEVEL) -> float:
    """The largest half-width of an interval at which a true difference is significant with the wanted power.

    By the normal approximation, z / (z + z_wanted) = 0.70 of the difference: a number that is known before any run.
    Where the width comes from few seeds Student's t would allow a little more (0.74 with five seeds, 0.72 with ten).
    """
    normal = norm.ppf((1 + level) / 2)
    return float(difference * normal / (normal + norm.ppf(POWER)))
