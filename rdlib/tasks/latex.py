"""LaTeX and plain formulas as SymPy expressions, of a size that can be worked with.

    parsed("\\\\frac{x^2-1}{2}")  ->  (x**2 - 1)/2        parsed("2sqrt(3)")  ->  2*sqrt(3)
    parsed("9^{9^{9}}")          ->  TooLargeError       parsed("x + ")     ->  UnreadableError

math-verify's parser is not used: it makes N of n and 5 of "2 3", works binomials out before their size is known, and
takes 5 to 60 ms a formula where this one takes 0.1. Sizes are checked before SymPy computes anything, so that what is
too large is so on every machine.
"""

from __future__ import annotations

import math
import re

import sympy
from sympy import Expr, I, Integer, Rational, S, Symbol

MOST_TOKENS, DEEPEST = 200, 40
LARGEST = 4096  # bits of a number
MOST_TERMS = 200  # of an expression that is multiplied out
HIGHEST = 120  # degree
MOST_SYMBOLS = 6
MOST_NESTED = 4  # functions and roots in one another

_TOKEN = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+|\\[A-Za-z]+|\\[{}|]|[A-Za-z]|[-+*/^_!'|()\[\]{},])")
_FUNCTIONS = {
    **{name: getattr(sympy, name) for name in "sin cos tan cot sec csc sinh cosh tanh exp".split()},
    **{f"arc{name}": getattr(sympy, f"a{name}") for name in "sin cos tan cot sec csc".split()},
    **{f"a{name}": getattr(sympy, f"a{name}") for name in "sin cos tan cot sec csc sinh cosh tanh".split()},
    **{"floor": sympy.floor, "ceil": sympy.ceiling, "ceiling": sympy.ceiling},
    **{"ln": sympy.log, "log": sympy.log, "lg": sympy.log, "abs": sympy.Abs},
}
_INVERSES = {name: getattr(sympy, f"a{name}") for name in "sin cos tan cot sec csc".split()}
_GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega ell".split()
)
_TIMES, _OVER = ("*", "\\cdot", "\\times", "\\ast"), ("/", "\\div")
_CLOSING = {"(": ")", "[": "]", "{": "}", "|": "|", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil", "\\{": "\\}"}


class UnreadableError(Exception):
    """Text that is no formula of the forms that are known."""


class TooLargeError(Exception):
    """A formula that takes more than what an answer may take: numbers of thousands of digits, say."""


def parsed(text: str) -> Expr:
    """A formula as an expression of real symbols, evaluated as far as SymPy does by itself.

    UnreadableError and TooLargeError say why it has none.
    """
    tokens, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if not match:
            raise UnreadableError
        tokens.append(match[1])
        at = match.end()
    if len(tokens) > MOST_TOKENS:
        raise TooLargeError
    parser = _Parser(tokens)
    expression = parser.sum()
    if parser.next is not None:
        raise UnreadableError
    require_small(expression)
    return expression


def require_small(expression: Expr) -> None:
    """TooLargeError where multiplying out would make too many terms or too high powers of too many symbols."""
    if len(expression.free_symbols) > MOST_SYMBOLS or _terms(expression) > MOST_TERMS:
        raise TooLargeError


def _terms(expression: Expr) -> int:
    """A bound of the number of terms that an expression has when it is multiplied out."""
    if expression.is_Add:
        return sum(map(_terms, expression.args))
    if expression.is_Mul:
        return math.prod(map(_terms, expression.args))
    if expression.is_Pow and expression.exp.is_Integer:
        terms, power = _terms(expression.base), abs(int(expression.exp))
        if power > HIGHEST or terms > MOST_TERMS:
            raise TooLargeError
        return math.comb(terms + power - 1, power)
    for argument in expression.args:
        require_small(argument)
    return 1


def power(base: Expr, exponent: Expr) -> Expr:
    """base ** exponent; TooLargeError before a number gets too long."""
    factor = abs(exponent.as_coeff_Mul()[0])  # SymPy makes 1024**x of 2**(10*x)
    if base.is_Rational and base not in (0, 1, -1):
        size = max(int(base.p).bit_length(), int(base.q).bit_length())
        if size * factor > LARGEST or (exponent.is_Rational and exponent.q > 100):
            raise TooLargeError
    elif exponent.is_Rational and max(abs(exponent.p), exponent.q) > HIGHEST:
        raise TooLargeError
    if exponent.is_number and not exponent.is_Rational:
        _require_moderate(exponent)
    if base.is_zero and exponent.is_nonpositive:
        raise UnreadableError
    return base**exponent


def _require_moderate(expression: Expr) -> None:
    """TooLargeError for an exponent that no computation could go to: that of e^{e^{100}}."""
    value = expression.evalf(10)
    if not value.is_number or not abs(value) < 1000:
        raise TooLargeError


class _Parser:
    """A recursive descent over tokens; products bind what stands side by side, from the left."""

    def __init__(self, tokens: list[str]):
        self.tokens, self.at = tokens, 0
        self.depth, self.nested, self.in_bars = 0, 0, False

    @property
    def next(self) -> str | None:
        """The token that is read next, None at the end."""
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self, *wanted: str) -> str | None:
        """The next token where it is one of those, None otherwise."""
        if self.next in wanted:
            self.at += 1
            return self.tokens[self.at - 1]
        return None

    def require(self, token: str) -> None:
        """UnreadableError unless the next token is this one."""
        if self.take(token) is None:
            raise UnreadableError

    def sum(self) -> Expr:
        """Terms with their signs."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise TooLargeError
        total, sign = None, self.sign()
        while True:
            term = sign * self.product()
            total = term if total is None else total + term
            if self.next not in ("+", "-"):
                self.depth -= 1
                return _short(total)
            sign = self.sign()

    def sign(self) -> int:
        """The product of the signs that stand here."""
        sign = 1
        while found := self.take("+", "-"):
            sign = -sign if found == "-" else sign
        return sign

    def product(self) -> Expr:
        """Factors, with or without a sign of multiplication between them."""
        start, value = self.at, self.factor()
        mixed = self.at == start + 1 and self.tokens[start].isdigit()
        while True:
            if self.take(*_TIMES):
                value = value * (self.sign() * self.factor())
            elif self.take(*_OVER):
                value = _quotient(value, self.sign() * self.factor())
            elif mixed and self._fraction_of_digits():
                value = value + self.factor()  # 2\frac{1}{3}
            elif self.begins_factor():
                before, digits = self.tokens[self.at - 1], self.next.replace(".", "").isdigit()
                if digits and before.replace(".", "").isdigit():
                    raise UnreadableError  # "2 3"
                value = value * self.factor()
            else:
                return value
            value, mixed = _short(value), False

    def _fraction_of_digits(self) -> bool:
        following = "".join(self.tokens[self.at : self.at + 7])
        return re.match(r"\\frac\{\d+\}\{\d+\}", following) is not None

    def begins_factor(self) -> bool:
        """Whether the next token begins a factor."""
        token = self.next
        if token is None or token in (
            "+",
            "-",
            "^",
            "_",
            "!",
            "'",
            ",",
            ")",
            "]",
            "}",
            "|",
            "\\}",
            "\\rfloor",
            "\\rceil",
        ):
            return token == "|" and not self.in_bars  # a bar closes where one is open
        return token not in _OVER + _TIMES

    def factor(self) -> Expr:
        """What may have a power: an atom with its factorials and exponent."""
        value = self.atom()
        while True:
            if self.take("!"):
                value = _factorial(value)
            elif self.take("^"):
                value = power(value, self.argument())
            else:
                return value

    def argument(self) -> Expr:
        """A group in braces, or one token, as LaTeX's commands take it."""
        if self.next in ("-", "+"):
            return self.sign() * self.argument()
        if self.next is not None and self.next.isdigit() and len(self.next) > 1:
            return Integer(self.take(self.next))
        return self.atom()

    def atom(self) -> Expr:
        """A number, a symbol, a function with its argument, or a group."""
        token = self.next
        if token is None:
            raise UnreadableError
        self.at += 1
        if token[0].isdigit() or token[0] == ".":
            return Rational(token)
        if token in _CLOSING:
            return self.group(token)
        if token.isalpha():
            return self.symbol(token)
        if token[0] != "\\":
            raise UnreadableError
        return self.command(token[1:])

    def group(self, opening: str) -> Expr:
        """What stands between brackets, bars or half brackets."""
        around, self.in_bars = self.in_bars, opening == "|"
        value = self.sum()
        self.require(_CLOSING[opening])
        self.in_bars = around
        wrap = {"|": sympy.Abs, "\\lfloor": sympy.floor, "\\lceil": sympy.ceiling}.get(opening)
        return wrap(value) if wrap else value

    def symbol(self, name: str) -> Expr:
        """A letter with its subscript and primes; e and i are the numbers."""
        if self.take("_"):
            name += "_" + self.subscript()
        while self.take("'"):
            name += "'"
        return {"e": S.Exp1, "i": I}.get(name) or Symbol(name, real=True)

    def subscript(self) -> str:
        """A subscript as text."""
        if not self.take("{"):
            self.at += 1
            return (self.tokens[self.at - 1 : self.at] or [""])[0].lstrip("\\")
        start = self.at
        while self.next not in ("}", None):
            self.at += 1
        self.require("}")
        return "".join(self.tokens[start : self.at - 1]).replace("\\", "")

    def command(self, name: str) -> Expr:
        """The expression that begins with a command of LaTeX."""
        self.nested += name in _FUNCTIONS or name == "sqrt"
        if self.nested > MOST_NESTED:
            raise TooLargeError
        value = self.known(name)
        self.nested -= name in _FUNCTIONS or name == "sqrt"
        return value

    def known(self, name: str) -> Expr:
        """The expression of a command; UnreadableError for one that is not known."""
        if name in _FUNCTIONS:
            return self.function(name)
        if name == "frac":
            above = self.argument()
            return _quotient(above, self.argument())
        if name == "sqrt":
            degree = self.group("[") if self.take("[") else Integer(2)
            return power(self.argument(), _quotient(Integer(1), degree))
        if name == "binom":
            return _binomial(self.argument(), self.argument())
        if name in ("pi", "infty"):
            return S.Pi if name == "pi" else S.Infinity
        if name in _GREEK:
            return self.symbol(name)
        raise UnreadableError

    def function(self, name: str) -> Expr:
        """A function, the power or the base that may stand at its name, and its argument."""
        base = self.argument() if name == "log" and self.take("_") else None
        exponent = self.argument() if self.take("^") else Integer(1)
        grouped, argument = self.next in ("(", "[", "{"), self.application()
        if grouped and exponent == 1 and self.take("^"):  # cos(x)^2
            exponent = self.argument()
        if exponent == -1 and name in _INVERSES:
            return _INVERSES[name](argument)
        if name == "exp":
            value = power(S.Exp1, argument)
        elif name in ("ln", "log", "lg"):
            value = _logarithm(argument, S.Exp1 if name == "ln" else base or Integer(10))
        else:
            value = _FUNCTIONS[name](argument)
        return power(value, exponent)

    def application(self) -> Expr:
        """The argument of a function: a group, or the product that follows it up to the next function."""
        if self.next in ("(", "[", "{"):
            return self.atom()
        if self.next == "-":
            return self.sign() * self.application()
        value = self.factor()
        while self.begins_factor() and self.next not in ("(", "[") and self.next.lstrip("\\") not in _FUNCTIONS:
            value = value * self.factor()
        return value


def _short(value: Expr) -> Expr:
    """The value itself; TooLargeError for a number of too many digits."""
    if value.is_Rational and max(int(value.p).bit_length(), int(value.q).bit_length()) > 2 * LARGEST:
        raise TooLargeError
    return value


def _quotient(above: Expr, below: Expr) -> Expr:
    if below.is_zero:
        raise UnreadableError
    return above / below


def _logarithm(argument: Expr, base: Expr) -> Expr:
    if argument.is_zero or base in (0, 1):
        raise UnreadableError
    return sympy.log(argument) / sympy.log(base)


def _factorial(value: Expr) -> Expr:
    if value.is_Integer and not 0 <= int(value) <= 300:
        raise TooLargeError
    return sympy.factorial(value)


def _binomial(above: Expr, below: Expr) -> Expr:
    if above.is_Integer and below.is_Integer and not 0 <= int(below) <= int(above) <= 500:
        raise TooLargeError
    return sympy.binomial(above, below)
