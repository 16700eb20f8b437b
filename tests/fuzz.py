"""Hostile input by the hundred thousand: `make check KIND=fuzz ARGS="--target profiles --cases 5000"`.

A target makes cases from a seed and judges each: nothing but a UserError may be raised, within a time limit, and what
is accepted must be right. What a wrong silent success would be, target by target:

    answers      an answer whose number, letter or words do not stand in the text; a letter that the question has not; a
                 final answer that is overlooked, or one of the thinking before it
    equivalence  two ways to write a number that are not the same answer, or two numbers that are
    profiles     a value of the file that the loaded profile does not have; a name that is no folder's name
    yaml         the same for files of broken text
    questions    a row that is neither a question nor an error; an answer other than the row's; an option out of range
    replay       a recorded response that is not served, or under another question, temperature or place
    server       a text other than the server's; tokens that do not add up; a wait beyond reason; a key that leaks
    parameters   a notebook's parameter that its stage does not have; a folder outside of the study's

Every case is a function of (seed, target, number), so a failure is shown with the command that repeats it.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import queue
import random
import re
import signal
import string
import sys
import tempfile
import threading
import time
import traceback
import unicodedata
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pandas as pd
import yaml

from rdlib import profile as profiles
from rdlib.engines import server
from rdlib.engines.asking import Ask, Reply
from rdlib.engines.generation import Request, clean, cut_at
from rdlib.engines.replay import ReplayEngine
from rdlib.engines.server_parameters import Learnt
from rdlib.engines.server_run import Run
from rdlib.engines.server_work import Work, jobs_of
from rdlib.errors import UserError
from rdlib.paths import ROOT
from rdlib.study import opening
from rdlib.study.opening import open_stage
from rdlib.study.specification import STAGES
from rdlib.tasks import answers, own_questions
from rdlib.tasks.prompts import Prompt
from rdlib.tasks.questions import LETTERS
from rdlib.tasks.spoken import thought_end

CPU_SECONDS, WALL_SECONDS = 5.0, 120.0  # of one case; the second, for waits, leaves room on a busy machine
SHOWN = 1500  # characters of a failing case
PARAMS = sorted(p for p in (ROOT / "params").glob("*.yaml") if p.name != "claims.yaml")
INPUTS = {path: content for path in PARAMS if "base" not in (content := yaml.safe_load(path.read_text()))}

SCALARS = [None, True, False, 0, 1, -1, 2, 7, 10**30, 0.5, 1.5, -0.0, 1e-3, math.nan, math.inf, -math.inf]
STRANGE = ["", " ", "\0", "\x1b[2J", "\u2028", "\ud800", "x" * 300, "<script>alert(1)</script>"]
STRANGE += "x 1 0.5 1e-3 yes null ../.. a/b / . é { [] nan micro math choice gsm".split()
NESTED = [[], {}, [1], [None, "x"], {"a": 1}, [[[]]], {"": {}}, [0.5, 0.5], {1: 2}]
WORDS = "tom has apples so the total of each day and 9 friends".split()
PIECES = r"""#### |####|\boxed{|}|{|The answer is |the answer is|Answer: |**Answer:** |ANSWER: |{"answer": "|"|
'final_answer': '|is |not |about |=| = |/| / |:|\frac|\frac{|\text{|\|\,|$|€|%|\%|,|.|-|−|(|)|(A)|(C)|(J)|(K)|A|B. |
I think |C because|0|1|7|12|1,234|1 234|2:10|0.50|.5|007|million| thousand|1e9|½|²|<script>alert(1)</script>|
</answer>|<think>|</think>|<EOS>|：|（B）|–|×|*|+|^|e3|is not |isn't |so |but |option |is correct|None|
unknown|iron|the |a |É|İ|ß|😀"""
PIECES = PIECES.replace("|\n", "|").split("|") + ["|", "\n", "\n\n", " ", "\t", "\r", "\0", "\x1b[31m", "\u2028"]
PIECES += ["<|eot_id|>", "\u202e", "\ud800", "\u0663", *WORDS]


class TimeLimitError(BaseException):
    """A case took too long; nothing in between may take it for an ordinary error."""


class WrongError(AssertionError):
    """A case was accepted, and wrongly."""


def require(condition: Any, problem: str) -> None:
    """WrongError with the problem unless the condition holds."""
    if not condition:
        raise WrongError(problem)


def one_line(error: UserError) -> None:
    """A UserError is one short line."""
    require("\n" not in str(error) and 0 < len(str(error)) < 1200, f"the message is no short line: {error}")


def any_value(rng: random.Random) -> Any:
    """A value that may stand anywhere in JSON or YAML."""
    return copy.deepcopy(rng.choice(rng.choice((SCALARS, STRANGE, NESTED))))


# ---- answers


def any_text(rng: random.Random) -> str:
    """A response: the rules' own words in any order; now and then a very long one."""
    pieces = rng.choices(PIECES, k=rng.randint(0, 40))
    if rng.random() < 0.002:
        return "".join(pieces) * rng.choice((100, 10_000)) + "".join(rng.sample(pieces, len(pieces)))
    return "".join(pieces)


def make_answer(rng: random.Random) -> tuple[str, str, int, str | None]:
    """(text, kind, number of options, the answer that must be found or None where anything may be)."""
    kind, options = rng.choice(list(PLANTED)), rng.randint(2, 10)
    text = any_text(rng)
    if rng.random() < 0.5:
        return text, kind, options, None
    form, answer = rng.choice(PLANTED[kind]), PLANT[kind](rng)
    if kind == "choice":
        options = rng.randint(LETTERS.index(answer) + 1, 10)
    thought = rng.choice(("", "", f"<think>{text}</think>", f"{text}</think>"))
    thought = "" if "think" in text else thought
    noise = " ".join(rng.choices(WORDS, k=rng.randint(0, 30)))
    if rng.random() < 0.002:  # of ten thousand answers in the same form the last one counts
        noise = "\n".join(form.format(PLANT[kind](rng)) for _ in range(10_000))
    return f"{thought}{noise}\n{form.format(answer)}", kind, options, answer


PLANTED = {
    "number": ["#### {}", "####{}", "so #### {} apples"],
    "text": ["the answer is {}", "the answer is {} ."],
    "math": ["#### {}", "\\boxed{{{}}}", "The answer is {}.", "**Final Answer:** {}", '{{"answer": "{}"}}'],
    "choice": ["The answer is ({}).", "Answer: **{}**", '{{"answer": "{}"}}'],
    "phrase": ["#### {}", "\\boxed{{{}}}", "Answer: {}"],
}
PLANT: dict[str, Callable[[random.Random], str]] = {
    "number": lambda rng: str(rng.randint(-(10**9), 10**9)),
    "text": lambda rng: "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))),
    "math": lambda rng: str(rng.randint(-(10**9), 10**9)),
    "choice": lambda rng: rng.choice(LETTERS),
    "phrase": lambda rng: "x" + "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) + " tower",
}


WITHOUT = (
    None,
    "unfinished",
    "refused",
    "no option",
    "ambiguous",
    "several",
    "no number",
)  # what stands for a rule where there is no answer


def judge_answer(case: tuple[str, str, int, str | None]) -> None:
    """The planted answer is found, and any answer stands in the text, outside of its thinking."""
    text, kind, options, planted = case
    found = answers.find(text, kind, options)
    answers.refuses(text)
    require((found.answer is None) == (found.rule in WITHOUT), f"an answer without a rule, or a rule without: {found}")
    require(planted is None or found.answer == planted, f"{planted!r} is the answer, but {found} was found")
    if found.answer is None:
        return
    require(found.answer and len(found.answer) <= 400, f"no answer at all, or a long one: {found}")
    text = in_ascii_digits(text)
    if kind == "choice":
        require(found.answer in LETTERS[:options], f"{found} is none of {options} options")
        require(found.answer in text.upper(), f"the letter {found} does not stand in the text")
    elif re.fullmatch(r"-?[0-9./:]+", found.answer):
        require_number(found.answer, text)
    elif kind == "phrase":
        require(is_subsequence(letters_of(found.answer), letters_of(text)), f"{found} does not stand in the text")
    else:
        require(
            is_subsequence(found.answer.replace(" ", ""), re.sub("[−–]", "-", text).lower()),
            f"{found} does not stand in the text",
        )


def letters_of(text: str) -> str:
    """The letters of a text without regard to case and to how they are typed; "&" is "and"."""
    folded = unicodedata.normalize("NFKC", text.replace("&", "and").replace("İ", "i")).casefold()
    return "".join(filter(str.isalpha, folded))


def in_ascii_digits(text: str) -> str:
    """A text with the digits, fractions and full-width letters of every script as ASCII has them."""
    return "".join(map(_in_ascii, text))


def _in_ascii(c: str) -> str:
    if c.isascii() or (unicodedata.category(c) not in ("Nd", "No") and not "Ａ" <= c <= "ｚ") or c in "⁰¹²³⁴⁵⁶⁷⁸⁹":
        return c
    if unicodedata.category(c) == "Nd":
        return str(unicodedata.digit(c))
    return f" {unicodedata.normalize('NFKC', c)}".replace("⁄", "/")


def require_number(answer: str, text: str) -> None:
    """A number consists of digits that follow one another in the text, or of two such as a fraction."""
    require(not answer.startswith("-") or re.search("[-−–]", text), f"{answer} has a sign that the text has not")
    if re.sub(r"[^0-9]", "", answer).lstrip("0") in re.sub(r"[^0-9]", "", text):
        return
    worked_out = r"[-–−+*×^²]|\de[-+]?\d"
    told = re.search(worked_out, re.sub("[{}]", "", text)) or re.search(r"overline|\dk\b|\d[KMB]\b", text)
    told = told or re.search(rf"\b(?:{'|'.join(NUMBER_WORDS)})s?\b", text, re.IGNORECASE)
    require(told or re.search(r"/|frac|thousand|[mbtr]illion", text), f"{answer} does not stand in the text")
    if len(text) < 120 and not told:  # all that longer ones could mean is too much
        require(abs(Fraction(answer.partition(":")[0])) in values_in(text), f"{answer} cannot come from the text")


NUMBER_WORDS = "one two three ten eleven twelve half third quarter dozen hundred lakh crore bn".split()


def values_in(text: str) -> set[Fraction]:
    """What the numbers of a text can mean: a, a / b and c + a / b, each with a scale."""
    plain = re.sub(r"\\+[,!; ]|[{},]|(?<=\d) (?=\d{3})", "", text)
    runs = {r for t in (text, plain) for r in re.findall(r"\d*\.?\d+", t, re.ASCII)} | set(re.findall("[0-9]", text))
    runs = {Fraction(run) for run in runs if len(run) < 45}
    small = sorted(runs)[:40]
    quotients = {a / b for a in [*small, Fraction(1)] for b in [*small, Fraction(1)] if b}
    mixed = quotients | {c + q for c in small for q in quotients}
    return {Fraction(0)} | {value * scale for value in mixed | runs for scale in (1, 10**3, 10**6, 10**9, 10**12)}


def is_subsequence(part: str, whole: str) -> bool:
    """Whether the characters of `part` stand in `whole` in this order."""
    rest = iter(whole)
    return all(character in rest for character in part)


def make_equivalence(rng: random.Random) -> tuple[str, str, bool]:
    """Two ways to write one number, or two numbers."""
    first = Fraction(rng.randint(-(10**7), 10**7), rng.choice((1, 1, 1, 2, 4, 5, 8, 100)))
    second = (
        first if rng.random() < 0.5 else first + Fraction(rng.choice((-1, 1)) * rng.randint(1, 99), rng.choice((1, 10)))
    )
    return written(first, rng), written(second, rng), first == second


def written(value: Fraction, rng: random.Random) -> str:
    """A number in a response, in one of the ways that models and people write it."""
    size, sign = abs(value), "-" * (value < 0)
    decimal = f"{Decimal(size.numerator) / Decimal(size.denominator):f}"
    whole, _, rest = decimal.partition(".")
    grouped = f"{int(whole):,}" + (f".{rest}" if rest else "")
    times = rng.randint(1, 9)
    fraction = f"{size.numerator * times}", f"{size.denominator * times}"
    forms = [
        decimal,
        grouped,
        decimal + ("0" if rest else ".00"),
        f"{grouped} apples",
        f"{decimal}\\%",
        f"{grouped} \\text{{ km}}",
    ]
    forms += [f"{'/'.join(fraction)}", f"\\frac{{{fraction[0]}}}{{{fraction[1]}}}", f"0{decimal}"]
    signed = [f"{sign}{form}" for form in forms] + [f"{sign}${grouped}", f"$ {sign}{decimal}", f"x = {sign}{decimal}"]
    return rng.choice(PLANTED["math"]).format(rng.choice(signed))


def judge_equivalence(case: tuple[str, str, bool]) -> None:
    """Extracted answers are the same exactly where the numbers are."""
    first, second, equal = case
    found = [answers.extract(text, "math") for text in (first, second)]
    require(None not in found, f"no answer was found: {found}")
    require(answers.same(*found) == equal, f"{found[0]} and {found[1]} are {'not ' * equal}the same answer")


# ---- profiles


def make_profile(rng: random.Random) -> dict:
    """A profile of the repository with one to three places changed."""
    content = json.loads(json.dumps(INPUTS[rng.choice(sorted(INPUTS))]))
    for _ in range(rng.choice((1, 1, 2, 3))):
        mutate(content, rng)
    return content


def mutate(content: dict, rng: random.Random) -> None:
    """Change a place in a nested dictionary: another value, none, another name, a new key, or a neighbour's value."""
    inner: Any = content
    while True:
        keys = list(inner) if isinstance(inner, dict) else range(len(inner))
        if not keys:
            return
        key = rng.choice(keys)
        if not (isinstance(inner[key], dict | list) and inner[key] and rng.random() < 0.85):
            break
        inner = inner[key]
    kind = rng.random()
    if kind < 0.5:
        inner[key] = any_value(rng)
    elif kind < 0.65:
        del inner[key]
    elif kind < 0.75 and isinstance(inner, dict):
        inner[rng.choice((str(key)[:-1], f"{key}s", "../x", "a/b", "", "strong", "small", 7))] = inner.pop(key)
    elif kind < 0.9 and isinstance(inner, dict):
        inner[rng.choice(("revision", "engine", "base_url", "lora", "extra", "../..", "large"))] = any_value(rng)
    else:
        inner[key] = copy.deepcopy(inner[rng.choice(keys)])


def judge_profile(content: dict, folder: Path) -> None:
    """It loads with every value that it has, or ends in a UserError."""
    path = folder / "profile.yaml"
    path.touch()
    kept = profiles._parse_once
    profiles._loaded.clear()  # the file's text is the same in every case
    profiles._parse_once = lambda text: content  # a YAML reader in Python takes ten times the time of the rest
    try:
        loaded = profiles.load_profile(path)
    except UserError as error:
        return one_line(error)
    finally:
        profiles._parse_once = kept
    require_kept(content, loaded)


def require_kept(content: Any, loaded: profiles.Profile) -> None:
    """Every value of the file is in the profile, and names can be folders'."""
    require(isinstance(content, dict), "a profile of no settings")
    disagreement = differs(content, loaded.model_dump(), "")
    require(disagreement is None, f"the profile does not have what the file says: {disagreement}")
    for name in (loaded.name, *loaded.datasets, *loaded.teachers, *loaded.students):
        require(name not in ("", ".", "..") and Path(name).name == name, f"{name!r} is no folder's name")
    for name in loaded.teachers.keys() & loaded.students.keys():
        require(loaded.teachers[name] == loaded.students[name], f"{name!r} is a teacher and another student")


def differs(given: Any, got: Any, place: str) -> str | None:
    """Where a value of the file is not that of the profile; None where all are."""
    if isinstance(given, dict) and isinstance(got, dict):
        found = (differs(value, got.get(key, "nothing"), f"{place}.{key}") for key, value in given.items())
        return next(filter(None, found), None)
    if isinstance(given, list) and isinstance(got, list) and len(given) == len(got):
        found = (differs(a, b, f"{place}[{i}]") for i, (a, b) in enumerate(zip(given, got, strict=True)))
        return next(filter(None, found), None)
    return None if is_same(given, got) else f"{place} is {given!r}, and {got!r} was taken"


def is_same(given: Any, got: Any) -> bool:
    """Whether a value means the other: a number may be written as text, and true as yes or 1, but not 1 as true."""
    if isinstance(got, bool):
        words = ("true", "yes", "on", "y", "t", "1") if got else ("false", "no", "off", "n", "f", "0")
        return given.lower() in words if isinstance(given, str) else given == got
    if isinstance(given, bool):
        return False
    if isinstance(given, str) and isinstance(got, int | float):
        try:
            return float(Decimal(given.strip())) == got
        except InvalidOperation:
            return False
    return (float(given) if isinstance(given, int) and isinstance(got, float) else given) == got


def make_yaml(rng: random.Random) -> bytes:
    """The text of a short profile with characters, lines or words changed."""
    text = (ROOT / "params/smoke.yaml").read_text()
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randrange(len(lines))
        kind = rng.random()
        if kind < 0.35:
            lines[place] = re.sub(r"(?<=: ).*", lambda _: rng.choice(YAML_WORDS), lines[place])
        elif kind < 0.5:
            lines.insert(place, lines[rng.randrange(len(lines))])
        elif kind < 0.65:
            column = rng.randint(0, len(lines[place]))
            lines[place] = lines[place][:column] + rng.choice(":{}[]-&*!#|>'\"%@`\t\0\x07é ?,") + lines[place][column:]
        elif kind < 0.75:
            del lines[place]
        else:
            lines.insert(place, rng.choice(YAML_LINES))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


YAML_WORDS = ["9" * 5000, "[" * 2000, "{a: " * 500, "!!python/object:os.system x", "&a [*a]", "!!binary a", "!!set {a}"]
YAML_WORDS += "2001-13-45 2001-01-01 0x 0b 1_0 1:60 = << ~ .inf -.inf .nan *b ' 1e-3".split()
YAML_LINES = [
    "name: other",
    "ppo: {}",
    "? [a]",
    "<<: {a: 1}",
    "--- ",
    "...",
    "%YAML 9.9",
    "1: 2",
    "&x y: *x",
    "\ud800: 1",
]


def judge_yaml(content: bytes, folder: Path) -> None:
    """The same of a file; a key that is there twice has one value that is not taken."""
    path = folder / "profile.yaml"
    path.write_bytes(content)
    try:
        loaded = profiles.load_profile(path)
    except UserError as error:
        return one_line(error)
    require_kept(yaml.safe_load(content), loaded)
    top = re.findall(rb"^([a-z_]+):", content, re.MULTILINE)
    require(len(top) == len(set(top)), "a section is there twice, and one of them was left out")


# ---- questions


def make_questions(rng: random.Random) -> tuple[str, Any, str]:
    """(file name, rows or bytes, kind of answer)."""
    kind = rng.choice(("math", "number", "choice", "phrase", "text"))
    rows = [question_row(rng, i, kind) for i in range(rng.randint(3, 12))]
    if rng.random() < 0.3:
        for row in rows:
            row["split"] = rng.choice(("train", "train", "validation", "test"))
    for _ in range(rng.choice((0, 1, 1, 2))):
        row = rng.choice(rows)
        if isinstance(row, dict) and rng.random() < 0.9:
            key = rng.choice((*own_questions.FIELDS, "anser", "x"))
            row[key] = any_value(rng)
        else:
            rows[rows.index(row)] = any_value(rng)
    if rng.random() < 0.1:
        return "q.parquet", rows, kind
    lines = [json.dumps(row, ensure_ascii=rng.random() < 0.5, default=str) for row in rows]
    content = rng.choice(("\n", "\n", "\r\n", "\n\n")).join(lines).encode("utf-8", "surrogatepass")
    if rng.random() < 0.2:
        place = rng.randint(0, len(content))
        content = content[:place] + rng.choice(BROKEN) + content[place + rng.randint(0, 3) :]
    return "q.jsonl", content, kind


BROKEN = [b"\xff", b"\0", b"\xef\xbb\xbf", b"[" * 3000, b"9" * 6000, b"\n", b"\r", b', "answer": "5"', b"\\ud800"]
BROKEN += [b'"question": "twice?", ', b"\\u0000", *b'12345678901234567890.123456789 NaN 1e999 " } { ,'.split()]


def question_row(rng: random.Random, number: int, kind: str) -> dict[str, Any]:
    """A good row."""
    row: dict[str, Any] = {"question": f"{' '.join(rng.choices(WORDS, k=6))} {number}?"}
    if kind == "choice":
        row["options"] = [f"{word} {i}" for i, word in enumerate(rng.sample(WORDS, rng.randint(2, 10)))]
        row["answer"] = rng.choice((rng.choice(LETTERS[: len(row["options"])]), rng.choice(row["options"])))
    elif rng.random() < 0.8:
        row["answer"] = {"phrase": "iron", "text": "iron"}.get(kind) or rng.choice(
            (rng.randint(-99, 9999), "7", "1,234", 2.5)
        )
    if rng.random() < 0.3:
        row["id"] = rng.choice((f"q{number}", number))
    return row


def judge_questions(case: tuple[str, Any, str], folder: Path) -> None:
    """All rows become questions with their own answers, or the file is refused."""
    name, content, kind = case
    path = folder / name
    if name.endswith(".parquet"):
        if not write_parquet(content, path):
            return
    else:
        path.write_bytes(content)
    settings = profiles.Dataset(
        source="questions", answer=kind, path=name, train=None, validation=None, test=None, max_tokens=8
    )
    try:
        questions = own_questions.load("mine", settings, folder)
    except UserError as error:
        return one_line(error)
    rows = pd.read_parquet(path).to_dict("records") if name.endswith(".parquet") else json_rows(path.read_bytes())
    require(len(questions) == len(rows), f"{len(rows)} rows became {len(questions)} questions")
    require(len({q.id for q in questions}) == len(rows), "an id is there twice")
    by_text = {q.question: q for q in questions}
    for row in rows:
        question = by_text.get(row["question"].strip().replace("\r\n", "\n"))
        require(question is not None, f"the question {row['question']!r} is gone")
        require_gold(question, row, kind)


def write_parquet(rows: list, path: Path) -> bool:
    """Write those rows that are objects; False, which makes no case, where Parquet cannot hold them."""
    try:
        pd.DataFrame([row for row in rows if isinstance(row, dict)]).to_parquet(path)
    except Exception:
        return False
    return True


def json_rows(content: bytes, ends: bytes = b"[\r\n]") -> list[dict]:
    """The rows of a JSONL file by a second reader; a field that is there twice is a list of its values."""
    lines = re.split(ends, content.removeprefix(b"\xef\xbb\xbf"))
    return [json.loads(line, object_pairs_hook=all_fields, parse_float=Decimal) for line in lines if line.strip()]


def all_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        fields[name] = [fields[name], value] if name in fields else value
    return fields


def require_gold(question: Any, row: dict, kind: str) -> None:
    """A question's answer is that of its row."""
    given = row.get("answer")
    if given is None or (isinstance(given, float) and math.isnan(given)):
        return require(question.answer is None, f"an answer {question.answer!r} out of nothing")
    require(not isinstance(given, list), f"one of the answers {given!r} was left out")
    if kind == "choice":
        place = LETTERS.index(question.answer)
        require(place < len(question.options), f"{question.answer} is none of {len(question.options)} options")
        options = [option.strip() for option in row["options"]]
        given = given.strip()
        return require(
            given == options[place] or given.upper() == question.answer, f"{given!r} became {question.answer}"
        )
    if isinstance(given, int | float | Decimal) and kind in ("math", "number"):
        require(Fraction(question.answer) == Fraction(str(given)), f"{given!r} became {question.answer}")
    return None


# ---- replay


def make_replay(rng: random.Random) -> tuple[str, list, bytes | None]:
    """(file name, records, bytes to break the file with)."""
    with_temperature = rng.random() < 0.7
    records: list[Any] = []
    for _ in range(rng.randint(1, 12)):
        record: dict[str, Any] = {"id": f"q{rng.randint(0, 2)}", "text": rng.choice((any_text(rng)[:300], "#### 7"))}
        if with_temperature:
            record["temperature"] = rng.choice((0, 0.7, 1.0))
        if rng.random() < 0.5:
            record |= {"sample": rng.randint(0, 9), "tokens": rng.randint(0, 99), "finished": rng.random() < 0.5}
        records.append(record)
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        record = rng.choice(records)
        if isinstance(record, dict) and rng.random() < 0.95:
            record[
                rng.choice(("id", "question", "text", "temperature", "sample", "tokens", "finished", "finish_reason"))
            ] = any_value(rng)
        else:
            records[records.index(record)] = any_value(rng)
    name = "r.parquet" if rng.random() < 0.08 else "r.jsonl"
    return name, records, rng.choice(BROKEN) if rng.random() < 0.1 else None


def judge_replay(case: tuple[str, list, bytes | None], folder: Path) -> None:
    """Every record is served, with its text, in its place."""
    name, records, broken = case
    path = folder / name
    if name.endswith(".parquet"):
        if not write_parquet(records, path):
            return
    else:
        content = "\n".join(json.dumps(record, default=str) for record in records).encode()
        path.write_bytes(content if broken is None else content[:-5] + broken + content[-5:])
    try:
        engine = ReplayEngine(path)
    except UserError as error:
        return one_line(error)
    if name.endswith(".parquet"):
        rows = pd.read_parquet(path).astype(object).to_dict("records")
        read = [{k: v for k, v in row.items() if not (pd.api.types.is_scalar(v) and pd.isna(v))} for row in rows]
    else:
        read = [{k: v for k, v in row.items() if v is not None} for row in json_rows(path.read_bytes(), b"\n")]
    require_served(engine, read)
    return None


def require_served(engine: ReplayEngine, records: list[dict]) -> None:
    """Each group of records (a question, a temperature) is served as a whole, in the order of its samples."""
    groups: dict[tuple, list[dict]] = {}
    for record in records:
        of = "id" if record.get("id") not in (None, "") else "question"
        require(
            isinstance(record[of], str | int | float | Decimal) and not isinstance(record[of], bool),
            f"{record[of]!r} names a question",
        )
        temperature = record.get("temperature")
        groups.setdefault(
            (of, str(record[of]), temperature if temperature is None else round(float(temperature), 6)), []
        ).append(record)
    for (of, key, temperature), group in groups.items():
        prompt = Prompt((), "", key, "") if of == "id" else Prompt((), "", "no such id", key)
        engine.temperature = None
        served = engine.generate([Request(prompt, len(group), 1.0 if temperature is None else temperature)], 0)[0]
        expected = sorted(group, key=lambda record: finite(record.get("sample")))
        for record, completion in zip(expected, served, strict=True):
            require(completion.text == clean(record["text"]), f"{record!r} was served as {completion.text[:80]!r}")
            require(0 <= completion.count < 2**31, f"{completion.count} tokens")
            ended = record.get("finished", record.get("finish_reason", "stop") == "stop")
            require(isinstance(ended, bool | int), f"whether it ended is {ended!r}")
            require(completion.finished == bool(ended), f"{record!r} was taken as {completion.finish_reason}")


def finite(sample: Any) -> float:
    """A record's place; one that is NaN or infinite counts as none."""
    require(
        sample is None or (isinstance(sample, int | float | Decimal) and not isinstance(sample, bool)),
        f"sample {sample!r}",
    )
    return sample if sample is not None and math.isfinite(sample) else 0


# ---- servers' answers

KEY = "sk-secret-0123456789"
STATUS = (200, 200, 200, 200, 200, 200, 400, 401, 404, 408, 422, 429, 500, 503, 301, 418)


def make_server(rng: random.Random) -> list[tuple[int, dict[str, str], bytes]]:
    """What a server says, call by call; the last again and again."""
    return [server_answer(rng) for _ in range(rng.choice((1, 1, 2, 3)))]


def server_answer(rng: random.Random) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body), good or strange."""
    status = rng.choice(STATUS)
    choices = [
        {"message": {"content": any_text(rng)[:2000]}, "finish_reason": rng.choice(("stop", "length", "eos"))}
        for _ in range(rng.choice((1, 1, 2, 3)))
    ]
    body: Any = {"choices": choices, "usage": {"completion_tokens": rng.randint(0, 500)}}
    if status != 200:
        words = ["n", "'seed' is not supported", "insufficient_quota", f"your key {KEY}", any_text(rng)[:80]]
        error = {"message": rng.choice(words), "code": any_value(rng), "param": rng.choice((None, "n", "seed", 7))}
        body = {"error": error}
    for _ in range(rng.choice((0, 0, 1, 2))):
        mutate(body, rng)
    if rng.random() < 0.1:
        body = any_value(rng)
    content = json.dumps(body, default=str).encode()
    if rng.random() < 0.1:
        place = rng.randint(0, len(content))
        content = content[:place] + rng.choice(BROKEN) + content[place:]
    headers = {}
    if rng.random() < 0.3:
        headers["Retry-After"] = rng.choice(WAITS)
    if rng.random() < 0.1:
        headers["Content-Type"] = rng.choice(("text/html; charset=no-such", "application/json; charset=utf-16", ""))
    return status, headers, content


WAITS = ["1", "0", "-5", "inf", "nan", "1e400", "9" * 30, "100000", "soon", "", "Fri, 31 Dec 9999 23:59:59 GMT"]
WAITS += [f"{day} 00:00:00 GMT" for day in ("Thu, 01 Jan 1970", "Fri, 31 Feb 2025", "Mon, 01 Jan 0001")]


class Impatient(server.Clock):
    """Time passes only where somebody waits, and nobody may wait for longer than the engine says it does."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float, stop: threading.Event) -> None:
        require(0 <= seconds <= 1.2 * server.LONGEST_RETRY_AFTER, f"a wait of {seconds} s")
        self.time += seconds


@cache
def engine() -> server.ServerEngine:
    """An engine for a server that nobody connects to; making one takes longer than a hundred cases."""
    model = profiles.Model(
        model="teacher", engine="openai", base_url="http://localhost/v1", attempts=4, thinking="keep"
    )
    return server.ServerEngine(model, server.Settings("teacher", 50, stop=("STOP",)), KEY)


def judge_server(said: list[tuple[int, dict[str, str], bytes]]) -> None:
    """The replies are the server's, one for each sample, or the failure is a sentence; the key is in none."""
    left = list(said)

    def post(url: str, **_: Any) -> httpx.Response:
        status, headers, content = left.pop(0) if len(left) > 1 else left[0]
        return httpx.Response(status, headers=headers, content=content)

    tested = copy.copy(engine())
    tested.client, tested.known, tested.clock = SimpleNamespace(post=post), Learnt(), Impatient()
    tested.pace = server.Pace(None, 1, tested.clock)
    request = Request(Prompt((("user", "?"),), "?", "q1", "?"), 2, 1.0)
    found = replies(tested, Ask(request, (0, 1), 5))
    require(json.dumps(tested.learnt()) is not None and all(tested.notes()), "what was learnt")
    if isinstance(found, UserError):
        require(KEY not in str(found), f"the key is in the message: {found}")
        return one_line(found)
    require(sorted(found) == [0, 1], f"{len(found)} replies where 2 samples were asked for")
    texts = [text for status, _, content in said if status == 200 for text in texts_of(content)]
    for reply in found.values():
        require(KEY not in reply.words and len(reply.words.splitlines()) < 2, f"the words {reply.words!r}")
        completion = server.completion_of(reply, tested.model, ("STOP",), ())
        require(reply.kind == "answer" or not completion.text, f"a text of a sample that was {reply.kind}")
        require(completion.text in ["", *texts], f"the server did not say {completion.text[:80]!r}")
        require(type(completion.count) is int and 0 <= completion.count < 2**31, f"{completion.count!r} tokens")
        pd.DataFrame([completion.__dict__]).to_json()
    return None


def replies(tested: server.ServerEngine, ask: Ask) -> dict[int, Reply] | UserError:
    """The replies to an ask by their samples, or the error that ended it, from one worker in this thread."""
    done: queue.SimpleQueue = queue.SimpleQueue()
    Run(tested, Work(jobs_of({0: ask}), tested.pace, set()), done).work()
    found = {}
    while (item := done.get()) is not None:
        if isinstance(item, Exception):
            if not isinstance(item, UserError):
                raise item
            return item
        require(item[1] not in found, "a sample came twice")
        found[item[1]] = item[2]
    return found


def strings_in(content: Any) -> list[str]:
    """The strings of a content: itself, or those of its parts."""
    if isinstance(content, list):
        return [text for part in content for text in strings_in(part)]
    return [content] if isinstance(content, str) else []


def texts_of(content: bytes) -> list[str]:
    """The texts of an answer, by a second reader; thinking stays."""
    try:
        choices = json.loads(content)["choices"]
        found = [choice["message"] for choice in choices if isinstance(choice, dict) and "message" in choice]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []
    found = [message.get("content") for message in found if isinstance(message, dict)]
    texts = [clean("".join(strings_in(content))) for content in found]
    ends = [thought_end(text) for text in texts]
    return [(text[:end] + cut_at(text[end:], ("STOP",))).strip() for text, end in zip(texts, ends, strict=True)]


# ---- the parameters of notebooks

AXES = {"dataset": ("gsm", "mmlu"), "teacher": ("strong", "weak"), "student": ("small", "large", "strong")}
SETTINGS = [
    f"{section}.{name}"
    for section in (
        "ppo",
        "reward_model",
        "sft",
        "voting",
        "generation",
        "training",
        "reward",
        "student_sampling",
        "datasets",
    )
    for name in getattr(profiles.Profile.model_fields[section].annotation, "model_fields", ("gsm", "gsm.train"))
]


def make_parameters(rng: random.Random) -> tuple[str, dict[str, Any]]:
    """(stage, the variables of its notebook)."""
    name = rng.choice(list(STAGES))
    spec = STAGES[name]
    variables: dict[str, Any] = {"profile": "params/smoke.yaml", "seed": rng.randint(0, 3), "overrides": {}, "pd": pd}
    variables |= {axis: rng.choice(AXES[axis]) for axis in spec.axes if axis in AXES}
    variables |= {"method": rng.choice(spec.methods)} if spec.methods else {}
    for _ in range(rng.choice((0, 1, 1, 2))):
        variables["overrides"][rng.choice(SETTINGS)] = any_value(rng)
    if rng.random() < 0.2:  # texts of the user's own, which are part of a folder's name
        variables["overrides"]["generation.stop"] = rng.sample(STRANGE, rng.randint(1, 2))
    for _ in range(rng.choice((0, 0, 1))):
        key = rng.choice(
            (*variables, "lam", "threshold", "mismatch", "teacher_share", "datset", "x", "reward_source", "_y")
        )
        variables[key] = any_value(rng)
    if rng.random() < 0.3:
        variables[rng.choice(("lam", "threshold", "teacher_share"))] = rng.choice((0.25, 0.5, 1, "0.5"))
    return name, variables


def judge_parameters(case: tuple[str, dict[str, Any]]) -> None:
    """The stage is that of the parameters, and its folder lies in the study's."""
    name, variables = case
    try:
        stage = open_stage(name, variables)
        folder = stage.folder
    except UserError as error:
        return one_line(error)
    for axis in (*STAGES[name].axes, "seed"):
        require(
            getattr(stage, axis) == variables.get(axis, 0 if axis == "seed" else None), f"the stage's {axis} is another"
        )
    require(stage.seed < 2**32, f"the seed {stage.seed} is larger than NumPy takes")
    shortcuts = {opening.SHORTCUTS[k]: v for k, v in variables.items() if k in opening.SHORTCUTS and v is not None}
    for key, value in ((variables.get("overrides") or {}) | shortcuts).items():
        section, _, setting = key.partition(".")
        got = getattr(stage.profile, section).model_dump()[setting]
        require(differs(value, got, key) is None, f"{key} is {value!r} in the parameters and {got!r} in the stage")
    parent = ROOT / stage.profile.runs / stage.profile.name / stage.dataset
    levels = 2 + sum(bool(getattr(stage, axis)) for axis in ("teacher", "student", "method"))
    require(len(folder.relative_to(parent).parts) == levels and ".." not in folder.parts, f"the folder is {folder}")
    require(len(folder.name.encode("utf-8", "surrogatepass")) < 240, f"no file system takes the name {folder.name}")
    require(folder.name.isprintable(), f"the folder's name is {folder.name!r}")
    return None


# ---- running


@dataclass(frozen=True)
class Target:
    """How cases are made and judged, and how many by default; `judge` may be given a folder to write in."""

    make: Callable[[random.Random], Any]
    judge: Callable[..., None]
    cases: int
    writes: bool = False


TARGETS = {
    "answers": Target(make_answer, judge_answer, 45_000),
    "equivalence": Target(make_equivalence, judge_equivalence, 20_000),
    "profiles": Target(make_profile, judge_profile, 10_000, writes=True),
    "yaml": Target(make_yaml, judge_yaml, 500, writes=True),
    "questions": Target(make_questions, judge_questions, 12_000, writes=True),
    "replay": Target(make_replay, judge_replay, 12_000, writes=True),
    "server": Target(make_server, judge_server, 12_000),
    "parameters": Target(make_parameters, judge_parameters, 6_000),
}


@contextmanager
def time_limit():
    """TimeLimitError when what is inside takes too long: CPU time, or time on the clock where it waits."""

    def stop(number: int, frame: Any) -> None:
        raise TimeLimitError(f"the case took more than {CPU_SECONDS:g} s of CPU time or {WALL_SECONDS:g} s")

    kept = [(number, signal.signal(number, stop)) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in kept:
            signal.signal(number, handler)


def run_case(name: str, number: int, seed: int, folder: Path) -> str | None:
    """Make and judge one case; the failure in words, None where there is none."""
    target = TARGETS[name]
    case = target.make(random.Random(f"{seed}/{name}/{number}"))
    shown = repr(case)
    try:
        with time_limit():
            target.judge(case, folder) if target.writes else target.judge(case)
    except (Exception, TimeLimitError) as error:
        where = "" if isinstance(error, WrongError) else "".join(traceback.format_exception(error)[-4:])
        return f"{type(error).__name__}: {str(error)[:SHOWN]}\n{where}the case: {shown[:SHOWN]}"
    return None


def run_target(name: str, cases: int, seed: int, first: int = 0, most: int = 1) -> SimpleNamespace:
    """Run cases of a target until `most` have failed: how many ran, the failures by number, and the seconds."""
    failures: dict[int, str] = {}
    started, number = time.perf_counter(), first
    with tempfile.TemporaryDirectory() as folder:
        while number < first + cases and len(failures) < most:
            if (failure := run_case(name, number, seed, Path(folder))) is not None:
                failures[number] = failure
            number += 1
    return SimpleNamespace(cases=number - first, failures=failures, seconds=time.perf_counter() - started)


def main(arguments: list[str] | None = None) -> int:
    """Command line: which targets, how many cases, from which seed on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", choices=TARGETS, help="one of the targets (default: all)")
    parser.add_argument("--cases", type=int, help="cases of each target (default: its own number)")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--failures", type=int, default=1, help="failures of a target after which it is left")
    options = parser.parse_args(arguments)
    total, failed = 0, 0
    for name in [options.target] if options.target else TARGETS:
        done = run_target(name, options.cases or TARGETS[name].cases, options.seed, options.first, options.failures)
        total, failed = total + done.cases, failed + len(done.failures)
        print(f"{name:12} {done.cases:7,} cases  {done.cases / done.seconds:8,.0f} a second", flush=True)
        for number, failure in done.failures.items():
            again = f"python tests/fuzz.py --target {name} --seed {options.seed} --first {number} --cases 1"
            print(f"FAILED {name} {number}, again by `{again}`\n{failure}\n", flush=True)
    print(f"{'total':12} {total:7,} cases, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
