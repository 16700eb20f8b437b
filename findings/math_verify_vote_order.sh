#!/usr/bin/env bash
# Guess: among plain numbers verify() is an equivalence. So whoever groups sampled answers by it, each into the first
#   group whose first answer it equals, gets the same groups in whatever order the answers come.
# What happens: 50% equals 50, 50% equals 0.5, and 50 differs from 0.5. Each of these holds in both directions, so the
#   order of gold and answer is not the cause. The winner of seven votes, three for 50, three for 0.5 and one for 50%,
#   depends on the order alone: 50 wins in some, 0.5 in just as many, and all seven are one group where 50% comes first.
# Version: math-verify 0.9.0 with latex2sympy2_extended 1.11.0.
# Why it matters: if labels are a majority vote over a teacher's samples, then the same samples, read back in another
#   order, give another label and another agreement, and a rerun that shuffles or shards them isn't reproducible.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check math-verify==0.9.0 latex2sympy2_extended==1.11.0 \
    antlr4-python3-runtime==4.13.2 sympy==1.14.0
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from collections import Counter
from importlib.metadata import version
from itertools import permutations, product

from math_verify import parse, verify

for package in ("math-verify", "latex2sympy2_extended", "sympy"):
    print(package, version(package))

WHOLE, PERCENT, HALF = "$50$", r"$50\%$", "$0.5$"
parsed = {answer: parse(answer) for answer in (WHOLE, PERCENT, HALF)}
equal = {pair: verify(parsed[pair[0]], parsed[pair[1]]) for pair in product(parsed, repeat=2)}
for (one, other), found in equal.items():
    print(f"{one:7} and {other:7} {'equal' if found else 'different'}")


def winner(answers):
    """The first answer of the largest group, and the group's size."""
    groups = []
    for answer in answers:
        for group in groups:
            if equal[group[0], answer]:
                group.append(answer)
                break
        else:
            groups.append([answer])
    largest = max(groups, key=len)
    return largest[0], len(largest)


orders = set(permutations([WHOLE] * 3 + [HALF] * 3 + [PERCENT]))
winners = Counter(map(winner, orders))
for (answer, size), count in winners.most_common():
    print(f"{answer} wins with {size} of 7 votes in {count} of {len(orders)} orders")

different = {pair for pair, found in equal.items() if not found}
same = different == {(WHOLE, HALF), (HALF, WHOLE)}
same &= winners == {(WHOLE, 4): 60, (HALF, 4): 60, (PERCENT, 7): 20}
sys.exit(0 if same else "This behaviour has changed.")
PYTHON
