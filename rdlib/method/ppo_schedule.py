"""Which queries, episodes and learning rates an update of PPO has: functions of its number and the seed alone.

Every random choice of PPO is a function of (seed, purpose, number), so a run that was killed continues exactly as it
would have gone on.
"""

from __future__ import annotations

import hashlib
import math
import random

import torch
from torch import Tensor

from rdlib.settings import Ppo, Stopping


def seed_of(*key: int | str) -> int:
    """A seed (31 bits) that depends on all parts of `key`, such as (seed, "sample", update)."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:4], "big") >> 1


def query_order(number: int, start: int, count: int, seed: int) -> list[int]:
    """Entries `start` to `start + count` of an endless sequence of shuffled epochs over `number` queries."""
    order: list[int] = []
    for epoch in range(start // number, (start + count - 1) // number + 1):
        shuffled = list(range(number))
        random.Random(seed_of(seed, "queries", epoch)).shuffle(shuffled)
        order += shuffled
    offset = start - start // number * number
    return order[offset : offset + count]


def minibatches(count: int, size: int, seed: int) -> list[Tensor]:
    """Shuffled row numbers below `count`, in equal parts of at most `size`: all episodes weigh the same."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return list(order.tensor_split(math.ceil(count / size)))


def updates_between(stopping: Stopping, settings: Ppo) -> int:
    """Updates from one evaluation to the next: as few as hold `stopping.every` optimizer steps."""
    return math.ceil(stopping.every / settings.steps_per_update)


def warmup_factor(settings: Ppo, update: int) -> float:
    """Share of the learning rates in update 1, 2, ...: a linear rise over `warmup_updates`, then 1."""
    return min(1.0, update / (settings.warmup_updates + 1))
