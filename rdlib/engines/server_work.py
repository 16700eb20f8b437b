"""What is still to be asked of a server, and which of it a worker may ask now.

Of each temperature one question is asked alone before the others (`unproven`): a server that does not take it says so
before anything else is paid for. What failed waits aside for its next try while others are asked.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rdlib.engines.asking import Ask, Reply
from rdlib.engines.generation import derive_seed
from rdlib.engines.server_pace import SAME, Pace

SLOTS, SPACING, TRIES = 2**21, 1024, 64  # of seeds, between them, and for the tries of one sample
PROBES = 3  # questions that are asked alone for one temperature at most


@dataclass(frozen=True)
class Doubt:
    """Parameters that were left out last, for which words of the server, and whether those can't mean another thing."""

    names: tuple[str, ...]
    words: str
    sure: bool


@dataclass(eq=False)
class Job:
    """Samples of a request that one call asks for, and what became of the tries so far."""

    number: int
    ask: Ask
    samples: tuple[int, ...]
    copies: tuple[int, ...] = ()  # samples that would be the same as the first
    failures: int = 0
    turn: int = 0  # which of the seeds
    at: float | None = None  # not before
    most: int | None = None  # choices at once, as far as this job alone knows
    without: frozenset[str] = frozenset()  # parameters that this job alone leaves out
    doubt: Doubt | None = None
    answered_before: int = 0  # answers of the run when this job first failed
    fallback: tuple[Reply, ...] = ()  # what stands if nothing better comes
    tries: list[int] = field(default_factory=lambda: [0, *random.sample(range(1, TRIES), TRIES - 1)])

    @property
    def temperature(self) -> float | None:
        """The temperature that is asked for."""
        return self.ask.request.temperature

    @property
    def seed(self) -> int:
        """This try's seed: 31 bits, and so far from all others of its prompt that sums with small numbers differ."""
        base = derive_seed(self.ask.seed, self.temperature)
        slot = base + TRIES * self.samples[0] + self.tries[self.turn % TRIES]
        return slot % SLOTS * SPACING

    def rest(self, count: int) -> Job:
        """Leave its first `count` samples to this job; what is returned has the others."""
        other = self.of(self.samples[count:])
        self.samples = self.samples[:count]
        return other

    def of(self, samples: tuple[int, ...]) -> Job:
        """A new job for some of the samples."""
        return Job(self.number, self.ask, samples, most=self.most, without=self.without)


def jobs_of(asks: Mapping[int, Ask]) -> list[Job]:
    """A job for each ask; of greedy samples, which are equal, one is asked for."""
    found = []
    for number, ask in asks.items():
        if ask.samples:
            greedy = ask.request.temperature == 0
            samples, copies = (ask.samples[:1], ask.samples[1:]) if greedy else (ask.samples, ())
            found.append(Job(number, ask, samples, copies))
    return found


def unusual(temperature: float | None) -> tuple[bool, bool, float]:
    """Sorts temperatures by how likely a server refuses them: 0, those far from 1, 1, and the server's own."""
    known = temperature is not None
    return not known, temperature != 0, -abs(temperature - 1) if known else 0.0


class Work:
    """The jobs of a run, shared by its workers."""

    def __init__(self, jobs: Iterable[Job], pace: Pace, proven: set[float | None]):
        self.pace, self.clock, self.lock = pace, pace.clock, threading.Lock()
        self.ready = list(jobs)[::-1]  # taken from its end
        self.later: list[Job] = []
        self.open = 0
        self.stopped = False
        self.sleeper: threading.Event | None = None
        self.waiting: list[threading.Event] = []
        temperatures = {job.temperature for job in self.ready} - proven
        self.unproven = dict.fromkeys(sorted(temperatures, key=unusual), PROBES)

    def take(self) -> Job | None:
        """The next job, as soon as it may start; None when nothing is left, or the run was stopped."""
        while True:
            with self.lock:
                if self.stopped or not (self.ready or self.later or self.open):
                    self._wake()
                    return None
                job, seconds = self._next()
                if job is not None:
                    return job
                event = threading.Event()
                asleep = seconds is not None and self.sleeper is None
                if asleep:
                    self.sleeper = event
                self.waiting.append(event)
            if asleep:
                self.clock.sleep(seconds, event)
            else:
                event.wait()
            with self.lock:
                self.waiting = [other for other in self.waiting if other is not event]
                self.sleeper = None if asleep else self.sleeper
                if asleep:
                    self._wake()

    def back(self, *jobs: Job, at: float | None = None, closed: bool = True) -> None:
        """Put jobs back, to be taken first, or not before the moment `at`; `closed`: their call is over."""
        with self.lock:
            self.open -= closed
            for job in reversed(jobs):
                job.at = at
                (self.ready if at is None else self.later).append(job)
            self._wake()

    def finished(self, job: Job, proves: bool) -> None:
        """A job's call is over; `proves` says that the server took its temperature."""
        with self.lock:
            self.open -= 1
            if job.temperature in self.unproven:
                self.unproven[job.temperature] -= 1
                if proves or not self.unproven[job.temperature]:
                    del self.unproven[job.temperature]
            self._wake()

    def stop(self) -> None:
        """Let nothing start any more."""
        with self.lock:
            self.stopped = True
            self._wake()

    def answered(self) -> None:
        """The server answered a request."""
        with self.lock:
            self.pace.answered()
            self._wake()

    def limited(self, started: float, wait: float | None, together: bool) -> float:
        """The server refused a request as one too many, see `Pace.limited`."""
        with self.lock:
            return self.pace.limited(started, wait, together)

    def timed_out(self, started: float) -> None:
        """A request got no answer in time."""
        with self.lock:
            self.pace.timed_out(started)

    def hold(self, seconds: float) -> None:
        """Let nothing start for so long."""
        with self.lock:
            self.pace.hold(seconds)

    def _wake(self) -> None:
        for event in self.waiting:
            event.set()

    def _next(self) -> tuple[Job | None, float | None]:
        """A job that starts now; or none, and in how many seconds one may (None: when others are over)."""
        if self.open >= (1 if self.unproven else self.pace.open_at_once):
            return None, None
        job = self._first()
        if job is None:
            return None, None
        now = self.clock.now()
        wait = max(job.at or 0.0, self.pace.next) - now
        if wait > SAME:
            return None, wait
        if self.ready and self.ready[-1] is job:
            self.ready.pop()
        else:
            (self.ready if job.at is None else self.later).remove(job)
        self.open += 1
        self.pace.started()
        return job, None

    def _first(self) -> Job | None:
        """The job that is next: one of an unproven temperature, else one that is ready, else the earliest of others."""
        now = self.clock.now()
        due = [job for job in self.later if job.at <= now + SAME]
        later = sorted(self.later, key=lambda job: job.at) if self.unproven or not (due or self.ready) else []
        for temperature in list(self.unproven):
            for jobs in (due, reversed(self.ready), later):
                if job := next((job for job in jobs if job.temperature == temperature), None):
                    return job
            del self.unproven[temperature]  # none is left, its samples have all come
        return next(iter([*due[:1], *self.ready[-1:], *later[:1]]), None)
