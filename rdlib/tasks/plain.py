"""Plain characters for what models write in LaTeX and Unicode, before numbers, letters and words are read from it.

What becomes of it:

    "\\frac{1}{2}" -> "1/2"    "3.2 \\times 10^{4}" -> "3.2 * 10^4"    "–5" -> "-5"    "（B）" -> "(B)"
"""

from __future__ import annotations

import re

_WRAP = re.compile(r"\\+(?:text|textbf|mathrm|mathbf|mbox|boxed|bf|rm)\s?\{")
_FRACTION = re.compile(r"(\d?)\\+[dtc]?frac\s?(?:\{([^{}]*)\}\s?\{([^{}]*)\}|(\d)(\d))")
_OPERATOR = re.compile(r"\\+(times|cdot|div)(?![A-Za-z])")
_COMMAND = re.compile(r"\\+([$%])|\\+[,;:! ()\[\]]|\\+[A-Za-z]+|[{}]")
_CHARACTERS = str.maketrans("−﹣－×⋅·÷（）［］：，＝＄％", "---***/()[]:,=$%")
_THIN = re.compile("(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9]{3}(?![0-9]))")  # between thousands
_DASH = re.compile(r"(?<![\w.)%])[–‑](?=[$€£]?\.?[0-9])|(?<=[0-9] )–(?= [0-9])")  # a minus, not the one of "3–5"


def plain(place: str) -> str:
    """A place without LaTeX's commands and braces, fractions as a/b, operators and digits as ASCII has them."""
    if not place.isascii():
        place = _THIN.sub(",", _DASH.sub("-", place.translate(_CHARACTERS)))
    if "\\" not in place and "{" not in place:
        return place
    place = _OPERATOR.sub(lambda m: "/" if m[1] == "div" else "*", _WRAP.sub(" {", place))
    place = _FRACTION.sub(lambda m: f"{m[1]}{' ' * bool(m[1])}{m[2] or m[4]}/{m[3] or m[5]}", place)
    return _COMMAND.sub(lambda m: m[1] or ("" if m[0][-1] in ",;:! {}" else " "), place)
