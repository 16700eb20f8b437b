"""The criteria that the paper's claims are judged by, as `params/claims.yaml` gives them: fixed before any run.

CLAIMS = load_criteria()
CLAIMS["C1"].statement, CLAIMS["C1"].words   # what the paper says, and how the verdict is found
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from rdlib.errors import UserError
from rdlib.evidence import looks, power
from rdlib.paths import ROOT

CLAIMS_FILE = ROOT / "params" / "claims.yaml"

_COMMON = (
    "Supported: {} all positive and the 95 % interval of their mean above 0. Not supported: that "
    "interval at or below 0 (and not 0 to 0), or most cells' own intervals below 0. {}"
)


Positive = Annotated[float, Field(gt=0)]


class Smallest(BaseModel):
    """The smallest differences of interest, of a single cell and of a mean over cells, in the claim's unit."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    cell: Positive
    mean: Positive

    def words(self, unit: str) -> str:
        """When a claim is under-powered, as a sentence."""
        cell, mean = (f"{one:g} {unit} (± {power.needed_half_width(one):.3g})" for one in (self.cell, self.mean))
        sizes = cell if self.cell == self.mean else f"{cell} in a cell or {mean} in the mean"
        return (
            f"Else under-powered where an interval that leaves it open is wider than 80 % power to tell {sizes} from 0 "
            f"needs; else inconclusive."
        )


class _Criterion(BaseModel):
    """What every claim has; `bear_in_mind` is what a reader of its numbers should know, "" if nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    cells_are: ClassVar[str] = "cells"  # or comparisons, where they are not cells of Table 2
    statement: str
    bear_in_mind: str = ""


class _Accuracy(_Criterion):
    smallest: Smallest

    @property
    def words(self) -> str:
        """The criterion as a sentence."""
        return _COMMON.format("differences in accuracy", self.smallest.words("pp"))


class _AgainstMethod(_Accuracy):
    other: str

    @property
    def difference(self) -> str:
        """What is subtracted from what; positive as the paper claims."""
        return f"Ours - {looks.look(looks.METHODS, self.other).label}"


class EveryCell(_AgainstMethod):
    """Ours beats another method in every cell of Table 2."""

    kind: Literal["every_cell"]


class Variant(_Accuracy):
    """Ours beats Ours with one setting changed."""

    kind: Literal["variant"]
    variant: str

    @property
    def difference(self) -> str:
        """What is subtracted from what; positive as the paper claims."""
        return f"Ours - {looks.VARIANTS.get(self.variant, self.variant)}"


class SomeCell(_AgainstMethod):
    """Ours beats another method in some cells."""

    kind: Literal["some_cell"]

    @property
    def words(self) -> str:
        """The criterion as a sentence."""
        return (
            f"With intervals adjusted for the number of cells (Bonferroni), Ours minus {self.other}. Supported: at "
            "least one cell's interval above 0. Not supported: every cell's at or below 0. Else under-powered where a "
            f"cell's interval that covers 0 is wider than 80 % power to tell {self.smallest.cell:g} pp from 0 needs; "
            "else inconclusive."
        )


class WorseJudges(_Accuracy):
    """The weak teacher fails and mislabels more than the strong one, and on mmlu more than on gsm."""

    kind: Literal["worse_judges"]
    cells_are: ClassVar[str] = "comparisons"

    @property
    def words(self) -> str:
        """The criterion as a sentence."""
        return _COMMON.format("the eight differences", self.smallest.words("pp"))

    @property
    def difference(self) -> str:
        """What is subtracted from what; positive as the paper claims."""
        return "weak - strong, mmlu - gsm"


class Stability(_Criterion):
    """The default value of a setting learns more stably than the others."""

    kind: Literal["stability"]
    cells_are: ClassVar[str] = "comparisons"
    setting: str
    margin: Positive

    @property
    def smallest(self) -> Smallest:
        """The smallest difference of interest, in AUC."""
        return Smallest(cell=self.margin, mean=self.margin)

    @property
    def words(self) -> str:
        """The criterion as a sentence."""
        return (
            "Instability of a validation Pos/Neg curve: mean absolute change from one evaluation to the next, "
            "plus best minus last. Other value minus the default in each cell, judged as C1; interval: Student's t "
            f"over seeds, or, with one seed, plus or minus a margin of {self.margin:g} AUC fixed beforehand. "
            f"{self.smallest.words('AUC')}"
        )

    @property
    def difference(self) -> str:
        """What is subtracted from what; positive as the paper claims."""
        return f"instability, other {self.varied} - default"

    @property
    def varied(self) -> str:
        """The setting's name in words."""
        return self.setting.rpartition(".")[2].replace("lam", "lambda")


class Spread(_Criterion):
    """A setting hardly moves Pos/Neg and strongly moves Pos/Pos."""

    kind: Literal["spread"]
    setting: str
    small: Positive
    large: Positive

    @property
    def smallest(self) -> Smallest:
        """The smallest difference of interest, in AUC."""
        return Smallest(cell=self.small, mean=self.small)

    @property
    def words(self) -> str:
        """The criterion as a sentence."""
        return (
            "Spread: largest minus smallest AUC over the ratios. Supported: Pos/Pos spread minus Pos/Neg spread "
            f"passes the criterion of C1, Pos/Neg spread below {self.small:g}, Pos/Pos spread at least "
            f"{self.large:g}. Not supported: the difference fails as in C1, or Pos/Neg's interval lies above, or "
            f"Pos/Pos's below, {self.small:g}. {self.smallest.words('AUC')}"
        )

    @property
    def difference(self) -> str:
        """What is subtracted from what; positive as the paper claims."""
        return "spread of Pos/Pos - of Pos/Neg"


Criterion = EveryCell | Variant | SomeCell | WorseJudges | Stability | Spread
_CRITERIA = TypeAdapter(dict[str, Annotated[Criterion, Field(discriminator="kind")]])


def load_criteria(path: Path = CLAIMS_FILE) -> dict[str, Criterion]:
    """The claims by name; UserError for a file that is missing, unreadable or says something else."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} can't be read ({str(error).splitlines()[0]}): restore params/claims.yaml.") from None
    try:
        return _CRITERIA.validate_python(_with_smallest(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path} has a bad entry {where}: {first['msg']}.") from None


def _with_smallest(content: Any) -> Any:
    """The claims, with the smallest differences of interest in each that is about percentage points."""
    if not isinstance(content, dict) or "smallest" not in content:
        return content
    given = {"smallest": content["smallest"]}
    return {
        name: claim if not isinstance(claim, dict) or claim.get("kind") in ("stability", "spread") else given | claim
        for name, claim in content.items()
        if name != "smallest"
    }
