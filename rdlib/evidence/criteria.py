"""The criteria that the paper's claims are judged by, as `params/claims.yaml` gives them: fixed before any run.

CLAIMS = load_criteria()
CLAIMS["C1"].statement, CLAIMS["C1"].words   # what the paper says, and how the verdict is found
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from rdlib.errors import UserError
from rdlib.paths import ROOT

CLAIMS_FILE = ROOT / "params" / "claims.yaml"

_COMMON = (
    "Supported: {} all positive and the 95 % interval of their mean above 0. Not supported: that "
    "interval at or below 0, or most cells' own intervals below 0. Else inconclusive."
)


class _Criterion(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    statement: str

    @property
    def words(self) -> str:
        """The criterion as a sentence."""
        return _COMMON.format("differences in accuracy")


class EveryCell(_Criterion):
    """Ours beats another method in every cell of Table 2."""

    kind: Literal["every_cell"]
    other: str


class Variant(_Criterion):
    """Ours beats Ours with one setting changed."""

    kind: Literal["variant"]
    variant: str


class SomeCell(_Criterion):
    """Ours beats another method in some cells."""

    kind: Literal["some_cell"]
    other: str

    @property
    def words(self) -> str:
        """The criterion as a sentence."""
        return (
            f"With intervals adjusted for the number of cells (Bonferroni), Ours minus {self.other}. Supported: at "
            "least one cell's interval above 0. Not supported: every cell's at or below 0. Else inconclusive."
        )


class WorseJudges(_Criterion):
    """The weak teacher fails and mislabels more than the strong one, and on mmlu more than on gsm."""

    kind: Literal["worse_judges"]

    @property
    def words(self) -> str:
        """The criterion as a sentence."""
        return _COMMON.format("the eight differences")


class Stability(_Criterion):
    """The default value of a setting learns more stably than the others."""

    kind: Literal["stability"]
    setting: str
    margin: Annotated[float, Field(gt=0)]

    @property
    def words(self) -> str:
        """The criterion as a sentence."""
        return (
            "Instability of a validation Pos/Neg curve: mean absolute change from one evaluation to the next, "
            "plus best minus last. Other value minus the default in each cell, judged as C1; interval: Student's t "
            f"over seeds, or, with one seed, plus or minus a margin of {self.margin:g} AUC fixed beforehand."
        )


class Spread(_Criterion):
    """A setting hardly moves Pos/Neg and strongly moves Pos/Pos."""

    kind: Literal["spread"]
    setting: str
    small: Annotated[float, Field(gt=0)]
    large: Annotated[float, Field(gt=0)]

    @property
    def words(self) -> str:
        """The criterion as a sentence."""
        return (
            "Spread: largest minus smallest AUC over the ratios. Supported: Pos/Pos spread minus Pos/Neg spread "
            f"passes the criterion of C1, Pos/Neg spread below {self.small:g}, Pos/Pos spread at least "
            f"{self.large:g}. Not supported: the difference fails as in C1, or Pos/Neg's interval lies above, or "
            f"Pos/Pos's below, {self.small:g}. Else inconclusive."
        )


Criterion = EveryCell | Variant | SomeCell | WorseJudges | Stability | Spread
_CRITERIA = TypeAdapter(dict[str, Annotated[Criterion, Field(discriminator="kind")]])


def load_criteria(path: Path = CLAIMS_FILE) -> dict[str, Criterion]:
    """The claims by name; UserError for a file that is missing, unreadable or says something else."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} can't be read ({str(error).splitlines()[0]}): restore params/claims.yaml.") from None
    try:
        return _CRITERIA.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path} has a bad entry {where}: {first['msg']}.") from None
