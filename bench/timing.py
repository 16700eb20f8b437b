"""Timing things in turn, and what is made of the times."""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

Seconds = dict[str, list[float]]
# On a busy machine BENCH_CLOCK=cpu counts the seconds of a core that this process used, its threads' together
clock = time.process_time if os.environ.get("BENCH_CLOCK") == "cpu" else time.perf_counter

STATUS = Path("/proc/self/status")


def seconds_of(work: Callable[[], object]) -> float:
    """How long one call takes."""
    start = clock()
    work()
    return clock() - start


def in_turn(contestants: dict[str, Callable[[int], float]], rounds: int) -> Seconds:
    """What each contestant returns for round 0, 1, ...; the order is turned round from round to round."""
    found: Seconds = {name: [] for name in contestants}
    for number in range(rounds):
        names = list(contestants) if number % 2 == 0 else list(reversed(contestants))
        for name in names:
            found[name].append(contestants[name](number))
    return found


def middle(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, smallest and largest value."""
    return median(values), min(values), max(values)


def speed_up(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """How many times as long theirs took as ours: median and range of the rounds' ratios."""
    return middle([b / a for a, b in zip(ours, theirs, strict=True)])


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The exponent k of the power law value ~ size^k that fits best in logarithms: 1 is linear, 0 constant."""
    xs, ys = [math.log(size) for size in sizes], [math.log(value) for value in values]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def peak_memory() -> float:
    """The most memory this process has held, in MiB.

    From /proc where there is one: getrusage counts what the parent held before this program was started.
    """
    if STATUS.exists():
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def memory_now() -> float:
    """What this process holds, in MiB; where there is no /proc, the most that it has held."""
    return _status("VmRSS") if STATUS.exists() else peak_memory()


def _status(name: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024
