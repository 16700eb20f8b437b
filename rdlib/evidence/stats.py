"""Uncertainty: 95 % intervals of accuracies, of paired differences and of AUCs.

The unit of sampling is the question or, where several were made from one problem (`rdlib.tasks.problems`), the problem
with all of them: a cluster bootstrap. Methods answer the same questions, so a difference is taken for each question
before anything is resampled.

With several seeds, draws of Student's t are added for the variance over seeds. Resampling five seeds would cover 84 %
where 95 % is stated; t has the stated coverage. All seeds answer the same questions, so questions are resampled for all
seeds together: their part of the variance does not shrink with more seeds. The residual variance
(`rdlib.evidence.power`) is counted in both parts, so an interval is slightly too wide rather than too narrow.

Everything that is resampled is a `Draws`: the estimate beside its bootstrap values. Draws with the same key share their
resamples, so they can be subtracted and averaged, and stay paired.
"""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from rdlib.errors import UserError
from rdlib.method.metrics import COMPARISONS
from rdlib.tasks.problems import source_problem

LEVEL = 0.95
RESAMPLES = 10_000
SEED = 20240
NAN = float("nan")


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its interval, and its number of questions."""

    estimate: float
    low: float
    high: float
    n: int

    def columns(self, name: str, unit: str = "") -> dict[str, float]:
        """As columns NAME, NAME_low and NAME_high; with a unit ("pct", "pp") NAME_pct, ..., times 100."""
        ends = {name: self.estimate, f"{name}_low": self.low, f"{name}_high": self.high}
        return {f"{end}_{unit}": 100 * value for end, value in ends.items()} if unit else ends

    @property
    def direction(self) -> str:
        """Where it lies: "up", "down", or "" where it has 0."""
        return "up" if self.low > 0 else "down" if self.high < 0 else ""


NOTHING = Interval(NAN, NAN, NAN, 0)


@dataclass(frozen=True)
class Draws:
    """An estimate, its bootstrap values (resamples,) and its number of questions."""

    estimate: float
    values: np.ndarray
    n: int

    def interval(self, level: float = LEVEL) -> Interval:
        """Percentile interval; NaN ends where no resample is defined."""
        finite = self.values[np.isfinite(self.values)]
        tail = (1 - level) / 2
        low, high = np.quantile(finite, [tail, 1 - tail]) if len(finite) else (NAN, NAN)
        return Interval(self.estimate, float(low), float(high), self.n)

    def __sub__(self, other: Draws) -> Draws:
        return Draws(self.estimate - other.estimate, self.values - other.values, min(self.n, other.n))


def p_value(draws: Draws) -> float:
    """Two-sided bootstrap p-value of a difference against 0: at least 2 / (resamples + 1); 1 for no difference."""
    finite = draws.values[np.isfinite(draws.values)]
    if not len(finite):
        return NAN
    beyond = min((finite <= 0).sum(), (finite >= 0).sum())
    return min(1.0, 2 * (beyond + 1) / (len(finite) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (step-down, familywise), in the order given; NaN stays and does not count."""
    values = np.array(p_values, dtype=float)
    order = np.argsort(values)[: np.isfinite(values).sum()]  # NaN comes last
    values[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)))
    return values.tolist()


def cohens_h(first: float, second: float) -> float:
    """Effect size of two proportions, 2 asin sqrt(first) - 2 asin sqrt(second): 0.2 small, 0.5 medium, 0.8 large."""
    return float(2 * np.arcsin(np.sqrt(first)) - 2 * np.arcsin(np.sqrt(second)))


def mean_of(draws: Iterable[Draws]) -> Draws:
    """The mean of several estimates, each with the same weight, resample by resample."""
    draws = list(draws)
    estimate = float(np.mean([d.estimate for d in draws]))
    return Draws(estimate, np.mean([d.values for d in draws], axis=0), sum(d.n for d in draws))


def spread_of(draws: Iterable[Draws]) -> Draws:
    """Largest minus smallest of several estimates, resample by resample.

    Noise widens a spread, and resampling adds noise: the bootstrap values are centred on the estimate again, which has
    the noise of its own (a spread of noisy values is somewhat too large).
    """
    draws = list(draws)
    estimates = [d.estimate for d in draws]
    spread = max(estimates) - min(estimates)
    values = np.ptp(np.stack([d.values for d in draws]), axis=0)
    return Draws(spread, values + (spread - np.nanmean(values)), min(d.n for d in draws))


def wilson(successes: float, n: float) -> Interval:
    """Wilson's score interval of a proportion (10 of 100: 0.0552 to 0.1744); NaN when n = 0."""
    if not n:
        return NOTHING
    z, share = norm.ppf((1 + LEVEL) / 2), successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(share, float(max(0.0, centre - half)), float(min(1.0, centre + half)), int(n))


def proportion_draws(successes: float, n: float, key: str, seeds: Sequence[float] = ()) -> Draws:
    """Draws of a proportion known by its counts only, from Beta(s + 1/2, n - s + 1/2) (Jeffreys).

    Counts are means over seeds, which share their questions; `seeds` are the proportions of each.
    """
    if not n:
        return Draws(NAN, np.full(RESAMPLES, NAN), 0)
    values = _generator(key).beta(successes + 0.5, n - successes + 0.5, size=RESAMPLES)
    return Draws(successes / n, values + _moves(seeds, RESAMPLES), int(n))


def _generator(key: str) -> np.random.Generator:
    return np.random.default_rng([SEED, zlib.crc32(key.encode())])


@lru_cache(maxsize=8)  # of some 40 MB for a thousand questions
def bootstrap_weights(n: int, key: str, resamples: int = RESAMPLES) -> np.ndarray:
    """How often each of n items is drawn, (resamples, n); rows sum to n; equal keys give equal weights."""
    picks = _generator(key).integers(0, n, size=(resamples, n))
    cells = picks + n * np.arange(resamples)[:, None]
    return np.bincount(cells.ravel(), minlength=n * resamples).reshape(resamples, n).astype(np.float32)


@lru_cache(maxsize=16)
def student_weights(seeds: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Weights (resamples, seeds) by which values of the seeds, less their mean, become draws of Student's t.

    Their product has the distribution of s / sqrt(seeds) times t with seeds - 1 degrees of freedom, whatever the values
    (s: their standard deviation): standard normal weights over the root of a chi-squared number, one a resample. All
    estimates share the weights, so their differences and means move as the seeds do.
    """
    generator = _generator("seeds")
    normal = generator.standard_normal((resamples, seeds))
    return normal / np.sqrt(seeds * generator.chisquare(seeds - 1, size=(resamples, 1)))


def _moves(estimates: Sequence[float], resamples: int) -> np.ndarray | float:
    """How far the seeds of these estimates (seeds,) move their mean, (resamples,); 0 for less than two."""
    if len(estimates) < 2:
        return 0.0
    estimates = np.asarray(estimates, dtype=float)
    return student_weights(len(estimates), resamples) @ (estimates - estimates.mean())


def drawn_together(ids: Mapping[str, Iterable[Hashable]]) -> dict[str, tuple[str, list[Hashable]]]:
    """By benchmark the key and the problems to draw its questions by: the same for a benchmark and its perturbations.

    A mean over both is then resampled as one: a test question goes with the questions made from it.
    """
    families: dict[str, tuple[set, set]] = {}  # problems, and those of them that questions were made from
    keys = {}
    for benchmark, questions in ids.items():
        pairs = [(question, source_problem(question)) for question in questions]
        problems, made = {to for _, to in pairs}, {to for question, to in pairs if to != question}
        shared = (key for key, (known, sources) in families.items() if problems & known & (made | sources))
        keys[benchmark] = next(shared, benchmark)
        known, sources = families.get(keys[benchmark], (set(), set()))
        families[keys[benchmark]] = (known | problems, sources | made)
    return {benchmark: (key, sorted(families[key][0])) for benchmark, key in keys.items()}


def mean_draws(
    table: pd.DataFrame, key: str, problems: Sequence[Hashable] | None = None, resamples: int = RESAMPLES
) -> Draws:
    """Mean of `value` over seeds and questions with its bootstrap; columns seed, id, value.

    Problems, each with its questions, are resampled for all seeds together, whether or not a seed has all of them; with
    more than one seed, their mean is moved as well. `key` names the set of questions (say the benchmark). `problems`:
    those to draw from (default: those of the questions); resamples without any question of a seed are NaN.
    """
    wide = table.pivot(index="seed", columns="id", values="value").sort_index(axis=1)
    found = [source_problem(question) for question in wide]
    known = pd.Index(sorted(set(found)) if problems is None else problems)
    places, answers = known.get_indexer(found), wide.to_numpy(dtype=np.float32)
    weights = bootstrap_weights(len(known), key, resamples)
    totals = weights @ np.column_stack([_by_problem(row, places, len(known)) for row in answers])
    with np.errstate(invalid="ignore"):
        columns = totals[:, 0::2] / totals[:, 1::2]
    estimates = np.nanmean(answers, axis=1, dtype=np.float64)
    values = columns.mean(axis=1, dtype=np.float64) + _moves(estimates, resamples)
    return Draws(float(estimates.mean()), values, wide.shape[1])


def _by_problem(answers: np.ndarray, places: np.ndarray, problems: int) -> np.ndarray:
    """Of each problem the sum of its answers and their number, (problems, 2).

    `answers` (questions,) are NaN where there is none, `places` (questions,) the numbers of their problems.
    """
    there = ~np.isnan(answers)
    answers, places = answers[there], places[there]
    sums = np.bincount(places, weights=answers, minlength=problems)
    return np.column_stack([sums, np.bincount(places, minlength=problems)]).astype(np.float32)


def accuracy_interval(table: pd.DataFrame, key: str) -> Interval:
    """Accuracy of one method with its interval: Wilson with one seed, hierarchical bootstrap with several.

    `table` has columns seed, id, correct; n counts questions, not answers. Seeds that differ widely can move the
    bootstrap out of [0, 1], where the interval ends.
    """
    if table.empty:
        return NOTHING
    if table.seed.nunique() == 1:
        return _wilson_of_problems(table)
    found = mean_draws(table.assign(value=table.correct.astype(float)), key).interval()
    low, high = np.clip([found.low, found.high], 0, 1).tolist()
    return replace(found, low=low, high=high)


def _wilson_of_problems(table: pd.DataFrame) -> Interval:
    """Wilson's interval with the effective number of questions: n over Kish's design effect of their problems."""
    correct, n = table.correct.astype(float), len(table)
    problems = correct.groupby(table.id.map(source_problem).to_numpy()).agg(["sum", "size"])
    if len(problems) == table.id.nunique():
        return wilson(int(table.correct.sum()), n)
    share, count = correct.mean(), len(problems)
    effect = n / count  # as if a problem's questions were answered alike: where all are right or wrong, none can tell
    if 0 < share < 1 and count > 1:
        left = problems["sum"] - share * problems["size"]
        effect = max(1.0, count / (count - 1) * (left**2).sum() / (n * share * (1 - share)))
    return replace(wilson(share * n / effect, n / effect), estimate=share, n=n)


def paired_table(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Question by question, correct(first) - correct(second): columns seed, id, value in {-1, 0, 1}.

    Seeds that only one of the two has are left out; UserError when a shared seed has different questions.
    """
    seeds = set(first.seed) & set(second.seed)
    first, second = (side[side.seed.isin(seeds)] for side in (first, second))
    both = first.merge(second, on=["seed", "id"], suffixes=("_first", "_second"), validate="one_to_one")
    if not len(both) == len(first) == len(second) or both.empty:
        raise UserError(
            f"correctness.parquet: two methods to be compared have {len(first)} and {len(second)} answers, "
            f"of which {len(both)} are to the same question with the same seed; run `make study` again so "
            "that both answer the same questions."
        )
    value = both.correct_first.astype(float) - both.correct_second.astype(float)
    return both[["seed", "id"]].assign(value=value)


def paired_difference(
    first: pd.DataFrame, second: pd.DataFrame, key: str, problems: Sequence[Hashable] | None = None
) -> Draws:
    """Paired bootstrap of accuracy(first) - accuracy(second), in [-1, 1]; columns seed, id, correct.

    `key` and `problems` as in `mean_draws`.
    """
    return mean_draws(paired_table(first, second), key, problems)


def auc_draws(
    scores: pd.DataFrame, comparison: str, key: str, ids: Sequence | None = None, resamples: int = RESAMPLES
) -> Draws:
    """AUC of a comparison of Table 3 with its bootstrap over queries; columns seed, id, kind, score.

    All responses to the queries of a problem are drawn together. Pass the same `ids` for AUCs to be compared on the
    same queries.
    """
    ids = pd.Index(sorted(set(scores.id))) if ids is None else pd.Index(ids)
    if not len(ids):
        return Draws(NAN, np.full(resamples, NAN), 0)
    higher, lower = COMPARISONS[comparison]
    problems, numbers = np.unique([str(source_problem(query)) for query in ids], return_inverse=True)
    problem_of = pd.Series(numbers, index=ids)
    weights = bootstrap_weights(len(problems), key, resamples).astype(np.float64)
    estimates, columns = [], []
    for _, one in scores.groupby("seed"):
        sides = one[one.kind == higher], one[one.kind == lower]
        wins, positives, negatives = _wins_by_problem(*sides, problem_of, len(problems))
        pairs = positives.sum() * negatives.sum()
        with np.errstate(invalid="ignore"):
            estimates.append(wins.sum() / pairs if pairs else NAN)
            won = np.einsum("rp,rp->r", weights @ wins, weights)
            columns.append(won / ((weights @ positives) * (weights @ negatives)))
    return Draws(float(np.mean(estimates)), np.mean(columns, axis=0) + _moves(estimates, resamples), len(ids))


def _wins_by_problem(positives: pd.DataFrame, negatives: pd.DataFrame, problem_of: pd.Series, problems: int) -> tuple:
    """Wins (problems, problems) of a row's problem's positives over a column's negatives, and their numbers by problem.

    `problem_of` is the number of each query's problem. The AUC of a resample with weights w is then
    (w' wins w) / (w' positives w' negatives): no sorting for each.
    """
    rows, columns = (problem_of.loc[side.id].to_numpy() for side in (positives, negatives))
    scores, others = positives.score.to_numpy(float), negatives.score.to_numpy(float)
    wins = np.zeros((problems, problems))
    for column in np.unique(columns):
        mine = np.sort(others[columns == column])
        points = (np.searchsorted(mine, scores, "left") + np.searchsorted(mine, scores, "right")) / 2
        wins[:, column] = np.bincount(rows, weights=points, minlength=problems)
    return wins, *(np.bincount(one, minlength=problems).astype(float) for one in (rows, columns))


def seed_interval(values: Sequence[float]) -> Interval:
    """Mean over seeds with Student's t interval; NaN values do not count, the ends are NaN with a single seed."""
    values = pd.Series(values, dtype=float).dropna().to_numpy()
    mean = float(values.mean()) if len(values) else NAN
    half = float(half_width(values.std(ddof=1), len(values))) if len(values) > 1 else NAN
    return Interval(mean, mean - half, mean + half, len(values))


def half_width(deviation: float | np.ndarray, seeds: int | np.ndarray) -> float | np.ndarray:
    """Half of Student's t interval of a mean over seeds whose values have this standard deviation; NaN for one seed."""
    return t.ppf((1 + LEVEL) / 2, seeds - 1) * deviation / np.sqrt(seeds)
