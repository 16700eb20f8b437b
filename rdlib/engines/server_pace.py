"""How fast a server is asked: an even rate, fewer at once where it cannot follow, and more again where it can.

A rate limit is no failure. Nothing starts for as long as the server names; then requests start one after another, at
half the rate at which they had, and every answer makes them a little faster. Where the server says that too many are
open at once, or many time out together, fewer are.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between tries
LONGEST_RETRY_AFTER = 900.0  # seconds; a server that refuses requests for longer has a quota that is used up
LOOKED_BACK = 10.0  # seconds over which the rate of starts is measured
FASTER = 1.03  # times the rate, with each answer
SAME = 1e-6  # seconds; moments that are closer are one


class Clock:
    """Time, in seconds, and waiting that `stop` ends early."""

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def sleep(self, seconds: float, stop: threading.Event) -> None:
        """Wait; at once when `stop` is set."""
        stop.wait(seconds)


def pause(tries: int) -> float:
    """Seconds before the next try after so many: they double, and vary so that not all come back together."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(tries - 1, 30)) * random.uniform(0.5, 1.0)


class Pace:
    """When the next request may start (`next`) and how many may be open (`window`). Its user holds the lock."""

    def __init__(self, per_minute: int | None, concurrency: int, clock: Clock):
        self.clock, self.concurrency, self.window = clock, concurrency, float(concurrency)
        self.least = 60 / per_minute if per_minute else 0.0  # seconds between starts that the profile asks for
        self.rate: float | None = None  # starts a second after a rate limit; None: as fast as the profile allows
        self.fastest = 0.0  # the rate at which the first limit came
        self.next = clock.now()
        self.starts: deque[float] = deque(maxlen=256)
        self.slowed = clock.now() - 1  # when the pace last went down: what had started before says nothing new
        self.strikes, self.since = 0, None  # rate limits in a row without an answer, and when the first of them came

    def begin(self) -> None:
        """A run begins: what was refused before it is no news."""
        self.strikes, self.since = 0, None

    @property
    def interval(self) -> float:
        """Seconds between two starts."""
        return max(self.least, 1 / self.rate if self.rate else 0.0)

    @property
    def open_at_once(self) -> int:
        """How many requests may be open."""
        return max(1, int(self.window + SAME))

    def started(self) -> None:
        """A request starts now."""
        now = self.clock.now()
        self.starts.append(now)
        self.next = max(self.next, now) + self.interval

    def hold(self, seconds: float) -> None:
        """Let nothing start for so long."""
        self.next = max(self.next, self.clock.now() + seconds)

    def answered(self) -> None:
        """The server answered a request: a little faster."""
        self.strikes, self.since = 0, None
        self.window = min(self.concurrency, self.window + 1 / self.window)
        if self.rate:
            self.rate *= FASTER
            if self.rate > 2 * self.fastest:
                self.rate = None

    def limited(self, started: float, wait: float | None, together: bool) -> float:
        """The server refused a request that `started` then, as one too many: slower, and a hold.

        `wait` is what it asks for in seconds; `together` says that too many are open at once. Returns for how many
        seconds it has answered nothing.
        """
        now = self.clock.now()
        self.since = now if self.since is None else self.since
        if started > self.slowed:
            self.strikes += 1
            if together or self.strikes >= 3:
                self._narrower()
            if not together:
                self._slower(now)
            self.slowed = now
            named = min(wait or 0.0, LONGEST_RETRY_AFTER)
            least = pause(self.strikes) if not named else pause(self.strikes - 2) if self.strikes > 3 else 0.0
            self.hold(max(named * random.uniform(1.0, 1.1), least))
        elif wait:
            self.hold(min(wait, LONGEST_RETRY_AFTER))
        return now - self.since

    def timed_out(self, started: float) -> None:
        """A request that `started` then got no answer in time: fewer at once."""
        if started > self.slowed:
            self._narrower()
            self.slowed = self.clock.now()

    def _narrower(self) -> None:
        self.window = max(1.0, self.window / 2)

    def _slower(self, now: float) -> None:
        recent = [start for start in self.starts if start > now - LOOKED_BACK]
        seen = max(1 / LOOKED_BACK, len(recent) / max(1.0, now - min(recent, default=now)))
        if self.rate is None:
            self.fastest = seen
        self.rate = max(1 / LONGEST_PAUSE, min(self.rate or seen, seen) / 2)
