"""Answers to questions of algebra in a canonical form: equal expressions get equal strings.

    expression("\\\\frac{\\\\sqrt{8}}{4}") -> "sqrt(2)/2"       expression("x = 5") -> "5"
    expression("(x+1)(x-1)")           -> "x^2 - 1"         expression("x > 5") -> "(5, infinity)"
    expression("2 \\\\text{ and } 1")     -> "{1, 2}"          expression("\\\\text{Even}") -> "even"
    expression("1 \\\\pm \\\\sqrt{2}")     -> "{1 + sqrt(2), 1 - sqrt(2)}"

Numbers are written as kind `math` has them, and units, percent, currencies and degrees dropped. What cannot be read as a
formula, or is too large to be worked out, stands for itself: without spaces if it is LaTeX, as a phrase if it is words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from rdlib.tasks import numbers, phrases, places
from rdlib.tasks.plain import plain
from rdlib.tasks.time_limit import LateError, within

SECONDS = 5.0  # the last resort: what is larger than latex.py allows is not worked out in the first place
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
_ALIASES = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), "frac"),
    **dict.fromkeys(("leq", "leqslant"), "le"),
    **dict.fromkeys(("geq", "geqslant"), "ge"),
    **{
        "neq": "ne",
        "lt": "<",
        "gt": ">",
        "lvert": "|",
        "rvert": "|",
        "vert": "|",
        "mid": "|",
        "varnothing": "emptyset",
    },
    **{
        "langle": "(",
        "rangle": ")",
        "lbrace": "\\{",
        "rbrace": "\\}",
        "to": "rightarrow",
        "colon": ":",
        "dbinom": "binom",
    },
    **{
        "tbinom": "binom",
        "operatorname": "mathrm",
        "textbf": "text",
        "textit": "text",
        "mbox": "text",
        "textrm": "text",
    },
    **{"lor": "\\text{or}", "vee": "\\text{or}", "land": "\\text{and}", "wedge": "\\text{and}", "setminus": "setminus"},
}
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_WORDS_OF_MATH = (
    "arcsin|arccos|arctan|asinh|acosh|atanh|asin|acos|atan|acot|asec|acsc|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|sqrt|log|ln"
    "|exp|abs|floor|ceiling|ceil|pi|theta|alpha|beta|lambda|infinity"
)
_PLAIN_NAME = re.compile(rf"(?<![A-Za-z\\{{])({_WORDS_OF_MATH})(?![A-Za-z])")
_SHORT_FRACTION = re.compile(r"\\frac\s*(?:(\d)\s*(\d)|(\d)\s*(?=\{)|(?<=\\frac)(\{[^{}]*\})\s*(\d))")
_POWER_GROUP = re.compile(r"\^\s*\(([^()]*)\)")
_ROOT_GROUP = re.compile(r"\\sqrt\s*(\d+|[a-z])(?![\d(])")
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
        place = re.sub("([⁰¹²³⁴-⁹⁻]+)", lambda m: "^{" + m[1].translate(_RAISED) + "}", place.translate(_CHARACTERS))
        place = re.sub("([²³¹]+)", lambda m: "^{" + m[1].translate(_RAISED) + "}", place)
    if "\\\\begin" in place or ("\\\\" in place and "\\begin" not in place):
        place = re.sub(r"\\\\(?=[A-Za-z{}\[\]()%$,;! \\])", r"\\", place)  # as JSON has them
    place = (
        _SPACES.sub(" ", place.strip().strip("`").strip()).replace("**", "^")
        if "**" in place[1:-1].strip("*")
        else _SPACES.sub(" ", place)
    )
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
    rf"(?<=[\d)\]}}a-zA-Z!])\s+(?!(?:and|or|{_WORDS_OF_MATH})\b)(?<!\\)[A-Za-z]{{2,}}(?:\^\{{?\d\}}?)?[A-Za-z ,'.]*$"
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
    """A formula without units, percent, degrees and what stands before and behind it."""
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
        return within(SECONDS, _canonical, text)
    except (Exception, LateError):  # latex.py's, and what SymPy raises for what it cannot do: any
        return _textual(text)


_NUMERAL = re.compile(
    r"(?:\\?[$%]|\\[dt]?frac(?:\{\d+\}\{\d+\}|\d\d)|\\[,! ;]|\{,\}|\^\\circ|\^\{\\circ\}|(?<=\d)[eE](?=[-+]?\d)|[-+\d.,/€£%\s°])+"
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
    if "\\text" in text and not re.search(r"[\d\\^=<>+*/|]", said) or _is_prose(said):
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
    words = [word for word in re.findall("[A-Za-z]+", text) if not _PLAIN_NAME.fullmatch(word)]
    return any((len(word) > 3 and re.search("[aeiouyAEIOUY]", word)) or word.lower() in _SHORT_WORDS for word in words)


def _space(match: re.Match) -> str:
    """What becomes of space: it stays where it ends a command, or is between digits."""
    digits = match.string[match.start() - 1 : match.start()] + match.string[match.end() : match.end() + 1]
    return f"{match[1]} " if match[1] else " " * (len(digits) == 2 and digits.isdigit())


def _textual(text: str) -> str | None:
    """A formula that is not worked out, without spaces and braces that say nothing."""
    if _is_prose(text):
        return None
    text = re.sub(r"(\\[A-Za-z]+)\s+(?=[A-Za-z])|\s+", _space, text)
    text = re.sub(r"(?<![A-Za-z])\{(\w)\}", r"\1", text)
    return text or None


_MATRIX = re.compile(r"\\begin\{([pbvBV]?matrix|array)\}(?:\{[clr|]*\})?(.*?)\\end\{\1\}", re.DOTALL)
_LIST_WORD = re.compile(r"\\text\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|;")
_RELATIONS = re.compile(r"\\(?:le|ge|ne|in|approx)(?![A-Za-z])|<=|>=|!=|[=<>]")


def _canonical(text: str) -> str:
    """The canonical form of a formula; the errors of latex.py where it has none."""
    if "\\begin" in text:
        return _matrix(text)
    for read in (_list, _set, _union, _bracket, _plus_minus, _relation):
        found = read(text)
        if found is not None:
            return found
    return _scalar(text)


def _scalar(text: str) -> str:
    from rdlib.tasks import normal_forms

    base = re.fullmatch(r"\s*(-?[\dA-F]+)\s*_\s*\{?\s*(\d+)\s*\}?\s*", text)  # digits in a base, which stays
    return f"{base[1]}_{base[2]}" if base else normal_forms.normal(_formula(text))


def _formula(text: str):
    from rdlib.tasks import latex

    text = re.sub(r"\\text\s*\{[^{}]*\}", "", text) if re.search(r"\\text\s*\{\s*\}", text) else text
    text = _PLAIN_NAME.sub(r"\\\1", text.replace("**", "^")).replace("\\infinity", "\\infty")
    text = re.sub(r"(?<!\d)(\d{1,3}(?:,\d{3})+)(?![\d,])", lambda m: m[1].replace(",", ""), text)
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac\s*(\d)\s*\{", r"\\frac{\1}{", text)
    text = re.sub(r"(\\frac\s*\{[^{}]*\})\s*(\d)", r"\1{\2}", text)
    return latex.parsed(re.sub(r"\\sqrt\s*(\d)(?=\d)", r"\\sqrt{\1}", text) if "sqrt{" in text else text)


def _split(text: str, at: Callable[[str, int], int]) -> list[str]:
    """The parts of a text between separators outside of all brackets; `at` gives a separator's length at a place."""
    parts, start, depth, i = [], 0, 0, 0
    while i < len(text):
        character = text[i]
        depth += (character in "([{") - (character in ")]}")
        width = at(text, i) if depth == 0 else 0
        if width:
            parts.append(text[start:i])
            start = i = i + width
        else:
            i += 1
    return [*parts, text[start:]]


def _comma(text: str, i: int) -> int:
    if text[i] == ",":
        thousands = re.match(r"\d{3}(?!\d)", text[i + 1 : i + 5]) and re.search(r"(?<!\d)\d{1,3}$", text[:i])
        return 0 if thousands else 1
    word = _LIST_WORD.match(text, i)
    return word.end() - i if word else 0


def _list(text: str) -> str | None:
    """Several answers: a set, or a tuple where each is of another unknown ("x = 1, y = 2")."""
    parts = [part for part in _split(text, _comma) if part.strip()]
    if len(parts) < 2:
        return _canonical(parts[0]) if len(parts) == 1 and parts[0] != text else None
    assigned = [re.fullmatch(r"\s*([A-Za-z])\s*=([^=<>]+)", part) for part in parts]
    if all(assigned) and len({one[1] for one in assigned}) == len(parts):
        return f"({', '.join(_canonical(one[2]) for one in sorted(assigned, key=lambda one: one[1]))})"
    forms = [_canonical(part) for part in parts]
    if all(re.fullmatch(r"[(\[][^()\[\]{}]*infinity[)\]]|[(\[]-infinity[^()\[\]{}]*[)\]]", form) for form in forms):
        return _united(forms)  # x < 1 or x > 2
    return _as_set(forms)


def _as_set(forms: list[str]) -> str:
    """Forms, those of sets by their elements, in one order, each once."""
    elements = set()
    for form in forms:
        elements.update(_split(form[1:-1], _comma) if form.startswith("{") else [form])
    elements = sorted({element.strip() for element in elements}, key=_order)
    return elements[0] if len(elements) == 1 else f"{{{', '.join(elements)}}}"


def _order(form: str) -> tuple[float, str]:
    try:
        return float(form), form
    except ValueError:
        return float("inf"), form


def _inside(text: str, opening: str, closing: str) -> str | None:
    """What stands between two brackets that are a text's first and last and belong together."""
    text = text.strip()
    if not text.startswith(opening) or not text.endswith(closing) or len(text) < len(opening) + len(closing):
        return None
    depth = 0
    for i, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 and i < len(text) - 1 and (i or opening[-1] in "([{") and i >= len(opening) - 1:
            return None
    return text[len(opening) : len(text) - len(closing)]


_BUILDER = re.compile(r"\s*([A-Za-z])\s*(?:\\in\s*\\mathbb\s*\{?R\}?\s*)?[|:](?=.*\1)")


def _set(text: str) -> str | None:
    """A set in braces; one of a single element is that element."""
    if text.strip() in ("\\emptyset", "{}", "\\{\\}", "\\{ \\}"):
        return "{}"
    inside = _inside(text, "\\{", "\\}")
    if inside is None and (bare := _inside(text, "{", "}")) is not None:
        inside = bare if len(_split(bare, _comma)) > 1 else None
    if inside is None:
        return None
    if builder := _BUILDER.match(inside):  # {x | x > 2}
        return _canonical(inside[builder.end() :])
    return _as_set([_canonical(part) for part in _split(inside, _comma)]) if inside.strip() else "{}"


def _reals(text: str) -> str:
    return re.sub(r"\\mathbb\s*\{?\s*R\s*\}?", r"(-\\infty,\\infty)", text)


def _union(text: str) -> str | None:
    """A union of intervals and sets, or the real numbers, with or without some of them."""
    if "\\mathbb" in text:
        text = _reals(text)
    parts = _split(text, lambda text, i: 4 if text.startswith("\\cup", i) else 0)
    without = re.split(r"\\setminus|\\backslash", text)
    if len(without) == 2:
        points = _split(_inside(without[1], "\\{", "\\}") or without[1], _comma)
        return _cut(_canonical(without[0]), [_canonical(point) for point in points])
    if len(parts) == 1:
        return None
    return _united([_canonical(part) for part in parts])


def _cut(interval: str, points: list[str]) -> str:
    """An interval without some points of it."""
    borders = [interval[:1], *[part.strip() for part in interval[1:-1].split(",")], interval[-1:]]
    ends = [borders[1], *sorted(points, key=_order), borders[2]]
    opens = [borders[0], *["("] * len(points)]
    closes = [*[")"] * len(points), borders[3]]
    pieces = zip(opens, ends, ends[1:], closes, strict=False)
    return " U ".join(f"{o}{a}, {b}{c}" for o, a, b, c in pieces)


def _united(forms: list[str]) -> str:
    """Intervals in order of where they begin."""

    def start(form: str) -> tuple[float, str]:
        first = form.lstrip("([{").split(",")[0].strip("}")
        return _order(first.replace("-infinity", "-inf"))

    return " U ".join(sorted(dict.fromkeys(forms), key=start))


def _bracket(text: str) -> str | None:
    """A tuple or an interval, which are written alike: its parts in their order."""
    text = _reals(text).strip()
    rows = _split(text[1:-1], _comma) if re.match(r"\[\s*\[", text) and text.endswith("]") else []
    if rows and all(row.strip().startswith("[") and row.strip().endswith("]") for row in rows):
        return _rows([_split(row.strip()[1:-1], _comma) for row in rows])
    for opening in "([":
        for closing in ")]":
            inside = _inside(text, opening, closing)
            parts = _split(inside, _comma) if inside is not None else []
            if len(parts) > 1:
                return f"{opening}{', '.join(_canonical(part) for part in parts)}{closing}"
    inside = _inside(text, "(", ")")
    return _canonical(inside) if inside is not None else None


def _matrix(text: str) -> str:
    """A matrix by its rows; a vector is a matrix of one column."""
    match = _MATRIX.fullmatch(text.strip().strip("()[] ")) or _MATRIX.search(text)
    if not match or match[0].strip() != text.strip().strip("()[] "):
        from rdlib.tasks.latex import UnreadableError

        raise UnreadableError
    return _rows([row.split("&") for row in re.split(r"\\\\|\\cr\b", match[2]) if row.strip()])


def _rows(rows: list[list[str]]) -> str:
    return "[" + ", ".join("[" + ", ".join(map(_canonical, row)) + "]" for row in rows) + "]"


def _plus_minus(text: str) -> str | None:
    """Both values of an expression with a plus-minus."""
    if "\\pm" not in text and "\\mp" not in text:
        return None
    signs = (("+", "-"), ("-", "+"))
    both = [re.sub(r"\\mp(?![A-Za-z])", minus, re.sub(r"\\pm(?![A-Za-z])", plus, text)) for plus, minus in signs]
    return _as_set([_canonical(one) for one in both])


def _relation(text: str) -> str | None:
    """An equation, an inequality, or a member and its set."""
    marks = list(_RELATIONS.finditer(text))
    if not marks:
        return None
    sides = _RELATIONS.split(text)
    signs = [_SIGNS.get(mark[0], mark[0]) for mark in marks]
    if signs == ["in"] or set(signs) <= {"=", "≈"} and len(signs) > 1:
        return _canonical(sides[-1])
    if len(signs) == 1 and signs[0] in ("=", "≈"):
        return _equation(*sides)
    if len(signs) == 2 and len(set(sides)) == 3:
        return _between(sides, signs)
    return _inequality(sides[0], signs[0], sides[1]) if len(signs) == 1 else None


_SIGNS = {"\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\in": "in", "\\approx": "≈"}
_NAME = re.compile(
    r"\s*(?:\\?[A-Za-z]+'?(?:_\{?\w+\}?)?(?:\([A-Za-z, ]+\)|\^\{-1\}\([a-z]\))?|\\text\s*\{[^{}]*\}.*|\|[A-Z]+\||[A-Z]{2,}|[fghFGHPQR]\([^()=]*\)|[A-Za-z]{4,}|[A-Za-z]{2,}(?: [A-Za-z]+)+|\([a-z](?:, ?[a-z])+\))\s*"
)


def _equation(left: str, right: str) -> str:
    """What stands for a name on the left; the value of a single unknown; y for x and y; else what is 0."""
    from sympy import Symbol

    from rdlib.tasks import normal_forms

    if _NAME.fullmatch(left):
        return _canonical(right)
    difference = _formula(left) - _formula(right)
    symbols = sorted(difference.free_symbols, key=str)
    if not symbols:
        return _canonical(right)
    if re.fullmatch(r"\s*[a-z]\s*", right) and Symbol(right.strip(), real=True) not in _formula(left).free_symbols:
        return _canonical(left)
    polynomial, _ = normal_forms.parts(difference)
    unknown = symbols[0] if len(symbols) == 1 else next((s for s in symbols if str(s) == "y"), None)
    if unknown is not None and set(map(str, symbols)) <= {"x", "y", str(symbols[0])}:
        solved = _solved(polynomial, unknown)
        if solved is not None:
            return solved
    return f"{normal_forms.written(normal_forms.primitive(polynomial))} = 0"


def _solved(polynomial, unknown) -> str | None:
    """The unknown of a linear equation."""
    from rdlib.tasks import normal_forms

    slope = polynomial.diff(unknown)
    if slope.has(unknown) or slope == 0:
        return None
    return normal_forms.normal(-polynomial.subs(unknown, 0) / slope)


_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!="}


def _inequality(left: str, sign: str, right: str) -> str:
    """The interval of a single unknown; else a polynomial and how it compares with 0."""
    from rdlib.tasks import normal_forms

    polynomial, below = normal_forms.parts(_formula(left) - _formula(right))
    if not below.is_number or not below.is_positive:
        from rdlib.tasks.latex import UnreadableError

        raise UnreadableError
    lead = normal_forms.leading(polynomial)
    sign = _TURNED[sign] if lead.is_negative else sign
    symbols = list(polynomial.free_symbols)
    if len(symbols) == 1 and sign != "!=" and (bound := _solved(polynomial, symbols[0])) is not None:
        ends = (bound, "infinity") if sign[0] == ">" else ("-infinity", bound)
        return _interval(*ends, sign == ">=", sign == "<=")
    if len(symbols) == 1 and sign == "!=" and (bound := _solved(polynomial, symbols[0])) is not None:
        return _cut("(-infinity, infinity)", [bound])
    return f"{normal_forms.written(normal_forms.primitive(polynomial))} {sign} 0"


def _between(sides: list[str], signs: list[str]) -> str | None:
    """The interval of a single unknown in what lies between two bounds."""
    if {sign[0] for sign in signs} not in ({"<"}, {">"}):
        return None
    if signs[0][0] == ">":
        sides, signs = sides[::-1], signs[::-1]
    low, middle, high = map(_formula, sides)
    unknowns = middle.free_symbols - low.free_symbols - high.free_symbols
    unknown = next(iter(unknowns), None)
    slope = middle.diff(unknown) if len(unknowns) == 1 else None
    if slope is None or not slope.is_number or slope == 0:
        return None
    from rdlib.tasks.normal_forms import normal

    ends = [normal((end - middle.subs(unknown, 0)) / slope) for end in (low, high)]
    closed = [len(sign) == 2 for sign in signs]
    return _interval(*ends, *closed) if slope > 0 else _interval(*ends[::-1], *closed[::-1])


def _interval(low: str, high: str, with_low: bool, with_high: bool) -> str:
    return f"{'[' if with_low else '('}{low}, {high}{']' if with_high else ')'}"
