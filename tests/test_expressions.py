"""Expressions: equal ones get equal strings, others do not, and nothing hangs; math-verify is a second judge."""

from __future__ import annotations

import threading
import time

import pytest
import sympy
from conftest import cases
from hypothesis import given, settings
from hypothesis import strategies as st

from rdlib.tasks import latex
from rdlib.tasks.answers import extract, find
from rdlib.tasks.expressions import expression
from rdlib.tasks.time_limit import LateError, within

EXPRESSIONS = [row for row in cases("equal.tsv") if row[0] == "expression"]  # which test_answers.py compares


def test_the_canonical_form_is_its_own():
    for form in (form for row in EXPRESSIONS for form in row[3:]):
        found = expression(form)
        assert expression(found) == found
        assert {extract(text.format(found), "expression") for text in ("\\boxed{{{}}}", "#### {}")} == {found}


CANONICAL = [
    ("\\frac{\\sqrt{8}}{4}", "sqrt(2)/2"),
    ("(x+1)(x-1)", "x^2 - 1"),
    ("x > 5", "(5, infinity)"),
    ("\\frac{1}{3}", "1/3"),
    ("\\frac{1}{2}", "0.5"),
    ("3+2i", "3 + 2*i"),
    ("\\sqrt[3]{2}+\\sqrt{3}", "≈2.9919718574637505"),
    ("\\text{Even}", "even"),
    ("y=2x+1", "2*x + 1"),
    ("2 \\text{ and } 1", "{1, 2}"),
    ("\\frac{\\sqrt{3}}{3} \\approx 0.577", "sqrt(3)/3"),
    ("x \\approx 0.577", "0.577"),
    ("\\text{June 20}", "june 20"),
    ("9^{9^{9}}", "9^{9^9}"),
]


@pytest.mark.parametrize(("written", "canonical"), CANONICAL)
def test_canonical_forms(written, canonical):
    assert expression(written) == canonical


# ---- properties

x, y = sympy.symbols("x y", real=True)
small = st.integers(-9, 9)
leaves = st.one_of(small.map(sympy.Integer), st.sampled_from([x, y, sympy.pi, sympy.sqrt(2)]))
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: two[0] + two[1]),
        st.tuples(inner, inner).map(lambda two: two[0] * two[1]),
        st.tuples(inner, st.integers(1, 3)).map(lambda two: two[0] ** two[1]),
        st.tuples(inner, st.integers(1, 5)).map(lambda two: two[0] / two[1]),
    ),
    max_leaves=6,
)


@settings(max_examples=40)
@given(trees)
def test_rewriting_changes_nothing(tree):
    forms = [tree, sympy.expand(tree), sympy.factor(tree), sympy.together(tree)]
    forms += [(tree * (x + 3)) / (x + 3)] if tree.free_symbols else []  # (x/2 + 3/2)/(x + 3) is read as 1/2, not 0.5
    written = [expression(sympy.latex(form)) for form in forms]
    assert len(set(written)) == 1, (forms, written)
    assert expression(written[0]) == written[0]


@settings(max_examples=40)
@given(trees, trees)
def test_votes_are_by_value(first, second):
    equal = sympy.simplify(first - second) == 0
    assert (expression(sympy.latex(first)) == expression(sympy.latex(second))) == equal


@settings(max_examples=40)
@given(st.permutations(["1", "\\frac{1}{2}", "\\sqrt{2}", "x+1", "-3"]))
def test_the_order_of_a_set_says_nothing(parts):
    assert len({expression(", ".join(parts)), expression("\\{" + ",".join(parts) + "\\}")}) == 1
    assert expression(", ".join(parts)) == "{-3, 0.5, 1, sqrt(2), x + 1}"


pieces = st.lists(
    st.sampled_from(
        "1|2|x|y|+|-|*|/|^|{|}|(|)|[|]|,|=|<|\\le|\\frac|\\sqrt|\\sin|\\ln|\\text{|or|and|\\pm|!|_|||\\cup|\\infty|%|"
        "\\pi|i|e|$|.|\\\\|&|\\begin{pmatrix}|\\end{pmatrix}| |9|\\binom|\\int|\\{|\\}|'|\\left|\\right|∞|√|²".split(
            "|"
        )
    ),
    max_size=14,
)


@given(st.one_of(pieces.map("".join), st.text(max_size=30)))
def test_anything_is_read_or_not(text):
    found = expression(text)
    assert found is None or (found.strip() == found and found)


# ---- limits

HUGE = r"""9^{9^{9}}
9^{9^{9^{9}}}
(9!)!
((9!)!)!
99999999!
2^{2^{2^{2^{2^{2}}}}}
(x+1)^{10000}
(x+y+z+w)^{40}
((((x+1)^9+1)^9+1)^9+1)^9
\binom{1000000}{500000}
10^{1000000}
e^{e^{e^{e^{9}}}}
x^{99999999}
\sin(10^{99999})
2^{10x}^{10}^{10}
abcdefghijklmnop^2
1.5^{99999}
(1+\sqrt{2}+\sqrt{3}+\sqrt{5}+\sqrt{7})^{-9}
\tan(\tan(\tan(\tan(\tan 1))))
0^{-1}
\frac{1}{0}
\sqrt[1000]{7}
7^{1/99999}
\sin^{100}(50x)
\sin(1000x)
x^{x^{x^{x^{x^x}}}}
\frac{x^{100}-1}{x-1}
(x^{60}+y^{60})(x^{60}-y^{60})
\infty-\infty""".splitlines()
HUGE += [
    "\\sqrt{" * 40 + "2" + "}" * 40,
    "(" * 140 + "1" + ")" * 140,
    "1" * 300,
    "\\frac{1}{" * 30 + "2" + "}" * 30,
    "1+" * 149 + "1",
    "\\ln(" * 30 + "2" + ")" * 30,
    "{" * 300,
    "\\pm" * 40 + "1",
]


@pytest.mark.parametrize("text", HUGE)
def test_nothing_hangs(text):
    started = time.process_time()
    expression(text)
    assert time.process_time() - started < 3


def test_what_is_too_large_is_so_before_it_is_computed():
    with pytest.raises(latex.TooLargeError):
        latex.parsed("9^{9^{9}}")
    with pytest.raises(latex.TooLargeError):
        latex.parsed("(x+y)^{300}")


def _forever() -> None:
    while True:
        pass


def test_the_time_limit_holds_in_any_thread():
    reached = []

    def compute() -> None:
        try:
            within(0.1, _forever)
        except LateError:
            reached.append(True)

    compute()
    thread = threading.Thread(target=compute)
    thread.start()
    thread.join(10)
    assert reached == [True, True]
    assert within(5, lambda: "done") == "done"


def test_a_formula_that_takes_too_long_stands_for_itself(monkeypatch):
    monkeypatch.setattr("rdlib.tasks.expressions.SECONDS", 0.1)
    monkeypatch.setattr("rdlib.tasks.expressions.canonical", lambda text: _forever())
    assert expression("x^{7} + 123") == "x^7+123"


def test_long_texts_are_read_in_time():
    started = time.process_time()
    for piece in ("\\boxed{", "#### ", "$", "\\text{", "(", "x+", "1,", "{", "\\frac{", "is $", "\\pm", "and "):
        find("the answer is " + piece * 20_000, "expression")
        find("#### " + piece * 20_000, "expression")
    assert time.process_time() - started < 10


NAMES = ["a third", "a root", "a sum of roots", "pi", "a product", "a quotient", "a set", "a pair", "a matrix"]


@pytest.mark.parametrize("name", NAMES)
def test_math_verify_agrees(name):
    """A second judge."""
    from math_verify import parse, verify

    forms = next(row[3:] for row in EXPRESSIONS if row[2] == name)
    first, *others = (parse(f"${one}$") for one in forms if "$" not in one and "*" not in one and "_" not in one)
    agree = [verify(first, other) for other in others]
    assert sum(agree) >= 0.6 * len(agree), dict(zip(forms[1:], agree, strict=False))
