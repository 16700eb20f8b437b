"""The problem that a question was made from, told by the question's id alone.

Questions made from one problem are gained and lost together, so intervals resample problems (`rdlib.evidence.stats`).

    gsm-plus-0013              -> gsm-test-0002: micro-gsm-plus, the six perturbations of one test problem in turn
    mmlu-test-0012.3           -> mmlu-test-0012: micro-mmlu, the third question of a stem that others have too, with
                                  other options
    gsm_plus-testmini-00012    -> gsm_plus-testmini/1: GSM-Plus, whose rows are in blocks of one problem's eight
    anything else              -> itself

What ids do not tell:

- which question of GSM8K a block of GSM-Plus was made from. That rows stand in such blocks is so in all of testmini; of
  the whole set, 1,319 x 8 rows, it is taken to be so;
- where a micro problem has too few perturbations of a kind, so that `rdlib.tasks.data.perturbed` took another instead:
  22 of the 1,200 of `params/reference.yaml`. A question in another problem's group does no harm to an interval, which
  only misses what it shares with its own;
- that problems have come round again, after six micro questions for each test problem (no profile has so many).

An own question whose id has one of these forms is taken for a perturbed one.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from functools import lru_cache

from rdlib.micro.gsm import PERTURBATIONS

MICRO = re.compile(r"(?P<name>.+)-plus-(?P<number>\d{4}|[1-9]\d{4,})")  # as rdlib.tasks.data writes them
MICRO_STEM = re.compile(r"(?P<stem>.+-(train|validation|test)-(\d{4}|[1-9]\d{4,}))\.[1-9]\d*")
GSM_PLUS = re.compile(r"(?P<split>gsm_plus-(test|testmini))-(?P<number>\d{5,})")  # rdlib.tasks.benchmarks
GSM_PLUS_KINDS = 8


@lru_cache(maxsize=1 << 16)
def source_problem(question: Hashable) -> Hashable:
    """The id of the problem that a question was made from; else the question's own."""
    if not isinstance(question, str):
        return question
    if found := MICRO.fullmatch(question):
        return f"{found['name']}-test-{int(found['number']) // len(PERTURBATIONS):04d}"
    if found := MICRO_STEM.fullmatch(question):
        return found["stem"]
    if found := GSM_PLUS.fullmatch(question):
        return f"{found['split']}/{int(found['number']) // GSM_PLUS_KINDS}"
    return question
