"""Strategies of hostile input: any text, any value of JSON or YAML, and good content with some places changed."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from rdlib.errors import UserError

PIECES = r"""#### |####|\boxed{|}|{|The answer is |the answer is|Answer: |**Answer:** |{"answer": "|"|
'final_answer': '|is |not |about |=|/|:|\frac|\frac{|\text{|\|\,|$|€|%|\%|,|.|-|−|(|)|(A)|(C)|(J)|(K)|A|B. |I think |
C because|0|1|7|12|1,234|1 234|2:10|0.50|.5|007|million| thousand|1e9|½|²|</answer>|<think>|</think>|<EOS>|：|（B）|–|
×|*|+|^|e3|isn't |so |option |is correct|None|unknown|iron|the |a |É|İ|ß|😀|<|eot_id|>"""
PIECES = [*PIECES.replace("|\n", "|").split("|"), "|", "\n", " ", "\t", "\r", "\0", "\x1b[31m", "\u2028", "\u202e"]
PIECES += ["\ud800", "\u0663", *"tom has apples total each day 9 friends".split()]
SCALARS = [None, True, False, 0, 1, -1, 2, 7, 10**30, 0.5, 1.5, -0.0, 1e-3, math.nan, math.inf, -math.inf]
STRANGE = ["", " ", "\0", "\x1b[2J", "\u2028", "\ud800", "x" * 300, "<script>alert(1)</script>"]
STRANGE += "x 1 0.5 1e-3 yes null ../.. a/b / . é { [] nan micro math choice gsm".split()
NESTED = [[], {}, [1], [None, "x"], {"a": 1}, [[[]]], {"": {}}, [0.5, 0.5], {1: 2}]
# Bytes that break a line of JSON, or make another one of it
BROKEN = [b"\xff", b"\0", b"\xef\xbb\xbf", b"[" * 3000, b"9" * 6000, b"\n", b"\r", b', "answer": "5"', b"\\ud800"]
BROKEN += [b'"question": "twice?", ', b"\\u0000", *b'12345678901234567890.123456789 NaN 1e999 " } { ,'.split()]

texts = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
values = st.one_of(*map(st.sampled_from, (SCALARS, STRANGE, NESTED))).map(copy.deepcopy)


@st.composite
def mutated(draw, content: Any, names: tuple[str, ...] = ("extra",), most: int = 2) -> Any:
    """A copy of nested content in which up to `most` values are others, gone, or have another name of `names`."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(0, most))):
        found = list(places(content))
        if not found:
            break
        inner, key = draw(st.sampled_from(found))
        how = draw(st.sampled_from(["value", "value", "value", "gone", "renamed", "new", "neighbour"]))
        if how in ("value", "neighbour") or not isinstance(inner, dict):
            beside = [value for other, value in items_of(inner) if other != key]
            take_other = how == "neighbour" and beside
            inner[key] = copy.deepcopy(draw(st.sampled_from(beside))) if take_other else draw(values)
        elif how == "gone":
            del inner[key]
        else:
            name = draw(st.sampled_from([*names, f"{key}s", str(key)[:-1], "", "../x", 7]))
            inner[name] = inner.pop(key) if how == "renamed" else draw(values)
    return content


def places(content: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value within nested content."""
    for key, value in items_of(content):
        yield content, key
        yield from places(value)


def items_of(content: Any) -> list[tuple[Any, Any]]:
    """Keys and values of a dictionary or list, none of anything else."""
    if isinstance(content, dict):
        return list(content.items())
    return list(enumerate(content)) if isinstance(content, list) else []


@st.composite
def broken(draw, content: bytes) -> bytes:
    """Bytes, at times with others put into them."""
    if draw(st.integers(0, 4)):
        return content
    start = draw(st.integers(0, len(content)))
    return content[:start] + draw(st.sampled_from(BROKEN)) + content[start + draw(st.integers(0, 3)) :]


def as_json(content: Any) -> bytes:
    """Content as one line of JSON, whatever it holds."""
    return json.dumps(content, default=str).encode()


def assert_one_line(error: UserError) -> None:
    """A message for users is one short line."""
    assert "\n" not in str(error) and 0 < len(str(error)) < 1200, str(error)
