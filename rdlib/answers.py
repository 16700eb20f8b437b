"""Final answers: taking them out of a response, and telling whether two are the same."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"\s*(-?)\$?([0-9][0-9,]*)(\.[0-9]+)?")
_WORD = re.compile(r"\s+([A-Za-z][A-Za-z'-]{0,49})(?![A-Za-z'-])")
_OPTION = re.compile(r"\s*(?:is\s+)?\(?([A-J])\)?(?![A-Za-z])")


def extract(text: str, kind: str) -> str | None:
    """The final answer a(y) of a response, None where it has none.

    `kind` is "number" (what follows the last `####`), "option" (the letter that follows the last "the
    answer is") or "text" (the word that follows it). Linear in the length of the text.
    """
    if kind == "number":
        return _after(text, "####", _NUMBER, _normal_number)
    if kind == "option":
        return _after(text, "the answer is", _OPTION, lambda match: match.group(1))
    if kind == "text":
        return _after(text, "the answer is", _WORD, lambda match: match.group(1).lower())
    raise ValueError(f"unknown answer kind {kind!r}: use 'number', 'option' or 'text'")


def _after(text: str, marker: str, pattern: re.Pattern, normal) -> str | None:
    at = text.rfind(marker)
    match = pattern.match(text, at + len(marker)) if at >= 0 else None
    return normal(match) if match else None


def _normal_number(match: re.Match) -> str:
    sign, whole, fraction = match.groups()
    whole = whole.replace(",", "").lstrip("0") or "0"
    fraction = (fraction or "").rstrip("0").rstrip(".")
    return whole + fraction if whole + fraction == "0" else sign + whole + fraction


def same(first: str | None, second: str | None) -> bool:
    """Whether two extracted answers agree; an answer that could not be extracted agrees with nothing."""
    return first is not None and second is not None and first == second
