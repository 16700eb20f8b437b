"""One table or figure of the report: what it shows, what it is made from, and the files that it becomes.

    table = exhibit.table(evidence)   # exactly what is drawn, from the result tables and nothing else
    figure = exhibit.draw(table)      # None in place of a function: the exhibit is a table

A table is written as CSV and Markdown, a figure as PDF and PNG beside the CSV of exactly the data that it shows.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field

from rdlib import artifacts
from rdlib.evidence import looks, tables
from rdlib.evidence.result_tables import Evidence
from rdlib.settings import Section

# The setting that each ablation varies, which names its variants.
VARIED = {
    "lambda": "reward_model.lam",
    "data_ratio": "reward_model.teacher_share",
    "reward_source": "reward_model.source",
    "correctness": "reward.mismatch",
}
RIVALS = ("sft", "ours_wo_r", "ours_wo_d", "ours")
FORMATS = {"pdf": {"CreationDate": None, "Creator": None, "Producer": None}, "png": {"Software": None}}
# What of the results not every study has, and whether it is there
OPTIONAL = {
    **dict.fromkeys(
        ("arms", "reviewers", "judged", "sharpening", "thresholds", "over_optimisation", "question_costs"), "answered"
    ),
    **{"rounding": "rounded", "same_rate": "has_same_rate", "rates": "has_same_rate"},
    **{"agreement": "holds_out", "example": "has_example"},
}


class Exhibit(Section):
    """A table or figure, as exhibits.yaml declares it; that file says what the fields are."""

    name: str
    title: str
    caption: str
    experiments: tuple[str, ...]
    last: str | None = None
    cells: Literal["own"] | None = None
    function: str | None = Field(None, alias="table")
    of: tuple[str, ...]
    options: dict[str, Any] = {}
    figure: str | None = None
    lead: str | None = None
    notebook: str

    def table(self, evidence: Evidence) -> pd.DataFrame:
        """Exactly what is drawn or written, before rounding; UserError for a result table that can't be used."""
        read = [_read(evidence, words) for words in self.of]
        return _function(self.function)(*read, **self.options) if self.function else read[0]

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
        lead = _function(self.lead)(*(_read(evidence, words) for words in self.of)) if self.lead else ""
        return f"{lead} {self.caption} {evidence.sampling_note}".strip()

    def is_about(self, evidence: Evidence) -> bool:
        """Whether it can be of these results at all: an exhibit about own questions needs some."""
        return self.cells != "own" or (evidence.of_own_questions and self.is_there(evidence))

    @property
    def optional(self) -> set[str]:
        """What it reads of the results that not every study has, by the property that says whether it is there."""
        return {OPTIONAL[words.split()[0]] for words in self.of if words.split()[0] in OPTIONAL}

    @property
    def reads_questions(self) -> bool:
        """Whether it reads tables of the reviewers' questions."""
        return "answered" in self.optional

    def is_there(self, evidence: Evidence) -> bool:
        """Whether the results have all tables that it reads and not every study has."""
        followups = [words.split()[1] for words in self.of if words.startswith("trials ")]
        return evidence.has_trials(*followups) and all(getattr(evidence, name) for name in self.optional)

    def rows(self, evidence: Evidence) -> pd.DataFrame | None:
        """Its table, None where these results have nothing to show."""
        if not self.is_about(evidence) or not self.is_there(evidence):
            return None
        read = (_read(evidence, words) for words in self.of)
        if any(isinstance(one, pd.DataFrame) and one.empty for one in read):
            return None
        table = self.table(evidence)
        return table if len(table) and ("study_pct" not in table or table["study_pct"].notna().any()) else None

    def is_shown(self, evidence: Evidence) -> bool:
        """Whether these results have rows for it."""
        return self.rows(evidence) is not None

    def why_left_out(self, evidence: Evidence) -> str:
        """Why these results have nothing to show here, and the command that would change that; "" where they have."""
        if not self.is_about(evidence) or self.is_shown(evidence):
            return ""
        asked = [name for name in self.experiments if name not in ("main", "judgement")] or list(self.experiments)
        missing = asked if not self.is_there(evidence) else [n for n in asked if not _has_ablation(evidence, n)]
        if missing:
            return f"it needs runs of {tables.listed(missing)} (`{COMMAND} --experiments {' '.join(missing)}`)"
        if {"claims", "points", "correctness", "estimates"} & {words.split()[0] for words in self.of}:
            if evidence.correctness.empty:
                return "it needs questions with gold answers"
            methods = [name for name in RIVALS if name not in set(evidence.correctness["method"])]
            if methods and not self.options:
                return f"it compares methods that were not run (`{COMMAND} --methods {' '.join(methods)}`)"
        return "it needs other questions, or more seeds, than these results have"


COMMAND = "python -m rdlib study"


def _has_ablation(evidence: Evidence, experiment: str) -> bool:
    """Whether a run of an ablation is in the results; True for what is no ablation."""
    settings = {variant.partition("=")[0] for variant in evidence.costs["variant"]}
    return VARIED.get(experiment) is None or VARIED[experiment] in settings


def _function(name: str) -> Callable[..., Any]:
    """A function of rdlib.evidence, as `accuracy.main_table`."""
    module, _, function = name.partition(".")
    return getattr(importlib.import_module(f"rdlib.evidence.{module}"), function)


def _read(evidence: Evidence, words: str) -> Any:
    """What an exhibit reads: a property of the results or a method with arguments, or a function of the results."""
    name, *arguments = words.split()
    if "." in name:
        return _function(name)(evidence)
    found = getattr(evidence, name)
    return found(*arguments) if callable(found) else found


def sentence_of(left_out: Sequence[Exhibit], why: str) -> str:
    """What is left out for one reason, in a sentence."""
    titles = tables.listed([f"*{exhibit.title}*" for exhibit in left_out])
    return f"{titles} {'is' if len(left_out) == 1 else 'are'} left out: {why}."


def draw(exhibit: Exhibit, evidence: Evidence, out: Path, table: pd.DataFrame | None = None) -> list[Path]:
    """Write one exhibit to `out`; returns the paths written. UserError for a result table that can't be used.

    `table`: what the exhibit shows, where it is known.
    """
    table = tables.rounded(exhibit.table(evidence) if table is None else table)
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
        figure.set_layout_engine("none")  # the layout is made: the second format need not make it again
        paths.append(stem.with_name(f"{stem.name}.{kind}"))
        artifacts.write_bytes(paths[-1], content.getvalue())
    plt.close(figure)
    return paths
