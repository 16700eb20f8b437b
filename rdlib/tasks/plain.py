"""Plain characters for what models write in LaTeX and Unicode, before numbers, letters and words are read from it.

What becomes of it:

    "\\frac{1}{2}" -> "1/2"    "3.2 \\times 10^{4}" -> "3.2 * 10^4"    "–5" -> "-5"    "（B）" -> "(B)"
    "\\frac{1+1}{4}" -> "(1+1)/(4)"    "2\\sqrt{3}" -> "2 sqrt(3)"    "\\{1, 2\\}" -> "{1, 2}"    "₹2½" -> "$2 1/2"
"""

from __future__ import annotations

import re
import sys
import unicodedata

_ROUNDS = 8  # nested groups of LaTeX that are resolved; deeper ones lose their braces
# Commands that stay as words or signs, since what they say tells whether a number is meant; others are dropped
_WORDS = {
    "times": "*", "cdot": "*", "ast": "*", "div": "/", "pm": "±", "mp": "±",
    "le": "<", "leq": "<", "leqslant": "<", "lt": "<", "ge": ">", "geq": ">", "geqslant": ">", "gt": ">",
    "ne": "<", "neq": "<", "approx": "≈", "sim": "≈", "simeq": "≈", "cong": "≈",
    "sqrt": "sqrt", "pi": "pi", "infty": "infinity", "emptyset": "none", "varnothing": "none",
    "cup": "cup", "cap": "cap", "in": "in", "mathbb": "", "log": "log", "ln": "ln", "exp": "exp",
    "sin": "sin", "cos": "cos", "tan": "tan", "binom": "binom", "begin": "matrix",
    "choose": "choose", "lfloor": "floor", "lceil": "ceil",
    "alpha": "alpha", "beta": "beta", "theta": "theta", "lambda": "lambda", "mu": "mu", "phi": "phi",
    "to": "to", "lbrace": "\ue000", "rbrace": "\ue001",
}  # fmt: skip
_FRACTION = re.compile(
    r"(?:(?P<before>[\d)/^])\s?)?\\+[dtcsx]?(?:frac|nicefrac)\s?"
    r"(?:(?:\{(?P<above>[^{}]*)\}|(?P<digit>\d))\s?(?:\{(?P<below>[^{}]*)\}|(?P<under>\d)))"
)
# A group that holds no other, and what stands before it; the second argument of a fraction waits for the first
_GROUP = re.compile(
    r"(\\+(?![dtcsx]?(?:nice)?frac)[A-Za-z]+\*?\s?(?:\[[^\]{}]*\])?|[\^_]\s?|(?<![}\w])(?<!frac ))\{([^{}]*)\}"
)
_SIMPLE = re.compile(r"\s*[-+]?\s?\$?[\d.,]*\s*")
_IN_FRACTION = re.compile(r"\s*([-+]?\s?\$?\d[\d.,]*)\s*(?:[A-Za-z]{2,}(?![A-Za-z])\s*)*")  # "3 km"
_REPEATING = re.compile(r"(\d*)\.(\d{0,9})\\+(?:overline|bar|dot)\s?\{?(\d{1,9})\}?")
_SPACE = re.compile(r"(?<=\d)(?:\{,\}|\\+[,! ]|~)(?:\\+!)?(?=\d{3}(?!\d))")  # between thousands
_COMMAND = re.compile(r"\\+([$%#&])|(\\+[{}])|\\+[,;:! ()\[\]]|\\+([A-Za-z]+)|[{}]")

_SPACES = re.compile("  +")

_SIGNS = dict(zip("−﹣－×⋅·∙÷∕⁄（）［］：，．＝＄％＋／～√π∞≤≥≠≦≧⩽⩾", "---***" + "*///()[]:,.=$%+/~", strict=False))
_SIGNS |= {"√": " sqrt ", "π": " pi ", "∞": "infinity", "∅": "none", "°": " ", "º": " ", "。": ". "}
_SIGNS |= dict.fromkeys("≤≦⩽≠", "<") | dict.fromkeys("≥≧⩾", ">")
_SIGNS |= dict.fromkeys("¥₹₽₩₱฿₫₦₴₺₪₡₲₵￥￡€£", "$")
_SIGNS |= {chr(ord("Ａ") + n + low): chr(ord("A") + n + low) for low in (0, 32) for n in range(26)}
_VULGAR = {c: f" {unicodedata.normalize('NFKC', c).replace('⁄', '/')}" for c in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"}
_DIGITS = {
    c: str(unicodedata.digit(c)) for c in map(chr, range(128, sys.maxunicode)) if unicodedata.category(c) == "Nd"
}
_CHARACTERS = str.maketrans(_DIGITS | _SIGNS | _VULGAR)
_THIN = re.compile("(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9]{3}(?![0-9]))")  # between thousands
_DASH = re.compile(r"(?<![\w.)%])[–‑—](?=[$€£]?\.?[0-9])|(?<=[0-9] )–(?= [0-9])")  # a minus, not the one of "3–5"


# In words signs distinguish answers, so only what is typed in several ways is made one
_WRAP = re.compile(r"\\+(?:text|textbf|mathrm|mathbf|mbox|boxed|bf|rm)\s?\{")
_WORDS_FRACTION = re.compile(r"(\d?)\\+[dtc]?frac\s?(?:\{([^{}]*)\}\s?\{([^{}]*)\}|(\d)(\d))")
_OPERATOR = re.compile(r"\\+(times|cdot|div)(?![A-Za-z])")
_WORDS_COMMAND = re.compile(r"\\+([$%])|\\+[,;:! ()\[\]]|\\+[A-Za-z]+|[{}]")
_WORDS_CHARACTERS = str.maketrans("−﹣－×⋅·÷（）［］：，＝＄％", "---***/()[]:,=$%")
_WORDS_DASH = re.compile(r"(?<![\w.)%])[–‑](?=[$€£]?\.?[0-9])|(?<=[0-9] )–(?= [0-9])")


def plain_words(place: str) -> str:
    """A place of words without LaTeX's commands and braces; signs such as ≥, ≠ and π stay apart."""
    if not place.isascii():
        place = _THIN.sub(",", _WORDS_DASH.sub("-", place.translate(_WORDS_CHARACTERS)))
    if "\\" not in place and "{" not in place:
        return place
    place = _OPERATOR.sub(lambda m: "/" if m[1] == "div" else "*", _WRAP.sub(" {", place))
    place = _WORDS_FRACTION.sub(lambda m: f"{m[1]}{' ' * bool(m[1])}{m[2] or m[4]}/{m[3] or m[5]}", place)
    return _WORDS_COMMAND.sub(lambda m: m[1] or ("" if m[0][-1] in ",;:! {}" else " "), place)


def plain(place: str) -> str:
    """A place without LaTeX's commands and braces, fractions as a/b, operators and digits as ASCII has them."""
    if not place.isascii():
        place = _THIN.sub(",", _DASH.sub("-", place)).translate(_CHARACTERS).replace("  ", " ")
    if "\\" not in place and "{" not in place:
        return place
    return _without_latex(place)


def _without_latex(place: str) -> str:
    """A place whose groups in braces are resolved from the inside out."""
    place = _SPACE.sub("", place)
    if "overline" in place or "\\bar" in place or "\\dot{" in place:
        place = _REPEATING.sub(_repeating, place)
    if "{" in place or "frac" in place:
        place = place.replace("\\{", "\ue000").replace("\\}", "\ue001")
        for _ in range(_ROUNDS):
            before = place
            place = _GROUP.sub(_group, _FRACTION.sub(_fraction, place))
            if place == before:
                break
    place = _COMMAND.sub(_command, place).replace("\ue000", "{").replace("\ue001", "}")
    return _SPACES.sub(" ", place)


def _fraction(match: re.Match) -> str:
    """a/b for numbers, (a)/(b) for anything else; 2 1/2 where a whole number stands before it."""
    above, below = match["above"] or match["digit"] or "", match["below"] or match["under"] or ""
    above, below = (_quantity(side) for side in (above, below))
    before = match["before"] or ""
    simple = _SIMPLE.fullmatch(above) and _SIMPLE.fullmatch(below)
    written = f"{above.strip()}/{below.strip()}" if simple else f"({above})/({below})"
    if before in ("/", "^"):
        return f"{before}({written})"
    return f"{before} {written}" if before else written


def _quantity(side: str) -> str:
    """The number of "3 km", anything else as it is."""
    side = _COMMAND.sub(_command, side) if "\\" in side else side
    match = _IN_FRACTION.fullmatch(side)
    return match[1] if match else side


def _group(match: re.Match) -> str:
    """What a group in braces says: text, an exponent, an index, or the argument of a command."""
    before, inside = match[1].strip(), match[2]
    if before in ("^", "_"):
        return before + (inside if re.fullmatch(r"\s*-?[\d.]*\s*|\\+circ", inside) else f"({inside})")
    name = re.sub(r"[^A-Za-z]|\[.*", "", before)
    if name in ("sqrt", "binom"):
        return f" {name}({inside})"
    return f" {inside} " if name else inside


def _repeating(match: re.Match) -> str:
    """0.1\\overline{6} as the fraction that it is."""
    whole, fixed, again = match.groups()
    below = (10 ** len(again) - 1) * 10 ** len(fixed)
    above = int(f"{whole}{fixed}{again}") - int(f"{whole}{fixed}" or 0)
    return f"{above}/{below}"


def _command(match: re.Match) -> str:
    """The word or sign that stands for a command, a space for any other."""
    sign, brace, name = match.groups()
    if sign:
        return sign
    if brace:
        return "\ue000" if brace[-1] == "{" else "\ue001"
    if name:
        word = _WORDS.get(name, "")
        return word if len(word) == 1 else f" {word} " if word else " "
    return "" if match[0][-1] in "!{}" else " "
