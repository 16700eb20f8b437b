"""The gallery: every table and figure of the report, in its order, by the name of its files.

    exhibit = EXHIBITS["figure_5_lambda"]
    table = exhibit.rows(evidence)            # exactly what is drawn, from the result tables and nothing else
    draw(exhibit, evidence, Path("figures"))

`exhibits.yaml` declares them; `python -m rdlib figures` is the command. A table is written as CSV and Markdown, a
figure as PDF and PNG beside the CSV of exactly the data that it shows.
"""

from __future__ import annotations

import difflib
import importlib
import io
from collections.abc import Callable, Sequence, Sized
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import pandas as pd
import yaml
from matplotlib.figure import Figure
from PIL import Image
from pydantic import Field

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence import looks, tables
from rdlib.evidence.criteria import load_criteria
from rdlib.evidence.result_tables import Evidence
from rdlib.evidence.verdicts import Claim
from rdlib.settings import Section

COMMAND = "python -m rdlib study"
RIVALS = ("sft", "ours_wo_r", "ours_wo_d", "ours")
OF_ANSWERS = ("claims", "correctness", "accuracy.main_points", "power_tables.estimates")  # what graded answers give
FORMATS = {"pdf": {"CreationDate": None, "Creator": None, "Producer": None}, "png": {"Software": None}}


class Exhibit(Section):
    """A table or figure, as exhibits.yaml declares it; that file says what the fields are."""

    name: str
    title: str
    caption: str
    experiments: tuple[str, ...]
    last: str | None = None
    cells: Literal["own"] | None = None
    function: str | None = Field(None, alias="table")
    of: tuple[str | dict[str, str], ...]
    options: dict[str, Any] = {}
    figure: str | None = None
    lead: str | None = None
    notebook: str

    @property
    def draw(self) -> Callable[[pd.DataFrame], Figure] | None:
        """The function that draws the table, None for a table."""
        return _function(self.figure) if self.figure else None

    @property
    def endings(self) -> tuple[str, ...]:
        """The endings of its files."""
        return ("csv", "pdf", "png") if self.figure else ("csv", "md")

    def note(self, evidence: Evidence) -> str:
        """The caption after what leads to it; and how the teacher was sampled, where that is unusual."""
        lead = _function(self.lead)(*(_read(evidence, one) for one in self.of)) if self.lead else ""
        return f"{lead} {self.caption} {evidence.sampling_note}".strip()

    def rows(self, evidence: Evidence) -> pd.DataFrame | None:
        """Exactly what is drawn or written, before rounding; None where these results have nothing to show.

        UserError for a result table that can't be used.
        """
        if self.cells == "own" and not evidence.of_own_questions:
            return None
        read = [_read(evidence, one) for one in self.of]
        if any(isinstance(one, Sized) and not len(one) for one in read):
            return None
        table = _function(self.function)(*read, **self.options) if self.function else read[0]
        return table if len(table) and ("study_pct" not in table or table["study_pct"].notna().any()) else None

    def why_left_out(self, evidence: Evidence) -> str:
        """Why these results have nothing to show here, and the command that would change that; "" where they have.

        "" too for what is about own questions alone, which not every study has.
        """
        if self.cells == "own" or self.rows(evidence) is not None:
            return ""
        keys = {name: name.removeprefix("params/").replace(".yaml:", ":") for name in self.experiments}
        if missing := [name for name, key in keys.items() if not evidence.seeds_of(key)]:
            return f"it needs runs of {tables.listed(missing)} (`{COMMAND} --experiments {' '.join(missing)}`)"
        if set(OF_ANSWERS) & {str(one).split()[0] for one in self.of}:
            if evidence.correctness.empty:
                return "it needs questions with gold answers"
            methods = [name for name in RIVALS if name not in set(evidence.correctness["method"])]
            if methods and not self.options:
                return f"it compares methods that were not run (`{COMMAND} --methods {' '.join(methods)}`)"
        return "it needs other questions, or more seeds, than these results have"


def _function(name: str) -> Callable[..., Any]:
    """A function of rdlib.evidence, as `accuracy.main_table`."""
    module, _, function = name.partition(".")
    return getattr(importlib.import_module(f"rdlib.evidence.{module}"), function)


def _read(evidence: Evidence, what: str | dict[str, str]) -> Any:
    """What an exhibit reads, once: an attribute of the results, a method with arguments, a function of the results,
    or the rows of a file: {answers: EXPERIMENT, COLUMN: value}."""
    if str(what) in evidence.kept:
        return evidence.kept[str(what)]
    if isinstance(what, dict):
        (kind, experiment), *values = what.items()
        found = evidence.rows(kind, experiment, by_run=True, **dict(values))
    else:
        name, *arguments = what.split()
        found = _function(name)(evidence) if "." in name else getattr(evidence, name)
        found = found(*arguments) if callable(found) else found
    return evidence.kept.setdefault(str(what), found)


def load() -> dict[str, Exhibit]:
    """The exhibits of exhibits.yaml by name; notes are part of their captions."""
    content = yaml.safe_load((resources.files("rdlib.evidence") / "exhibits.yaml").read_text(encoding="utf-8"))
    notes, found = content.pop("notes"), {}
    for notebook, exhibits in content.items():
        for name, one in exhibits.items():
            sentences = [one.pop("caption", ""), *(notes[note] for note in one.pop("notes", ()))]
            caption = " ".join(filter(None, sentences))
            found[name] = Exhibit(name=name, notebook=notebook, caption=caption, **one)
    return found


EXHIBITS = load()


def find(name: str) -> Exhibit:
    """An exhibit by its name; UserError that lists the close names, or all of them."""
    if name in EXHIBITS:
        return EXHIBITS[name]
    inside = [known for known in EXHIBITS if name and name.lower() in known]
    close = inside or difflib.get_close_matches(name.lower(), EXHIBITS, n=4, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"give one of {', '.join(EXHIBITS)}."
    raise UserError(f"There is no table or figure {name!r}: {hint}" if name else f"NAME is missing: {hint}")


# ---- writing


def draw_all(evidence: Evidence, out: Path, notebook: str | None = None) -> list[Path]:
    """Write every exhibit that the evidence has rows for to `out`, or those of one notebook; the paths written.

    An earlier drawing of one that is left out now is removed: it would show runs that these results lack.
    """
    paths = []
    for exhibit in EXHIBITS.values():
        if notebook not in (None, exhibit.notebook):
            continue
        table = exhibit.rows(evidence)
        if table is not None:
            paths += draw(exhibit, evidence, out, table)
            continue
        for ending in exhibit.endings:
            (out / f"{exhibit.name}.{ending}").unlink(missing_ok=True)
    return paths


def draw(exhibit: Exhibit, evidence: Evidence, out: Path, table: pd.DataFrame) -> list[Path]:
    """Write one exhibit, of which `table` is what it shows, to `out`; returns the paths written.

    UserError for a folder that can't be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} can't be made ({error.strerror}): give a folder that can be written to.") from None
    table = tables.rounded(table)
    paths = [tables.write_csv(table, out / f"{exhibit.name}.csv")]
    if exhibit.draw is None:
        note = exhibit.note(evidence)
        return [*paths, tables.write_markdown(table, out / f"{exhibit.name}.md", exhibit.title, note)]
    with looks.style(evidence.benchmarks):
        figure = exhibit.draw(table)
        if exhibit.experiments == ("judgement",) and evidence.sampling_note:  # the vote depends on it
            figure.supxlabel(evidence.sampling_note, fontsize="small")
        return paths + save(figure, out / exhibit.name)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PDF and PNG without dates (the same data give the same bytes), then close it."""
    paths = []
    for kind, metadata in FORMATS.items():
        content = io.BytesIO()
        figure.savefig(content, format=kind, metadata=metadata)
        figure.set_layout_engine("none")  # the layout is computed once, and the second format uses it too
        paths.append(stem.with_name(f"{stem.name}.{kind}"))
        artifacts.write_bytes(paths[-1], _with_palette(content) if kind == "png" else content.getvalue())
    plt.close(figure)
    return paths


def _with_palette(content: io.BytesIO) -> bytes:
    """A PNG in 256 colours, a third of its size: frequent ones stay, those of edges and overlaps go to the nearest."""
    picture, small = Image.open(content), io.BytesIO()
    flat = picture.convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    flat.save(small, "PNG", optimize=True, dpi=picture.info["dpi"])
    return small.getvalue()


# ---- sentences


def sentence_of(left_out: Sequence[Exhibit], why: str) -> str:
    """What is left out for one reason, in a sentence."""
    titles = tables.listed([f"*{exhibit.title}*" for exhibit in left_out])
    return f"{titles} {'is' if len(left_out) == 1 else 'are'} left out: {why}."


def unjudged(judged: Sequence[Claim]) -> str:
    """Which claims a part of a study cannot judge, in a sentence; "" where all are judged."""
    others = [name for name in load_criteria() if name not in {claim.name for claim in judged}]
    return f"Not judged, because these results lack the runs: {tables.listed(others)}." if others else ""
