"""Final answers: a table of cases, properties, and hostile texts."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdlib.answers import extract, same

NUMBERS = [
    ("buys means more : 7 + 5 = 12 . #### 12", "12"),
    ("#### 12", "12"),
    ("####12", "12"),
    ("#### 3 . no , #### 4", "4"),
    ("#### 3 ####", None),
    ("#### 1,234", "1234"),
    ("#### $1,234.50", "1234.5"),
    ("#### -7", "-7"),
    ("#### -$7", "-7"),
    ("#### -0", "0"),
    ("#### 0.0", "0"),
    ("#### 007", "7"),
    ("#### 12.", "12"),
    ("#### 12.000", "12"),
    ("#### 0.50", "0.5"),
    ("#### -0.5", "-0.5"),
    ("#### 12 apples", "12"),
    ("##### 5", "5"),
    ("####\n9", "9"),
    ("### 5", None),
    ("12", None),
    ("#### twelve", None),
    ("#### \u0663", None),  # a digit, but of no answer that a gold answer could equal
    ("####", None),
    ("", None),
    ("the answer is (B)", None),
]
OPTIONS = [
    ("the metal of lusan is iron (B) . the answer is (B)", "B"),
    ("the answer is B", "B"),
    ("the answer is (J).", "J"),
    ("the answer is A . no , the answer is (C)", "C"),
    ("the answer is is (D)", "D"),
    ("the answer is\n(E)", "E"),
    ("the answer is (K)", None),
    ("the answer is (b)", None),
    ("the answer is Apples", None),
    ("the answer is (A) . the answer is", None),
    ("(A)", None),
    ("answer is (A)", None),
    ("", None),
    ("#### 4", None),
]


WORDS = [
    ("the metal of lusan is iron . the answer is iron", "iron"),
    ("the answer is Iron.", "iron"),
    ("the answer is zinc . no , the answer is tin", "tin"),
    ("the answer is iron (B)", "iron"),
    ("the answer is\niron", "iron"),
    ("the answer is (B)", None),
    ("the answer is 7", None),
    ("the answer isiron", None),
    ("iron", None),
    ("the answer is", None),
    ("the answer is " + "x" * 51, None),
    ("", None),
]


@pytest.mark.parametrize(("text", "expected"), WORDS)
def test_words(text, expected):
    assert extract(text, "text") == expected


@pytest.mark.parametrize(("text", "expected"), NUMBERS)
def test_numbers(text, expected):
    assert extract(text, "number") == expected


@pytest.mark.parametrize(("text", "expected"), OPTIONS)
def test_options(text, expected):
    assert extract(text, "option") == expected


def test_unknown_kind():
    with pytest.raises(ValueError, match="'essay'"):
        extract("#### 1", "essay")


pieces = st.lists(
    st.sampled_from(["#", "####", " ", "the answer is", "is", "(", ")", "A", "J", "9", "0", ",", ".", "-", "$", "\n"])
)


@given(st.one_of(st.text(), pieces.map("".join)), st.sampled_from(["number", "option", "text"]))
def test_never_raises_and_gives_a_normal_answer(text, kind):
    answer = extract(text, kind)
    if answer is not None:
        again = {"number": f"#### {answer}", "option": f"the answer is ({answer})", "text": f"the answer is {answer}"}
        assert extract(again[kind], kind) == answer
        assert kind != "option" or answer in "ABCDEFGHIJ"


@given(st.integers(-(10**12), 10**12), st.text())
def test_writing_a_number_in_other_ways_is_the_same_answer(number, before):
    forms = [f"{number}", f"{number:,}", f"{number}.00", f"{number}."]
    assert {extract(f"{before} #### {form}", "number") for form in forms} == {str(number)}


@given(st.decimals(-(10**6), 10**6, places=3))
def test_a_decimal_keeps_its_value(number):
    assert float(extract(f"#### {number}", "number")) == float(number)


HOSTILE = [
    "x",
    "x-",
    "#",
    "####",
    "#### ",
    "#### 1",
    "#### 1,",
    "1,",
    "0",
    ".",
    "the answer is ",
    "the answer is is ",
    " ",
    "(",
]


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("kind", ["number", "option", "text"])
def test_linear_time(piece, kind):
    for prefix in ("", "#### ", "the answer is "):
        text = prefix + piece * (100_000 // len(piece))
        started = time.perf_counter()
        extract(text, kind)
        # Quadratic matching takes minutes here, linear matching milliseconds; the slack is for a busy machine
        assert time.perf_counter() - started < 1.0


def test_same():
    assert same("12", "12")
    assert not same("12", "13")
    assert not same(None, "12")
    assert not same("12", None)
    assert not same(None, None)
