"""What a place holds that is no number, although digits stand in it: its first number would be a wrong answer.

    opening("(2, 5)")  ->  "several"        opening("x > 3")  ->  "no number"      opening("12 apples")  ->  None
    going_on("2 sqrt(3)", 1)  ->  "no number"    going_on("12 km", 2)  ->  None    several("2 or 3", 1)  ->  " or 3"

Each function takes a place of a few hundred characters, in plain characters (`plain`). "several" stands for more than
one number: a tuple, a set, an interval, a range, alternatives; "no number" for an expression with letters, a root, pi,
a ratio, an inequality, a number of another base, or words.
"""

from __future__ import annotations

import re

_DECORATION = r"[\s*_\"'`$:~≈]{0,12}"
_FUNCTION = (
    r"(?:sqrt|pi|infinity|matrix|pmatrix|binom|alpha|beta|theta|lambda|phi|floor|ceil|choose"
    r"|(?:log|ln|exp|sin|cos|tan)(?=[\s(_]*[\dx]))(?![A-Za-z])"
)
_NUMBER = r"[-+]?\s?\$?\s?(?:\d[\d.]*|\.\d+)(?:/\d+)?%?"
_ELEMENT = (
    rf"(?:[-+]?\s?infinity|[-+]?\s?(?:\d\s?)?{_FUNCTION}[^,;]{{0,20}}|{_NUMBER}|[-+]?\d*[a-z](?:[\^+*/-]\w)?\b|\.\.\.)"
)
_OPENING = re.compile(
    rf"{_DECORATION}(?:"
    r"(?P<several>"
    rf"[(\[{{]\s*(?!\d{{1,3}}(?:,\d{{3}})+\s*[)\]}}]){_ELEMENT}\s*[,;]\s*{_ELEMENT}"
    r"|(?:(?:is|are|lies|lie|somewhere|anywhere|both|either)\s){0,2}between\b[^.]*\d"
    r"|(?:either|both)\s[^.,]{0,40}\d[^.,]{0,40}\s(?:or|and)\s[^.,]{0,20}\d"
    r"|from\s\$?\d[\d.,]*\s?\w*\sto\s\$?\d"
    r")"
    rf"|±\s?\d|[(\s-]*(?:\d\s?)?{_FUNCTION}"
    r"|>\s?=?\s?[-$]?[\d.]|<\s?=?\s?[-$]?\d[\d.,]*(?![\d.,]*>)"
    r"|[(-]{0,2}[b-hj-zB-HJ-Z](?:_?\d)?\s?(?:[\^<>±²³⁴⁵ⁿ]|[+/]\s?[\w(]|\*(?!\*)\s?[\w(]|-\s?\d)(?!a\b)"
    r"|[(\s-]*[b-hj-z](?:\)\s?/|\(\s?[a-z\d])"
    r"|[ai]\s?\^|[ai]\s[+*-]\s\d"
    r"|[b-hj-z]\s(?:in|is in)\s[\[({]"
    r"|(?:an? )?(?:infinite|infinity|undefined|unbounded|indeterminate|imaginary|dne)\b"
    r"|(?:all|any|every|no)\s(?:real|integer|solution|such|possible|valid|value|number|positive|root)"
    r"|(?:does|do) not exist|not (?:defined|possible)|the empty set|impossible\b"
    r"|(?:yes|no|true|false)\b(?=\W{0,4}(?:$|since|because|as\b|for\b))"
    r"|(?:on )?(?:mon|tues|wednes|thurs|fri|satur|sun)day\b"
    r"|(?:january|february|march|april|may|june|july|august|september|october|november|december)\s\d"
    r")",
    re.IGNORECASE,
)
_LETTER = r"(?:[abefijnqruvwxyz](?![A-Za-z'’])|[XYZ](?![A-Za-z]))"  # no unit of one letter, as m, g, s, h, k or c are
_OPERAND = rf"\(?\s?-?\d*(?:{_LETTER}|\s?[ixyzn](?![\w'’])|\s?{_FUNCTION})"
_GOING_ON = re.compile(
    rf"\s?\^?\*?\s?{_FUNCTION}"
    rf"|{_LETTER}(?!\s(?:as|more|the|faster|larger|bigger|times|less)\b)|\s[xyzn](?![\w'’])(?!\s[\d(])"
    r"|[PC]\d|\)?\((?:-?\d|[a-z]\b)|_\(?\d|\s?\(?(?:in )?base[\s-](?!10\b|ten\b)\w"
    r"|\s?(?:[rR]|rem\.?|,? ?(?:with )?(?:an? )?remainder)\s?(?:of )?\d"
    r"|\s?:\s?\d|\sto\s\$?\d(?!\d* (?:decimal|significant|d\.?p))|\sis to\s\d"
    r"|\s?(?:±|\+/-|\+-)\s?\d"
    r"|\s?[<>]\s?=?\s[-\w$(]|[<>]=?\d|<[xyzn](?![>\w])"
    rf"|[)\s]*[-+*^]\s?{_OPERAND}|[)\s]*/\s?(?![hsmlgd]\b){_OPERAND}|\^\(?-?\s?{_OPERAND}"
)
_UNIT = (
    r"(?:hours?|hrs?|h|minutes?|mins?|days?|weeks?|months?|years?|feet|foot|ft|pounds?|lbs?|dollars?|euros?"
    r"|met(?:er|re)s?|m|km|kg|degrees?|gallons?)"
)
_SMALL_UNIT = (
    r"(?:h|m|s|in|oz|hours?|minutes?|mins?|seconds?|secs?|days?|weeks?|months?|inch(?:es)?|ounces?|cents?|cm|grams?|g)"
)
_SEVERAL = re.compile(
    rf"\s?[,;]\s?(?:and\s)?{_NUMBER}\s*(?:$|[,;)\]}}.!?*\"$]|(?:and|or)\b)"
    rf"|\s(?:and|&|or(?=\s(?P<or>{_NUMBER})))\s{_NUMBER}(?!\d)(?!\s(?:of|more|less|fewer)\b)"
    rf"|(?:\s[A-Za-z]+){{1,3}},?\s(?:and|or|&)\s{_NUMBER}(?:\s?[A-Za-z]+){{1,3}}\W{{0,4}}$"
    rf"|'\s?\d{{1,2}}\s?(?:\"|''|$)"
    rf"|\s?{_UNIT},?\s?(?:and\s)?\d+(?:\.\d+)?\s?{_SMALL_UNIT}\b"
)
_COMPARED = re.compile(r"[<>]\s?=?\s?\$?-?$|sqrt\s?\(?$|\blog\s?\(?$")
_SPAN = re.compile(r"\s?-\s?\$?\d")
_EQUATION = re.compile(rf"{_DECORATION}-?\d+[a-z]\s?[-+]\s?\d*[a-z]?\s?=[^=]*$")
_SOLUTIONS = re.compile(
    rf"\b[a-zA-Z](?:_?\d)?\s?=\s?{_NUMBER}\s?(?:,|;|,?\s?(?:and|or)\b)\s?(?:and\s|or\s)?"
    rf"[a-zA-Z](?:_?\d)?\s?=\s?{_NUMBER}[\s.)$]*$"
)


def opening(place: str) -> str | None:
    """Why a place that begins with no number has none; None where it may still have one."""
    match = _OPENING.match(place)
    return match and ("several" if match["several"] else "no number")


def going_on(place: str, end: int) -> str | None:
    """Why the number that ends at `end` is none, as what follows shows; None where it is one."""
    return "no number" if _GOING_ON.match(place, end) else None


def several(place: str, end: int) -> re.Match | None:
    """What shows that the number that ends at `end` is the first of several; its group "or" is an alternative."""
    return _SEVERAL.match(place, end)


def span(place: str, end: int) -> bool:
    """Whether the number that ends at `end` begins a span such as 3-5."""
    return _SPAN.match(place, end) is not None


def compared(place: str, start: int, end: int) -> bool:
    """Whether the number from `start` to `end` follows an inequality sign or is in a root; not that of "<18>"."""
    before = place[max(0, start - 8) : start]
    if "<" in before or ">" in before or "sqrt" in before or "log" in before:
        return _COMPARED.search(before) is not None and place[end : end + 1] != ">"
    return False


def equation(place: str) -> bool:
    """Whether a place is an equation between unknowns: "2x + 3y = 5"."""
    return _EQUATION.match(place) is not None


def solutions(place: str) -> bool:
    """Whether a place ends in the values of two unknowns, or in two of one: "x = 2 or x = 9"."""
    return _SOLUTIONS.search(place) is not None
