"""Numbers in words.

value("twelve, which is 3 more than 9")  ->  Fraction(12)      value("minus one hundred and five")  ->  Fraction(-105)
value("three and a half hours")          ->  Fraction(7, 2)    value("one of the 3 boys")           ->  None
"""

from __future__ import annotations

import re
from fractions import Fraction

_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_ONES = {word: n for n, word in enumerate(f"{_ONES} seventeen eighteen nineteen".split())}
_TENS = {w: 10 * n for n, w in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
SCALES = {
    "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "lakh": 10**5, "lac": 10**5, "crore": 10**7, "bn": 10**9, "mn": 10**6, "mln": 10**6, "tn": 10**12,
}  # fmt: skip
_WORD_SCALES = SCALES | {"dozen": 12}  # "3 dozen" is 3: a unit, as in GSM8K's answers
_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "eighth": 8, "tenth": 10}
_WORD = re.compile(r"[\s-]{0,2}((?:and\s)?(?:an?\s)?)([A-Za-z]+)")
_LEAD = re.compile(r"\W{0,8}(?:(?:exactly|about|approximately|only|just|is)\s)?(minus\s|negative\s)?", re.IGNORECASE)
# What "one" or "half" stands before without being the answer: "one of them", "two more than 3", "one-way"
_NO_NUMBER = re.compile(r"\s(?:of|more|less|fewer|times|thing|way|who|that|which|another|or|and|to|\d)\b|-\w|\sas\b")


def value(place: str) -> Fraction | None:
    """The number that the words at the beginning of a place say; None where they say none."""
    lead = _LEAD.match(place)
    at, total, group, seen = lead.end(), 0, 0, False
    while match := _WORD.match(place, at):
        filler, word = match[1].lower(), match[2].lower()
        one, scale, part = (
            _ONES.get(word, _TENS.get(word)),
            *(t.get(word.removesuffix("s")) for t in (_WORD_SCALES, _PARTS)),
        )
        if one is not None and "a" not in filler.replace("and", "") and (not seen or _fits(group, one)):
            group += one
        elif scale and (seen or filler):
            total, group = (total, (group or 1) * scale) if scale in (12, 100) else (total + (group or 1) * scale, 0)
        elif part and (seen or filler or word == "half"):
            total, group = _with_part(total + group, filler, Fraction(1, part)), 0
        else:
            break
        at, seen = match.end(), True
    if not seen or _NO_NUMBER.match(place, at):
        return None
    return Fraction(-(total + group) if lead[1] else total + group)


def _with_part(number: Fraction | int, filler: str, part: Fraction) -> Fraction:
    """ "three and a half" is a sum, "two thirds" a product."""
    return number + part if filler.startswith("and") else (number or 1) * part


def _fits(group: int, one: int) -> bool:
    """Whether "twenty" may be followed by "one", "hundred" by "five", and not "two" by "three"."""
    low = group % 100
    return low == 0 or (low in _TENS.values() and 0 < one < 10)
