"""The replay engine: recorded responses, from a file or a folder of files, Parquet or JSONL, in place of a model.

A record, here as a line of JSONL, names its question by `id` or by the text of `question`:

    {"id": "gsm-train-17", "temperature": 0.7, "sample": 2, "text": "... #### 12", "tokens": 41, "finished": true}

Only the question and `text` are needed. Where a record has the question's text, or its hash as `question_sha256` (of
`plain_question`), that decides: an id alone can be that of another question by now, so one with another text is refused
and never served. Records are served in the order of
`sample`, else of the file. With `temperature`, a request gets those of its own; without it, all requests must be at one
temperature. `tokens` counts tokens; `finished` (or `finish_reason`: "stop" or "length") tells whether the response
ended by itself. The table that sampling makes, such as a stage's responses.parquet, is a recording too.
"""

from __future__ import annotations

import codecs
import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

from rdlib.engines.generation import Completion, Request, approximate_tokens, clean, cut_run_on
from rdlib.errors import UserError
from rdlib.tasks.prompts import Prompt
from rdlib.tasks.records import parse_object
from rdlib.tasks.spoken import thought_end

Key = tuple[str, str]  # ("id", "question" or "hash", which)


class ReplayEngine:
    """Serves recorded responses; the same request always gets the same ones, whatever the seed.

    `drop_thinking` serves them without what was thought before the answer.
    """

    def __init__(self, source: str | Path, drop_thinking: bool = False):
        self.source, self.drop_thinking = Path(source), drop_thinking
        self.records: dict[Key, dict[float | None, list[Completion]]] = defaultdict(lambda: defaultdict(list))
        self.texts: dict[str, str] = {}  # by id: the question, or its hash, that the recording says it is of
        self.temperature: float | None = None
        recorded = [_parse(record, where) for where, record in _read(self.source)]
        for response in sorted(recorded, key=lambda response: response.sample):
            self.records[response.key][response.temperature].append(response.completion)
            if response.id is not None and response.key[0] != "id":
                self.texts[response.id] = response.key[1]
                self.records["id", response.id][response.temperature].append(response.completion)
        if not self.records:
            raise UserError(f"The recording {self.source} is empty: give a file with recorded responses.")
        for (_, name), by_temperature in self.records.items():
            if None in by_temperature and len(by_temperature) > 1:
                raise UserError(
                    f"The recording {self.source} has responses to {name[:80]!r} with a temperature and without: give "
                    f"one to all of them or to none."
                )

    def encode(self, prompt: Prompt) -> Prompt:
        """The prompt itself: recordings are looked up by its question."""
        return prompt

    def generate(self, requests: Sequence[Request], seed: int) -> list[list[Completion]]:
        """The first `n` recorded responses of each request; UserError naming a question with fewer."""
        return [self._serve(request) for request in requests]

    def close(self) -> None:
        """Nothing to give back."""

    def _serve(self, request: Request) -> list[Completion]:
        prompt = request.prompt
        by_temperature = self._records_of(prompt)
        own = None in by_temperature or request.temperature is None
        temperature = None if own else round(request.temperature, 6)
        if temperature is None and request.temperature is not None:
            self._require_one_temperature(request.temperature)
        found = by_temperature.get(temperature, [])
        if len(found) < request.n:
            at = "" if temperature is None else f" at temperature {request.temperature:g}"
            raise UserError(
                f"The recording {self.source} has {len(found)} of the {request.n} responses that are asked for to "
                f"question {prompt.id or prompt.question[:80]!r}{at}: record the missing ones, or ask for fewer."
            )
        served = [cut_run_on(completion, request.stop) for completion in found[: request.n]]
        return [without_thinking(completion) for completion in served] if self.drop_thinking else served

    def _records_of(self, prompt: Prompt) -> dict[float | None, list[Completion]]:
        """What is recorded of a question: by its text or hash, else by its id; UserError for its id with another."""
        text = plain_question(prompt.question)
        if found := self.records.get(("question", text)) or self.records.get(("hash", hash_of(text))):
            return found
        other = self.texts.get(prompt.id)
        if other is not None and prompt.question:
            raise UserError(
                f"The recording {self.source} has the id {prompt.id!r} with another question ({other[:80]!r}) than "
                f"this study ({prompt.question[:80]!r}): record this question, or give each its own id."
            )
        return self.records.get(("id", prompt.id), {})

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
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if line.strip():
                where = f"Line {number} of the recording {file}"
                yield where, parse_object(line, where)


def _read_parquet(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        frame = pd.read_parquet(file)
    except OSError:
        raise
    except Exception as error:  # pyarrow raises several unrelated types for a damaged file
        raise UserError(f"The recording {file} is not a readable Parquet file ({type(error).__name__}).") from None
    names = [name for name in FIELDS if name in frame.columns]
    for number, row in enumerate(frame[names].itertuples(index=False, name=None), start=1):
        given = zip(names, row, strict=True)
        record = {name: value for name, value in given if not (pd.api.types.is_scalar(value) and pd.isna(value))}
        yield f"Row {number} of the recording {file}", record


READERS = {".jsonl": _read_jsonl, ".parquet": _read_parquet}
LARGEST = 2**31  # no temperature, count or number of a sample reaches it
FIELDS = (
    *("id", "question", "asked", "question_sha256", "text", "temperature", "sample", "tokens", "finished"),
    "finish_reason",
)


@dataclass(frozen=True)
class Recorded:
    """A record: the question it answers, its temperature where it has one, its place, and the response."""

    key: Key
    id: str | None
    temperature: float | None
    sample: float
    completion: Completion


def _parse(record: dict[str, Any], where: str) -> Recorded:
    _require_no_batch(record, where)
    (key, name), text = _key(record, where), record.get("text")
    if not isinstance(text, str):
        raise UserError(f"{where} has no text: give it the response, or remove it.")
    temperature, sample, count = (_number(record, field, where) for field in ("temperature", "sample", "tokens"))
    if temperature is None and record.get("temperature") is not None:
        raise UserError(f"{where} has the temperature {record['temperature']}: give a number.")
    text = clean(text)
    count = approximate_tokens(text) if count is None else int(count)
    completion = Completion(text, None, count, "stop" if _ended(record, where) else "length")
    temperature = None if temperature is None else round(temperature, 6)
    return Recorded(key, name, temperature, sample or 0, completion)


def _require_no_batch(record: dict[str, Any], where: str) -> None:
    if "custom_id" in record and ("response" in record or "error" in record):
        raise UserError(
            f"{where} is a result of a batch, no recording: read it by `python -m rdlib.study.batch read`, which puts "
            f"it into the study's store."
        )


def without_thinking(completion: Completion) -> Completion:
    """A response without the thinking before its answer; one whose thinking was cut off stays as it is."""
    start = thought_end(completion.text)
    return replace(completion, text=completion.text[start:].strip()) if completion.text[start:].strip() else completion


def plain_question(text: str) -> str:
    """A question's text as recordings are looked up by: one kind of line end, no space around it."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def hash_of(question: str) -> str:
    """SHA-256 of a question's plain text, by which a recording names a question without holding its text."""
    return hashlib.sha256(question.encode()).hexdigest()


def _key(record: dict[str, Any], where: str) -> tuple[Key, str | None]:
    """What a record is looked up by, its question's text where it has one, and its id."""
    key = _name(record, "id", where)
    told = [name for name in ("question", "asked") if key is None or isinstance(record.get(name), str | int | float)]
    asked = next((text for name in told if (text := _name(record, name, where))), None)  # "asked": of a stage's table
    if asked:
        return ("question", plain_question(asked)), key
    if hashed := _name(record, "question_sha256", where):
        return ("hash", hashed), key
    if key:
        return ("id", key), key
    raise UserError(f"{where} does not say which question it answers: give it an id or a question.")


def _name(record: dict[str, Any], name: str, where: str) -> str | None:
    """An id or a question as text, a whole number without a point; None where the record has none, or NaN for one."""
    value = record.get(name)
    if value is None or value == "" or value != value:  # pandas writes NaN for what is missing
        return None
    if not isinstance(value, str | int | float | Decimal) or isinstance(value, bool):
        raise UserError(f"{where} has the {name} {str(value)[:40]!r}: give text or a number.")
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):
            raise UserError(f"{where} has the {name} {value}: give text or a number.")
        value = int(value) if value == int(value) else value
    return str(value)


def _number(record: dict[str, Any], field: str, where: str) -> float | None:
    """A field that is a number from 0 up; None where it is missing or NaN or infinite, UserError for anything else."""
    value = record.get(field)
    if field == "temperature" and isinstance(value, str) and re.fullmatch(r"\s*\d+(\.\d+)?\s*", value):
        value = float(value)
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not 0 <= value < LARGEST:
        raise UserError(f"{where} has the {field} {str(value)[:40]!r}: give a number from 0 up.")
    return float(value)


def _ended(record: dict[str, Any], where: str) -> bool:
    """Whether a response ended by itself, by `finished` or else `finish_reason`."""
    finished, reason = record.get("finished"), record.get("finish_reason")
    if not isinstance(finished, bool | None) or not isinstance(reason, str | None):
        raise UserError(
            f"{where} has a strange finished or finish_reason: give true or false, or a reason such as stop."
        )
    return reason in (None, "stop") if finished is None else finished
