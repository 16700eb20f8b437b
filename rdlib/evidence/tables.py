"""Helpers of all tables: the paper's order, values by seed, rounding, writing.

Accuracies are in per cent (columns `*_pct`), differences in percentage points (`*_pp`), AUCs in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rdlib import artifacts
from rdlib.evidence import paper, shown, stats
from rdlib.method import metrics

CELL = ["dataset", "teacher", "student"]
ORDER = {"dataset": paper.BENCHMARKS, "benchmark": paper.BENCHMARKS, "teacher": paper.TEACHERS}
ORDER |= {"student": paper.STUDENTS, "method": paper.METHODS}


# --- order, selection, rounding -----------------------------------------------------------------------------


def in_order(names, known) -> list[str]:
    """The names that occur, the known ones first and in their order, the rest sorted."""
    names = set(pd.unique(names) if isinstance(names, pd.Series) else names)  # a column of text is slow to walk
    return [name for name in known if name in names] + sorted(names - set(known))


def select(table: pd.DataFrame, **values) -> pd.DataFrame:
    """The rows in which each named column has the given value."""
    found = np.ones(len(table), dtype=bool)
    for column, value in values.items():
        found &= (table[column] == value).to_numpy(dtype=bool, na_value=False)
    return table[found]


def columns_of(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of a table, in this order."""
    return table[list(columns)]


def setting(table: pd.DataFrame, key: str, default: float) -> pd.Series:
    """The value of a numeric setting in each row: its column, or else what `variant` says of it.

    `default` where nothing is overridden, missing where something else is.
    """
    if key in table:
        values = table[key].astype(float)
        return values.mask(values.isna() & (table["variant"] == ""), default) if "variant" in table else values
    known = {variant: variant.removeprefix(f"{key}=") for variant in table["variant"].unique()}
    values = {v: text if text != v and "," not in text else None for v, text in known.items()} | {"": default}
    return table["variant"].map(values).astype(float)


def cells(correctness: pd.DataFrame) -> list[tuple[str, str]]:
    """(teacher, student) pairs with a trained student, in the paper's order."""
    trained = correctness[(correctness.teacher != "") & (correctness.student != "")]
    pairs = set(trained[["teacher", "student"]].drop_duplicates().itertuples(index=False, name=None))
    teachers = in_order(trained.teacher, paper.TEACHERS)
    students = in_order(trained.student, paper.STUDENTS)
    return [(t, s) for t in teachers for s in students if (t, s) in pairs]


def method_rows(
    correctness: pd.DataFrame, benchmark: str | None, teacher: str, student: str, method: str, variant: str = ""
) -> pd.DataFrame:
    """The answers of one method in one cell; the teacher's own row has no student, ICL has no teacher.

    Of all benchmarks where `benchmark` is None.
    """
    names = {} if benchmark is None else {"benchmark": benchmark}
    names |= {"teacher": "" if method == "icl" else teacher, "student": "" if method == "teacher" else student}
    return select(correctness, **names, method=method, variant=variant)


def cells_of(table: pd.DataFrame, columns: list[str]):
    """(cell, its rows) for each combination of values of some columns, in the paper's order."""
    groups = dict(list(table.groupby(columns, sort=True))) if len(table) else {}
    places = _places(table, columns)
    return sorted(groups.items(), key=lambda item: [places[c][v] for c, v in zip(columns, item[0], strict=True)])


def sorted_by(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The table sorted by columns: names in the paper's order, anything else by its value."""
    places = _places(table, [c for c in columns if c in ORDER])

    def place(column: pd.Series) -> pd.Series:
        """What a column is sorted by."""
        return column.map(places[column.name]) if column.name in places else column

    return table.sort_values(columns, key=place, ignore_index=True)


def _places(table: pd.DataFrame, columns: list[str]) -> dict[str, dict[str, int]]:
    """Of each column the places of its names in the paper's order."""
    return {c: {name: i for i, name in enumerate(in_order(table[c], ORDER[c]))} for c in columns}


def percent(interval: stats.Interval, prefix: str = "study") -> dict:
    """An interval as columns in per cent."""
    scale = {"estimate": prefix + "_pct", "low": prefix + "_low_pct", "high": prefix + "_high_pct"}
    return {name: 100 * getattr(interval, part) for part, name in scale.items()}


def points(interval: stats.Interval, prefix: str) -> dict:
    """A difference as columns in percentage points."""
    scale = {"estimate": prefix + "_pp", "low": prefix + "_low_pp", "high": prefix + "_high_pp"}
    return {name: 100 * getattr(interval, part) for part, name in scale.items()}


def by_seed(values: pd.Series, decimals: int) -> str:
    """A value of each seed as one text in the seeds' order, "75.40 74.90"; empty with a single seed."""
    return " ".join(f"{value:.{decimals}f}" for value in values.sort_index()) if len(values) > 1 else ""


def accuracy_by_seed(answers: pd.DataFrame) -> str:
    """Accuracy of each seed in per cent, as `by_seed` writes it; columns seed, correct."""
    return by_seed(100 * answers.groupby("seed")["correct"].mean(), 2)


def auc_by_seed(scores: pd.DataFrame, comparison: str) -> str:
    """AUC of each seed, as `by_seed` writes it; columns seed, kind, score."""
    values = {seed: metrics.comparison_auc(group, comparison) for seed, group in scores.groupby("seed")}
    return by_seed(pd.Series(values, dtype=float), 4)


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Floats as they are written: 2 decimals in per cent and percentage points, 4 elsewhere."""
    table = table.copy()
    for column in table.select_dtypes("float").columns:
        table[column] = table[column].round(_decimals(column)) + 0.0  # no minus zero
    return table


def _decimals(column: str) -> int:
    return 2 if column.endswith(("_pct", "_pp")) else 4


# --- writing ------------------------------------------------------------------------------------------------


def write_csv(table: pd.DataFrame, path: Path) -> Path:
    """Write a table as CSV with fixed formats; the same table gives the same bytes."""
    artifacts.write_bytes(path, rounded(table).map(_as_cell).to_csv(index=False, lineterminator="\n").encode())
    return path


def _as_cell(value) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)


def write_markdown(table: pd.DataFrame, path: Path, title: str, note: str = "") -> Path:
    """Write a table as Markdown under its title; a missing value is a dash, a line break a space.

    A table that no run has given so much as a column is a sentence.
    """
    lines = [f"# {title}", "", *([note, ""] if note else [])]
    lines += _rows(table) if len(table.columns) else ["There are no such runs in these results."]
    artifacts.write_bytes(path, ("\n".join(lines) + "\n").encode())
    return path


def difference(estimate: float, low: float, high: float, unit: str) -> str:
    """A difference with its unit and interval, `+0.5 pp [-0.1, +1.2]`: tenths of a point, thousandths of an AUC."""
    places = 1 if unit == "pp" else 3
    estimate, low, high = (round(value, places) or 0.0 for value in (estimate, low, high))  # no -0.0
    return f"{estimate:+.{places}f} {unit} [{low:+.{places}f}, {high:+.{places}f}]"


def listed(items: Sequence[str]) -> str:
    """Items as a sentence lists them: "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def _rows(table: pd.DataFrame) -> list[str]:
    """Head and rows of a table, a line each."""
    lines = ["| " + " | ".join(map(str, table.columns)) + " |"]
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]
    lines.append("| " + " | ".join("---:" if is_number else "---" for is_number in numeric) + " |")
    for row in table.itertuples(index=False):
        values = [_as_markdown(v, name) for v, name in zip(row, table.columns, strict=True)]
        lines.append("| " + " | ".join(values) + " |")
    return lines


def _as_markdown(value, column: str) -> str:
    if isinstance(value, float) and not np.isnan(value):
        return f"{value:.{_decimals(column)}f}"
    return shown.in_markdown(_as_cell(value)) or "-"
