"""Splits drawn from a seed alone: equal question texts stay together, and a smaller cap keeps a part of a larger's.

`assign` shuffles all texts together, as released splits were drawn. `assign_ranked` gives each text a rank of its own,
so a text that comes, goes or is corrected moves few others.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence

from rdlib.errors import UserError
from rdlib.tasks.questions import Question


def assign(texts: Sequence[str], sizes: Mapping[str, int], seed: str) -> list[str | None]:
    """The split of each text, as many of each as `sizes` says (filled in its order); None for the rest.

    Equal texts get one split, so a split may be over its size by less than a text's copies.
    """
    copies: dict[str, list[int]] = {}
    for index, text in enumerate(texts):
        copies.setdefault(text, []).append(index)
    groups = sorted(copies.items())  # the order of the rows in their file must not matter
    random.Random(seed).shuffle(groups)
    return _filled(groups, sizes, len(texts))


def assign_ranked(texts: Sequence[str], sizes: Mapping[str, int], seed: str) -> list[str | None]:
    """The split of each text, as `assign` gives it, by ranks that depend on the text and the seed alone."""
    copies: dict[str, list[int]] = {}
    for index, text in enumerate(texts):
        copies.setdefault(text, []).append(index)
    ranked = sorted(copies.items(), key=lambda item: (hashlib.sha256(f"{seed}/{item[0]}".encode()).digest(), item[0]))
    return _filled(ranked, sizes, len(texts))


def _filled(groups: list[tuple[str, list[int]]], sizes: Mapping[str, int], count: int) -> list[str | None]:
    """The splits of `count` texts, filled one after the other with groups of equal texts."""
    result: list[str | None] = [None] * count
    left = iter(groups)
    for split, size in sizes.items():
        taken = 0
        while taken < size and (group := next(left, None)) is not None:
            taken += len(group[1])
            for index in group[1]:
                result[index] = split
    return result


def cap(questions: Sequence[Question], limit: int | None, setting: str, seed: str) -> list[Question]:
    """`limit` of the questions (None: all), drawn from the seed, in their order.

    UserError naming the `setting` when there are fewer.
    """
    if limit is None:
        return list(questions)
    if limit > len(questions):
        raise UserError(
            f"{setting} is {limit}, but there are {len(questions)} questions: lower it, or give null for all."
        )
    order = sorted(range(len(questions)), key=lambda i: questions[i].id)
    random.Random(seed).shuffle(order)
    return [questions[i] for i in sorted(order[:limit])]
