"""A judged claim: its cells, the number that decides its verdict, and the criterion that most claims share.

- supported: every cell's difference is positive, and the 95 % interval of their mean lies above 0;
- not supported: the interval of their mean lies at or below 0 (and is not 0 to 0, as where all policies are the same),
  or most cells' own intervals lie below 0;
- under-powered: neither, and an interval that leaves it open is wider than 80 % power for the smallest difference of
  interest needs. That interval is the mean's where it covers 0, and else those of the cells with a negative difference.
  Where one of these is significantly negative, the cells contradict each other, and more data would not change that;
- inconclusive: anything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import pandas as pd

from rdlib.evidence import power, stats
from rdlib.evidence.criteria import Criterion, Smallest
from rdlib.evidence.stats import Interval

SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE = "supported", "not supported", "inconclusive"
UNDER_POWERED = "under-powered"
VERDICTS = (SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE, UNDER_POWERED)
SPREAD_OF = "spread of"  # the note of a claim about spreads has one of each
OF_BEST_CELL = "the pooled columns show the best cell"  # the note of a claim about some cell


@dataclass(frozen=True)
class Cell:
    """One cell of a claim: the difference that should be positive, and the paper's own (None: no numbers).

    `p_value` is that of the difference against 0, `effect` its size (Cohen's h); NaN where there is none. `seeds` are
    the differences of single seeds, as `rdlib.evidence.tables.by_seed` writes them. Of a difference in accuracy,
    `pairs` is the number of pairs of policies compared and `alike` that of those that answer every question alike.
    """

    name: str
    difference: Interval
    paper: float | None = None
    p_value: float = np.nan
    effect: float = np.nan
    seeds: str = ""
    pairs: int = 0
    alike: int = 0

    @property
    def holds(self) -> bool:
        """Whether the difference has the sign that the claim says."""
        return self.difference.estimate > 0


@dataclass(frozen=True)
class Open:
    """An interval that leaves a claim open, what it is of, and the smallest difference of interest there.

    `level` is the interval's own.
    """

    what: str
    interval: Interval
    smallest: float
    level: float = stats.LEVEL

    @property
    def half_width(self) -> float:
        """Half of the interval's width; NaN where it has no ends."""
        return (self.interval.high - self.interval.low) / 2

    @property
    def needed(self) -> float:
        """The half-width that 80 % power for the smallest difference needs."""
        return power.needed_half_width(self.smallest, self.level)

    def words(self, unit: str) -> str:
        """What there is and what would be needed."""
        return (
            f"the interval of {self.what} is ± {self.half_width:.3g} {unit}, where 80 % power to tell "
            f"{self.smallest:g} {unit} from 0 needs ± {self.needed:.3g}"
        )


@dataclass(frozen=True)
class Claim:
    """A judged claim; its verdict depends on `pooled`, in `unit`: pp (percentage points) or AUC.

    `left_open`: the intervals that keep it from being supported or not, where it is neither. `level` is that of all its
    intervals, which are `over` what is sampled.
    """

    name: str
    rule: Criterion
    decided: str
    cells: list[Cell]
    pooled: Interval
    unit: str = "pp"
    remark: str = ""
    left_open: tuple[Open, ...] = ()
    level: float = stats.LEVEL
    over: str = "seeds and questions"

    @property
    def too_wide(self) -> Open | None:
        """The interval for which the claim is under-powered: of those that leave it open, the one most too wide."""
        wide = [one for one in self.left_open if one.half_width > one.needed and self.decided == INCONCLUSIVE]
        return max(wide, key=lambda one: one.half_width / one.needed, default=None)

    @property
    def verdict(self) -> str:
        """One of `VERDICTS`."""
        return UNDER_POWERED if self.too_wide else self.decided

    @property
    def note(self) -> str:
        """What there is to say beside the verdict: widths of an under-powered claim, policies that are the same."""
        same = (
            f"in {self.alike} of {self.pairs} pairs both policies answer every question alike, as where PPO keeps the "
            "policy that it starts from"
        )
        wide = self.too_wide.words(self.unit) if self.too_wide else ""
        return "; ".join(filter(None, [wide, same if self.alike else "", self.remark]))

    @property
    def pairs(self) -> int:
        """How many pairs of policies its differences in accuracy are between."""
        return sum(cell.pairs for cell in self.cells)

    @property
    def alike(self) -> int:
        """How many of them answer every question alike."""
        return sum(cell.alike for cell in self.cells)

    @property
    def paper_verdict(self) -> str:
        """The paper's own numbers by the same criterion, by their signs; "" where it gives none."""
        return judge_by_signs(self.cells, self.rule.kind)

    @property
    def earlier(self) -> dict[str, str]:
        """Its verdicts in earlier releases, by their versions; "" where a release has no such claim."""
        return earlier_verdicts().reindex([self.name]).fillna("").iloc[0].to_dict()

    @property
    def adjusted(self) -> list[float]:
        """The cells' p-values after Holm's correction for their number."""
        return stats.holm([cell.p_value for cell in self.cells])


def judge(cells: list[Cell], pooled: Interval) -> str:
    """The verdict by the common criterion (see the module's docstring)."""
    if not cells or not np.isfinite(pooled.low):
        return INCONCLUSIVE
    if all(cell.holds for cell in cells) and pooled.low > 0:
        return SUPPORTED
    negative = sum(cell.difference.high < 0 for cell in cells)
    against = pooled.low < 0 and pooled.high <= 0  # [0, 0]: all policies are the same, so nothing was compared
    return NOT_SUPPORTED if against or 2 * negative > len(cells) else INCONCLUSIVE


@cache
def earlier_verdicts() -> pd.DataFrame:
    """The verdicts of earlier releases, claims (rows) by release (columns), as `scripts/earlier_verdicts.py` kept them.

    Those of 0.1.0 know no under-powered claim: its criteria called both kinds inconclusive.
    """
    path = resources.files("rdlib.evidence") / "earlier_verdicts.csv"
    with path.open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=str).pivot(index="claim", columns="release", values="verdict")


def left_open(cells: list[Cell], pooled: Interval, smallest: Smallest) -> tuple[Open, ...]:
    """The intervals by which the common criterion finds a claim neither supported nor not supported.

    The mean's where it covers 0; else those of the cells with a negative difference, and none where one of them is
    significant.
    """
    if not cells or not np.isfinite(pooled.low):
        return ()
    if pooled.low <= 0:
        single = len(cells) == 1
        return (Open("the difference" if single else "the mean", pooled, smallest.cell if single else smallest.mean),)
    against = [cell for cell in cells if not cell.holds]
    if any(cell.difference.high < 0 for cell in against):
        return ()
    return tuple(Open(cell.name, cell.difference, smallest.cell) for cell in against)


def judge_by_signs(cells: list[Cell], kind: str) -> str:
    """The verdict of the paper's own numbers, which have no intervals, by signs and mean alone; "" without numbers."""
    values = [cell.paper for cell in cells if cell.paper is not None]
    if not values:
        return ""
    if all(value > 0 for value in values) or (kind == "some_cell" and any(value > 0 for value in values)):
        return SUPPORTED
    against = sum(value < 0 for value in values)
    return NOT_SUPPORTED if np.mean(values) <= 0 or 2 * against > len(values) else INCONCLUSIVE
