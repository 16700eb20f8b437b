"""The paper's claims C1-C9, each judged from the result tables by its criterion in `params/claims.yaml`.

A claim has one or more cells: a benchmark with a teacher and a student, a value of lambda, or a pair of failure
ratios. Each cell has a difference that the claim says is positive. That file says how a verdict is found, and
`rdlib.evidence.verdicts.judge` has the criterion that most claims share.

Differences in accuracy are paired by question. The mean's interval resamples the questions of all cells of a benchmark
together, so cells that share questions are not counted as independent. Questions of two benchmarks that were made from
one problem are resampled together too. Where many cells carry one claim, their p-values are adjusted by Holm's method.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from rdlib.evidence import accuracy, aucs, curves, paper, stats, tables
from rdlib.evidence.criteria import Against, Criterion, Spread, Stability, Variant, WorseJudges, varied
from rdlib.evidence.stats import NOTHING, Draws, Interval
from rdlib.evidence.verdicts import (
    INCONCLUSIVE,
    NOT_SUPPORTED,
    OF_BEST_CELL,
    SPREAD_OF,
    SUPPORTED,
    Cell,
    Claim,
    Open,
    judge,
    left_open,
)
from rdlib.method import metrics

Pair = tuple[tuple[str, ...], pd.DataFrame, pd.DataFrame]
NO_RESULTS = "no results to judge it by"
# Of C5: what is bad about a vote, of its counts; and what is compared with what
VOTES = {
    "failure ratio": lambda counts: (counts.failed, counts.questions),
    "mislabelled": lambda counts: (counts.labelled - counts.label_correct, counts.labelled),
}
CONTRASTS = {
    "weak - strong, gsm": (("gsm", "weak"), ("gsm", "strong")),
    "weak - strong, mmlu": (("mmlu", "weak"), ("mmlu", "strong")),
    "mmlu - gsm, strong": (("mmlu", "strong"), ("gsm", "strong")),
    "mmlu - gsm, weak": (("mmlu", "weak"), ("gsm", "weak")),
}


def judged(name: str, criterion: Criterion, results: Any) -> Claim:
    """One claim of `params/claims.yaml` judged by the result tables that its criterion is about, of an `Evidence`."""
    if isinstance(criterion, WorseJudges):
        return worse_judges(name, criterion, results.pseudo_labels)
    if isinstance(criterion, Against | Variant):
        judging = better_somewhere if criterion.kind == "some_cell" else better_than
        return judging(name, criterion, results.correctness)
    default = results.default(criterion.setting)
    if isinstance(criterion, Stability):
        return stability(name, criterion, results.reward_model_history, default)
    return spread(name, criterion, results.reward_scores, default)


# ---- C1-C4, C6, C9: accuracies


def pairs(criterion: Against | Variant, correctness: pd.DataFrame) -> Iterator[Pair]:
    """(cell, answers of Ours, answers that it is compared with) wherever both answered.

    Cells are those of Table 2; of a variant, those on the benchmarks that the students were trained for.
    """
    variant = criterion.variant if isinstance(criterion, Variant) else ""
    method = "ours" if isinstance(criterion, Variant) else criterion.other
    cells = accuracy.ablation_cells(correctness, variant) if variant else tables.cells(correctness, accuracy.CELL)
    for cell in cells:
        ours = tables.method_rows(correctness, *cell, "ours")
        rival = tables.method_rows(correctness, *cell, method, variant)
        if len(ours) and len(rival) and not (variant and cell[0] == "gsm_plus"):
            yield cell, ours, rival


def _accuracy_cell(criterion: Against | Variant, pair: Pair, level: float = stats.LEVEL) -> Cell:
    """The cell of a paired difference in accuracy, with the paper's own where it has one."""
    (benchmark, teacher, student), ours, rival = pair
    paired = stats.paired_table(ours, rival)
    draws, effect = stats.mean_draws(paired, benchmark), stats.cohens_h(ours.correct.mean(), rival.correct.mean())
    by_seed = paired.groupby("seed").value
    seeds, alike = tables.by_seed(100 * by_seed.mean(), 2), by_seed.apply(lambda values: not values.any())
    if isinstance(criterion, Variant):
        known = criterion.variant == "reward_model.source=teacher" and pair[0] == ("gsm", "strong", "small")
        theirs = paper.reward_source() if known else dict.fromkeys(("from_student", "from_teacher"))
        first, second = theirs["from_student"], theirs["from_teacher"]
    else:
        of_other = "" if criterion.other == "teacher" else student
        first = paper.accuracy(benchmark, teacher, student, "ours")
        second = paper.accuracy(benchmark, teacher, of_other, criterion.other)
    theirs = None if first is None or second is None else first - second
    difference, p_value = _in_pp(draws, level), stats.p_value(draws)
    return Cell("/".join(pair[0]), difference, theirs, p_value, effect, seeds, len(alike), int(alike.sum()))


def better_than(name: str, criterion: Against | Variant, correctness: pd.DataFrame) -> Claim:
    """C1-C3, C6 and C9: Ours against another method, or a variant of Ours, in every cell that has both."""
    both = list(pairs(criterion, correctness))
    together = stats.drawn_together({cell[0]: ours.id for cell, ours, _ in both})
    cells = [_accuracy_cell(criterion, pair) for pair in both]
    draws = [stats.paired_difference(ours, rival, *together[cell[0]]) for cell, ours, rival in both]
    is_lost = isinstance(criterion, Variant) and criterion.variant.startswith("reward.mismatch=")
    note = "the paper's Table 7 is lost in the text" if is_lost else ""
    return _claim(name, criterion, cells, _mean_in_pp(draws), note, _over(correctness))


def better_somewhere(name: str, criterion: Against, correctness: pd.DataFrame) -> Claim:
    """C4: a claim about some cells, so its intervals allow for the number of cells looked at (Bonferroni)."""
    both = list(pairs(criterion, correctness))
    level = 1 - (1 - stats.LEVEL) / max(1, len(both))
    cells = [_accuracy_cell(criterion, pair, level) for pair in both]
    verdict = INCONCLUSIVE
    if any(cell.difference.low > 0 for cell in cells):
        verdict = SUPPORTED
    elif cells and all(cell.difference.high <= 0 for cell in cells):
        verdict = NOT_SUPPORTED
    best = max((cell.difference for cell in cells), key=lambda interval: interval.estimate, default=NOTHING)
    reaching = [one for one in cells if one.difference.high > 0]
    wide = tuple(Open(one.name, one.difference, criterion.smallest.cell, level) for one in reaching)
    drawn = {"decided": verdict, "left_open": wide, "level": level}
    return _claim(name, criterion, cells, best, OF_BEST_CELL, _over(correctness), **drawn)


def _claim(name: str, rule: Criterion, cells: list[Cell], pooled: Interval, note: str, over: str, **others) -> Claim:
    """A claim that the common criterion decides, unless `others` have what is `decided` and `left_open`."""
    usual = {"decided": judge(cells, pooled), "left_open": left_open(cells, pooled, rule.smallest)}
    return Claim(
        name, rule, cells=cells, pooled=pooled, remark=note if cells else NO_RESULTS, over=over, **usual | others
    )


def _over(table: pd.DataFrame, units: str = "questions") -> str:
    """What an interval is over: seeds are sampled where there are several."""
    return f"seeds and {units}" if table["seed"].nunique() > 1 else units


def _in_pp(draws: Draws, level: float = stats.LEVEL) -> Interval:
    interval = draws.interval(level)
    return Interval(100 * interval.estimate, 100 * interval.low, 100 * interval.high, interval.n)


def _mean_in_pp(draws: list[Draws]) -> Interval:
    return _in_pp(stats.mean_of(draws)) if draws else NOTHING


# ---- C5: votes


def worse_judges(name: str, criterion: WorseJudges, pseudo_labels: pd.DataFrame) -> Claim:
    """C5: failure ratio and mislabelled share, weak minus strong teacher and mmlu minus gsm.

    The counts do not tell which questions: both shares are resampled apart, which is wider than question by question.
    """
    draws, by_seed, cells, differences = {}, {}, [], []
    for dataset, teacher, counts, seeds in curves.vote_counts(pseudo_labels):
        for measure, share_of in VOTES.items():
            bad, total = share_of(seeds)
            key = (measure, dataset, teacher)
            by_seed[key] = bad / total
            draws[key] = stats.proportion_draws(*share_of(counts), "/".join(key), by_seed[key].dropna())
    for measure, (label, sides) in itertools.product(VOTES, CONTRASTS.items()):
        worse, better = ((measure, *side) for side in sides)
        if {worse, better} <= draws.keys():
            differences.append(difference := draws[worse] - draws[better])
            effect = stats.cohens_h(draws[worse].estimate, draws[better].estimate)
            seeds = tables.by_seed(100 * (by_seed[worse] - by_seed[better]).dropna(), 2)
            p_value = stats.p_value(difference)
            cells.append(Cell(f"{measure}: {label}", _in_pp(difference), None, p_value, effect, seeds))
    note = "the paper's Figures 3 and 4 have no numbers in the text"
    # with one teacher or one dataset the claim has not been put to the test
    pooled = NOTHING if len(cells) < len(VOTES) * len(CONTRASTS) else _mean_in_pp(differences)
    return _claim(name, criterion, cells, pooled, note, _over(pseudo_labels))


# ---- C7 and C8: AUCs


def instability(auc: pd.Series) -> float:
    """Mean absolute change of the AUC from one evaluation to the next, plus the best AUC minus the last.

    `auc`: the evaluations of the training model; that of the untrained one says nothing of how it learns.
    """
    values = auc.dropna().to_numpy(dtype=float)
    return float(np.abs(np.diff(values)).mean() + values.max() - values[-1]) if len(values) > 1 else np.nan


def stability(name: str, criterion: Stability, history: pd.DataFrame, default: float) -> Claim:
    """C7: instability of the validation Pos/Neg curve with each other value of the setting minus with the default.

    A cell of the claim is such a value in a cell of the grid. The pooled interval is over seeds: of a seed counts the
    mean over all of them.
    """
    differences = _instability_differences(history, criterion.setting, default)
    cells = [
        Cell(
            f"{'/'.join(cell)}: {varied(criterion.setting)} {value:g}",
            _seeds_or_margin(found, criterion.margin),
            seeds=tables.by_seed(found.dropna(), 4),
        )
        for cell, of_cell in tables.cells_of(differences.reset_index(), tables.CELL)
        for value, found in of_cell.set_index("seed")[differences.columns].items()
        if found.notna().any()
    ]
    pooled = _seeds_or_margin(differences.groupby("seed").mean().mean(axis=1), criterion.margin) if cells else NOTHING
    over = "seeds" if pooled.n > 1 else f"a margin of {criterion.margin:g} fixed beforehand"
    return _claim(name, criterion, cells, pooled, "the paper's Figure 5 has no numbers in the text", over, unit="AUC")


def _instability_differences(history: pd.DataFrame, key: str, default: float) -> pd.DataFrame:
    """Instability with each other value of a setting (columns) minus with the default, a row a cell and seed."""
    runs = aucs.ablation_runs(history[history["step"] > 0], key, default).sort_values("step")
    values = runs.groupby([*tables.CELL, "seed", key]).pos_neg_auc.apply(instability).unstack(key)
    others = values.drop(columns=default, errors="ignore")
    return others.sub(values[default], axis="index") if default in values else others[[]]


def _seeds_or_margin(differences: pd.Series, margin: float) -> Interval:
    interval = stats.seed_interval(differences)
    if interval.n == 1:
        return Interval(interval.estimate, interval.estimate - margin, interval.estimate + margin, 1)
    return interval


def spread(name: str, criterion: Spread, scores: pd.DataFrame, default: float) -> Claim:
    """C8: spread (largest minus smallest AUC over the setting's values) of Pos/Pos minus that of Pos/Neg.

    Spreads are of AUCs averaged over seeds; a single seed's own, in the column of seeds, are wider by noise.
    """
    cells, spreads, key = [], {comparison: [] for comparison in metrics.COMPARISONS}, criterion.setting
    for cell, runs in tables.cells_of(aucs.ablation_runs(scores, key, default), tables.CELL):
        for comparison, found in spreads.items():
            found.append(stats.spread_of(aucs.ablation_draws(runs, key, comparison).values()))
        difference = spreads["pos_pos"][-1] - spreads["pos_neg"][-1]
        seeds = tables.by_seed(_spread_by_seed(runs, key, "pos_pos") - _spread_by_seed(runs, key, "pos_neg"), 4)
        cells.append(Cell("/".join(cell), difference.interval(), p_value=stats.p_value(difference), seeds=seeds))
    over = _over(scores, "queries")
    if not cells:
        return _claim(name, criterion, [], NOTHING, "", over, unit="AUC")
    means = {comparison: stats.mean_of(found) for comparison, found in spreads.items()}
    # a bootstrap that is centred again may reach below what a spread can be
    small, large = (means[comparison].interval() for comparison in ("pos_neg", "pos_pos"))
    small, large = (replace(one, low=max(0.0, one.low)) for one in (small, large))
    pooled = (means["pos_pos"] - means["pos_neg"]).interval()
    note = " minus ".join(
        f"{SPREAD_OF} {label} {one.estimate:.3f} ({one.low:.3f} to {one.high:.3f})"
        for label, one in (("Pos/Pos", large), ("Pos/Neg", small))
    )
    decided = _judge_spreads(judge(cells, pooled), pooled, small, large, criterion)
    return _claim(name, criterion, cells, pooled, note, over, unit="AUC", **decided)


def _spread_by_seed(runs: pd.DataFrame, key: str, comparison: str) -> pd.Series:
    """Largest minus smallest AUC over a setting's values, by seed."""
    auc = {at: metrics.comparison_auc(scores, comparison) for at, scores in runs.groupby(["seed", key])}
    return pd.Series(auc).groupby(level=0).agg(np.ptp)


def _judge_spreads(verdict: str, pooled: Interval, small: Interval, large: Interval, criterion: Spread) -> dict:
    """The verdict, and the intervals that cover what they are compared with: the difference 0, each spread its size."""
    sizes_fit = small.estimate < criterion.small and large.estimate >= criterion.large
    if small.low >= criterion.small or large.high < criterion.small:
        verdict = NOT_SUPPORTED
    elif verdict == SUPPORTED and not sizes_fit:
        verdict = INCONCLUSIVE
    sizes = {"the difference": (pooled, 0.0), "Pos/Neg's spread": (small, criterion.small)}
    sizes["Pos/Pos's spread"] = (large, criterion.large)
    wide = [Open(what, one, criterion.small) for what, (one, size) in sizes.items() if one.low <= size < one.high]
    return {"decided": verdict, "left_open": tuple(wide)}


# ---- tables


def claims_table(claims: list[Claim]) -> pd.DataFrame:
    """One row a claim: verdict, criterion, in how many cells it holds, here and in the paper's numbers.

    `cells_above_zero` and `_below_zero` count cells by their own intervals, of `level_pct`; those with `_holm` by
    p-values adjusted for the number of cells.
    `half_width` and `needed_half_width` are those of the interval for which a claim is under-powered, that of `wide`.
    """
    rows = []
    for claim in claims:
        known = [cell for cell in claim.cells if cell.paper is not None]
        against = [cell.name for cell in known if cell.paper <= 0]
        rows.append(
            {
                "claim": claim.name,
                "statement": claim.rule.statement,
                "verdict": claim.verdict,
                **{f"verdict_{release}": verdict for release, verdict in claim.earlier.items()},
                "cells": len(claim.cells),
                "cells_are": claim.rule.cells_are,
                "cells_holding": sum(cell.holds for cell in claim.cells),
                "cells_above_zero": sum(cell.difference.low > 0 for cell in claim.cells),
                "cells_below_zero": sum(cell.difference.high < 0 for cell in claim.cells),
                "cells_above_zero_holm": _significant(claim, 1),
                "cells_below_zero_holm": _significant(claim, -1),
                "mean_difference": claim.pooled.estimate,
                "low": claim.pooled.low,
                "high": claim.pooled.high,
                "unit": claim.unit,
                "level_pct": round(100 * claim.level, 1),
                "interval_over": claim.over,
                "pairs": claim.pairs,
                "pairs_alike": claim.alike,
                "wide": claim.too_wide.what if claim.too_wide else "",
                "half_width": claim.too_wide.half_width if claim.too_wide else np.nan,
                "needed_half_width": claim.too_wide.needed if claim.too_wide else np.nan,
                "paper_verdict": claim.paper_verdict,
                "paper_cells": len(known),
                "paper_cells_holding": len(known) - len(against),
                "paper_cells_against": "; ".join(against),
                "criterion": claim.rule.words,
                "note": claim.note,
                "bear_in_mind": claim.rule.bear_in_mind,
            }
        )
    significant = ["cells_above_zero_holm", "cells_below_zero_holm"] if rows else []
    return pd.DataFrame(rows).astype(dict.fromkeys(significant, "Int64"))


def _significant(claim: Claim, sign: int) -> int | None:
    """Cells of one sign whose p-value, adjusted for their number (Holm), is below 5 %; None without p-values."""
    if claim.cells and np.isnan(claim.adjusted).all():
        return None
    adjusted = zip(claim.cells, claim.adjusted, strict=True)
    return sum(sign * cell.difference.estimate > 0 and p < 1 - stats.LEVEL for cell, p in adjusted)


def cells_table(claims: list[Claim]) -> pd.DataFrame:
    """One row a cell of a claim: the difference with its interval, and the paper's where it has one."""
    rows = [
        {
            "claim": claim.name,
            "verdict": claim.verdict,
            "difference": claim.rule.difference,
            "cell": cell.name,
            "study_difference": cell.difference.estimate,
            "study_low": cell.difference.low,
            "study_high": cell.difference.high,
            "study_seeds": cell.seeds,
            "n": cell.difference.n,
            "unit": claim.unit,
            "level_pct": round(100 * claim.level, 1),
            "holds": cell.holds,
            "p_value": cell.p_value,
            "p_holm": adjusted,
            "effect_h": cell.effect,
            "paper_difference": cell.paper,
        }
        for claim in claims
        for cell, adjusted in zip(claim.cells, claim.adjusted, strict=True)
    ]
    return pd.DataFrame(rows).astype({"paper_difference": float} if rows else {})


def cells_and_means(claims: list[Claim]) -> pd.DataFrame:
    """`cells_table` with a row `mean of the cells` for each claim of several that is judged by their mean."""
    parts = []
    for claim in claims:
        parts.append(claim)
        if len(claim.cells) > 1 and OF_BEST_CELL not in claim.note and np.isfinite(claim.pooled.estimate):
            papers = [cell.paper for cell in claim.cells]
            paper = None if None in papers else float(np.mean(papers))
            parts.append(replace(claim, cells=[Cell("mean of the cells", claim.pooled, paper)]))
    return cells_table(parts)
