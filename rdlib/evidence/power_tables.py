"""Tables of the study's power: for each claim about accuracies, in each cell and averaged over the cells.

found = estimates(evidence)   # variances from the released answers
power_table(found)            # what a difference of interest needs
plans(found)                  # power with other numbers of seeds and questions
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rdlib.evidence import claims, power, stats
from rdlib.evidence.criteria import Smallest, load_criteria
from rdlib.evidence.power import Answered, Components
from rdlib.tasks.problems import source_problem

if TYPE_CHECKING:
    from rdlib.evidence.result_tables import Evidence

MEAN = "mean of the cells"
SEEDS, TIMES = (5, 8, 12, 20), (1, 2, 4)  # of the plans: seeds, and questions as times the present ones


@dataclass(frozen=True)
class Estimate:
    """A cell of a claim, or the mean of its cells: the difference (a share) with its variances.

    `smallest` is the smallest difference of interest, in pp; `questions` counts questions, `parts` their problems.
    """

    claim: str
    cell: str
    smallest: float
    difference: float
    questions: int
    parts: Components


def differences(pairs: list[claims.Pair]) -> dict[tuple[str, str, str], pd.DataFrame]:
    """Paired differences of each cell, seeds (rows) by questions: those that all cells and seeds have."""
    wide = {
        cell: stats.paired_table(ours, rival).pivot(index="seed", columns="id", values="value").dropna(axis=1)
        for cell, ours, rival in pairs
    }
    shared = sorted(set.intersection(*(set(table.index) for table in wide.values()))) if wide else []
    return {cell: table.loc[shared] for cell, table in wide.items()}


def of_problems(tables: Sequence[pd.DataFrame], shares: Sequence[float]) -> np.ndarray:
    """(seeds, problems): what each problem adds to the sum of `shares` times the tables' means, which is their mean.

    The tables, seeds by questions, may share problems. Of questions without a common problem it is the table itself;
    else, to first order, what the resampled problems of `rdlib.evidence.stats` are: of a problem with more questions
    than others, their differences from the mean weigh more.
    """
    problems = sorted({source_problem(question) for table in tables for question in table.columns})
    added = np.zeros((len(tables[0]), len(problems)))
    for table, share in zip(tables, shares, strict=True):
        means = table.mean(axis=1)
        left = table.sub(means, axis="index").T.groupby(source_problem).sum().reindex(problems, fill_value=0.0).T
        added += share * (means.to_numpy()[:, None] + left.to_numpy() * (len(problems) / table.shape[1]))
    return added


def by_benchmark(cells: dict[tuple[str, str, str], pd.DataFrame]) -> dict[str, tuple[pd.DataFrame, float]]:
    """The cells of a benchmark averaged question by question, since they share these, with their share of all cells."""
    found = {}
    for name in dict.fromkeys(benchmark for benchmark, _, _ in cells):
        some = [table for (benchmark, _, _), table in cells.items() if benchmark == name]
        found[name] = sum(some).dropna(axis=1) / len(some), len(some) / len(cells)
    return found


def mean_over_cells(cells: dict[tuple[str, str, str], pd.DataFrame]) -> list[Answered]:
    """The parts of the mean over cells: one of each benchmark, or of those that share problems."""
    benchmarks, families = by_benchmark(cells), {}
    together = stats.drawn_together({name: table.columns for name, (table, _) in benchmarks.items()})
    for name, part in benchmarks.items():
        families.setdefault(together[name][0], []).append(part)
    found = []
    for parts in families.values():
        weight = sum(share for _, share in parts)
        found.append(Answered(of_problems([t for t, _ in parts], [share / weight for _, share in parts]), weight))
    return found


def estimates(results: Evidence) -> list[Estimate]:
    """The variances of each claim about accuracies; nothing of a claim that fewer than two seeds have answered."""
    found = []
    for name, criterion in load_criteria().items():
        if criterion.kind in ("every_cell", "variant"):
            cells = differences(list(claims.pairs(criterion, results.correctness)))
            if cells and len(next(iter(cells.values()))) > 1:
                found += _of_claim(name, criterion.smallest, cells)
    return found


def _of_claim(name: str, smallest: Smallest, cells: dict[tuple[str, str, str], pd.DataFrame]) -> list[Estimate]:
    """Its cells and their mean; no cell in which all policies were the same, since that tells no variance."""
    parts = {
        "/".join(cell): ([Answered(of_problems([table], [1.0]))], table.shape[1], smallest.cell)
        for cell, table in cells.items()
        if table.to_numpy().any()
    }
    if len(cells) > 1:
        questions = sum(table.shape[1] for table, _ in by_benchmark(cells).values())
        parts[MEAN] = (mean_over_cells(cells), questions, smallest.mean)
    found = []
    for cell, (some, questions, size) in parts.items():
        mean = sum(part.weight * float(part.differences.mean()) for part in some)
        found.append(Estimate(name, cell, size, mean, questions, power.components(some)))
    return found


def power_table(found: list[Estimate]) -> pd.DataFrame:
    """One row a cell of a claim and one for the mean of its cells; differences and standard errors in pp.

    `se_*` are the standard errors of what seeds, questions and the rest add; their squares sum to the variance.
    Missing: no number of seeds, or of questions, is enough.
    """
    rows = []
    for one in found:
        parts, share = one.parts, one.smallest / 100
        errors = (parts.between_seeds / parts.seeds, parts.of_questions, parts.rest)
        row = {"claim": one.claim, "cell": one.cell, "seeds": parts.seeds, "questions": one.questions}
        row["difference_pp"] = 100 * one.difference
        row |= {
            f"se_{name}_pp": 100 * np.sqrt(v) for name, v in zip(("seeds", "questions", "rest"), errors, strict=True)
        }
        row |= {"half_width_pp": 100 * power.half_width(parts)}
        row |= {"needed_half_width_pp": power.needed_half_width(one.smallest), "smallest_pp": one.smallest}
        row |= {"power_pct": 100 * power.power(parts, share), "told_pp": 100 * power.detectable(parts)}
        row |= {"seeds_needed": power.seeds_needed(parts, share)}
        row |= {"seeds_needed_cautious": power.seeds_needed(power.cautious(parts), share)}
        rows.append(row | {"questions_needed_times": power.questions_needed(parts, share)})
    whole = dict.fromkeys(("seeds_needed", "seeds_needed_cautious") if rows else (), "Int64")
    return pd.DataFrame(rows).replace(np.inf, np.nan).round({"questions_needed_times": 2}).astype(whole)


def plans(found: list[Estimate]) -> pd.DataFrame:
    """Power by seeds and questions, a row a plan: of a claim's mean, and of the median of its cells."""
    rows = []
    for claim, times, seeds in itertools.product(dict.fromkeys(one.claim for one in found), TIMES, SEEDS):
        row = {"claim": claim, "questions_times": times, "seeds": seeds}
        for name, of_mean in (("mean", True), ("cell", False)):
            some = [one for one in found if one.claim == claim and (one.cell == MEAN) == of_mean]
            parts = [one.parts.at(seeds, times) for one in some]
            powers = [power.power(part, one.smallest / 100) for part, one in zip(parts, some, strict=True)]
            row[f"{name}_power_pct"] = 100 * float(np.median(powers)) if some else np.nan
            told = [power.detectable(part) for part in parts]
            row[f"{name}_told_pp"] = 100 * float(np.median(told)) if some else np.nan
        rows.append(row)
    return pd.DataFrame(rows)
