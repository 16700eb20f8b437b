"""The paper's claims C1-C9, each judged from the result tables by its criterion in `params/claims.yaml`.

A claim has one or more cells: a benchmark with a teacher and a student, a value of lambda, or a pair of failure
ratios. Each cell has a difference that the claim says is positive. That file says how a verdict is found, and
`rdlib.evidence.verdicts.judge` has the criterion that most claims share.

Differences in accuracy are paired by question. The mean's interval resamples the questions of all cells of a benchmark
together, so cells that share questions are not counted as independent. Questions of two benchmarks that were made from
one problem are resampled together too. Where many cells carry one claim, their p-values are adjusted by Holm's method.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from rdlib.evidence import accuracy, aucs, curves, paper, stats, tables
from rdlib.evidence.criteria import (
    Criterion,
    EveryCell,
    SomeCell,
    Spread,
    Stability,
    Variant,
    WorseJudges,
)
from rdlib.evidence.stats import Draws, Interval
from rdlib.evidence.verdicts import (
    INCONCLUSIVE,
    NOT_SUPPORTED,
    NOTHING,
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

Pair = tuple[tuple[str, str, str], pd.DataFrame, pd.DataFrame]
NO_RESULTS = "no results to judge it by"


def judged(name: str, criterion: Criterion, results: Any) -> Claim:
    """One claim of `params/claims.yaml` judged by the result tables that its criterion is about, of an `Evidence`."""
    if isinstance(criterion, EveryCell | Variant):
        return better_than(name, criterion, results.correctness)
    if isinstance(criterion, SomeCell):
        return better_somewhere(name, criterion, results.correctness)
    if isinstance(criterion, WorseJudges):
        return worse_judges(name, criterion, results.pseudo_labels)
    default = results.default(criterion.setting)
    if isinstance(criterion, Stability):
        return stability(name, criterion, results.reward_model_history, default)
    return spread(name, criterion, results.reward_scores, default)


def pairs(criterion: EveryCell | SomeCell | Variant, correctness: pd.DataFrame) -> Iterator[Pair]:
    """(cell, answers of Ours, answers that it is compared with) wherever both answered.

    Cells are those of Table 2; of a variant, those on the benchmarks that the students were trained for.
    """
    variant = criterion.variant if isinstance(criterion, Variant) else ""
    method = "ours" if isinstance(criterion, Variant) else criterion.other
    cells = _table_2_cells(correctness) if not variant else accuracy.ablation_cells(correctness, variant)
    for cell in cells:
        ours = tables.method_rows(correctness, *cell, "ours")
        rival = tables.method_rows(correctness, *cell, method, variant)
        if len(ours) and len(rival) and not (variant and cell[0] == "gsm_plus"):
            yield cell, ours, rival


def _accuracy_cell(criterion: EveryCell | SomeCell | Variant, pair: Pair, level: float = stats.LEVEL) -> Cell:
    """The cell of a paired difference in accuracy."""
    cell, ours, rival = pair
    draws = stats.paired_difference(ours, rival, cell[0])
    effect = stats.cohens_h(ours.correct.mean(), rival.correct.mean())
    paired = stats.paired_table(ours, rival).groupby("seed").value
    seeds, alike = tables.by_seed(100 * paired.mean(), 2), paired.apply(lambda values: not values.any())
    name, p_value, theirs = "/".join(cell), stats.p_value(draws), _paper_difference(criterion, *cell)
    return Cell(name, _in_pp(draws, level), theirs, p_value, effect, seeds, len(alike), int(alike.sum()))


def _paper_difference(
    criterion: EveryCell | SomeCell | Variant, benchmark: str, teacher: str, student: str
) -> float | None:
    """The paper's own difference in a cell; None where it has none."""
    if isinstance(criterion, Variant):
        source, cell = paper.reward_source(), (benchmark, teacher, student)
        known = criterion.variant == "reward_model.source=teacher" and cell == ("gsm", "strong", "small")
        return source["from_student"] - source["from_teacher"] if known else None
    first = paper.accuracy(benchmark, teacher, student, "ours")
    second = paper.accuracy(benchmark, teacher, "" if criterion.other == "teacher" else student, criterion.other)
    return None if first is None or second is None else first - second


def better_than(name: str, criterion: EveryCell | Variant, correctness: pd.DataFrame) -> Claim:
    """C1-C3, C6 and C9: Ours against another method, or a variant of Ours, in every cell that has both."""
    both = list(pairs(criterion, correctness))
    together = stats.drawn_together({cell[0]: ours.id for cell, ours, _ in both})
    found = [
        (_accuracy_cell(criterion, (cell, ours, rival)), stats.paired_difference(ours, rival, *together[cell[0]]))
        for cell, ours, rival in both
    ]
    is_lost = found and isinstance(criterion, Variant) and criterion.variant.startswith("reward.mismatch=")
    note = "the paper's Table 7 is lost in the text" if is_lost else ""
    return _common(name, criterion, found, note, _over(correctness))


def _over(table: pd.DataFrame, units: str = "questions") -> str:
    """What an interval is over: seeds are sampled where there are several."""
    return f"seeds and {units}" if table["seed"].nunique() > 1 else units


def _common(
    name: str, criterion: Criterion, found: list[tuple[Cell, Draws]], note: str = "", over: str = "questions"
) -> Claim:
    cells = [cell for cell, _ in found]
    pooled = _in_pp(stats.mean_of(draws for _, draws in found)) if found else NOTHING
    note = note or ("" if found else NO_RESULTS)
    wide = left_open(cells, pooled, criterion.smallest)
    return Claim(name, criterion, judge(cells, pooled), cells, pooled, remark=note, left_open=wide, over=over)


def _in_pp(draws: Draws, level: float = stats.LEVEL) -> Interval:
    interval = draws.interval(level)
    return Interval(100 * interval.estimate, 100 * interval.low, 100 * interval.high, interval.n)


def _table_2_cells(correctness: pd.DataFrame):
    for benchmark in tables.in_order(correctness.benchmark, paper.BENCHMARKS):
        for teacher, student in tables.cells(tables.select(correctness, benchmark=benchmark)):
            yield benchmark, teacher, student


def better_somewhere(name: str, criterion: SomeCell, correctness: pd.DataFrame) -> Claim:
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
    note = OF_BEST_CELL if cells else NO_RESULTS
    smallest = criterion.smallest.cell
    wide = [Open(one.name, one.difference, smallest, level) for one in cells if one.difference.high > 0]
    drawn = {"level": level, "over": _over(correctness)}
    return Claim(name, criterion, verdict, cells, best, remark=note, left_open=tuple(wide), **drawn)


def worse_judges(name: str, criterion: WorseJudges, pseudo_labels: pd.DataFrame) -> Claim:
    """C5: failure ratio and mislabelled share, weak minus strong teacher and mmlu minus gsm.

    The counts do not tell which questions: both shares are resampled apart, which is wider than question by question.
    """
    draws, by_seed = {}, {}
    for dataset, teacher, counts, seeds in curves.vote_counts(pseudo_labels):
        for measure, share_of in (
            ("failure ratio", lambda c: (c.failed, c.questions)),
            ("mislabelled", lambda c: (c.labelled - c.label_correct, c.labelled)),
        ):
            key = f"{measure}/{dataset}/{teacher}"
            bad, total = share_of(seeds)
            shares = by_seed[measure, dataset, teacher] = bad / total
            draws[measure, dataset, teacher] = stats.proportion_draws(*share_of(counts), key, shares.dropna())
    found = []
    for measure in ("failure ratio", "mislabelled"):
        for label, worse, better in (
            ("weak - strong, gsm", ("gsm", "weak"), ("gsm", "strong")),
            ("weak - strong, mmlu", ("mmlu", "weak"), ("mmlu", "strong")),
            ("mmlu - gsm, strong", ("mmlu", "strong"), ("gsm", "strong")),
            ("mmlu - gsm, weak", ("mmlu", "weak"), ("gsm", "weak")),
        ):
            if (measure, *worse) in draws and (measure, *better) in draws:
                first, second = draws[measure, *worse], draws[measure, *better]
                effect = stats.cohens_h(first.estimate, second.estimate)
                difference = first - second
                seeds = tables.by_seed(100 * (by_seed[measure, *worse] - by_seed[measure, *better]).dropna(), 2)
                p_value = stats.p_value(difference)
                cell = Cell(f"{measure}: {label}", _in_pp(difference), None, p_value, effect, seeds)
                found.append((cell, difference))
    note = "the paper's Figures 3 and 4 have no numbers in the text" if found else ""
    if 0 < len(found) < 8:  # with one teacher or one dataset the claim has not been put to the test
        return Claim(name, criterion, INCONCLUSIVE, [cell for cell, _ in found], NOTHING, remark=note)
    return _common(name, criterion, found, note, _over(pseudo_labels))


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
            f"{'/'.join(cell)}: {criterion.varied} {value:g}",
            _seeds_or_margin(found, criterion.margin),
            seeds=tables.by_seed(found.dropna(), 4),
        )
        for cell, of_cell in tables.cells_of(differences.reset_index(), tables.CELL)
        for value, found in of_cell.set_index("seed")[differences.columns].items()
        if found.notna().any()
    ]
    pooled = _seeds_or_margin(differences.groupby("seed").mean().mean(axis=1), criterion.margin) if cells else NOTHING
    note = "the paper's Figure 5 has no numbers in the text" if cells else NO_RESULTS
    wide = left_open(cells, pooled, criterion.smallest)
    over = "seeds" if pooled.n > 1 else f"a margin of {criterion.margin:g} fixed beforehand"
    return Claim(name, criterion, judge(cells, pooled), cells, pooled, "AUC", note, wide, over=over)


def _instability_differences(history: pd.DataFrame, key: str, default: float) -> pd.DataFrame:
    """Instability with each other value of a setting (columns) minus with the default, a row a cell and seed."""
    runs = aucs.ablation_runs(history[history["step"] > 0], key, default).sort_values("step")
    values = runs.groupby([*tables.CELL, "seed", key]).pos_neg_auc.apply(instability).unstack(key)
    if default not in values:
        return values[[]]
    return values.drop(columns=default).sub(values[default], axis="index")


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
    if not cells:
        return Claim(name, criterion, INCONCLUSIVE, [], NOTHING, "AUC", NO_RESULTS)
    means = {comparison: stats.mean_of(found) for comparison, found in spreads.items()}
    small, large = (_at_least_zero(means[comparison].interval()) for comparison in ("pos_neg", "pos_pos"))
    pooled = (means["pos_pos"] - means["pos_neg"]).interval()
    note = " minus ".join(
        f"{SPREAD_OF} {label} {one.estimate:.3f} ({one.low:.3f} to {one.high:.3f})"
        for label, one in (("Pos/Pos", large), ("Pos/Neg", small))
    )
    verdict = _judge_spreads(judge(cells, pooled), small, large, criterion)
    wide, over = _open_spreads(pooled, small, large, criterion), _over(scores, "queries")
    return Claim(name, criterion, verdict, cells, pooled, "AUC", note, wide, over=over)


def _at_least_zero(interval: Interval) -> Interval:
    """A spread's interval: a bootstrap that is centred again may reach below what a spread can be."""
    return replace(interval, low=max(0.0, interval.low))


def _open_spreads(pooled: Interval, small: Interval, large: Interval, criterion: Spread) -> tuple[Open, ...]:
    """The intervals that cover what they are compared with: the difference 0, each spread its size."""
    held = (("the difference", pooled, 0.0), ("Pos/Neg's spread", small, criterion.small))
    held += (("Pos/Pos's spread", large, criterion.large),)
    return tuple(Open(what, one, criterion.small) for what, one, size in held if one.low <= size < one.high)


def _spread_by_seed(runs: pd.DataFrame, key: str, comparison: str) -> pd.Series:
    """Largest minus smallest AUC over a setting's values, by seed."""
    auc = {at: metrics.comparison_auc(scores, comparison) for at, scores in runs.groupby(["seed", key])}
    return pd.Series(auc).groupby(level=0).agg(np.ptp)


def _judge_spreads(verdict: str, small: Interval, large: Interval, criterion: Spread) -> str:
    if small.low >= criterion.small or large.high < criterion.small:
        return NOT_SUPPORTED
    sizes_fit = small.estimate < criterion.small and large.estimate >= criterion.large
    return INCONCLUSIVE if verdict == SUPPORTED and not sizes_fit else verdict


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


def cells_and_means(claims: list[Claim]) -> pd.DataFrame:
    """`cells_table` with a row `mean of the cells` for each claim of several that is judged by their mean."""
    parts = []
    for claim in (one for one in claims if one.cells):
        parts.append(cells_table([claim]))
        if len(claim.cells) > 1 and OF_BEST_CELL not in claim.note and np.isfinite(claim.pooled.estimate):
            papers = [cell.paper for cell in claim.cells]
            paper = None if None in papers else float(np.mean(papers))
            parts.append(cells_table([replace(claim, cells=[Cell("mean of the cells", claim.pooled, paper)])]))
    return pd.concat(parts, ignore_index=True) if parts else cells_table([])


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
    columns = ["claim", "verdict", "difference", "cell", "study_difference", "study_low", "study_high", "study_seeds"]
    columns += ["n", "unit", "level_pct", "holds", "p_value", "p_holm", "effect_h", "paper_difference"]
    return pd.DataFrame(rows, columns=columns).astype({"paper_difference": float})
