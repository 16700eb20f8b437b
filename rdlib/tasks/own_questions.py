"""Your own questions from a JSONL or Parquet file, with or without answers.

One object a line; only `question` must be there. With `answer: choice` every row needs `options`, and its answer may
be a letter or an option's text:

    {"question": "What is 7 * 6?", "answer": "42", "id": "times-1", "group": "easy"}
    {"question": "Which is a metal?", "options": ["zinc", "chalk"], "answer": "zinc"}
    {"question": "Who wrote Emma?"}

`aliases`, a list beside `answer`, holds other forms of it that count as right. `solution` may hold a worked solution
for few-shot prompts; `split` (train, validation or test) is in every row or in none. Where no row has one, the seed
draws them: 80 / 10 / 10 or the profile's counts. The test split takes questions with answers first. Those without are
held out: the evaluation compares them with the teacher's vote (`rdlib.method.held_out`), and nothing else sees them.
"""

from __future__ import annotations

import difflib
import hashlib
import unicodedata
from collections.abc import Hashable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from rdlib.errors import UserError
from rdlib.settings import Dataset
from rdlib.tasks import answers, own_equality
from rdlib.tasks.questions import LETTERS, SPLITS, Question, require_sound
from rdlib.tasks.records import Record, kind_of, read_records
from rdlib.tasks.splits import assign_ranked, cap

HELD_OUT_SHARE = 0.1  # of all questions, for test and for validation
OTHER_NAMES = ("prompt", "messages", "input", "instruction", "problem", "query", "text")  # of other formats
FIELDS = ("question", "id", "answer", "aliases", "options", "split", "group", "solution")


def load(name: str, settings: Dataset, root: Path) -> list[Question]:
    """The questions of the file `settings.path`, in their splits; UserError naming the line of a bad row."""
    records = read_records(root / settings.path)
    _refuse_misspelt_fields(records)
    kind = own_equality.kind_of(settings, root)
    questions = [read_question(record, name, kind) for record in records]
    _refuse_duplicates(questions, records)
    if any(question.split for question in questions):
        questions = _given_splits(questions, records, settings, name)
    else:
        questions = _drawn_splits(questions, settings, name)
    require_sound(questions)
    for split in SPLITS:
        if not any(question.split == split for question in questions):
            raise UserError(f"datasets.{name} has no {split} question: add some to {root / settings.path}.")
    return questions


def read_question(record: Record, name: str, kind: str) -> Question:
    """One row as a question, its split "" where it gives none; UserError for a row that cannot be used."""
    options = record.options() if _has_options(record, kind) else ()
    group, solution = (_optional(record, field) for field in ("group", "solution"))
    question = _plain(record, _asked(record), "'question'")
    key = record.fields.get("id")
    key = own_id(name, question, options) if key is None else _plain(record, str(_scalar(record, "id")), "'id'")
    if len({_plain(record, option, "an option") for option in options}) < len(options):
        raise record.error("two of its options are the same; leave one out.")
    answer = _answer(record, kind, options) if _has(record, "answer") else None
    aliases = _aliases(record, kind, answer) if _has(record, "aliases") else ()
    return Question(key, _split(record), group or "", question, options, answer, solution, aliases)


def own_id(name: str, question: str, options: Sequence[str] = ()) -> str:
    """The id of a question that brings none: of its content alone, so no other row changes it."""
    content = "\x1f".join([" ".join(question.split()), *options])
    return f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _asked(record: Record) -> str:
    """The text of the question; UserError with a hint where it stands under another name."""
    if record.fields.get("question") is None:
        other = next((name for name in OTHER_NAMES if record.fields.get(name)), None)
        if other:
            raise record.error(f"the field 'question' is missing, but there is {other!r}: rename it to 'question'.")
    return record.text("question")


def _optional(record: Record, name: str) -> str | None:
    return _plain(record, record.text(name), f"{name!r}") if _has(record, name) else None


def _has(record: Record, name: str) -> bool:
    """Whether a row has a field: null, NaN (of a float column with gaps) and an empty text (of CSV) are none."""
    value = record.fields.get(name)
    return value is not None and value == value and not (isinstance(value, str) and not value.strip())


def _has_options(record: Record, kind: str) -> bool:
    given, kind = record.fields.get("options") not in (None, []), own_equality.kind_alone(kind)
    if kind in ("choice", "option") and not given:
        raise record.error(f"'options' is missing, which answers of the kind {kind!r} need; add it.")
    if kind in ("math", "number", "phrase", "expression") and given:
        raise record.error(f"it has 'options', but the profile says answer: {kind}; use answer: choice.")
    return given


def _plain(record: Record, text: str, name: str) -> str:
    """`text` itself; UserError for characters that no one types (a tab and a line end may be in it)."""
    text = record.checked(text, name).replace("\r\n", "\n")
    bad = next((c for c in text if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160), None)
    if bad is not None:
        raise record.error(f"{name} holds the control character U+{ord(bad):04X}; take it out.")
    return text


def _scalar(record: Record, name: str) -> Any:
    """A field that is text or a number, the number written without exponent."""
    return _as_text(record, record.fields[name], f"{name!r}")


def _as_text(record: Record, value: Any, name: str) -> Any:
    """A value that is text or a number, the number written without exponent."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise record.error(f"{name} is {kind_of(value)} where text or a number belongs.")
    if isinstance(value, str):
        return value
    number = Decimal(str(value))
    if not number.is_finite() or abs(number.adjusted()) > 30:
        raise record.error(f"{name} is {str(value)[:40]}, which is no number that an answer can be; write it as text.")
    return f"{number:f}"


def _answer(record: Record, kind: str, options: tuple[str, ...]) -> str:
    """The gold answer in the form that answers are extracted in: a letter for a choice."""
    given = _plain(record, _scalar(record, "answer"), "'answer'")
    if kind in ("choice", "option"):
        return _letter(record, given, options)
    if options and given not in options:
        raise record.error(f"its answer {given[:40]!r} is not among its options.")
    return _read(record, given, kind, "its answer")


def _read(record: Record, given: str, kind: str, name: str) -> str:
    """A given answer in the form that answers are extracted in; UserError where it is none of its kind."""
    answer = answers.extract(f"the answer is {given}" if kind == "text" else f"#### {given}", kind)
    if answer is None:
        alone = own_equality.kind_alone(kind)
        raise record.error(f"{name} {given[:40]!r} is none of the kind {alone!r} that the profile asks for.")
    return answer


def _aliases(record: Record, kind: str, answer: str | None) -> tuple[str, ...]:
    """Other forms of the gold answer that count as right, as they are extracted; the answer itself is none."""
    given = record.fields["aliases"]
    if kind in ("choice", "option"):
        raise record.error("it has 'aliases', but an option needs none; take them out.")
    if answer is None:
        raise record.error("it has 'aliases' but no 'answer'; give one of them as the answer.")
    if not isinstance(given, list):
        raise record.error(f"'aliases' is {kind_of(given)} where a list of texts belongs.")
    texts = [_plain(record, _as_text(record, alias, "an alias"), "an alias") for alias in given]
    found = dict.fromkeys(_read(record, text, kind, "its alias") for text in texts)
    return tuple(alias for alias in found if alias != answer)


def _letter(record: Record, given: str, options: tuple[str, ...]) -> str:
    letters = LETTERS[: len(options)]
    if given in options:
        return letters[options.index(given)]
    if len(given) != 1 or given.upper() not in letters:
        raise record.error(f"its answer {given[:40]!r} is neither an option nor a letter of A to {letters[-1]}.")
    return given.upper()


def _split(record: Record) -> str:
    split = record.fields.get("split")
    if split is None:
        return ""
    if split not in SPLITS:
        raise record.error(f"its split {str(split)[:40]!r} is not one of {', '.join(SPLITS)}.")
    return split


def _refuse_misspelt_fields(records: list[Record]) -> None:
    """UserError for a field that looks like one of ours that no row has: a misspelt `answer` would go unread."""
    absent = [field for field in FIELDS if not any(field in record.fields for record in records)]
    for record in records:
        for field in record.fields.keys() - set(FIELDS):
            if close := difflib.get_close_matches(field, absent, n=1, cutoff=0.8):
                raise record.error(f"it has a field {field!r}: did you mean {close[0]!r}?")


def _refuse_duplicates(questions: list[Question], records: list[Record]) -> None:
    """UserError for the first row that asks what an earlier one asks, or has its id; it counts such rows."""
    asked = [(unicodedata.normalize("NFC", q.text), tuple(sorted(q.options))) for q in questions]
    _refuse_repeated(asked, records, "it asks what {place} asks{more}; leave one of each out.")
    ids = [question.id for question in questions]
    _refuse_repeated(ids, records, "its id is that of {place} too{more}; give each row another.")


def _refuse_repeated(keys: Sequence[Hashable], records: list[Record], problem: str) -> None:
    first: dict[Hashable, Record] = {}
    repeated = [(r, first[key]) for key, r in zip(keys, records, strict=True) if first.setdefault(key, r) is not r]
    if repeated:
        record, earlier = repeated[0]
        more = f" ({len(repeated)} such rows in all)" if len(repeated) > 1 else ""
        raise record.error(problem.format(place=_place(earlier), more=more))


def _place(record: Record) -> str:
    return record.where.rpartition(", ")[2]


def _given_splits(questions: list[Question], records: list[Record], settings: Dataset, name: str) -> list[Question]:
    for question, record in zip(questions, records, strict=True):
        if not question.split:
            raise record.error("it has no 'split', though other rows have; give one to every row or to none.")
    result = []
    for split in SPLITS:
        some = [question for question in questions if question.split == split]
        result += cap(some, getattr(settings, split), f"datasets.{name}.{split}", f"{split}/{settings.split_seed}")
    return result


def _drawn_splits(questions: list[Question], settings: Dataset, name: str) -> list[Question]:
    """The profile's counts of questions, or a tenth each for test and validation."""
    share = max(1, round(HELD_OUT_SHARE * len(questions)))
    tested = _drawn_test(questions, share if settings.test is None else settings.test, settings, name)
    rest = [question.text for question in questions if question.text not in tested]
    validation = share if settings.validation is None else settings.validation
    train = max(1, len(rest) - validation) if settings.train is None else settings.train
    if train + validation > len(rest):
        raise UserError(
            f"datasets.{name} asks for {train} train and {validation} validation questions, but {len(rest)} are left "
            f"beside {len(questions) - len(rest)} for test: lower the counts or add questions to the file."
        )
    found = assign_ranked(rest, {"validation": validation, "train": train}, f"questions/{settings.split_seed}")
    split_of = dict.fromkeys(tested, "test") | dict(zip(rest, found, strict=True))
    drawn = [replace(question, split=split_of[question.text]) for question in questions if split_of[question.text]]
    return sorted(drawn, key=lambda question: SPLITS.index(question.split))


def _drawn_test(questions: list[Question], count: int, settings: Dataset, name: str) -> set[str]:
    """The texts of the test questions: of those with answers first, then of those that any question without one has."""
    if count > len(questions):
        raise UserError(
            f"datasets.{name}.test is {count}, but the file has {len(questions)} questions: lower it, or give null "
            f"for a tenth of all."
        )
    without_answer = {question.text for question in questions if question.answer is None}
    tested: set[str] = set()
    left = count
    for held_out in (False, True):
        texts = [question.text for question in questions if (question.text in without_answer) is held_out]
        found = assign_ranked(texts, {"test": left}, f"questions/{settings.split_seed}")  # a rank for all splits
        taken = [text for text, split in zip(texts, found, strict=True) if split]
        tested |= set(taken)
        left -= len(taken)
    return tested
