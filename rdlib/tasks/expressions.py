"""Answers to questions of algebra in a canonical form: equal expressions get equal strings.

    expression("\\\\frac{\\\\sqrt{8}}{4}") -> "sqrt(2)/2"       expression("x = 5") -> "5"
    expression("(x+1)(x-1)")           -> "x^2 - 1"         expression("x > 5") -> "(5, infinity)"
    expression("2 \\\\text{ and } 1")     -> "{1, 2}"          expression("\\\\text{Even}") -> "even"
    expression("1 \\\\pm \\\\sqrt{2}")     -> "{1 + sqrt(2), 1 - sqrt(2)}"

Numbers are written as kind `math` has them; units, percent, currencies and degrees are dropped. What cannot be read as
a formula, or is too large to be evaluated, stands for itself: words as a phrase, LaTeX without spaces.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from rdlib.tasks import numbers, phrases, places
from rdlib.tasks.plain import plain
from rdlib.tasks.structures import PLAIN_NAME, WORDS_OF_MATH, canonical
from rdlib.tasks.time_limit import LateError, within

SECONDS = 5.0  # the last resort: what is larger than latex.py allows is not evaluated in the first place
_LONGEST = 300
_MOST_WORDS = 8  # of an answer in words; more are an explanation

# ---- places


def after_hash(text: str) -> Iterator[str]:
    """What follows `####` on its line, or on the line below a label."""
    return filter(None, map(_line, places.behind_hash(text)))


def answer_is(text: str) -> Iterator[str]:
    """What the answer "is", up to the end of its sentence, which a formula on lines of its own belongs to."""
    return places.answer_is(text, cut=_line)


_DISPLAY = re.compile(r"\s*(?:\$\$|\\\[)\s*(.+?)\s*(?:\$\$|\\\])", re.DOTALL)


_STOP = re.compile(r"\n|</|[.?。](?=[\s*]|$)")  # no "!", which is a factorial


def _line(place: str) -> str:
    place = phrases.unlabelled(place).lstrip(" \t\r\n:：*_")
    if display := _DISPLAY.match(place):
        return f"${display[1]}$"
    stop = _STOP.search(place)
    return place[: stop.start()] if stop else place


# ---- from a place to a formula

_CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("−–﹣－", "-"),
        **{"×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "÷": "/", "∞": "\\infty ", "π": "\\pi ", "√": "\\sqrt "},
        **{"≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "±": "\\pm ", "∓": "\\mp ", "°": "^\\circ ", "∪": "\\cup "},
        **{"∈": "\\in ", "∅": "\\emptyset ", "ℝ": "\\mathbb{R}", "θ": "\\theta ", "α": "\\alpha ", "β": "\\beta "},
        **{"λ": "\\lambda ", "φ": "\\phi ", "≈": "\\approx ", "（": "(", "）": ")", "，": ",", "｛": "{", "｝": "}"},
        **{"½": "\\frac{1}{2}", "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}", "⅓": "\\frac{1}{3}", "⅔": "\\frac{2}{3}"},
        **{"\u200b": "", "\u2009": " ", "\u00a0": " ", "\u202f": " ", "’": "'", "′": "'"},
    }
)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SPACES = re.compile(
    r"(?<!\\)\\(?:[,;:!> ]|quad\b|qquad\b)|~|\{,\}(?=\d)|\\(?:left|right|bigg?|Bigg?)(?![a-z])\.?|\\displaystyle\b"
)
_ALIASES = dict(
    word.split("=", 1)
    for word in (
        "dfrac=frac tfrac=frac cfrac=frac dbinom=binom tbinom=binom leq=le leqslant=le geq=ge geqslant=ge neq=ne "
        "lt=< gt=> lvert=| rvert=| vert=| mid=| langle=( rangle=) lbrace=\\{ rbrace=\\} colon=: varnothing=emptyset "
        "operatorname=mathrm textbf=text textit=text textrm=text mbox=text to=rightarrow "
        "lor=\\text{or} vee=\\text{or} land=\\text{and} wedge=\\text{and}"
    ).split()
)
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_WRAP = re.compile(r"\\(?:mathrm|mathbf|mathit|bm|boldsymbol|mathsf|boxed|fbox|overline|vec|hat|bar)\s*\{([^{}]*)\}")


_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar)\s*\{?(\d+)\}?")
_UNION_SIGN = re.compile(r"(?<=[)\]}])\s*U\s*(?=[(\[{\\])")


def _repeating(match: re.Match) -> str:
    """A repeating decimal as a fraction: 0.1\\overline{6} is 15/90."""
    whole, before, period = match[1] or "0", match[2], match[3]
    above = int(whole + before + period) - int(whole + before)
    return f"\\frac{{{above}}}{{{'9' * len(period)}{'0' * len(before)}}}"


def _prepared(place: str) -> str:
    """A place with the commands that are known here, without spacing and decoration."""
    place = _UNION_SIGN.sub(r"\\cup ", _REPEATING.sub(_repeating, place))
    if not place.isascii():
        place = re.sub("[⁰¹²³⁴-⁹⁻]+", lambda m: f"^{{{m[0].translate(_RAISED)}}}", place.translate(_CHARACTERS))
    if "\\\\begin" in place or ("\\\\" in place and "\\begin" not in place):
        place = re.sub(r"\\\\(?=[A-Za-z{}\[\]()%$,;! \\])", r"\\", place)  # as JSON has them
    place = _SPACES.sub(" ", place.strip("` \t\r\n"))
    place = re.sub(r"\\text\s*\{\s*([-+\d.,/]+)\s*\}", r" \1 ", _COMMAND.sub(lambda m: _alias(m[1]), place))
    for _ in range(3):
        place = _WRAP.sub(r" \1 ", place)
    return place


def _alias(name: str) -> str:
    found = _ALIASES.get(name)
    return f"\\{name}" if found is None else found if not found.isalpha() else f"\\{found}"


_INLINE = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_SAYS = re.compile(r"(?:\b(?:is|are|equals?|be|to|at|of)|=|:)\s*$")
_JOINS = re.compile(r"\s*(?:,|;)?\s*(?:and|or|,|;)?\s*")
_WORD = re.compile(r"[A-Za-z]{2,}")


def _math(place: str) -> str:
    """The formula of a place: all of it, or what stands between dollars among words."""
    place = re.sub(r"\\\$|\$(?=\s?\d[\d,.]*(?:[^$\d]*|\s[^$]*)$)", "", place)  # currency
    found = list(_INLINE.finditer(place))
    if not found:
        return place
    outside = _INLINE.sub(" ", place)
    if not set(_WORD.findall(outside)) - {"and", "or"}:
        return _INLINE.sub(lambda m: f" {m[1] or m[2] or m[3]} ", place)
    first = next((i for i, one in enumerate(found) if _SAYS.search(place[: one.start()])), 0)
    text = found[first]
    formula, end = text[1] or text[2] or text[3], text.end()
    for one in found[first + 1 :]:
        between = place[end : one.start()]
        if not between.strip() or not _JOINS.fullmatch(between):
            break
        formula, end = f"{formula} {between} {one[1] or one[2] or one[3]}", one.end()
    return formula


_UNIT = re.compile(r"\s*\\text\s*\{[^{}]*\}\s*(?:\^\s*(?:\{?\d\}?))?\s*$")
_TRAILING_WORDS = re.compile(
    rf"(?<=[\d)\]}}a-zA-Z!])\s+(?!(?:and|or|{WORDS_OF_MATH})\b)(?<!\\)[A-Za-z]{{2,}}(?:\^\{{?\d\}}?)?[A-Za-z ,'.]*$"
)
_DEGREES = re.compile(r"\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})\s*[CFK]?\b|\s*\\degree\b")
_PERCENT = re.compile(r"\\?%|\bpercent\b")
# "k\\pi, k \\in \\mathbb{Z}": what the unknowns of a general solution are
_MEMBERS = re.compile(
    r"(?<=\S)(?:\s*,\s*|\s+)(?:\\text\s*\{\s*,?\s*(?:where|for|with)[^{}]*\}\s*)?\(?\s*[a-zA-Z]\s*\\in\s*"
    r"(?:\\mathbb\s*\{?\s*[ZN]\s*\}?(?:\^\+|_\{?[+0]\}?)?|Z|N)\s*\)?\s*$"
)
_LEAD = re.compile(r"^(?:\\approx|≈|about|approximately|exactly|=|:)\s*")


def _without_units(text: str) -> str:
    """A formula without units, percent, degrees and what stands before and after it."""
    text = _LEAD.sub("", text.strip().strip("*_ ").rstrip(" .,;:"))
    if re.search(r"\\(?:sin|cos|tan|cot|sec|csc)", text):
        text = re.sub(r"(\d+(?:\.\d+)?)\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})", r"(\1\\pi/180)", text)
    text = _PERCENT.sub("", _DEGREES.sub("", text))
    while (unit := _UNIT.search(text)) and text[: unit.start()].strip(" $"):
        text = text[: unit.start()]
    text = _MEMBERS.sub("", text)
    words = None if "\\int" in text else _TRAILING_WORDS.search(text)
    if words and re.search(r"[\d\\+*/^=]", text[: words.start()]):
        text = text[: words.start()]
    return text.strip().rstrip(" .,;:")


# ---- from a formula to its canonical form


@lru_cache(maxsize=4096)  # the samples of a question say the same
def expression(place: str) -> str | None:
    """The canonical form of an answer; None where the place holds none."""
    place = place[:_LONGEST]
    if re.fullmatch(r"\s*≈-?\d+\.\d{12,}\s*", place):
        return place.strip()
    number = _number(place)
    if number is not None:
        return number
    text = _without_units(_prepared(_math(place)))
    if not re.search(r"\w|\\emptyset|\{", text):
        return None
    words = _as_words(text)
    if words is not None:
        return words
    try:
        return within(SECONDS, canonical, text)
    except (Exception, LateError):  # latex.py's, and what SymPy raises for what it cannot do: any
        return _textual(text)


_NUMERAL = re.compile(
    r"(?:\\?[$%]|\\[dt]?frac(?:\{\d+\}\{\d+\}|\d\d)|\\[,! ;]|\{,\}|\^\\circ|\^\{\\circ\}|(?<=\d)[eE](?=[-+]?\d)"
    r"|[-+\d.,/€£%\s°])+"
    r"(?:thousand|million|billion|trillion)?\.?(?:\\text\s?\{[^{}\\\d]*\}(?:\^\{?\d\}?)?)?\.?"
)
_SCALE = re.compile(r"\\text\s?\{\s*(thousand|million|billion|trillion)\b[^{}]*\}")


def _number(place: str) -> str | None:
    """The number that a place is, as kind `math` reads it."""
    place = _SCALE.sub(r" \1", place.strip().strip("*_` ").replace("−", "-"))
    if not _NUMERAL.fullmatch(place) or place.count(",") and re.search(r",\s|^\(", place):
        return None
    place = re.sub(r"\^\{?\\circ\}?|°|\\text\s?\{[^{}]*\}(?:\^\{?\d\}?)?", "", place)
    return numbers.only_number(plain(place.removeprefix("+")))


_SHORT_WORDS = frozenset("no yes odd all none nil one two six ten".split())
_ALL_REALS = re.compile(r"(?:all|any|every) (?:real )?(?:numbers?|reals?|values?)|(?:the )?real numbers?|all reals?")
_BARE = re.compile(r"[A-Za-z][A-Za-z ,'.-]*")


def _as_words(text: str) -> str | None:
    """Words as a phrase, None where the text is a formula."""
    said = re.sub(r"\\text\s*\{([^{}]*)\}", r" \1 ", text)
    worded = re.fullmatch(r"\\text\s*\{\s*[A-Za-z][^{}\\^=<>+*/|]*\}", text)
    if worded or "\\text" in text and not re.search(r"[\d\\^=<>+*/|]", said) or _is_prose(said):
        letter = re.fullmatch(r"\W*([A-Za-z])\W*", said)
        if letter or len(said.split()) > _MOST_WORDS:
            return letter[1] if letter else None
        said = phrases.phrase(said) or ""
        return "(-infinity, infinity)" if _ALL_REALS.fullmatch(said) else said or None
    return None


def _is_prose(text: str) -> bool:
    """Whether a text is words; a product of letters is none."""
    if not _BARE.fullmatch(text.strip()):
        return False
    words = [word for word in re.findall("[A-Za-z]+", text) if not PLAIN_NAME.fullmatch(word)]
    return any((len(word) > 3 and re.search("[aeiouyAEIOUY]", word)) or word.lower() in _SHORT_WORDS for word in words)


def _space(match: re.Match) -> str:
    """What becomes of space: it stays where it ends a command, or is between digits."""
    digits = match.string[match.start() - 1 : match.start()] + match.string[match.end() : match.end() + 1]
    return f"{match[1]} " if match[1] else " " * (len(digits) == 2 and digits.isdigit())


def _textual(text: str) -> str | None:
    """A formula that is not evaluated, without spaces and braces that say nothing."""
    if _is_prose(text):
        return None
    text = re.sub(r"(\\[A-Za-z]+)\s+(?=[A-Za-z])|\s+", _space, text)
    text = re.sub(r"(?<![A-Za-z])\{(\w)\}", r"\1", text)
    return text or None
