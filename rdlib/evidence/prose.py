"""Sentences that a person writes and whose numbers are filled in: Jinja templates over tables of results.

    fill("Ours minus SFT is {{ rows.gain | pp(rows.low, rows.high) }}.", "README", rows=Rows(table, "claims"))

A missing number is an error: an unknown name or column, an empty value, or no single row where one is asked for.
`{% do expect(rows.low > 0) %}` writes nothing. It is an error where new results contradict the sentence beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from numbers import Real
from traceback import walk_tb
from typing import Any

import jinja2
import pandas as pd

from rdlib.errors import UserError
from rdlib.evidence import looks, tables

WORDS = "no one two three four five six seven eight nine ten eleven twelve".split()


class Row:
    """A row of a table: `row.column` is its value."""

    def __init__(self, values: dict[str, Any], source: str):
        self._values, self._source = values, source

    def __getattr__(self, column: str) -> Any:
        if column not in self._values:
            raise UserError(f"{self._source} has no column {column!r}; its columns are {', '.join(self._values)}.")
        return self._values[column]


class Rows:
    """Rows of a table, to be walked; of a single row, `rows.column` is its value. `source` names it in messages."""

    def __init__(self, frame: pd.DataFrame, source: str):
        self._frame, self._source = frame, source

    def __len__(self) -> int:
        return len(self._frame)

    def __iter__(self) -> Iterator[Row]:
        return (Row(values, self._source) for values in self._frame.to_dict("records"))

    def __getattr__(self, column: str) -> Any:
        if column.startswith("_"):
            raise AttributeError(column)
        if len(self) != 1:
            raise UserError(f"{self._source} has {len(self)} such rows where one is asked for its {column!r}.")
        return getattr(next(iter(self)), column)

    def where(self, query: str = "", **equal: Any) -> Rows:
        """The rows that pandas' `query` and each column's value choose; a text may have `*`, as cell="gsm/*"."""
        frame = self._frame
        for column, value in equal.items():
            values = Rows(frame, self._source).column(column)
            if isinstance(value, str) and "*" in value:
                chosen = values.fillna("").astype(str).map(lambda text, pattern=value: fnmatchcase(text, pattern))
            else:
                chosen = values == value
            frame = frame[chosen.astype(bool)]
        return Rows(frame.query(query) if query else frame, self._source)

    def values(self, column: str) -> list[Any]:
        """The different values of a column, in the order in which they come."""
        return list(dict.fromkeys(self.column(column)))

    def column(self, name: str) -> pd.Series:
        """A column, to be summarised by pandas: `rows.column("gain").mean()`."""
        return (
            self._frame[name] if name in self._frame else getattr(Row(dict.fromkeys(self._frame), self._source), name)
        )


# ---- filters


def pp(value: float, low: float | None = None, high: float | None = None, unit: str = "pp") -> str:
    """A difference with its unit, or with its interval too: +3.2 pp, +3.2 pp [+1.7, +4.7], -0.003 AUC."""
    if low is None:
        return tables.difference(_number(value), 0, 0, unit).partition(" [")[0]
    return tables.difference(_number(value), _number(low), _number(high), unit)


def pct(value: float, digits: int = 1) -> str:
    """A share in per cent: 48.9 %."""
    return f"{number(value, digits)} %"


def ci(value: float, low: float, high: float, digits: int = 1) -> str:
    """An estimate with its interval, without a unit: 98.5 [97.7, 99.2]."""
    return f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"


def number(value: float, digits: int = 2) -> str:
    """A number with so many decimals and its thousands apart."""
    return f"{round(_number(value), digits) + 0.0:,.{digits}f}"


def short(value: float, none: str | None = None) -> str:
    """A number in three digits, whole above a thousand; `none` stands in place of an empty value."""
    if none is not None and pd.isna(value):
        return none
    return f"{_number(value):,.0f}" if abs(value) >= 1000 else f"{_number(value):.3g}"


def span(values: Iterable[float], digits: int | None = None) -> str:
    """The smallest and the largest of some values, as "20 to 30"; empty ones left out, two digits or whole numbers."""
    ends = sorted(value for value in values if not pd.isna(value))
    if not ends:
        raise UserError("there is no value to show.")
    forms = [f"{end:.2g}" if digits is None and end < 10 else f"{end:,.{digits or 0}f}" for end in (ends[0], ends[-1])]
    return " to ".join(dict.fromkeys(forms))


def words(value: int) -> str:
    """A whole number in a sentence: a word up to twelve."""
    return WORDS[int(value)] if _number(value) < len(WORDS) else short(value)


def dash(value: Any) -> Any:
    """A value that may be empty, which is shown as a dash."""
    return "-" if pd.isna(value) or value == "" else value


def method(name: str) -> str:
    """The name of a method as tables and figures show it."""
    return looks.BASELINE_NAMES.get(name) or looks.METHODS[name].label


def _number(value: float) -> float:
    if isinstance(value, jinja2.Undefined):
        value._fail_with_undefined_error()
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise UserError(f"a number is wanted and {value!r} found.")
    return float(value)  # numpy's own rounds 0.95 otherwise


# ---- templates


def expect(holds: bool) -> str:
    """Nothing where a condition holds; UserError where results contradict the sentence that it stands beside."""
    if not holds:
        raise UserError("the results contradict this sentence: look at the numbers and rewrite it.")
    return ""


def fill(text: str, where: str, **values: Any) -> str:
    """A template filled with values; UserError, with `where` and the line, for anything that is not there."""
    try:
        return environment().from_string(text).render(values)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"{where}, line {error.lineno}: {error.message}") from None
    except (UserError, jinja2.UndefinedError, TypeError, ValueError, KeyError) as error:
        names = ("<template>", "<unknown>")  # Jinja's for a template that is not a file
        lines = [n for frame, n in walk_tb(error.__traceback__) if frame.f_code.co_filename in names]
        raise UserError(f"{where}, line {lines[-1] if lines else '?'}: {error}") from None


@cache
def environment() -> jinja2.Environment:
    """Jinja as `fill` uses it."""
    lines = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    made = jinja2.Environment(
        undefined=jinja2.StrictUndefined, finalize=_shown, extensions=["jinja2.ext.do"], autoescape=False, **lines
    )
    made.filters |= {one.__name__: one for one in (pp, pct, ci, number, short, span, words, dash, method)}
    made.globals["expect"] = expect
    return made


def _shown(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise UserError("a value is empty.")
    return value
