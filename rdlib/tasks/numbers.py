"""The number that a short text gives, in canonical form: equal numbers get equal strings.

    "$1,234.50" -> "1234.5"    "50\\%" -> "50"    "\\frac{1}{2}" -> "0.5"    "2/6" -> "1/3"    "3 million" -> "3000000"
    "3.5e3" -> "3500"    "2^{10}" -> "1024"    "8-4" -> "4"    "$7 = 10 - 3$" -> "7"    "12 345" -> "12345"

Each function takes a few hundred characters at most (`answers` cuts them) and gives None where it finds no number.
Units are dropped and never converted, percent included: 50% is 50 and not 0.5, as GSM8K's gold answers have it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

from rdlib.tasks import arithmetic
from rdlib.tasks.plain import plain

_LONGEST = 40  # characters of a number: a longer run of digits is noise, not an answer
_NUMBER = (
    r"(?P<front>{sign}[$€£]?\s?(?:(?<=[$€£])-)?)(?P<whole>\d+(?![\d.,]|\s\d\d\d)|{groups}"
    r"\d{{1,3}}(?:\.\d{{3}})+,\d+(?![\d,])|\d{{1,3}}(?:\.\d{{3}}){{2,}}(?![\d.,])"  # 1.234,56 and 1.234.567
    r"|\d{{1,3}}(?:,\d{{3}})+(?!\d|,\d)|\d{{1,2}}(?:,\d{{2}})+,\d{{3}}(?![\d,])"  # 1,234,567 and 12,34,567
    r"|\d+,\d{{1,2}}(?![\d,])|\d+|(?=\.\d))(?P<decimals>\.\d+)?"  # 12,5
    r"(?:[eE](?P<power>[+-]?\d{{1,2}})(?!\w))?"
    r"(?::(?P<minutes>[0-5]\d)\b)?"
    r"(?:\s?/\s?(?P<under>\d+(?:\.\d+)?)|\s(?:and\s)?(?P<above>\d+)\s?/\s?(?P<below>\d+))?"
    r"(?:\s?(?P<scale>thousand|million|billion|trillion)\b)?"
)
_ANYWHERE = re.compile(
    r"(?=[-$€£\d.]|\s[\d.])"  # implied by what follows, and a third faster where no number begins
    + _NUMBER.format(
        sign=r"(?:(?<![\w.)%])-(?=[$€£.\d])|(?<![\w.]))",
        groups=r"(?:(?<=[$€£])|(?<=is )|(?<=be )|(?<=of )|(?<== ))\d{1,3}(?: \d{3})+(?![\d-])|",
    ),
    re.ASCII,
)
_LEAD = r"[\s*_\"'`\[:~≈]{0,12}(?:(?:is|about|approximately|only)\s)?"
# A space is between thousands, as in "12 345", in few places of a sentence: there are "2 500 ml bottles"
_FIRST = re.compile(
    _LEAD + r"(?:[\s(*]|-(?=\()){0,5}" + _NUMBER.format(sign=r"(?:-\s?)?", groups=r"\d{1,3}(?: \d{3})+(?![\d-])|"),
    re.ASCII,
)
_LEADING = re.compile(_LEAD)
_GOES_ON = re.compile(r"[)\s%$]*(?:[-+*/^]|x\s)")  # behind a number: there may be something to work out
_BOLD = re.compile(r"\*\*([^*\n]*\d[^*\n]*)\*\*")
# "After 3 days, she has 24": the circumstances come first, and a comma behind them
_INTRODUCTION = re.compile(
    r"\W{0,3}(?:(?:so|then|thus|therefore|hence|and|but|finally)\b,? )?"
    r"(?:in|after|for|over|within|at|by|on|with|if|since|when|out of|from|during|because|as|to|before|every|each)\b"
    r"(?:[^,]|,(?=\d)){1,150},\s(?=.*\d)"
    r"|\W{0,3}(?:step|part|day|week) \d+\s?[:.)]",
    re.IGNORECASE,
)
_POWERS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_POWER = re.compile("(?<=[0-9])[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")  # not m²
_SCALES = {None: 1, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}


class AmbiguousError(Exception):
    """A number whose points and commas can be read in two ways, and nothing tells which."""


def number(place: str, text: str = "", otherwise: Callable[[str], None] | None = None) -> str | None:
    """The number of a place: behind its last "=" where one follows, at its beginning, else the first of its sentence.

    An expression is worked out. `text`, the whole response, tells how points and commas are meant where the number
    itself does not; AmbiguousError where neither does. `otherwise` is asked about a place that begins with no number.
    """
    place = plain(place)
    if not place.isascii():
        place = _POWER.sub(lambda m: "^" + m[0].translate(_POWERS), place)
    equals = "=" in place
    for part in place.rpartition("=")[::-2] if equals else (place,):
        if match := _FIRST.match(part):
            return _value(part, match, 0, text, spans=not equals)
        if otherwise is not None:
            otherwise(part)
        if match := _of_sentence(part):
            return _value(part, match, match.start(), text, spans=not equals)
    return None


def _value(part: str, match: re.Match, start: int, text: str, spans: bool) -> str | None:
    """The number that was matched, or the value of the expression that begins with it or, behind a lead, at `start`."""
    end = match.end()
    if end < len(part) and _GOES_ON.match(part, end):
        try:
            worked_out = arithmetic.value(part[_LEADING.match(part, start).end() :], spans)
        except arithmetic.NoValueError:
            return None
        if worked_out is not None:
            return _short(signed(worked_out < 0, _fraction(abs(worked_out))))
    return _canonical(match, text)


def _of_sentence(sentence: str) -> re.Match | None:
    """The number that a sentence gives: the first bold one, else the first behind words on when and whereof.

    In the last sentences of GSM8K's and GSM-Plus's solutions that have several numbers and no "=", this is the answer
    106 times of 128, the very first number 94 times and the last 75 times.
    """
    bold = _BOLD.search(sentence)
    if bold and (match := _ANYWHERE.search(sentence, bold.start(1), bold.end(1))):
        return match
    introduction = _INTRODUCTION.match(sentence)
    return _ANYWHERE.search(sentence, introduction.end() if introduction else 0) or _ANYWHERE.search(sentence)


def begins_with_number(place: str) -> bool:
    """Whether nothing but decoration stands before the first number."""
    return _FIRST.match(plain(place)) is not None


def only_number(place: str) -> str | None:
    """The number that a place is, where it holds nothing else; None also where it can be read in two ways."""
    match = _FIRST.match(place)
    if match and not re.search(r"\w", place[match.end() :]):
        try:
            return _canonical(match, "")
        except AmbiguousError:
            return None
    return None


def _canonical(match: re.Match, text: str) -> str | None:
    """A number without commas, currency, unit and needless zeros; a fraction as a decimal where that is exact."""
    front, whole, decimals, power, minutes, under, above, below, scale = match.groups()
    may_be = "," in whole or (decimals and len(decimals) == 4)
    if may_be and _TWO_WAYS.fullmatch(written := whole + (decimals or "")):
        whole, decimals = _settled(written, text)
    elif " " in whole or "." in whole:
        whole = whole.replace(" ", "").replace(".", "")
    number = decimal(whole, decimals)
    if under or below or scale or power:
        if not Fraction(under or below or 1):
            return None
        value = Fraction(number) / Fraction(under or 1) + Fraction(int(above or 0), int(below or 1))
        number = _fraction(value * _SCALES[scale] * Fraction(10) ** int(power or 0))
    if minutes and minutes != "00":
        number = f"{number}:{minutes}"
    return _short(signed("-" in front, number))


def decimal(whole: str, decimals: str | None) -> str:
    """A number's digits before the point and those after it (with the point), without zeros that say nothing."""
    return (whole.replace(",", "").lstrip("0") or "0") + (decimals or "").rstrip("0").rstrip(".")


def signed(negative: bool, number: str) -> str:
    """A number with its sign; zero has none."""
    return f"-{number}" if negative and number != "0" else number


def _short(number: str) -> str | None:
    return number if len(number) <= _LONGEST else None


def _fraction(value: Fraction) -> str:
    """7/2 as "3.5", 1/3 as "1/3": decimals up to twelve places."""
    if 10**12 % value.denominator:
        return f"{value.numerator}/{value.denominator}"
    whole, rest = divmod(value.numerator * 10**12 // value.denominator, 10**12)
    return f"{whole}.{rest:012d}".rstrip("0").rstrip(".")


# Points and commas: which of them the text's other numbers put before decimals

_TWO_WAYS = re.compile(
    r"\d{1,3}(?:\.\d{3})*,\d{1,2}|\d{1,3}(?:\.\d{3})+,\d+|\d+,\d{1,2}|\d{1,2}(?:,\d{2})+,\d{3}|[1-9]\d{0,2}\.\d{3}"
)
_WRITTEN = re.compile(r"\d[\d.,]*\d", re.ASCII)
_LAKHS = re.compile(r"\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_COMMA = re.compile(r"(?:\d+|\d{1,3}(?:\.\d{3})+),\d{1,2}|\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}")
_POINT = re.compile(r"\d+\.(?:\d{1,2}|\d{4,})|\d{1,3}(?:,\d{3})+(?:\.\d+)?")


def _settled(written: str, text: str) -> tuple[str, str | None]:
    """Digits before and behind the decimal sign of a number that can be read in two ways; AmbiguousError."""
    others = set(_WRITTEN.findall(text)) - {written}
    if _LAKHS.fullmatch(written):
        joined = written.replace(",", "")
        told = any(_LAKHS.fullmatch(other) for other in others)
        if joined in others or (told and not any(_THOUSANDS.fullmatch(o) and o.count(",") > 1 for o in others)):
            return joined, None
        raise AmbiguousError
    told = any(map(_COMMA.fullmatch, others)) and not any(map(_POINT.fullmatch, others))
    whole, comma, decimals = written.replace(".", "").partition(",")
    if not comma:  # "1.234" is a decimal where nothing says otherwise
        return (whole, None) if told else (written[:-4], written[-4:])
    if told or f"{whole}.{decimals}" in others:
        return whole, f".{decimals}"
    raise AmbiguousError
