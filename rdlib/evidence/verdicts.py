"""A judged claim: its cells, the number that its verdict rests on, and the criterion that most claims share.


- supported: every cell's difference is positive, and the 95 % interval of their mean lies above 0;
- not supported: the interval of their mean lies at or below 0, or most cells' own intervals lie below 0;
- inconclusive: anything else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rdlib.evidence import stats
from rdlib.evidence.criteria import Criterion
from rdlib.evidence.stats import Interval

SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE = "supported", "not supported", "inconclusive"


@dataclass(frozen=True)
class Cell:
    """One cell of a claim: the difference that should be positive, and the paper's own (None: no numbers).

    `p_value` is that of the difference against 0, `effect` its size (Cohen's h); NaN where there is none. `seeds` are
    the differences of single seeds, as `rdlib.evidence.tables.by_seed` writes them.
    """

    name: str
    difference: Interval
    paper: float | None = None
    p_value: float = np.nan
    effect: float = np.nan
    seeds: str = ""

    @property
    def holds(self) -> bool:
        """Whether the difference has the sign that the claim says."""
        return self.difference.estimate > 0


@dataclass(frozen=True)
class Claim:
    """A judged claim; its verdict rests on `pooled`, in `unit`: pp (percentage points) or AUC."""

    name: str
    rule: Criterion
    verdict: str
    cells: list[Cell]
    pooled: Interval
    unit: str = "pp"
    note: str = ""

    @property
    def statement(self) -> str:
        """What the paper says."""
        return self.rule.statement

    @property
    def criterion(self) -> str:
        """How the verdict is found, as a sentence."""
        return self.rule.words

    @property
    def paper_verdict(self) -> str:
        """The paper's own numbers by the same criterion, by their signs; "" where it gives none."""
        return judge_by_signs(self.cells, self.rule.kind)

    @property
    def adjusted(self) -> list[float]:
        """The cells' p-values after Holm's correction for their number."""
        return stats.holm([cell.p_value for cell in self.cells])


NOTHING = Interval(np.nan, np.nan, np.nan, 0)


def judge(cells: list[Cell], pooled: Interval) -> str:
    """The verdict by the common criterion (see the module's docstring)."""
    if not cells or not np.isfinite(pooled.low):
        return INCONCLUSIVE
    if all(cell.holds for cell in cells) and pooled.low > 0:
        return SUPPORTED
    negative = sum(cell.difference.high < 0 for cell in cells)
    return NOT_SUPPORTED if pooled.high <= 0 or 2 * negative > len(cells) else INCONCLUSIVE


def judge_by_signs(cells: list[Cell], kind: str) -> str:
    """The verdict of the paper's own numbers, which have no intervals, by signs and mean alone; "" without numbers."""
    values = [cell.paper for cell in cells if cell.paper is not None]
    if not values:
        return ""
    if all(value > 0 for value in values) or (kind == "some_cell" and any(value > 0 for value in values)):
        return SUPPORTED
    against = sum(value < 0 for value in values)
    return NOT_SUPPORTED if np.mean(values) <= 0 or 2 * against > len(values) else INCONCLUSIVE
