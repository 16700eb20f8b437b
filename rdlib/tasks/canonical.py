"""Canonical forms of the short text in which an answer stands: equal answers get equal strings.

    "$1,234.50" -> "1234.5"    "50\\%" -> "50"    "\\frac{1}{2}" -> "0.5"    "2/6" -> "1/3"    "3 million" -> "3000000"

Each function takes a few hundred characters at most (`answers` cuts them) and gives None where it finds no answer.
Units are dropped and never converted, percent included: 50% is 50 and not 0.5, as GSM8K's gold answers have it.
"""

from __future__ import annotations

import re
from fractions import Fraction

_LONGEST = 40  # characters of a number: a longer run of digits is noise, not an answer
_WRAP = re.compile(r"\\+(?:text|textbf|mathrm|mathbf|mbox|boxed|bf|rm)\s?\{")
_FRACTION = re.compile(r"(\d?)\\+[dtc]?frac\s?(?:\{([^{}]*)\}\s?\{([^{}]*)\}|(\d)(\d))")
_COMMAND = re.compile(r"\\+([$%])|\\+[,;:! ()\[\]]|\\+[A-Za-z]+|[{}]")
_NUMBER = re.compile(
    r"(?=[-$€£\d.]|\s[\d.])"  # implied by what follows, and a third faster where no number begins
    r"(?P<front>(?:(?<![\w.)%])-|(?<![\w.]))[$€£]?\s?(?:(?<=[$€£])-)?)"
    r"(?P<whole>(?<=[$€£])\d{1,3}(?: \d{3})+(?!\d)|\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?P<decimals>\.\d+)?"
    r"(?::(?P<minutes>[0-5]\d)\b)?"
    r"(?:\s?/\s?(?P<under>\d+(?:\.\d+)?)|\s(?:and\s)?(?P<above>\d+)\s?/\s?(?P<below>\d+))?"
    r"(?:\s?(?P<scale>thousand|million|billion|trillion)\b)?",
    re.ASCII,
)
_FIRST = re.compile(r"[\s*_\"'`(\[:~≈]{0,12}(?:(?:is|about|approximately|only)\s)?" + _NUMBER.pattern, re.ASCII)
_SCALES = {None: 1, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
# A bare letter is an option unless it begins a formula ("C = 5") or is the article or the pronoun
_LETTER = re.compile(
    r"[\W_]{0,12}(?:(?i:is|option|choice|letter)\W{1,4})?(?:(?<=\()([A-J])\)|([B-HJ])(?![\w']| ?[=+^/<>])"
    r"|([AI])(?![\w']| ?[=+^/<>]| (?!because|since|as)[a-z]))"
)
_TOKEN = re.compile(r"(?<!\w)-?\d[\d,]*(?:\.\d+)?|\w+")
_STRICT_NUMBER = re.compile(r"\s*(-?)\$?([0-9][0-9,]*)(\.[0-9]+)?")
_STRICT_WORD = re.compile(r"\s+([A-Za-z][A-Za-z'-]{0,49})(?![A-Za-z'-])")


def _plain(place: str) -> str:
    """A place without LaTeX's commands and braces, fractions as a/b."""
    place = place.replace("−", "-")
    if "\\" not in place and "{" not in place:
        return place
    place = _FRACTION.sub(lambda m: f"{m[1]}{' ' * bool(m[1])}{m[2] or m[4]}/{m[3] or m[5]}", _WRAP.sub(" {", place))
    return _COMMAND.sub(lambda m: m[1] or ("" if m[0][-1] in ",;:! {}" else " "), place)


def number(place: str) -> str | None:
    """The number that a place begins with, else its last one; behind the last "=" where a number follows that."""
    place = _plain(place)
    for part in (place.rpartition("=")[2], place):
        match = _FIRST.match(part) or next(reversed(list(_NUMBER.finditer(part))), None)
        if match:
            return _canonical(match)
    return None


def numbers(place: str) -> list[str]:
    """The numbers of a place in order, as they are written."""
    return [match.group() for match in _NUMBER.finditer(_plain(place))]


def begins_with_number(place: str) -> bool:
    """Whether nothing but decoration stands before the first number."""
    return _FIRST.match(_plain(place)) is not None


def _canonical(match: re.Match) -> str | None:
    """A number without commas, currency, unit and needless zeros; a fraction as a decimal where that is exact."""
    front, whole, decimals, minutes, under, above, below, scale = match.groups()
    number = _decimal(whole.replace(" ", ""), decimals)
    if under or below or scale:
        if not Fraction(under or below or 1):
            return None
        value = Fraction(number) / Fraction(under or 1) + Fraction(int(above or 0), int(below or 1))
        number = _fraction(value * _SCALES[scale])
    if minutes and minutes != "00":
        number = f"{number}:{minutes}"
    return _signed("-" in front, number) if len(number) <= _LONGEST else None


def _decimal(whole: str, decimals: str | None) -> str:
    return (whole.replace(",", "").lstrip("0") or "0") + (decimals or "").rstrip("0").rstrip(".")


def _signed(negative: bool, number: str) -> str:
    return f"-{number}" if negative and number != "0" else number


def _fraction(value: Fraction) -> str:
    """7/2 as "3.5", 1/3 as "1/3": decimals up to twelve places."""
    if 10**12 % value.denominator:
        return f"{value.numerator}/{value.denominator}"
    whole, rest = divmod(value.numerator * 10**12 // value.denominator, 10**12)
    return f"{whole}.{rest:012d}".rstrip("0").rstrip(".")


def letter(place: str) -> str | None:
    """The option's letter that a place begins with: "(C) ...", "C. ...", "option C", "C because ..."."""
    match = _LETTER.match(_plain(place))
    return match[match.lastindex] if match else None


def phrase(place: str) -> str | None:
    """A short answer in lower case without articles and punctuation; a place that is just a number as that number."""
    place = _plain(place).lower()
    words = [token.replace(",", "") for token in _TOKEN.findall(place)]
    words = " ".join([word for word in words if word not in ("a", "an", "the")] or words)
    for written in (place, words):
        first = _FIRST.match(written)
        if first and not re.search(r"\w", written[first.end() :]):
            return _canonical(first)
    return words or None


def strict_number(place: str) -> str | None:
    """The number that a place begins with, in the one form that the micro models are taught."""
    match = _STRICT_NUMBER.match(place)
    return _signed(match[1] == "-", _decimal(match[2], match[3])) if match else None


def strict_word(place: str) -> str | None:
    """The word that a place begins with, in lower case."""
    match = _STRICT_WORD.match(place)
    return match[1].lower() if match else None
