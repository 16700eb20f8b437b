"""Text that nobody here wrote, such as a model's response, made fit to be shown: no markup, no control characters."""

from __future__ import annotations

import re

LONGEST = 20_000  # characters; an executed notebook keeps all that it shows

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# What begins HTML, a link, a column, or would undo the backslash that is put before these
_MARKUP = re.compile(r"<(?=[A-Za-z/!?])|(?<=\])\(|\||\\(?=[!-/:-@\[-`{-~])")


def visible(text: str) -> str:
    """A text with its control characters in sight, and cut where it is beyond reading."""
    left_out = f" [and {len(text) - LONGEST:,} more characters]" if len(text) > LONGEST else ""
    return _CONTROL.sub(_symbol, text[:LONGEST].replace("\r\n", "\n")) + left_out


def _symbol(match: re.Match) -> str:
    """Unicode's picture of a control character; a question mark for what it has none for."""
    code = ord(match.group())
    return chr(0x2400 + code) if code < 0x20 else "\ufffd"


def in_markdown(text: str) -> str:
    """A text in one cell of a Markdown table: no line ends, and neither HTML nor links come of it."""
    return _MARKUP.sub(r"\\\g<0>", visible(text)).replace("\n", " ")


def from_markdown(cell: str) -> str:
    """The text of a cell that `in_markdown` wrote."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", cell.strip())
