"""How everything is drawn: one colour and one marker or hatch for each method, teacher and kind of response.

looks.yaml has them, and the style of all figures. They differ in greyscale too. Colours are those of Okabe and Ito,
and four of Tol's when more are needed; all are safe for colour-blind readers. Error bars are 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import resources
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

BLACK, GREY, ORANGE, SKY = "#000000", "#999999", "#E69F00", "#56B4E9"
GREEN, YELLOW, BLUE, VERMILION, PURPLE = "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
INDIGO, WINE, OLIVE, TEAL = "#332288", "#882255", "#999933", "#44AA99"


@dataclass(frozen=True)
class Look:
    """How one thing is drawn, in every figure."""

    label: str
    color: str
    marker: str = "o"
    line: str | tuple = "-"
    hatch: str = ""

    @property
    def style(self) -> dict[str, Any]:
        """Matplotlib's arguments for a line with markers."""
        return {"color": self.color, "marker": self.marker, "linestyle": self.line}


def _group(looks: Mapping[str, Mapping[str, Any]]) -> dict[str, Look]:
    """The looks of a part of looks.yaml by name."""
    found = {}
    for name, one in looks.items():
        line = tuple(one["line"]) if isinstance(one.get("line"), list) else one.get("line", "-")
        found[name] = Look(**{"label": name} | one | {"color": globals()[one["color"]], "line": line})
    return found


_FILE = yaml.safe_load((resources.files("rdlib.evidence") / "looks.yaml").read_text(encoding="utf-8"))
GROUPS = {name: _group(looks) for name, looks in _FILE["looks"].items()}
LABELS, STYLE = _FILE["labels"], _FILE["style"]
METHODS, ARMS, TEACHERS, KINDS, COMPARISONS = (
    GROUPS[name] for name in ("methods", "arms", "teachers", "kinds", "comparisons")
)
LAMBDA_LOOKS = [(one.color, one.marker, one.line) for one in GROUPS["lambdas"].values()]
BASELINE_NAMES, VARIANTS = _FILE["baselines"], _FILE["variants"]
SOURCES, PERTURBED = _FILE["benchmarks"], _FILE["perturbed"]
SPARE = [GREY, BLACK, YELLOW]


@contextmanager
def style(benchmarks: Mapping[str, str] | None = None) -> Iterator[None]:
    """Context in which figures are made: `with looks.style(): ...`; `benchmarks` are their names in figures."""
    token = _benchmark_names.set(benchmarks or {})
    try:
        with mpl.rc_context(STYLE):
            yield
    finally:
        _benchmark_names.reset(token)


def use_style() -> None:
    """Set the style for the whole process, as a notebook does once."""
    mpl.rcParams.update(STYLE)


def look(looks: Mapping[str, Look], name: str) -> Look:
    """The look of a name; an unknown one (another profile's) gets its own name and a spare colour."""
    if name in looks:
        return looks[name]
    return Look(name, SPARE[sum(map(ord, name)) % len(SPARE)], "P", "-.", "xx")


_benchmark_names: ContextVar[Mapping[str, str]] = ContextVar("benchmark_names", default={})  # noqa: B039


def benchmark_names(datasets: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """How figures name the benchmarks of a study, from its profile's `datasets`: by what they are made from.

    Own questions keep the name that the profile gives them.
    """
    names = {}
    for name, settings in datasets.items():
        source = settings["source"]
        names[name] = name if source == "questions" else SOURCES.get(source, source)
        if source in PERTURBED:
            names["gsm_plus"] = PERTURBED[source]
    return names


def benchmark_label(name: str) -> str:
    """The name of a benchmark as figures print it."""
    return _benchmark_names.get().get(name, name)


def cell_label(dataset: str, teacher: str, student: str, lines: int = 2) -> str:
    """The name of a cell, or of a benchmark in it, as figures print it, in one to three lines."""
    ends = {1: (", ", ", "), 2: ("\n", ", "), 3: ("\n", "\n")}[lines]
    return f"{benchmark_label(dataset)}{ends[0]}{teacher} teacher{ends[1]}{student} student"


def title(cell: str, benchmark: str | None = None, lines: int = 2) -> str:
    """The `cell_label` of a cell as tables have it, "gsm/strong/small", or of a benchmark in it."""
    dataset, teacher, student = cell.split("/")
    return cell_label(benchmark or dataset, teacher, student, lines)


def grid(rows: int, columns: int, width: float = 7.0, height: float = 2.4, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure with rows x columns axes (a 2-d array); the page's width and a row's height in inches."""
    size = (width, height * rows + 0.5)
    return plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **options)


def used(axes: np.ndarray, count: int) -> list[Axes]:
    """The first axes of a grid; the rest of its last row stays empty."""
    for ax in axes.flat[count:]:
        ax.axis("off")
    return list(axes.flat[:count])


def shape(count: int) -> tuple[int, int]:
    """Rows and columns of so many panels: at most three in a row, and rows as even as can be."""
    rows = max(1, -(-count // 3))
    return rows, max(1, -(-count // rows))


def blank(width: float, height: float) -> Figure:
    """A figure without axes, for what makes its own; inches."""
    return plt.figure(figsize=(width, height), layout="constrained")


def legend_below(figure: Figure, handles: list, columns: int | None = None) -> Figure:
    """The figure with one legend for all of it, under its axes."""
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=columns or len(handles))
    return figure


def error_ends(table: pd.DataFrame, value: str, low: str, high: str) -> np.ndarray:
    """Lengths of error bars below and above a value, (2, N), as matplotlib takes them; 0 where there is none."""
    ends = np.stack([table[value] - table[low], table[high] - table[value]]).astype(float)
    return np.nan_to_num(np.clip(ends, 0, None))


def seed_dots(ax: Axes, places: Iterable[float], seeds: Iterable[str], color: str) -> None:
    """Small dots for the values of single seeds ("75.4 74.9", as in tables) at each place of the horizontal axis."""
    for place, text in zip(places, seeds, strict=True):
        values = [float(value) for value in text.split()] if isinstance(text, str) else []
        style = {"marker": ".", "markersize": 3, "linestyle": "none", "alpha": 0.55, "zorder": 4}
        ax.plot([place] * len(values), values, color=color, **style)


def handles(looks: Iterable[Look], **options: Any) -> list[Line2D]:
    """Legend handles: lines with markers; `options` override parts of all looks, as `linestyle="none"` for dots."""
    return [Line2D([], [], label=look.label, **look.style | options) for look in looks]


def dot_handles(known: Mapping[str, Look], names: Iterable[str]) -> list[Line2D]:
    """Legend handles of names: their markers alone."""
    return handles((look(known, name) for name in names), linestyle="none")


def line_handles(looks: Mapping[str, Look]) -> list[Line2D]:
    """Legend handles of lines alone, as of the kinds of responses."""
    return handles(looks.values(), marker="")


def interval_handles(seeds: Iterable[str] = ()) -> list[Line2D]:
    """Legend handles of an interval and, where a text of single seeds has several, of a seed's dot."""
    found = [Line2D([], [], color=BLACK, linewidth=1.1, label="95 % interval")]
    if any(isinstance(text, str) and len(text.split()) > 1 for text in seeds):
        found.append(Line2D([], [], color=GREY, marker=".", markersize=3, linestyle="none", label="a seed"))
    return found
