#!/usr/bin/env bash
# Guess: the LaTeX answers 10\,000 and 25\,000, with the thin space that typesetters put between thousands, are the
#   numbers 10000 and 25000, or else are not parsed at all. Either way they are two answers.
# What happens: blanks between two whole numbers are read as a mixed fraction, whole + part. So 12\,500 is 512 and
#   1\,234 is 235. If the second number is zero it becomes a product: 10\,000 and 25\,000 are both 0, verify() calls
#   them equal, and neither equals 10000. A comma between the thousands is read as meant, and so is a plain
#   space outside LaTeX. In the same way the lists "2 3" and "1 4" are both 5.
# Version: math-verify 0.9.0 with latex2sympy2_extended 1.11.0.
# Why it matters: where a teacher's sampled answers are put together by this comparison and the majority becomes the
#   label, different answers that end in 000 pool their votes, and equal ones split by how they were typeset.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check math-verify==0.9.0 latex2sympy2_extended==1.11.0 \
    antlr4-python3-runtime==4.13.2 sympy==1.14.0
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

from math_verify import parse, verify

for package in ("math-verify", "latex2sympy2_extended", "sympy"):
    print(package, version(package))

# answer, and the value that it gets
SEEN = {
    r"$10\,000$": 0,
    r"$25\,000$": 0,
    r"$12\,500$": 512,
    r"$1\,234$": 235,
    "$2 3$": 5,
    "$1 4$": 5,
    "$10,000$": 10000,
    "10 000": 10000,
}
same = True
for answer, expected in SEEN.items():
    value = int(parse(answer)[0].doit())
    print(f"{answer:12} is read as {value}")
    same &= value == expected

# one answer, another, and whether they are called equal
PAIRS = [
    (r"$10\,000$", r"$25\,000$", True),
    (r"$10\,000$", "$10000$", False),
    (r"$12\,500$", "$512$", True),
    ("$2 3$", "$1 4$", True),
]
for one, other, expected in PAIRS:
    equal = verify(parse(one), parse(other))
    print(f"{one} and {other}: {'equal' if equal else 'different'}")
    same &= equal == expected
sys.exit(0 if same else "This behaviour has changed.")
PYTHON
