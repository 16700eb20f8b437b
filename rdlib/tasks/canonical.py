"""Canonical forms of the strict answers that the micro models are taught.

    strict_number(" $12 .") -> "12"    strict_word(" Iron .") -> "iron"

Each function takes a few hundred characters at most (`answers` cuts them) and gives None where it finds no answer.
"""

from __future__ import annotations

import re

from rdlib.tasks import numbers

_STRICT_NUMBER = re.compile(r"\s*(-?)\$?([0-9][0-9,]*)(\.[0-9]+)?")
_STRICT_WORD = re.compile(r"\s+([A-Za-z][A-Za-z'-]{0,49})(?![A-Za-z'-])")


def strict_number(place: str) -> str | None:
    """The number that a place begins with, in the one form that the micro models are taught."""
    match = _STRICT_NUMBER.match(place)
    return numbers.signed(match[1] == "-", numbers.decimal(match[2], match[3])) if match else None


def strict_word(place: str) -> str | None:
    """The word that a place begins with, in lower case."""
    match = _STRICT_WORD.match(place)
    return match[1].lower() if match else None
