"""Helpers of all tables: the paper's order, selection, means with intervals, values by seed, rounding, writing.

Accuracies are in per cent (columns `*_pct`), differences in percentage points (`*_pp`), AUCs in [0, 1].
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rdlib import artifacts
from rdlib.evidence import paper, shown, stats
from rdlib.method import metrics

CELL = ["dataset", "teacher", "student"]
ORDER = {"dataset": paper.BENCHMARKS, "benchmark": paper.BENCHMARKS, "teacher": paper.TEACHERS}
ORDER |= {"student": paper.STUDENTS, "method": paper.METHODS}


# --- order and selection ------------------------------------------------------------------------------------


def in_order(names: Iterable[Any], known: Iterable[Any]) -> list[str]:
    """The names that occur, the known ones first and in their order, the rest sorted."""
    names = set(pd.unique(names) if isinstance(names, pd.Series) else names)  # a column of text is slow to walk
    return [name for name in known if name in names] + sorted(names - set(known))


def sorted_by(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The table sorted by columns: names in the paper's order, anything else by its value."""

    def place(column: pd.Series) -> pd.Series:
        """What a column is sorted by."""
        known = in_order(column, ORDER[column.name]) if column.name in ORDER else None
        return column if known is None else column.map({name: i for i, name in enumerate(known)})

    return table.sort_values(columns, key=place, kind="stable", ignore_index=True)


def cells_of(table: pd.DataFrame, columns: list[str]) -> list[tuple[tuple, pd.DataFrame]]:
    """(cell, its rows) for each combination of values of some columns, in the paper's order."""
    return list(sorted_by(table, columns).groupby(columns, sort=False))


def cells(table: pd.DataFrame, columns: Sequence[str] = ("teacher", "student")) -> list[tuple[str, ...]]:
    """The values of some columns in rows with a teacher and a trained student, in the paper's order."""
    trained = table[(table["teacher"] != "") & (table["student"] != "")]
    return list(sorted_by(trained[[*columns]].drop_duplicates(), [*columns]).itertuples(index=False, name=None))


def as_found(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The table with columns as categories, which sort as their values are found."""
    return table.assign(**{name: pd.Categorical(table[name], table[name].unique(), ordered=True) for name in columns})


def select(table: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows in which each named column has the given value."""
    found = np.ones(len(table), dtype=bool)
    for column, value in values.items():
        found &= (table[column] == value).to_numpy(dtype=bool, na_value=False)
    return table[found]


def stacked(parts: Sequence[pd.DataFrame], like: pd.DataFrame) -> pd.DataFrame:
    """Tables under each other; without any no row, with the columns of `like`."""
    return pd.concat(parts, ignore_index=True) if parts else like[:0]


def columns_of(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of a table, in this order."""
    return table[list(columns)]


def setting(table: pd.DataFrame, key: str, default: float) -> pd.Series:
    """The value of a numeric setting in each row, as `variant` has it.

    `default` where nothing is overridden, missing where something else is.
    """
    found = {variant: re.search(rf"(?:^|,){key}=([^,]+)", variant) for variant in table["variant"].unique()}
    values = {variant: match and float(match[1]) for variant, match in found.items()}
    return table["variant"].map(values | {"": default}).astype(float)


def method_rows(
    correctness: pd.DataFrame, benchmark: str | None, teacher: str, student: str, method: str, variant: str = ""
) -> pd.DataFrame:
    """The answers of one method in one cell; the teacher's own row has no student, ICL has no teacher.

    Of all benchmarks where `benchmark` is None.
    """
    names = {} if benchmark is None else {"benchmark": benchmark}
    names |= {"teacher": "" if method == "icl" else teacher, "student": "" if method == "teacher" else student}
    return select(correctness, **names, method=method, variant=variant)


# --- a row a group ------------------------------------------------------------------------------------------


def rows_of(
    table: pd.DataFrame, by: Sequence[str], row: Callable[[pd.DataFrame], dict], sort: bool = False
) -> pd.DataFrame:
    """A row for each combination of values of some columns, in order of the table: these, and what `row` makes."""
    groups = table.groupby(list(by), sort=sort, observed=True, dropna=False)
    return pd.DataFrame([dict(zip(by, values, strict=True)) | row(part) for values, part in groups])


def mean(table: pd.DataFrame, value: str = "value", key: str = "validation") -> stats.Interval:
    """The mean of a column over seeds and the questions named `key`, with its interval; columns seed, id too."""
    return stats.mean_draws(table[["seed", "id"]].assign(value=table[value]), key).interval()


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


# --- writing ------------------------------------------------------------------------------------------------


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Floats as they are written: 2 decimals in per cent and percentage points, 4 elsewhere."""
    floats = table.select_dtypes("float").columns
    return table.assign(**{name: table[name].round(_decimals(name)) + 0.0 for name in floats})  # no minus zero


def _decimals(column: str) -> int:
    return 2 if column.endswith(("_pct", "_pp")) else 4


def write_csv(table: pd.DataFrame, path: Path) -> Path:
    """Write a table as CSV with fixed formats; the same table gives the same bytes."""
    table = rounded(table)
    table = table.astype(dict.fromkeys(table.select_dtypes("float32"), "float64"))  # with all their digits
    artifacts.write_bytes(path, table.to_csv(index=False, lineterminator="\n").encode())
    return path


def write_markdown(table: pd.DataFrame, path: Path, title: str, note: str = "") -> Path:
    """Write a table as Markdown under its title; a missing value is a dash, a line break a space.

    A table that no run has given so much as a column is a sentence.
    """
    lines = [f"# {title}", "", *([note, ""] if note else [])]
    lines += _rows(table) if len(table.columns) else ["There are no such runs in these results."]
    artifacts.write_bytes(path, ("\n".join(lines) + "\n").encode())
    return path


def _rows(table: pd.DataFrame) -> list[str]:
    """Head and rows of a table, a line each."""
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]
    rows = [list(table.columns), ["---:" if is_number else "---" for is_number in numeric]]
    for row in table.itertuples(index=False):
        rows.append([_as_markdown(value, name) for value, name in zip(row, table.columns, strict=True)])
    return [f"| {' | '.join(map(str, row))} |" for row in rows]


def _as_markdown(value, column: str) -> str:
    if value is None or pd.isna(value):
        return "-"
    text = f"{value:.{_decimals(column)}f}" if isinstance(value, float) else shown.in_markdown(str(value))
    return text or "-"


def difference(estimate: float, low: float, high: float, unit: str) -> str:
    """A difference with its unit and interval, `+0.5 pp [-0.1, +1.2]`: tenths of a point, thousandths of an AUC."""
    places = 1 if unit == "pp" else 3
    estimate, low, high = (round(value, places) or 0.0 for value in (estimate, low, high))  # no -0.0
    return f"{estimate:+.{places}f} {unit} [{low:+.{places}f}, {high:+.{places}f}]"


def listed(items: Sequence[str]) -> str:
    """Items as a sentence lists them: "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))
