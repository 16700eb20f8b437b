"""The replay engine: recorded responses, from a file or a folder of files, Parquet or JSONL, in place of a model.

A record, here as a line of JSONL, names its question by `id` or by the text of `question`:

    {"id": "gsm-train-17", "temperature": 0.7, "sample": 2, "text": "... #### 12", "tokens": 41, "finished": true}

Only the question and `text` are needed. Records are served in the order of `sample`, else of the file. With
`temperature`, a request gets those of its own; without it, all requests must be at one temperature. `tokens` counts
tokens; `finished` (or `finish_reason`: "stop" or "length") tells whether the response ended by itself. The table
that sampling makes, such as a stage's responses.parquet, is a recording too.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rdlib.errors import UserError
from rdlib.generation import Completion, Request, approximate_tokens, clean
from rdlib.prompts import Prompt

Key = tuple[str, str]  # ("id" or "question", which)


class ReplayEngine:
    """Serves recorded responses; the same request always gets the same ones, whatever the seed."""

    def __init__(self, source: str | Path):
        self.source = Path(source)
        self.records: dict[Key, dict[float | None, list[Completion]]] = defaultdict(lambda: defaultdict(list))
        self.temperature: float | None = None
        for where, record in sorted(_read(self.source), key=lambda item: _order(item[1])):
            key, temperature, completion = _parse(record, where)
            self.records[key][temperature].append(completion)
        if not self.records:
            raise UserError(f"The recording {self.source} is empty: give a file with recorded responses.")

    def encode(self, prompt: Prompt) -> Prompt:
        """The prompt itself: recordings are looked up by its question."""
        return prompt

    def generate(self, requests: Sequence[Request], seed: int) -> list[list[Completion]]:
        """The first `n` recorded responses of each request; UserError naming a question with fewer."""
        return [self._serve(request) for request in requests]

    def close(self) -> None:
        """Nothing to give back."""

    def _serve(self, request: Request) -> list[Completion]:
        prompt, key = request.prompt, ("id", request.prompt.id)
        by_temperature = self.records.get(key) or self.records.get(("question", prompt.question), {})
        temperature = None if None in by_temperature else round(request.temperature, 6)
        if temperature is None:
            self._require_one_temperature(request.temperature)
        found = by_temperature.get(temperature, [])
        if len(found) < request.n:
            at = "" if temperature is None else f" at temperature {request.temperature:g}"
            raise UserError(
                f"The recording {self.source} has {len(found)} of the {request.n} responses that are asked for to "
                f"question {prompt.id or prompt.question[:80]!r}{at}: record the missing ones, or ask for fewer."
            )
        return found[: request.n]

    def _require_one_temperature(self, asked: float) -> None:
        if self.temperature not in (None, asked):
            raise UserError(
                f"The recording {self.source} tells no temperatures, but responses at {self.temperature:g} and at "
                f"{asked:g} are asked for: give its records a temperature, or ask for one temperature only."
            )
        self.temperature = asked


def _read(source: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, record) of all records of a file, or of the files of a folder in the order of their names."""
    files = sorted(f for f in source.iterdir() if f.suffix in READERS) if source.is_dir() else [source]
    for file in files:
        if file.suffix not in READERS:
            raise UserError(f"The recording {file} is neither Parquet nor JSONL: name it .parquet or .jsonl.")
        try:
            yield from READERS[file.suffix](file)
        except FileNotFoundError:
            raise UserError(f"There is no recording {file}: give a .parquet or .jsonl file, or a folder.") from None
        except OSError as error:
            raise UserError(f"The recording {file} cannot be read ({error.strerror}): give a readable file.") from None


def _read_jsonl(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                where = f"Line {number} of the recording {file}"
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    raise UserError(f"{where} is not JSON: mend or remove it.") from None
                if not isinstance(record, dict):
                    raise UserError(f"{where} is not a JSON object: write one response a line.")
                yield where, record


def _read_parquet(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        frame = pd.read_parquet(file)
    except OSError:
        raise
    except Exception as error:  # pyarrow raises several unrelated types for a damaged file
        raise UserError(f"The recording {file} is not a readable Parquet file ({type(error).__name__}).") from None
    names = [name for name in FIELDS if name in frame.columns]
    for number, row in enumerate(frame[names].itertuples(index=False, name=None), start=1):
        record = {name: value for name, value in zip(names, row, strict=True) if not pd.isna(value)}
        yield f"Row {number} of the recording {file}", record


READERS = {".jsonl": _read_jsonl, ".parquet": _read_parquet}
FIELDS = ("id", "question", "text", "temperature", "sample", "tokens", "finished", "finish_reason")


def _number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _order(record: dict[str, Any]) -> float:
    return _number(record.get("sample")) or 0


def _parse(record: dict[str, Any], where: str) -> tuple[Key, float | None, Completion]:
    name = next((name for name in ("id", "question") if record.get(name) not in (None, "")), None)
    text, temperature = record.get("text"), _number(record.get("temperature"))
    if name is None:
        raise UserError(f"{where} does not say which question it answers: give it an id or a question.")
    if not isinstance(text, str):
        raise UserError(f"{where} has no text: give it the response, or remove it.")
    if temperature is None and record.get("temperature") is not None:
        raise UserError(f"{where} has the temperature {str(record['temperature'])[:40]!r}: give a number.")
    count = _number(record.get("tokens"))
    finished = record.get("finished", record.get("finish_reason", "stop") == "stop")
    text = clean(text)
    count = approximate_tokens(text) if count is None else int(count)
    completion = Completion(text, None, count, "stop" if finished else "length")
    return (name, str(record[name])), None if temperature is None else round(float(temperature), 6), completion
