"""Lists, sets, intervals, matrices, equations and inequalities in canonical forms, and the formulas inside of them.

    canonical("\\{2, 1\\}") -> "{1, 2}"      canonical("1 < x \\le 2") -> "(1, 2]"      canonical("2x + 3 = 7") -> "2"

SymPy is imported where the first formula is read: it takes a third of a second.
"""

from __future__ import annotations

import re
from collections.abc import Callable

WORDS_OF_MATH = (
    "arcsin|arccos|arctan|asinh|acosh|atanh|asin|acos|atan|acot|asec|acsc|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|sqrt|log|ln"
    "|exp|abs|floor|ceiling|ceil|pi|theta|alpha|beta|lambda|infinity"
)
PLAIN_NAME = re.compile(rf"(?<![A-Za-z\\{{])({WORDS_OF_MATH})(?![A-Za-z])")
_MATRIX = re.compile(r"\\begin\{([pbvBV]?matrix|array)\}(?:\{[clr|]*\})?(.*?)\\end\{\1\}", re.DOTALL)
_LIST_WORD = re.compile(r"\\text\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|;")
_RELATIONS = re.compile(r"\\(?:le|ge|ne|in|approx)(?![A-Za-z])|<=|>=|!=|[=<>]")


def canonical(text: str) -> str:
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

    base = re.fullmatch(r"\s*(-?\d[\dA-F]*)\s*_\s*\{?\s*([2-9]|1[0-6])\s*\}?\s*", text)  # digits in a base, which stays
    return f"{base[1]}_{base[2]}" if base else normal_forms.normal(_formula(text))


def _formula(text: str):
    from rdlib.tasks import latex

    text = re.sub(r"\\text\s*\{[^{}]*\}", "", text) if re.search(r"\\text\s*\{\s*\}", text) else text
    text = PLAIN_NAME.sub(r"\\\1", text.replace("**", "^")).replace("\\infinity", "\\infty")
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
        return canonical(parts[0]) if len(parts) == 1 and parts[0] != text else None
    assigned = [re.fullmatch(r"\s*([A-Za-z])\s*=([^=<>]+)", part) for part in parts]
    if all(assigned) and len({one[1] for one in assigned}) == len(parts):
        return f"({', '.join(canonical(one[2]) for one in sorted(assigned, key=lambda one: one[1]))})"
    forms = [canonical(part) for part in parts]
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
        return canonical(inside[builder.end() :])
    return _as_set([canonical(part) for part in _split(inside, _comma)]) if inside.strip() else "{}"


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
        return _cut(canonical(without[0]), [canonical(point) for point in points])
    if len(parts) == 1:
        return None
    return _united([canonical(part) for part in parts])


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
        """Where an interval begins, as a key to sort by."""
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
                return f"{opening}{', '.join(canonical(part) for part in parts)}{closing}"
    inside = _inside(text, "(", ")")
    return canonical(inside) if inside is not None else None


def _matrix(text: str) -> str:
    """A matrix by its rows; a vector is a matrix of one column."""
    match = _MATRIX.fullmatch(text.strip().strip("()[] ")) or _MATRIX.search(text)
    if not match or match[0].strip() != text.strip().strip("()[] "):
        from rdlib.tasks.latex import UnreadableError

        raise UnreadableError
    return _rows([row.split("&") for row in re.split(r"\\\\|\\cr\b", match[2]) if row.strip()])


def _rows(rows: list[list[str]]) -> str:
    return "[" + ", ".join("[" + ", ".join(map(canonical, row)) + "]" for row in rows) + "]"


def _plus_minus(text: str) -> str | None:
    """Both values of an expression with a plus-minus."""
    if "\\pm" not in text and "\\mp" not in text:
        return None
    signs = (("+", "-"), ("-", "+"))
    both = [re.sub(r"\\mp(?![A-Za-z])", minus, re.sub(r"\\pm(?![A-Za-z])", plus, text)) for plus, minus in signs]
    return _as_set([canonical(one) for one in both])


def _relation(text: str) -> str | None:
    """An equation, an inequality, or a member and its set."""
    marks = list(_RELATIONS.finditer(text))
    if not marks:
        return None
    sides = _RELATIONS.split(text)
    signs = [_SIGNS.get(mark[0], mark[0]) for mark in marks]
    if "≈" in signs and not _NAME.fullmatch(sides[signs.index("≈")]):  # what is exact stands before it
        return canonical(text[: marks[signs.index("≈")].start()])
    if signs == ["in"] or set(signs) <= {"=", "≈"} and len(signs) > 1:
        return canonical(sides[-1])
    if len(signs) == 1 and signs[0] in ("=", "≈"):
        return _equation(*sides)
    if len(signs) == 2 and len(set(sides)) == 3:
        return _between(sides, signs)
    return _inequality(sides[0], signs[0], sides[1]) if len(signs) == 1 else None


_SIGNS = {"\\le": "<=", "\\ge": ">=", "\\ne": "!=", "\\in": "in", "\\approx": "≈"}
_NAME = re.compile(  # what stands left of "=" and is asked for: x, f(x), f^{-1}(x), P(2), "Area", |AB|, (x, y)
    r"\s*(?:\\?[A-Za-z]+'?(?:_\{?\w+\}?)?(?:\([A-Za-z, ]+\)|\^\{-1\}\([a-z]\))?|[fghFGHPQR]\([^()=]*\)"
    r"|\\text\s*\{[^{}]*\}.*|[A-Za-z]{2,}(?: [A-Za-z]+)+|\|[A-Z]+\||\([a-z](?:, ?[a-z])+\))\s*"
)


def _equation(left: str, right: str) -> str:
    """What stands for a name on the left; the value of a single unknown; y for x and y; else what is 0."""
    from sympy import Symbol

    from rdlib.tasks import normal_forms

    if _NAME.fullmatch(left):
        return canonical(right)
    difference = _formula(left) - _formula(right)
    symbols = sorted(difference.free_symbols, key=str)
    if not symbols:
        return canonical(right)
    if re.fullmatch(r"\s*[a-z]\s*", right) and Symbol(right.strip(), real=True) not in _formula(left).free_symbols:
        return canonical(left)
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
