"""C1 where SFT has the warm-up's learning rate: how much of what Ours gains over SFT is the rate that SFT was given.

SFT's own rate was chosen in the cells of the ablations, the warm-up's in the same and from as many trials. Differences
are those of C1 (`rdlib.evidence.claims`), paired by question, with intervals over seeds and questions.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from rdlib.evidence import claims, looks, tables
from rdlib.evidence.criteria import load_criteria
from rdlib.evidence.dots import draw_dots
from rdlib.evidence.looks import Look
from rdlib.evidence.verdicts import Claim

AGAIN = "SFT with the warm-up's rate"
OWN = "Ours - SFT"
OURS, WARM_UP, RATE = f"Ours - {AGAIN}", f"Ours w/o R - {AGAIN}", f"{AGAIN} - SFT"
LOOKS = {OWN: Look(OWN, looks.ORANGE, "s"), OURS: Look(OURS, looks.BLUE, "D")}
MEAN = "mean of the cells"


def difference(first: pd.DataFrame, second: pd.DataFrame) -> Claim:
    """First minus second in every cell that has both, judged as C1; rows of one method."""
    both = [first.assign(method="ours", variant=""), second.assign(method="sft", variant="")]
    return claims.better_than("C1", load_criteria()["C1"], pd.concat(both, ignore_index=True))


def differences(correctness: pd.DataFrame, again: pd.DataFrame) -> dict[str, Claim]:
    """The four comparisons: of Ours with either SFT, of the warm-up alone with the same rate, and of the two rates."""
    released = tables.select(correctness, variant="")
    ours, warm_up, sft = (released[released["method"] == name] for name in ("ours", "ours_wo_r", "sft"))
    pairs = {OWN: (ours, sft), OURS: (ours, again), WARM_UP: (warm_up, again), RATE: (again, sft)}
    return {name: difference(*pair) for name, pair in pairs.items()}


def rate_table(found: dict[str, Claim]) -> pd.DataFrame:
    """A row a comparison and cell, and one of their mean: difference_pp with its interval, and of each seed."""
    parts = []
    for name, claim in found.items():
        rows = claims.cells_and_means([claim])
        names = {"study_difference": "difference_pp", "study_low": "low_pp", "study_high": "high_pp"}
        parts.append(rows[["cell", *names, "study_seeds"]].rename(columns=names).assign(comparison=name))
    table = pd.concat(parts, ignore_index=True)
    return table[["comparison", *(column for column in table if column != "comparison")]]


def plain_answer(found: dict[str, Claim]) -> str:
    """What the rate does, and what is left of C1, in words."""
    means = {name: tables.difference(*_ends(claim), "pp") for name, claim in found.items()}
    ours, own = found[OURS], found[OWN]
    sides = [
        f"{sum(cell.difference.low > 0 for cell in one.cells)} above and "
        f"{sum(cell.difference.high < 0 for cell in one.cells)} below 0 of {len(one.cells)}"
        for one in (ours, own)
    ]
    return (
        f"Answer: on the mean of the cells, SFT with the warm-up's learning rate minus SFT with its own is "
        f"{means[RATE]}. Ours minus that SFT is {means[OURS]} (cells told from 0 by their own intervals: "
        f"{sides[0]}), where C1 has {means[OWN]} ({sides[1]}); the warm-up alone minus it is {means[WARM_UP]}. By the "
        f"criterion of C1 the verdict would be {ours.verdict}, with SFT's own rate it is {own.verdict}."
    )


def _ends(claim: Claim) -> tuple[float, float, float]:
    return claim.pooled.estimate, claim.pooled.low, claim.pooled.high


def draw(table: pd.DataFrame) -> Figure:
    """Ours minus SFT of either rate, two dots a cell."""
    shown = table[table["comparison"].isin(LOOKS)].assign(row=lambda t: t["cell"], panel="")
    figure = looks.blank(6.4, 1.2 + 0.36 * shown["row"].nunique())
    interval = ("low_pp", "high_pp")
    draw_dots(figure, shown, "difference_pp", "comparison", LOOKS, interval=interval, seeds="study_seeds")
    for ax in figure.axes:
        ax.axvline(0, color=looks.BLACK, linewidth=0.8)
        ax.set(xlabel="accuracy of Ours minus SFT (pp)", title="")
    handles = looks.handles(LOOKS.values(), lines=False)
    looks.legend_below(figure, [*handles, *looks.interval_handles(shown["study_seeds"])], columns=2)
    return figure
