"""The paper's claims C1-C9, each with a criterion fixed beforehand and a verdict computed from result tables.

A claim is made of cells (a benchmark with a teacher and a student, a value of lambda, a pair of failure
ratios), each with a difference that the claim says is positive. The criterion of most claims is the same:

- supported: every cell's difference is positive, and the 95 % interval of their mean lies above 0;
- not supported: the interval of their mean lies at or below 0, or most cells' own intervals lie below 0;
- inconclusive: anything else.

Differences are paired question by question, and the mean's interval resamples the questions of all cells of a
benchmark together, so cells that share questions are not counted as independent. C4 (some), C7 (stability of
a curve) and C8 (two spreads) need criteria of their own, stated with them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from rdlib import metrics, paper, stats, tables
from rdlib.stats import Draws, Interval

SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE = "supported", "not supported", "inconclusive"
COMMON = (
    "Supported: {cells} all positive and the 95 % interval of their mean above 0. Not supported: that "
    "interval at or below 0, or most cells' own intervals below 0. Else inconclusive."
)
NO_RESULTS = "no results to judge it by"
# Least difference in AUC that counts as one where a single seed gives no interval (C7).
MARGIN = 0.01
# Spreads in AUC that C8 takes for "hardly moves" (below) and "strongly moves" (from).
SMALL_SPREAD, LARGE_SPREAD = 0.05, 0.10
RATIO_STATEMENT = "The data ratio hardly moves Pos/Neg and strongly moves Pos/Pos"
RATIO_CRITERION = (
    "Spread: largest minus smallest AUC over the ratios. Supported: Pos/Pos spread minus Pos/Neg spread "
    f"passes the criterion of C1, Pos/Neg spread below {SMALL_SPREAD:g}, Pos/Pos spread at least "
    f"{LARGE_SPREAD:g}. Not supported: the difference fails as in C1, or Pos/Neg's interval lies above, or "
    f"Pos/Pos's below, {SMALL_SPREAD:g}. Else inconclusive."
)


@dataclass(frozen=True)
class Cell:
    """One cell of a claim: the difference that should be positive, and the paper's own (None: no numbers)."""

    name: str
    difference: Interval
    paper: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the difference has the sign that the claim says."""
        return self.difference.estimate > 0


@dataclass(frozen=True)
class Claim:
    """A judged claim; its verdict rests on `pooled`, in `unit`: pp (percentage points) or AUC."""

    name: str
    statement: str
    criterion: str
    verdict: str
    cells: list[Cell]
    pooled: Interval
    unit: str = "pp"
    note: str = ""


NOTHING = Interval(np.nan, np.nan, np.nan, 0)


def judge(cells: list[Cell], pooled: Interval) -> str:
    """The verdict by the common criterion (see the module's docstring)."""
    if not cells or not np.isfinite(pooled.low):
        return INCONCLUSIVE
    if all(cell.holds for cell in cells) and pooled.low > 0:
        return SUPPORTED
    negative = sum(cell.difference.high < 0 for cell in cells)
    return NOT_SUPPORTED if pooled.high <= 0 or 2 * negative > len(cells) else INCONCLUSIVE


def all_claims(
    correctness: pd.DataFrame,
    pseudo_labels: pd.DataFrame,
    reward_scores: pd.DataFrame,
    reward_model_history: pd.DataFrame,
    settings: dict,
) -> list[Claim]:
    """C1 to C9 from the result tables and the settings of the run."""
    lam = paper.lookup(settings, "reward_model.lam") or 0.5
    share = paper.lookup(settings, "reward_model.teacher_share") or 0.5
    return [
        better_than("C1", "Ours beats SFT in every cell", correctness, "sft"),
        better_than("C2", "Ours beats Ours w/o R in every cell", correctness, "ours_wo_r"),
        better_than("C3", "Ours beats Ours w/o D in every cell", correctness, "ours_wo_d"),
        student_beats_teacher(correctness),
        weaker_judges(pseudo_labels),
        variant_claim(
            "C6",
            "A reward model of student responses gives a better policy than one of teacher responses",
            correctness,
            "reward_model.source=teacher",
        ),
        stable_lambda(reward_model_history, lam),
        data_ratio(reward_scores, share),
        variant_claim(
            "C9",
            "For a mismatch, -|r| gives a better policy than Minus",
            correctness,
            "reward.mismatch=minus",
        ),
    ]


def better_than(name: str, statement: str, correctness: pd.DataFrame, other: str) -> Claim:
    """C1-C3: Ours against another method, in every cell of Table 2 that has both."""
    found, draws = [], []
    for benchmark, teacher, student in _table_2_cells(correctness):
        ours = tables.method_rows(correctness, benchmark, teacher, student, "ours")
        rival = tables.method_rows(correctness, benchmark, teacher, student, other)
        if ours.empty or rival.empty:
            continue
        draws.append(stats.paired_difference(ours, rival, benchmark))
        theirs = _paper_difference(benchmark, teacher, student, "ours", other)
        found.append(Cell(f"{benchmark}/{teacher}/{student}", _in_pp(draws[-1]), theirs))
    return _common(name, statement, "differences in accuracy", found, draws)


def _common(name: str, statement: str, what: str, cells: list[Cell], draws: list[Draws], note: str = "") -> Claim:
    pooled = _in_pp(stats.mean_of(draws)) if draws else NOTHING
    note = note or ("" if cells else NO_RESULTS)
    return Claim(name, statement, COMMON.format(cells=what), judge(cells, pooled), cells, pooled, note=note)


def _in_pp(draws: Draws, level: float = stats.LEVEL) -> Interval:
    interval = draws.interval(level)
    return Interval(100 * interval.estimate, 100 * interval.low, 100 * interval.high, interval.n)


def _table_2_cells(correctness: pd.DataFrame):
    for benchmark in tables.in_order(correctness.benchmark, paper.BENCHMARKS):
        for teacher, student in tables.cells(tables.select(correctness, benchmark=benchmark)):
            yield benchmark, teacher, student


def _paper_difference(benchmark: str, teacher: str, student: str, method: str, other: str) -> float | None:
    first = paper.accuracy(benchmark, teacher, student, method)
    second = paper.accuracy(benchmark, teacher, "" if other == "teacher" else student, other)
    return None if first is None or second is None else first - second


def student_beats_teacher(correctness: pd.DataFrame) -> Claim:
    """C4: a claim about some cells, so its intervals allow for the number of cells looked at (Bonferroni)."""
    pairs = []
    for benchmark, teacher, student in _table_2_cells(correctness):
        ours = tables.method_rows(correctness, benchmark, teacher, student, "ours")
        theirs = tables.method_rows(correctness, benchmark, teacher, student, "teacher")
        if len(ours) and len(theirs):
            draws = stats.paired_difference(ours, theirs, benchmark)
            pairs.append(((benchmark, teacher, student), draws))
    level = 1 - (1 - stats.LEVEL) / max(1, len(pairs))
    cells = [
        Cell("/".join(cell), _in_pp(draws, level), _paper_difference(*cell, "ours", "teacher")) for cell, draws in pairs
    ]
    verdict = INCONCLUSIVE
    if any(cell.difference.low > 0 for cell in cells):
        verdict = SUPPORTED
    elif cells and all(cell.difference.high <= 0 for cell in cells):
        verdict = NOT_SUPPORTED
    best = max((cell.difference for cell in cells), key=lambda interval: interval.estimate, default=NOTHING)
    return Claim(
        "C4",
        "Some students beat their teacher",
        "With intervals adjusted for the number of cells (Bonferroni), Ours minus teacher. Supported: at "
        "least one cell's interval above 0. Not supported: every cell's at or below 0. Else inconclusive.",
        verdict,
        cells,
        best,
        note="the pooled columns show the best cell" if cells else NO_RESULTS,
    )


def weaker_judges(pseudo_labels: pd.DataFrame) -> Claim:
    """C5: failure ratio and mislabelled share, weak minus strong teacher and mmlu minus gsm."""
    draws = {}
    for dataset, teacher, counts in tables.vote_counts(pseudo_labels):
        wrong = counts.labelled - counts.label_correct
        for measure, bad, total in (
            ("failure ratio", counts.failed, counts.questions),
            ("mislabelled", wrong, counts.labelled),
        ):
            key = f"{measure}/{dataset}/{teacher}"
            draws[measure, dataset, teacher] = stats.proportion_draws(bad, total, key)
    cells, differences = [], []
    for measure in ("failure ratio", "mislabelled"):
        for name, worse, better in (
            ("weak - strong, gsm", ("gsm", "weak"), ("gsm", "strong")),
            ("weak - strong, mmlu", ("mmlu", "weak"), ("mmlu", "strong")),
            ("mmlu - gsm, strong", ("mmlu", "strong"), ("gsm", "strong")),
            ("mmlu - gsm, weak", ("mmlu", "weak"), ("gsm", "weak")),
        ):
            if (measure, *worse) in draws and (measure, *better) in draws:
                differences.append(draws[measure, *worse] - draws[measure, *better])
                cells.append(Cell(f"{measure}: {name}", _in_pp(differences[-1])))
    if len(cells) < 8:
        differences = []  # with one teacher or one dataset the claim has not been put to the test
    return _common(
        "C5",
        "Failure ratio and mislabelling grow from the strong to the weak teacher and from GSM8K to MMLU-Pro",
        "the eight differences",
        cells,
        differences,
        "the paper's Figures 3 and 4 have no numbers in the text" if cells else "",
    )


def variant_claim(name: str, statement: str, correctness: pd.DataFrame, variant: str) -> Claim:
    """C6 and C9: Ours against a variant of Ours, on the benchmarks that the students were trained for."""
    cells, draws = [], []
    for benchmark, teacher, student in tables.ablation_cells(correctness, variant):
        ours = tables.method_rows(correctness, benchmark, teacher, student, "ours")
        other = tables.method_rows(correctness, benchmark, teacher, student, "ours", variant)
        if benchmark == "gsm_plus" or ours.empty or other.empty:
            continue
        draws.append(stats.paired_difference(ours, other, benchmark))
        source = paper.reward_source()
        known = name == "C6" and (benchmark, teacher, student) == ("gsm", "strong", "small")
        theirs = source["from_student"] - source["from_teacher"] if known else None
        cells.append(Cell(f"{benchmark}/{teacher}/{student}", _in_pp(draws[-1]), theirs))
    note = "the paper's Table 7 is lost in the text" if name == "C9" and cells else ""
    return _common(name, statement, "differences in accuracy", cells, draws, note)


def instability(auc: pd.Series) -> float:
    """Mean absolute change of the AUC from one evaluation to the next, plus the best AUC minus the last."""
    values = auc.dropna().to_numpy(dtype=float)
    return float(np.abs(np.diff(values)).mean() + values.max() - values[-1]) if len(values) > 1 else np.nan


def stable_lambda(history: pd.DataFrame, default: float, key: str = "reward_model.lam") -> Claim:
    """C7: instability of the validation Pos/Neg curve with each other lambda minus with the default one."""
    runs = tables.ablation_runs(history, key, default).sort_values("step")
    values = runs.groupby([*tables.CELL, "seed", key]).pos_neg_auc.apply(instability).unstack(key)
    others = [value for value in values.columns if value != default] if default in values else []
    differences = {value: values[value] - values[default] for value in others}
    cells = [Cell(f"lambda {value:g}", _seeds_or_margin(differences[value])) for value in others]
    pooled = _seeds_or_margin(pd.concat(differences, axis=1).mean(axis=1)) if others else NOTHING
    return Claim(
        "C7",
        f"lambda = {default:g} learns more stably",
        "Instability of a validation Pos/Neg curve: mean absolute change from one evaluation to the next, "
        f"plus best minus last. Other lambda minus {default:g}, judged as C1; interval: Student's t over "
        f"seeds, or, with one seed, plus or minus a margin of {MARGIN:g} AUC fixed beforehand.",
        judge(cells, pooled),
        cells,
        pooled,
        unit="AUC",
        note="the paper's Figure 5 has no numbers in the text" if cells else NO_RESULTS,
    )


def _seeds_or_margin(differences: pd.Series) -> Interval:
    interval = stats.seed_interval(differences)
    if interval.n == 1:
        return Interval(interval.estimate, interval.estimate - MARGIN, interval.estimate + MARGIN, 1)
    return interval


def data_ratio(scores: pd.DataFrame, default: float, key: str = "reward_model.teacher_share") -> Claim:
    """C8: spread (largest minus smallest AUC over the teacher's shares) of Pos/Pos minus that of Pos/Neg."""
    cells, spreads = [], {name: [] for name in metrics.COMPARISONS}
    for cell, runs in tables.ablation_runs(scores, key, default).groupby(tables.CELL, sort=True):
        for name, found in spreads.items():
            found.append(stats.spread_of(tables.ablation_draws(runs, key, name).values()))
        difference = spreads["pos_pos"][-1] - spreads["pos_neg"][-1]
        cells.append(Cell("/".join(cell), difference.interval()))
    if not cells:
        return Claim("C8", RATIO_STATEMENT, RATIO_CRITERION, INCONCLUSIVE, [], NOTHING, "AUC", NO_RESULTS)
    means = {name: stats.mean_of(found) for name, found in spreads.items()}
    small, large = means["pos_neg"].interval(), means["pos_pos"].interval()
    pooled = (means["pos_pos"] - means["pos_neg"]).interval()
    note = "; ".join(
        f"{label} spread {spread.estimate:.3f} ({spread.low:.3f} to {spread.high:.3f})"
        for label, spread in (("Pos/Neg", small), ("Pos/Pos", large))
    )
    verdict = _judge_spreads(judge(cells, pooled), small, large)
    return Claim("C8", RATIO_STATEMENT, RATIO_CRITERION, verdict, cells, pooled, "AUC", note)


def _judge_spreads(verdict: str, small: Interval, large: Interval) -> str:
    if small.low >= SMALL_SPREAD or large.high < SMALL_SPREAD:
        return NOT_SUPPORTED
    sizes_fit = small.estimate < SMALL_SPREAD and large.estimate >= LARGE_SPREAD
    return INCONCLUSIVE if verdict == SUPPORTED and not sizes_fit else verdict


def claims_table(claims: list[Claim]) -> pd.DataFrame:
    """One row a claim: verdict, criterion, number of cells in which it holds, here and in the paper's
    numbers.
    """
    rows = []
    for claim in claims:
        known = [cell for cell in claim.cells if cell.paper is not None]
        against = [cell.name for cell in known if cell.paper <= 0]
        rows.append(
            {
                "claim": claim.name,
                "statement": claim.statement,
                "verdict": claim.verdict,
                "cells": len(claim.cells),
                "cells_holding": sum(cell.holds for cell in claim.cells),
                "cells_significantly_positive": sum(cell.difference.low > 0 for cell in claim.cells),
                "cells_significantly_negative": sum(cell.difference.high < 0 for cell in claim.cells),
                "mean_difference": claim.pooled.estimate,
                "low": claim.pooled.low,
                "high": claim.pooled.high,
                "unit": claim.unit,
                "paper_cells": len(known),
                "paper_cells_holding": len(known) - len(against),
                "paper_cells_against": "; ".join(against),
                "criterion": claim.criterion,
                "note": claim.note,
            }
        )
    return pd.DataFrame(rows)


def cells_table(claims: list[Claim]) -> pd.DataFrame:
    """One row a cell of a claim: the difference with its interval, and the paper's difference where it has
    one.
    """
    rows = [
        {
            "claim": claim.name,
            "cell": cell.name,
            "micro_difference": cell.difference.estimate,
            "micro_low": cell.difference.low,
            "micro_high": cell.difference.high,
            "n": cell.difference.n,
            "unit": claim.unit,
            "holds": cell.holds,
            "paper_difference": cell.paper,
        }
        for claim in claims
        for cell in claim.cells
    ]
    columns = ["claim", "cell", "micro_difference", "micro_low", "micro_high", "n", "unit", "holds"]
    return pd.DataFrame(rows, columns=[*columns, "paper_difference"]).astype({"paper_difference": float})
