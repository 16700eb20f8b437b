"""The criteria that the paper's claims are judged by, as `params/claims.yaml` gives them: fixed before any run.

CLAIMS = load_criteria()
CLAIMS["C1"].statement, CLAIMS["C1"].words   # what the paper says, and how the verdict is found
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from rdlib.errors import UserError
from rdlib.evidence import looks, power
from rdlib.paths import ROOT

CLAIMS_FILE = ROOT / "params" / "claims.yaml"
Positive = Annotated[float, Field(gt=0)]


class Smallest(BaseModel):
    """The smallest differences of interest, of a single cell and of a mean over cells, in the claim's unit."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    cell: Positive
    mean: Positive


class _Criterion(BaseModel):
    """What every claim has; `bear_in_mind` is what a reader of its numbers should know, "" if nothing.

    `difference` (what is subtracted from what; positive as the paper claims) and `words` (the criterion) are sentences
    of the claim's kind, filled in with its numbers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    statement: str
    bear_in_mind: str = ""
    smallest: Smallest
    difference: str
    words: str

    @property
    def cells_are(self) -> str:
        """What its cells are: those of Table 2, or comparisons."""
        return "comparisons" if isinstance(self, WorseJudges | Stability) else "cells"


class Against(_Criterion):
    """Ours beats another method in every cell of Table 2, or in some."""

    kind: Literal["every_cell", "some_cell"]
    other: str


class Variant(_Criterion):
    """Ours beats Ours with one setting changed."""

    kind: Literal["variant"]
    variant: str


class WorseJudges(_Criterion):
    """The weak teacher fails and mislabels more than the strong one, and on mmlu more than on gsm."""

    kind: Literal["worse_judges"]


class Stability(_Criterion):
    """The default value of a setting learns more stably than the others; with one seed the interval is `margin`."""

    kind: Literal["stability"]
    setting: str
    margin: Positive


class Spread(_Criterion):
    """A setting changes the AUC of Pos/Neg by less than `small`, and that of Pos/Pos by at least `large`."""

    kind: Literal["spread"]
    setting: str
    small: Positive
    large: Positive


Criterion = Against | Variant | WorseJudges | Stability | Spread
_CRITERIA = TypeAdapter(dict[str, Annotated[Criterion, Field(discriminator="kind")]])


def load_criteria(path: Path = CLAIMS_FILE) -> dict[str, Criterion]:
    """The claims by name; UserError for a file that is missing, unreadable or says something else."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} can't be read ({str(error).splitlines()[0]}): restore params/claims.yaml.") from None
    try:
        return _CRITERIA.validate_python(_filled(content))
    except ValidationError as error:
        first = error.errors()[-1]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path} has a bad entry {where}: {first['msg']}.") from None


def varied(setting: str) -> str:
    """The name of a setting in words."""
    return setting.rpartition(".")[2].replace("lam", "lambda")


def _filled(content: Any) -> Any:
    """The claims, each with its smallest differences of interest and the sentences of its kind, numbers filled in."""
    if not isinstance(content, dict) or not isinstance(sentences := content.get("sentences"), dict):
        return content
    claims = {name: one for name, one in content.items() if name not in ("smallest", "sentences")}
    for name, one in claims.items():
        if isinstance(one, dict) and one.get("kind") in sentences:
            own = one.get("margin", one.get("small"))  # of a claim about AUCs
            smallest = content.get("smallest") if own is None else {"cell": own, "mean": own}
            claims[name] = {"smallest": smallest} | one | _sentences(one, smallest, sentences[one["kind"]])
    return claims


def _sentences(claim: dict, smallest: Any, sentences: dict[str, str]) -> dict[str, str]:
    """The sentences of a claim; empty ones where an entry is missing or no number, which is reported."""
    other, variant = claim.get("other"), claim.get("variant")
    values = claim | {"smallest": smallest, "setting": varied(str(claim.get("setting")))}
    values |= {"method": looks.look(looks.METHODS, str(other)).label, "changed": looks.VARIANTS.get(variant, variant)}
    try:
        values["needed"] = {name: power.needed_half_width(size) for name, size in smallest.items()}
        return {name: " ".join(text.split()).format(**values) for name, text in sentences.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {"difference": "", "words": ""}
