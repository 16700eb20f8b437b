"""The value of an arithmetic expression that a text begins with: what models leave uncomputed.

    value("((2 * 2000) + 500 - 600) / 15 dollars")  ->  Fraction(260)
    value("3.2 * 10^4 m")  ->  Fraction(32000)
    value("12 apples")  ->  None, since there is nothing to compute

Numbers, + - * x / ^ ** and parentheses, exact in fractions. It is no `eval`: two stacks (Dijkstra's shunting yard), at
most `_TOKENS` tokens, and no value beyond `_BITS` bits, so that 9^9^9 takes no time and has no value.
"""

from __future__ import annotations

import re
from fractions import Fraction

_TOKENS, _BITS = 60, 256
_OPERAND = re.compile(
    r"\s*(?:(?P<open>[(\[])|(?P<minus>-)|[$€£]?\s?"
    r"(?P<number>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE](?P<power>[+-]?\d{1,2})(?!\w))?"
    r"(?:\s(?P<above>\d+)/(?P<below>\d+)(?![\d/]))?)",
    re.ASCII,
)
_OPERATOR = re.compile(r"\s*%?\s*(?:(?P<close>[)\]])|(?P<operator>(?<=\d)\*\*(?=\d)|[-+*/^]|(?<=\s)x(?=\s)))", re.ASCII)
_RANK = {"+": 1, "-": 1, "*": 2, "x": 2, "/": 2, "negative": 3, "^": 4, "**": 4}
_RIGHT = {"negative", "^", "**"}  # those that are evaluated from the right
# What looks like arithmetic and is none: "3-5 days", "2024-05-12", "1/2/2024"
_SPAN = re.compile(r"\s*[$€£]?([\d.,]+)\s?-\s?[$€£]?([\d.,]+)(?![\d.,]*\s?[-+*/^(=])")
_SCORE = re.compile(r"\s*\d+-\d+ [a-z]{2}")  # "21-14 in points"
_DATE = re.compile(r"\s*(?:\d+-\d+-\d|\d+/\d+/\d)")


class NoValueError(Exception):
    """An expression that divides by zero, or whose value is too large."""


class _NoExpressionError(Exception):
    """What is read is no arithmetic, or breaks off."""


def value(text: str, spans: bool = True) -> Fraction | None:
    """The value of the longest expression that `text` begins with; None where there is nothing to compute.

    `spans`: whether "3-5" stands for from three to five, as in a sentence, and not for -2, as after a "=". Raises
    NoValueError.
    """
    if _DATE.match(text) or (spans and _is_span(text)):
        return None
    numbers: list[Fraction] = []
    waiting: list[str] = []
    try:
        operators = _read(text, numbers, waiting)
        while waiting:
            _apply(waiting.pop(), numbers)
    except _NoExpressionError:
        return None
    return numbers[0] if operators else None


def _is_span(text: str) -> bool:
    if _SCORE.match(text):
        return True
    if match := _SPAN.match(text):
        low, high = (part.replace(",", "").strip(".") for part in match.groups())
        return low.count(".") < 2 and high.count(".") < 2 and bool(low and high) and float(low) <= float(high)
    return False


def _read(text: str, numbers: list[Fraction], waiting: list[str]) -> int:
    """Push what the text says on the two stacks; the number of its operators. Raises _NoExpressionError."""
    at, operators = 0, 0
    for _ in range(_TOKENS):
        match = _OPERAND.match(text, at)
        if match is None:
            raise _NoExpressionError
        at = match.end()
        if match["number"] is None:
            waiting.append("(" if match["open"] else "negative")
            continue
        numbers.append(_number(match))
        while (match := _OPERATOR.match(text, at)) and match["close"] and "(" in waiting:
            at = match.end()
            while (name := waiting.pop()) != "(":
                _apply(name, numbers)
        if match is None or match["close"]:
            if re.match(r"[A-Za-z_]", text[at : at + 1]) or "(" in waiting:  # "4 - 4x" has no value
                raise _NoExpressionError
            return operators
        at, name = match.end(), match["operator"]
        while waiting and waiting[-1] != "(" and _goes_first(waiting[-1], name):
            _apply(waiting.pop(), numbers)
        waiting.append(name)
        operators += 1
    raise _NoExpressionError


def _number(match: re.Match) -> Fraction:
    """A number, also a mixed one: 2 1/2."""
    written = match["number"].replace(",", "")
    if len(written) > _BITS // 4:
        raise NoValueError
    number = Fraction(written) * Fraction(10) ** int(match["power"] or 0)
    if match["below"] is None:
        return number
    if len(match["above"] + match["below"]) > _BITS // 4 or not int(match["below"]):
        raise NoValueError
    return number + Fraction(int(match["above"]), int(match["below"]))


def _goes_first(waiting: str, name: str) -> bool:
    return _RANK[waiting] > _RANK[name] or (_RANK[waiting] == _RANK[name] and name not in _RIGHT)


def _apply(name: str, numbers: list[Fraction]) -> None:
    right = numbers.pop()
    if name == "negative":
        numbers.append(-right)
        return
    left = numbers.pop()
    if name in ("^", "**"):
        result = _power(left, right)
    elif name == "/":
        if not right:
            raise NoValueError
        result = left / right
    else:
        result = left + right if name == "+" else left - right if name == "-" else left * right
    if _bits(result) > _BITS:
        raise NoValueError
    numbers.append(result)


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or abs(exponent) * _bits(base) > _BITS or (not base and exponent < 0):
        raise NoValueError
    return base**exponent.numerator


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())
