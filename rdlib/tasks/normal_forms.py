"""The normal form of a SymPy expression as text: equal expressions get equal texts, as far as is decided here.

    normal((x + 1)**2 - 1)  ->  "x^2 + 2*x"          normal(1/sqrt(2))           ->  "sqrt(2)/2"
    normal(Rational(1, 2))  ->  "0.5"                normal(sin(x)**2)           ->  "1 - cos(x)^2"
    normal(log(8))          ->  "3*ln(2)"            normal(cbrt(2) + sqrt(3))   ->  "≈2.9919718574637504"

Numbers: sums of rational multiples of square roots, powers of pi and e, logarithms of primes and i are written as that;
any other by its value to 17 digits. Two such numbers are equal where their values are, whatever their form. With
symbols: a quotient of polynomials in lowest terms, whose variables may be roots, sines, logarithms and the like.
"""

from __future__ import annotations

from fractions import Fraction

import mpmath
import sympy
from sympy import Add, Expr, I, Integer, Mul, Poly, Pow, Rational, S, Symbol
from sympy.printing.str import StrPrinter

from rdlib.tasks import numbers
from rdlib.tasks.latex import UnreadableError, require_small

_DIGITS = 50  # of a value, of which 17 are shown


def normal(expression: Expr) -> str:
    """An expression in its normal form; UnreadableError for none, TooLargeError where it would be too large."""
    if expression.has(sympy.zoo, sympy.nan, sympy.AccumBounds):
        raise UnreadableError
    if expression in (S.Infinity, S.NegativeInfinity):
        return "infinity" if expression is S.Infinity else "-infinity"
    if expression.has(S.Infinity, S.NegativeInfinity):
        raise UnreadableError
    if expression.is_Rational:
        return rational(expression)
    return written(constant(expression) if expression.is_number else quotient(expression))


def rational(value: Rational) -> str:
    """A rational number as kind `math` has it: 0.5, 1/3."""
    text = f"{value.p}/{value.q}" if value.q > 1 else str(value.p)
    return numbers.only_number(text) or text


# Numbers


def constant(value: Expr) -> Expr:
    """A number as a sum over the basis where it is one, else its value as the symbol "≈1.23..."."""
    found = _over_basis(value)
    if found is not None:
        return found
    number = value.evalf(_DIGITS, maxn=400)
    parts = [_real(part) for part in number.as_real_imag()]
    return parts[0] + parts[1] * I


def _over_basis(value: Expr) -> Expr | None:
    value = sympy.expand(sympy.expand_log(sympy.powdenest(value), factor=True, force=True))
    if not _is_over_basis(value):
        value = sympy.expand(sympy.expand_log(sympy.sqrtdenest(sympy.radsimp(value)), factor=True, force=True))
    return value if _is_over_basis(value) else None


def _is_over_basis(value: Expr) -> bool:
    return all(all(map(_is_of_basis, Mul.make_args(term))) for term in Add.make_args(value))


def _is_of_basis(factor: Expr) -> bool:
    base, exponent = factor.as_base_exp()
    if factor.is_Rational or factor is I:
        return True
    if base is S.Exp1:
        return exponent.is_Rational is True
    if base.is_Integer:
        return base > 0 and exponent in (S.Half, -S.Half)
    if base is S.Pi:
        return exponent.is_Integer is True
    return isinstance(base, sympy.log) and base.args[0].is_Integer and exponent.is_Integer and exponent > 0


def _real(value: Expr) -> Expr:
    """A real number by its value: as the root of a quadratic equation or of a rational number where it is one."""
    if not value.is_Float and not value.is_Integer:
        raise UnreadableError
    with mpmath.workdps(_DIGITS - 5):
        number = mpmath.mpf(value._mpf_ if value.is_Float else int(value))
        if abs(number) < mpmath.mpf(10) ** -40:
            return Integer(0)
        found = _quadratic(number) or _root(number)
        return Symbol(f"≈{mpmath.nstr(number, 17, min_fixed=-40, max_fixed=40)}") if found is None else found


def _quadratic(number: mpmath.mpf) -> Expr | None:
    with mpmath.workdps(40):
        found = mpmath.findpoly(number, 2, maxcoeff=2000, tol=mpmath.mpf(10) ** -32)
    if not found:
        return None
    a, b, c = [Integer(int(part)) for part in ([0] * (3 - len(found)) + list(found))]
    if a == 0:
        return -c / b
    roots = [sympy.expand((-b + sign * sympy.sqrt(b * b - 4 * a * c)) / (2 * a)) for sign in (1, -1)]
    return min(roots, key=lambda root: abs(root.evalf(30) - sympy.Float(number, 30)))


def _root(number: mpmath.mpf) -> Expr | None:
    for degree in (3, 4, 5, 6):
        power = abs(number) ** degree
        if power < 10**9:
            near = Fraction(int(mpmath.nint(power * 10**30)), 10**30).limit_denominator(10**4)
            if near and abs(mpmath.mpf(near.numerator) / near.denominator - power) < power * mpmath.mpf(10) ** -28:
                root = sympy.root(Rational(near.numerator, near.denominator), degree)
                return -root if number < 0 else root
    return None


# Expressions with symbols


def quotient(expression: Expr) -> Expr:
    """An expression as a quotient of polynomials in lowest terms; UnreadableError for what has none."""
    return _with_sign(*parts(expression))


def parts(expression: Expr) -> tuple[Expr, Expr]:
    """Numerator and denominator in lowest terms, multiplied out."""
    expression = _plain_functions(expression)
    require_small(expression)
    reduced = sympy.cancel(sympy.together(sympy.radsimp(expression) if expression.has(Pow) else expression))
    above, below = sympy.fraction(_without_sines(reduced))
    return sympy.expand(above), sympy.expand(below)


def _plain_functions(expression: Expr) -> Expr:
    """Sines and cosines of single angles, logarithms of single factors, powers of single bases."""
    trigonometric = {
        sympy.tan: lambda x: sympy.sin(x) / sympy.cos(x),
        sympy.cot: lambda x: sympy.cos(x) / sympy.sin(x),
        sympy.sec: lambda x: 1 / sympy.cos(x),
        sympy.csc: lambda x: 1 / sympy.sin(x),
    }
    for function, meaning in trigonometric.items():
        expression = expression.replace(function, meaning)
    if expression.has(sympy.sin, sympy.cos):
        expression = sympy.expand_trig(expression)
    if expression.has(sympy.log):
        expression = sympy.expand_log(expression, factor=True, force=True)
    if expression.atoms(Pow):
        expression = sympy.expand_power_exp(sympy.expand_power_base(expression))
    return expression


def _without_sines(expression: Expr) -> Expr:
    """An expression in which no sine has a power: 1 - cos(x)^2 for sin(x)^2."""
    angles = {found.args[0] for found in expression.atoms(sympy.sin)}
    if not angles:
        return expression
    above, below = sympy.fraction(expression)
    for angle in sorted(angles, key=str):
        sine, cosine = sympy.sin(angle), sympy.cos(angle)
        above, below = (_reduced(part, sine, cosine) for part in (above, below))
        if below.has(sine):  # a + b*sin(x) times a - b*sin(x) has no sine
            other = below.subs(sine, -sine)
            above, below = (_reduced(sympy.expand(part * other), sine, cosine) for part in (above, below))
    return sympy.cancel(above / below)


def _reduced(part: Expr, sine: Expr, cosine: Expr) -> Expr:
    return sympy.rem(sympy.expand(part), sine**2 + cosine**2 - 1, sine) if part.has(sine) else part


def _with_sign(above: Expr, below: Expr) -> Expr:
    """A quotient whose denominator begins with a positive coefficient; a polynomial where that is a number."""
    if below.is_number:
        return sympy.expand(above / below)
    if _leads_with_minus(below):
        above, below = sympy.expand(-above), sympy.expand(-below)
    return above / below


def _leads_with_minus(polynomial: Expr) -> bool:
    return leading(polynomial).could_extract_minus_sign()


def leading(polynomial: Expr) -> Expr:
    """The coefficient of the first term in the order of the symbols' names."""
    generators = sorted(Poly(polynomial).gens, key=str)
    return Poly(polynomial, *generators).LC()


def primitive(polynomial: Expr) -> Expr:
    """A polynomial over its content, its first coefficient positive: what is 0 where it is."""
    found = Poly(polynomial, *sorted(Poly(polynomial).gens, key=str))
    if found.domain.is_ZZ or found.domain.is_QQ:
        found = found.clear_denoms(convert=True)[1].primitive()[1]
        return -found.as_expr() if found.LC() < 0 else found.as_expr()
    return sympy.expand(polynomial / found.LC())


# Text


def written(expression: Expr) -> str:
    """An expression as text that reads as itself."""
    return _Printer({"order": "lex"}).doprint(expression).replace("**", "^")


def _function(name: str):
    """How a function of one argument is printed."""
    return lambda self, expression: f"{name}({self._print(expression.args[0])})"


# SymPy's own printer, with the names that people write
_Printer = type(
    "_Printer",
    (StrPrinter,),
    {
        "_print_Exp1": lambda self, expression: "e",
        "_print_ImaginaryUnit": lambda self, expression: "i",
        "_print_exp": _function("exp"),
        "_print_log": _function("ln"),
        "_print_Abs": _function("abs"),
        "_print_factorial": lambda self, expression: f"({self._print(expression.args[0])})!",
        "_print_binomial": lambda self, expression: "\\binom{" + "}{".join(map(self._print, expression.args)) + "}",
    },
)
