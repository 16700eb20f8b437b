"""Rows of JSONL and Parquet files, and what a row may hold; every error names the file and the line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from rdlib.errors import UserError
from rdlib.tasks.questions import LETTERS

LONGEST = 20_000  # characters of one text; the longest of MMLU-Pro has 4,671


@dataclass(frozen=True)
class Record:
    """One row: `number` counts from 0, `where` says in words where it stands."""

    where: str
    number: int
    fields: dict[str, Any]

    def error(self, problem: str) -> UserError:
        """The exception that says what is wrong with this row."""
        return UserError(f"{self.where}: {problem}")

    def text(self, name: str) -> str:
        """A field that must be there as text, without the space around it."""
        value = self.fields.get(name)
        if value is None:
            raise self.error(f"the field {name!r} is missing; add it.")
        return self.checked(value, f"{name!r}")

    def options(self) -> tuple[str, ...]:
        """The field `options`, two to ten texts."""
        value = self.fields.get("options")
        if not isinstance(value, list) or not 2 <= len(value) <= len(LETTERS):
            given = f"{len(value)} of them" if isinstance(value, list) else kind_of(value)
            raise self.error(f"'options' must be a list of 2 to {len(LETTERS)} texts, not {given}.")
        return tuple(self.checked(option, "an option") for option in value)

    def checked(self, value: Any, name: str) -> str:
        """A value as text without the space around it; UserError when it is no text that can be asked and stored."""
        if not isinstance(value, str):
            raise self.error(f"{name} is {kind_of(value)} where text belongs.")
        if not value.strip():
            raise self.error(f"{name} is empty; fill it in or leave the row out.")
        if len(value) > LONGEST:
            raise self.error(f"{name} has {len(value):,} characters, more than {LONGEST:,}; shorten it.")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise self.error(f"{name} holds half of a surrogate pair, which is no character; correct its encoding.")
        return value.strip()


def read_records(path: Path) -> list[Record]:
    """The rows of a JSONL or Parquet file; UserError for a file that is missing, empty or something else."""
    readers = {".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json_lines, ".parquet": _parquet_rows}
    if path.suffix.lower() not in readers:
        raise UserError(
            f"{path} is neither JSONL nor Parquet by its name: give a file that ends in .jsonl or .parquet."
        )
    try:
        rows = list(readers[path.suffix.lower()](path))
    except FileNotFoundError:
        raise UserError(
            f"There is no file {path}: check the path in the profile, relative to the repository."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): give a readable file.") from None
    if not rows:
        raise UserError(f"{path} holds no rows: give a file with questions.")
    return rows


def numbered(rows: Iterable[dict[str, Any]], source: str) -> list[Record]:
    """Rows that come from no lines, as records; `source` says where from."""
    return [Record(f"{source}, row {number + 1}", number, row) for number, row in enumerate(rows)]


def _json_lines(path: Path) -> Iterator[Record]:
    number = 0
    for line, content in enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines(), start=1):
        if content.strip():
            where = f"{path}, line {line}"
            yield Record(where, number, parse_object(content, where))
            number += 1


def parse_object(content: bytes, where: str) -> dict[str, Any]:
    """A line of JSONL as its fields, numbers with a point as Decimal; UserError, which begins with `where`."""
    try:
        row = json.loads(content.decode("utf-8"), parse_float=Decimal, object_pairs_hook=_fields_once)
    except UnicodeDecodeError:
        raise UserError(f"{where} is not UTF-8: save the file in that encoding.") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON ({error.msg}, column {error.colno}): give one object a line.") from None
    except _TwiceError as error:
        raise UserError(f"{where} has the field {str(error)[:40]!r} twice: leave one out.") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, or brackets within brackets without end
        raise UserError(f"{where} is not JSON that can be read: give one object a line.") from None
    if not isinstance(row, dict):
        raise UserError(f"{where} holds {kind_of(row)} where an object belongs: give one object a line.")
    return row


class _TwiceError(Exception):
    """An object has a field twice, of which `json` would silently keep the last."""


def _fields_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return fields


def kind_of(value: Any) -> str:
    """What a value of JSON is called in a message."""
    return "float" if isinstance(value, Decimal) else type(value).__name__


def _parquet_rows(path: Path) -> list[Record]:
    import pyarrow
    from pyarrow import parquet

    try:
        return numbered(parquet.read_table(path).to_pylist(), str(path))
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UserError(f"{path} is not a readable Parquet file ({reason}): write it again.") from None
