"""The number that a short text gives, in canonical form: equal numbers get equal strings.

    "$1,234.50" -> "1234.5"    "50\\%" -> "50"    "\\frac{1}{2}" -> "0.5"    "2/6" -> "1/3"    "3 million" -> "3000000"
    "3.5e3" -> "3500"    "2^{10}" -> "1024"    "8-4" -> "4"    "$7 = 10 - 3$" -> "7"    "12 345" -> "12345"
    "18 km = 18,000 m" -> "18"    "$1.2M" -> "1200000"    "1½" -> "1.5"    "negative twelve" -> "-12"
    "(2, 5)", "2\\sqrt{3}", "3x + 2", "3:4", "x > 3" -> NoNumberError

Each function takes a few hundred characters at most (`answers` cuts them) and gives None where it finds no number.
Units are dropped and never converted, percent included: 50% is 50 and not 0.5, as GSM8K's gold answers have it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

from rdlib.tasks import arithmetic, shapes, spelled
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
    r"(?:(?P<suffix>[kKMBmbT])(?![\w^'/])|\s?(?P<scale>{scales})\b)?"
)
_SCALE_WORDS = "(?:thousand|[mb]illion|trillion|lakh|lac|crore)s?|bn|mn|mln|tn"
_ANYWHERE = re.compile(
    r"(?=[-$€£\d.]|\s[\d.])"  # implied by what follows, and a third faster where no number begins
    + _NUMBER.format(
        sign=r"(?:(?<![\w.)%])-(?=[$€£.\d])|(?<![\w.]))",
        groups=r"(?:(?<=[$€£])|(?<=is )|(?<=be )|(?<=of )|(?<== ))\d{1,3}(?: \d{3})+(?![\d-])|",
        scales=_SCALE_WORDS,
    ),
    re.ASCII,
)
_LEAD = (
    r"[\s*_\"'`\[:~≈]{0,12}(?:(?:is|about|approximately|approx\.?|roughly|around|nearly|almost|exactly|only|just|simply"
    r"|therefore|thus|then|still|equals|equal to|a total of)[\s:,*]{1,4}){0,3}"
)
# A space is between thousands, as in "12 345", in few places of a sentence: there are "2 500 ml bottles"
_FIRST = re.compile(
    _LEAD
    + r"(?:[\s(*]|-(?=\()){0,5}"
    + _NUMBER.format(
        sign=r"(?:[-+]\s?)?",
        groups=r"\d{1,3}(?: \d{3})+(?:,\d{1,2}(?![\d,])|(?![\d-]))|",
        scales=_SCALE_WORDS,
    ),
    re.ASCII,
)
_LEADING = re.compile(_LEAD)
# Most answers, read without the rest: a number alone or with one word after it, which does not make it another one
_BARE = re.compile(
    r"\s?\$?(-?)(\d{1,15})(\.\d{1,2})?(?:%| (?!lakh|lacs|crore|thous|milli|billi|trilli|sqrt|base|infin|alpha|beta"
    r"|theta|lambda|plus|minus|times)[a-z]{4,})?\.?\s*",
    re.ASCII,
)
_GOES_ON = re.compile(r"[)\s%$]*(?:[-+*/^]|x\s)")  # after a number: there may be something to compute
# Nothing, or a unit and words without a further number: what most numbers are followed by
_HARMLESS = re.compile(
    r"[%\s]*(?:[.!,]?\s*$|[a-z]{4,}\b(?<!sqrt)(?<!base)(?<!infinity)(?<!alpha)(?<!beta)(?<!theta)(?<!lambda)\D*$)"
)
_TERM = re.compile(r"\s?[-+*^]\s?\w")
_MORE = re.compile(rf",?\s(?:and\s)?(\d{{1,3}})\s({_SCALE_WORDS})\b", re.ASCII)  # "1 million 200 thousand"
# After the number that begins a side of an equation: it is the first of an expression, whose value another side has
_EXPRESSION = re.compile(
    r"[)%\s]*(?:[A-Za-z°]+[)%\s]{1,3}){0,4}?"
    r"(?:[-+*/^]|\b(?:x|times|plus|minus|and|(?:multiplied|divided) by)\s)\s?[-$(\d.]"
    r"|[)%]?\s?of\s\$?\d"
)
_LONE_SIDE = re.compile(
    r"\s*-?\s?\$?\d[\d.,]*%?"
    r"(?:\s(?!(?:if|so|and|or|then|thus|when|where|but|since|because|for|while)\b)[A-Za-z]{1,20}){0,2}\s*"
)
_ABSOLUTE = re.compile(r"[\s$]*\|\s?-?\s?(\d[\d.]*)\s?\|[\s$.]*", re.ASCII)
_BOLD = re.compile(r"\*\*([^*\n]*\d[^*\n]*)\*\*")
# "After 3 days, she has 24": the circumstances come first, and a comma after them
_INTRODUCTION = re.compile(
    r"\W{0,3}(?:(?:so|then|thus|therefore|hence|and|but|finally)\b,? )?"
    r"(?:in (?:19|20)\d\d\s(?=\D*\d)|(?:in|after|within) \d+ (?:second|minute|hour|day|week|month|year)s?\s(?=\D*\d)"
    r"|(?:in|after|for|over|within|at|by|on|with|if|since|when|out of|from|during|because|as|to|before|every|each)\b"
    r"(?:[^,]|,(?=\d)){1,150},\s(?=.*\d))"
    r"|\W{0,3}(?:step|part|day|week|option|case|question|problem) \d+\s?[:.)]",
    re.IGNORECASE,
)
_POWERS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_POWER = re.compile("(?<=[0-9])[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")  # not m²
_APOSTROPHE = re.compile(r"(?<=\d)['’_](?=\d{3}(?!\d))")  # between thousands, as in Switzerland
_CODE = re.compile(
    r"(?<![A-Za-z])(?:(?:US|AU|CA|NZ|HK|SG|[ACSR])\$|(?:USD|EUR|GBP|INR|CNY|RMB|JPY|CHF|CAD|AUD|Rs\.?)\s?)(?=-?[\d.])"
)
_TAG = re.compile(r"<[/|｜]{0,2}[A-Za-z_▁]{1,30}[|｜]?>")
_NEGATIVE = re.compile(r"(?<![\d)%]\s)(?<!\w)(?:negative|minus)\s(?=\$?[\d.])", re.IGNORECASE)
_SCALES = {None: 1, "k": 10**3, "K": 10**3, "m": 10**6, "M": 10**6, "b": 10**9, "B": 10**9, "T": 10**12}
_MONEY_SCALES = ("m", "b", "T")  # a unit where no currency stands in front: 5m, 3b, 2T


class AmbiguousError(Exception):
    """A number whose points and commas can be read in two ways, and nothing tells which."""


class NoNumberError(Exception):
    """A place that holds something else than a number; its text is "no number" or "several"."""


def number(
    place: str,
    text: str = "",
    otherwise: Callable[[str], None] | None = None,
    whole: bool = False,
    stated: bool = True,
) -> str | None:
    """The number of a place: the one at its beginning, after its last "=" where an expression stands before that.

    An expression is evaluated. `text`, the whole response, shows how points and commas are meant where the number
    itself does not; AmbiguousError where neither does. `otherwise` is asked about a place that begins with no number.
    `whole`: whether the place is the answer and nothing else, as a box is; `stated`: whether it is said to be the
    answer, and no sentence of the working. NoNumberError where it holds something else.
    """
    if match := _BARE.fullmatch(place):
        return signed(match[1] == "-", decimal(match[2], match[3]))
    place = _prepared(place)
    if "=" in place:
        _require_one_unknown(place, stated)
    for part, spans in _sides(place, stated):
        if match := _FIRST.match(part):
            _require_number(part, match)
            return _value(part, match, 0, text, spans, whole)
        if otherwise is not None:
            otherwise(part)
        if (worded := _in_words(part, stated)) is not None:
            return worded
        if match := _of_sentence(part):
            _require_one(part, match)
            return _value(part, match, match.start(), text, spans)
    return None


def _prepared(place: str) -> str:
    """A place in plain characters, its powers, thousands, currencies and minus signs in one form each."""
    place = plain(place)
    if not place.isascii():
        place = _POWER.sub(lambda m: "^" + m[0].translate(_POWERS), place)
    if "'" in place or "’" in place or "_" in place:
        place = _APOSTROPHE.sub(",", place)
    if "-" in place or "=" in place or "Rs" in place:
        place = _CODE.sub("$", place)
    if "!=" in place:  # no equation
        place = place.replace("!=", "<")
    if "<" in place:
        place = _TAG.sub(" ", place)
    if "$(" in place:  # a formula, not money
        place = place.replace("$(", "(")
    if "egative " in place or "inus " in place:
        place = _NEGATIVE.sub("-", place)
    return place


def _sides(place: str, stated: bool) -> list[tuple[str, bool]]:
    """The sides of an equation that may give its number, the likeliest first, and whether "3-5" is a span there.

    A number that stands alone at the beginning is the answer: "18 km = 18,000 m". Else the value comes last, and may
    be said again in another unit: "2 * 9 km = 18 km = 18,000 m".
    """
    if "=" not in place:
        return _approximated(place)
    sides = place.split("=")
    if stated and _stands_alone(sides[0]):
        return [(sides[0], True)]
    at = last = max((n for n, side in enumerate(sides) if side.strip()), default=0)
    while at > 1 and _LONE_SIDE.fullmatch(sides[at - 1]):
        at -= 1
    if not last:
        return [(sides[0], False)]
    return [(sides[at], False), ("=".join(sides[:at]), False)]


def _stands_alone(side: str) -> bool:
    """Whether a side of an equation begins with its number, and has nothing to compute."""
    match = _FIRST.match(side)
    return bool(
        match
        and not match["under"]
        and not _EXPRESSION.match(side, match.end())
        and shapes.going_on(side, match.end()) is None
    )


def _approximated(place: str) -> list[tuple[str, bool]]:
    """The number after "≈" where what stands before it is none: "9 pi ≈ 28.27"."""
    before, sign, after = place.partition("≈")
    match = _FIRST.match(before) if sign else None
    if sign and (match is None or shapes.going_on(before, match.end())):
        return [(after, True)]
    return [(place, True)]


def _require_one_unknown(place: str, stated: bool) -> None:
    """NoNumberError where a place gives the values of several unknowns, or an equation between them."""
    if shapes.solutions(place):
        raise NoNumberError("several")
    if stated and shapes.equation(place):
        raise NoNumberError("no number")


_BRACKETS = ("(", "[", "{")
_SAYS = (" is", " are", " be", " were", " was")


def _require_one(sentence: str, match: re.Match) -> None:
    """NoNumberError where a sentence compares with its number, or says it of several: "the roots are 2 and 9"."""
    start, end = match.start("whole"), match.end()
    if shapes.compared(sentence, start, end):
        raise NoNumberError("no number")
    if sentence[max(0, start - 1) : start] in _BRACKETS and shapes.opening(sentence[start - 1 :]):
        raise NoNumberError("several")
    before = sentence[max(0, start - 12) : start].rstrip(" $")
    if before.endswith(" between") or (before.endswith(_SAYS) and _is_first_of_several(sentence, end, match["whole"])):
        raise NoNumberError("several")


def _require_number(part: str, match: re.Match) -> None:
    """NoNumberError where a place begins with a bracket or a sign that makes more of its first number."""
    before = part[: match.start("whole")]
    if ("(" in before or "[" in before) and (reason := shapes.opening(part)):
        raise NoNumberError(reason)


def _in_words(part: str, stated: bool) -> str | None:
    """The number that the words of a place say; NoNumberError where they say something else."""
    if match := _ABSOLUTE.fullmatch(part):
        return _fraction(Fraction(match[1]))
    if (stated or not part[:2].isalpha()) and (reason := shapes.opening(part)):
        raise NoNumberError(reason)
    value = spelled.value(part) if stated else None
    return None if value is None else _short(signed(value < 0, _fraction(abs(value))))


def _value(part: str, match: re.Match, start: int, text: str, spans: bool, whole: bool = False) -> str | None:
    """The number that was matched, or the value of the expression that begins with it or, after a lead, at `start`."""
    end = match.end()
    if whole and part.startswith("!", end):  # a factorial; a sentence may exclaim
        raise NoNumberError("no number")
    if match["suffix"] != "b" and _HARMLESS.match(part, end):
        return _canonical(match, text)
    if _GOES_ON.match(part, end):
        try:
            worked_out = arithmetic.value(part[_LEADING.match(part, start).end() :], spans)
        except arithmetic.NoValueError:
            return None
        if worked_out is not None:
            return _short(signed(worked_out < 0, _fraction(abs(worked_out))))
    if match["suffix"] and "$" not in match["front"] and (match["suffix"] == "b" or _TERM.match(part, end)):
        raise NoNumberError("no number")  # 12b, 6k + 1
    if reason := shapes.going_on(part, end):
        raise NoNumberError(reason)
    if match["scale"] and (more := _MORE.match(part, end)):
        return _sum(match, more, text)
    answer = _canonical(match, text)
    if answer and "-(" in part[match.start() : match.start("front")]:
        answer = answer[1:] if answer[0] == "-" else signed(True, answer)
    if start == 0 and ((whole and shapes.span(part, end)) or _is_first_of_several(part, end, answer)):
        raise NoNumberError("several")
    return answer


def _is_first_of_several(part: str, end: int, answer: str | None) -> bool:
    """Whether another number follows that is an answer too: not "0.1 or 1/10", which says one number twice."""
    further = shapes.several(part, end)
    return further is not None and not (further["or"] and first_number(part[further.start("or") :]) == answer)


def _sum(match: re.Match, more: re.Match, text: str) -> str | None:
    """1 million 200 thousand."""
    first = Fraction(_canonical(match, text) or 0)
    further = int(more[1]) * _scale(more[2])
    return _short(signed(first < 0, _fraction(abs(first) + further)))


def _scale(word: str) -> int:
    """What "million" or "lakhs" multiplies by."""
    return spelled.SCALES[word.removesuffix("s")]


def _of_sentence(sentence: str) -> re.Match | None:
    """The number that a sentence gives: the first bold one, else the first after words on when and whereof.

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


def begins_with_answer(place: str) -> bool:
    """Whether a place begins with a number, in digits or in words, or with something that stands for none."""
    place = _prepared(place)
    shown = _FIRST.match(place) or _ABSOLUTE.match(place) or shapes.opening(place)
    return bool(shown) or spelled.value(place) is not None


def first_number(place: str) -> str | None:
    """The number that a place begins with, whatever follows; None also where it can be read in two ways."""
    match = _FIRST.match(place)
    try:
        return _canonical(match, "") if match else None
    except AmbiguousError:
        return None


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
    front, whole, decimals, power, minutes, under, above, below, suffix, scale = match.groups()
    may_be = "," in whole or (decimals and len(decimals) == 4)
    if may_be and whole.count(".") > 1:  # 1.234.567,89
        whole, _, digits = whole.replace(".", "").partition(",")
        decimals = f".{digits}"
    elif may_be and _TWO_WAYS.fullmatch(written := whole + (decimals or "")):
        whole, decimals = _settled(written, text)
    elif " " in whole and "," in whole:  # 1 234,56
        whole, _, digits = whole.replace(" ", "").partition(",")
        decimals = f".{digits}"
    elif " " in whole or "." in whole:
        whole = whole.replace(" ", "").replace(".", "")
    number = decimal(whole, decimals)
    if under or below or scale or power or suffix:
        if not Fraction(under or below or 1):
            return None
        value = Fraction(number) / Fraction(under or 1) + Fraction(int(above or 0), int(below or 1))
        times = _scale(scale) if scale else 1 if suffix in _MONEY_SCALES and "$" not in front else _SCALES[suffix]
        number = _fraction(value * times * Fraction(10) ** int(power or 0))
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
    """A number, None where it is too long for an answer."""
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
    """Digits before and after the decimal sign of a number that can be read in two ways; AmbiguousError."""
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
