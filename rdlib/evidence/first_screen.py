"""What a reader sees first: in five sentences what is true of the method at this scale, what is not, what is open.

    sentences(claims, main, seeds=5)   # figures/claims.csv and figures/table_2_main.csv as tables

Every number and verdict is taken from the tables.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from rdlib.evidence import tables
from rdlib.evidence.verdicts import INCONCLUSIVE, NOT_SUPPORTED, OF_BEST_CELL, SPREAD_OF, SUPPORTED, UNDER_POWERED

WORDS = "no one two three four five six seven eight nine ten eleven twelve".split()
RIVALS = {
    "sft": "SFT",
    "ours_wo_r": "its warm-up alone (w/o R)",
    "ours_wo_d": "its PPO alone (w/o D)",
    "icl": "the student before training",
    "teacher": "the teacher",
}
# Of each verdict: the sentence without any claim, and that with some.
FRAMES = {
    SUPPORTED: ("At this scale none of the paper's {total} claims is supported.", "{some} supported: {claims}."),
    NOT_SUPPORTED: ("None is judged not supported.", "{Some} not supported: {claims}."),
    INCONCLUSIVE: (
        "None is left open by mixed evidence (inconclusive).",
        "Of {number} nobody can say, because the evidence is mixed or the difference too small to matter "
        "(inconclusive): {claims}.",
    ),
    UNDER_POWERED: (
        "None is left open by too few seeds or questions (under-powered).",
        "Of {number} nobody can say, because this run has too few seeds or questions (under-powered): {claims}.",
    ),
}
# Of inconclusive claims, those that are true of the mean over the cells.
ON_THE_MEAN = "{Some} true of the mean over the cells but not of every cell (inconclusive): {claims}."


def in_words(number: int) -> str:
    """A number in a sentence: a word up to twelve."""
    return WORDS[number] if number < len(WORDS) else str(number)


def sentences(
    claims: pd.DataFrame, main: pd.DataFrame, seeds: int, found_since: Mapping[str, str] | None = None
) -> list[str]:
    """The five sentences: what the methods reach, then the claims by their verdicts.

    `found_since`: of a claim, what other tables say of it, in words.
    """
    claims = claims.assign(found_since=claims["claim"].map(dict(found_since or {})))
    return [reached(main, seeds), *(_judged(claims, verdict) for verdict in FRAMES)]


def reached(main: pd.DataFrame, seeds: int) -> str:
    """What Ours answers rightly, and what it is held to, on the mean over all cells of Table 2."""
    benchmarks = [column for column in main if column.endswith("_study_pct")]
    means = {method: float(rows[benchmarks].to_numpy().mean()) for method, rows in main.groupby("method")}
    cells = int((main["method"] == "ours").sum()) * len(benchmarks)
    others = [f"{name} {means[one]:.1f} %" for one, name in RIVALS.items() if one in means]
    over = f"with {in_words(seeds)} seed{'s' * (seeds != 1)} and on the mean over "
    over += f"{in_words(cells)} cell{'s' * (cells != 1)}"
    against = f", {tables.listed(others)}" if others else ""
    return (
        f"In a made-up world, {over} of benchmark, teacher and student, Ours (the whole method) answers "
        f"{means['ours']:.1f} % of the test questions correctly{against} (in brackets below: 95 % "
        f"intervals; differences are of unrounded means)."
    )


def _judged(claims: pd.DataFrame, verdict: str) -> str:
    """The sentence about the claims that have a verdict."""
    rows, none_of_them, some_of_them = claims[claims["verdict"] == verdict], *FRAMES[verdict]
    if rows.empty:
        return none_of_them.format(total=in_words(len(claims)))
    true_on_mean = (rows["low"] > 0) & (rows["cells"] > 1) & (verdict == INCONCLUSIVE)
    parts = [
        _told(frame, part, len(claims))
        for frame, part in ((ON_THE_MEAN, rows[true_on_mean]), (some_of_them, rows[~true_on_mean]))
        if len(part)
    ]
    first, *rest = parts
    return "; ".join([first.removesuffix(".") if rest else first, *(part[0].lower() + part[1:] for part in rest)])


def _told(frame: str, rows: pd.DataFrame, total: int) -> str:
    """A sentence about some claims of `total`."""
    number, verb = len(rows), "is" if len(rows) == 1 else "are"
    everything = f"At this scale all {in_words(total)} of the paper's claims {verb}"
    some = f"At this scale {in_words(number)} of the paper's {in_words(total)} claims {verb}"
    return frame.format(
        some=everything if number == total > 2 else some,
        Some=f"{in_words(number).capitalize()} {verb}",
        number=in_words(number),
        claims=tables.listed([_claim(row) for row in rows.to_dict("records")]),
    )


def _claim(row: dict) -> str:
    """A claim with the number that its verdict rests on, in how many cells it holds, and what to bear in mind."""
    numbers = row["claim"]
    if np.isfinite(row["mean_difference"]):
        numbers += f": {tables.difference(row['mean_difference'], row['low'], row['high'], row['unit'])}"
        if OF_BEST_CELL in str(row.get("note")):
            numbers += f" in the best cell, by {row['level_pct']:g} % intervals"
    if SPREAD_OF in str(row.get("note")):
        numbers += f", {row['note']}"
    if row["cells"] > 1:
        numbers += f"; holds in {row['cells_holding']} of {row['cells']} {row['cells_are']}{_told_apart(row)}"
    if row["pairs_alike"]:
        numbers += f"; {row['pairs_alike']} of {row['pairs']} pairs of policies are the same"
    for more in (row["bear_in_mind"], row["found_since"]):
        if isinstance(more, str) and more:  # NaN where there is nothing
            numbers += f"; {more}"
    return f"“{row['statement']}” ({numbers})"


def _told_apart(row: dict) -> str:
    """In how many cells an interval of their own says that a claim holds, or that the opposite does."""
    parts = [f"told from 0 in {row['cells_above_zero'] or 'none'}"] if row["cells_holding"] else []
    parts += [f"the opposite told in {row['cells_below_zero']}"] if row["cells_below_zero"] else []
    return f" ({', '.join(parts)})" if parts else ""
