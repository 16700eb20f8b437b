"""A run of requests to a server: what each worker does, and what becomes of a call that came to nothing."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import httpx

from rdlib.engines import server_address
from rdlib.engines.asking import Reply, Settings
from rdlib.engines.generation import Request
from rdlib.engines.server_answers import Fault, replies_of
from rdlib.engines.server_failures import KEPT, Outcome, Place, judge
from rdlib.engines.server_pace import LONGEST_RETRY_AFTER, Clock, pause
from rdlib.engines.server_parameters import Learnt
from rdlib.engines.server_said import Said, one_line, scrubbed
from rdlib.engines.server_work import Doubt, Job, Work
from rdlib.errors import UserError
from rdlib.settings import Model

TRIES_TO_REACH = 3  # of a server that has not answered yet: more likely a wrong address than a short failure
TRIES_FOR_BETTER = 2  # of choices that are odd, but paid for: one without a reason why it ended, or without content
HOPELESS_TOGETHER = 3  # requests that fail one after another, with no answer between, are no matter of the requests
SHORT = 0.05  # seconds between two looks at what is under way
MOST_WITHOUT = 12  # parameters that a request can lose before it counts as refused


MayAsk = Callable[[int], bool]  # whether another request may go out while so many samples are awaited


class Caller(Protocol):
    """What makes a run's calls: the engine, as far as a run knows it."""

    model: Model
    settings: Settings
    known: Learnt
    clock: Clock
    base: httpx.URL
    address: str
    place: Place
    reached: bool
    secrets: tuple[str, ...]

    def body(self, request: Request, n: int, seed: int, without: frozenset[str]) -> dict[str, Any]:
        """What a call for `n` samples sends."""

    def post(self, body: dict[str, Any]) -> httpx.Response:
        """Make a call; httpx.HTTPError when nothing comes back."""

    def said(self, response: httpx.Response) -> Said:
        """What a response says that is no answer, without keys."""


@dataclass(frozen=True)
class Aside:
    """A job that failed for good, as it seems: its replies if another request passes, the sentence if none does."""

    job: Job
    reply: Reply
    sentence: str


class Run:
    """The requests of one `replies`: workers take jobs from `left` and put what came of them into `done`.

    `taken_at_once`: somebody takes from `done` while they work, and they ask on once what came was taken.
    """

    def __init__(
        self,
        engine: Caller,
        left: Work,
        done: queue.SimpleQueue,
        may_ask: MayAsk | None = None,
        taken_at_once: bool = False,
    ):
        self.engine, self.left, self.done = engine, left, done
        self.may_ask, self.taken_at_once, self.under_way = may_ask, taken_at_once, 0
        self.model, self.known, self.clock = engine.model, engine.known, engine.clock
        self.lock = threading.Lock()
        self.answered = 0
        self.refused: dict[int, Reply] = {}
        self.aside: list[Aside] = []

    def work(self) -> None:
        """Ask until nothing is left, or the run is over; what fails for good is raised where replies are collected."""
        try:
            while (job := self.left.take()) is not None:
                if not self._may_ask(job):
                    self.left.stop()  # what is under way is still given out
                    break
                asked = len(job.samples)
                try:
                    self._ask(job)
                    if self.taken_at_once:
                        self._wait_until_kept()
                finally:
                    with self.lock:
                        self.under_way -= asked
            if not self.left.stopped:
                self._end()
        except Exception as error:
            self.done.put(error)
            self.left.stop()
        finally:
            self.done.put(None)

    def _wait_until_kept(self) -> None:
        """Wait until the replies so far were taken, and so kept: a kill costs no more than what is under way."""
        taken = threading.Event()
        self.done.put(taken)
        while not (taken.wait(1.0) or self.left.stopped):
            continue

    def _may_ask(self, job: Job) -> bool:
        """Whether the samples of a job may be asked for; it waits for those under way where they leave no room."""
        while not self.left.stopped:
            with self.lock:
                if self.may_ask is None or self.may_ask(self.under_way):
                    self.under_way += len(job.samples)
                    return True
                if not self.under_way:
                    return False
            time.sleep(SHORT)
        return False

    # ---- one call

    def _ask(self, job: Job) -> None:
        """One call for a job, and what comes of it."""
        if job.number in self.refused:
            self._close(job, self.refused[job.number])
            return
        self._split(job)
        body = self.engine.body(job.ask.request, len(job.samples), job.seed, job.without)
        started = self.clock.now()
        try:
            response = self.engine.post(body)
        except httpx.HTTPError as error:
            self._unanswered(job, error, started)
        else:
            self._came(job, response, body, started)

    def _split(self, job: Job) -> None:
        """Leave to the job as many samples as a call can have; the others become jobs of their own."""
        alone = "n" in self.known.unsupported or "n" in job.without or "n" in self.model.leave_out
        limits = [1] if alone else [n for n in (self.known.most_choices, job.most) if n]
        most, others = min(limits, default=len(job.samples)), [job]
        while len(others[-1].samples) > most:
            others.append(others[-1].rest(most))
        self.left.back(*others[1:], closed=False)

    def _unanswered(self, job: Job, error: httpx.HTTPError, started: float) -> None:
        """No response came."""
        if sentence := server_address.insecure(error, self.engine.address):
            raise UserError(sentence)
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
            self._again(job, server_address.unreachable(error), unreachable=True)
        elif isinstance(error, httpx.TimeoutException):
            self.left.timed_out(started)
            self._again(job, f"it did not answer within {self.model.timeout:g} s", advice=_SLOW)
        else:
            self._again(job, f"the connection broke ({type(error).__name__})")

    def _came(self, job: Job, response: httpx.Response, body: dict[str, Any], started: float) -> None:
        """A response came: choices, or something else."""
        if response.status_code == 200:
            read = replies_of(response.content, self.engine.settings.max_tokens, self.known.never_tells_reasons)
            if read is not None:
                self._choices(job, read)
                return
        said = self.engine.said(response)
        text = "" if response.status_code == 200 and said.body is None else _without_prompt(said.text, body)
        outcome = judge(replace(said, text=text), body)
        if job.doubt and outcome.kind in ("refused", "parameter", "doubtful") and said.words == job.doubt.words:
            if job.most and "n" in job.doubt.names:  # fewer choices would not do either: one
                job.most, job.without = None, job.without | {"n"}
                self.left.back(job)
                return
            self._undo(job)
            outcome = Outcome("refused")
        self._handle(job, outcome, said, body, started)

    def _handle(self, job: Job, outcome: Outcome, said: Said, body: dict[str, Any], started: float) -> None:
        """Do what a response means that is no answer."""
        if outcome.kind == "limited":
            self._slow_down(job, outcome, said, started)
        elif outcome.kind == "passing":
            status = (
                "its answer was no chat completion" if not said.status else f"it answered with status {said.status}"
            )
            advice = _ADDRESS if said.page and not self.answered else ""
            failure = f"{status} ({said.words})" if said.words else status
            self._again(job, failure, outcome.wait, words=said.quoted, advice=advice)
        elif outcome.kind == "parameter":
            self._leave_out(job, outcome, said, body)
        elif outcome.kind == "refused":
            self.refused[job.number] = Reply("refused", words=said.quoted)
            self._close(job, self.refused[job.number])
        else:
            sentence = self._sentence(outcome.why, said)
            if outcome.kind == "hopeless":
                raise UserError(sentence)
            self._put_aside(job, Reply("failed", words=said.quoted), sentence)

    def _sentence(self, why: str, said: Said) -> str:
        target = (said.headers or {}).get("location", "")
        place = replace(self.engine.place, location=server_address.location(self.engine.base, target))
        return place.hopeless(why, said, self.engine.settings.max_tokens)

    # ---- choices

    def _choices(self, job: Job, read: Sequence[Reply | Fault]) -> None:
        """Choices came: replies are given out, and what is missing or odd is asked for again."""
        asked = len(job.samples)
        came = dict(zip(job.samples, read, strict=False))
        self.known.saw_reasons([one if isinstance(one, Reply) else one.fallback for one in came.values()])
        good = {s: one for s, one in came.items() if isinstance(one, Reply)}
        if good:
            self._passed(job)
        faults = {s: one for s, one in came.items() if isinstance(one, Fault)}
        if good:  # what came with good ones is not asked again for being odd
            settled = {s: one.fallback for s, one in faults.items() if one.odd and one.fallback}
            good, faults = good | settled, {s: one for s, one in faults.items() if s not in settled}
        for sample, reply in good.items():
            self._give(job, sample, reply)
        self.known.gave(len(came), asked)
        if len(came) < asked:
            self.left.back(job.of(job.samples[len(came) :]), closed=False)
        if faults:
            self._ask_for_better(job, faults)
        else:
            self.left.finished(job, proves=True)

    def _ask_for_better(self, job: Job, faults: Mapping[int, Fault]) -> None:
        """Ask again for the choices that were no answers, a few times where they were odd and not broken."""
        job.samples = tuple(faults)
        fallback = tuple(fault.fallback for fault in faults.values() if fault.fallback)
        job.fallback = fallback if len(fallback) == len(faults) else ()
        odd = all(fault.odd for fault in faults.values()) and bool(job.fallback)
        if odd and job.failures + 1 > min(TRIES_FOR_BETTER, self.model.attempts - 1):
            self._settle(job)
        else:
            words = next(iter(faults.values())).words
            self._again(job, words, words=words)

    def _settle(self, job: Job) -> None:
        """Take what came for lack of anything better."""
        self._passed(job)
        for sample, reply in zip(job.samples, job.fallback, strict=True):
            self._give(job, sample, reply)
        self.left.finished(job, proves=True)

    def _passed(self, job: Job) -> None:
        """The server answered: what was left out for it may stay so, and what failed before was no fault of its."""
        self.left.answered()
        with self.lock:
            self.answered += 1
            self.known.temperatures.add(job.temperature)
            if job.doubt:
                self.known.confirm(job.doubt.names, job.doubt.sure, job.most)
                job.doubt = None
            aside, self.aside = self.aside, []
        for one in aside:
            self._out(one.job, one.reply)

    def _give(self, job: Job, sample: int, reply: Reply) -> None:
        reply = replace(reply, words=scrubbed(reply.words, self.engine.secrets)) if reply.words else reply
        self.done.put((job.number, sample, reply))
        for copy in job.copies:  # of a greedy sample: the same, and not paid for again
            self.done.put((job.number, copy, replace(reply, prompt_tokens=reply.prompt_tokens and 0)))

    def _out(self, job: Job, reply: Reply) -> None:
        for sample in job.samples:
            self._give(job, sample, reply)

    def _close(self, job: Job, reply: Reply) -> None:
        """One reply for all samples of a job, which is over."""
        self._out(job, reply)
        self.left.finished(job, proves=False)

    # ---- what may pass

    def _slow_down(self, job: Job, outcome: Outcome, said: Said, started: float) -> None:
        """A rate limit: no failure of the request, unless nothing passes for very long."""
        silent = self.left.limited(started, outcome.wait, outcome.together)
        if silent > LONGEST_RETRY_AFTER:
            raise UserError(
                f"The server {self.engine.place.url} has refused all requests as too many for {silent / 60:.0f} "
                f"minutes ({said.quoted}): lower concurrency or set requests_per_minute in the profile; {KEPT}"
            )
        self.left.back(job)

    def _again(
        self,
        job: Job,
        failure: str,
        wait: float | None = None,
        unreachable: bool = False,
        words: str = "",
        advice: str = "",
    ) -> None:
        """Try a job again after a pause, with another seed unless it never arrived; or put it aside after the last."""
        job.answered_before = job.answered_before if job.failures else self.answered
        job.failures += 1
        job.turn += not unreachable
        few = unreachable and not self.engine.reached
        if job.failures < (min(TRIES_TO_REACH, self.model.attempts) if few else self.model.attempts):
            seconds = wait * random.uniform(1.0, 1.1) if wait else pause(job.failures)
            if wait:
                self.left.hold(wait)  # the others wait too
            self.left.back(job, at=self.clock.now() + seconds)
            return
        sentence = (
            f"The server {self.engine.place.url} failed {job.failures} times in a row, at last because {failure}: "
            f"{advice}{KEPT}"
        )
        if unreachable:
            raise UserError(sentence)
        if job.fallback:
            self._settle(job)
        elif self.answered > job.answered_before:
            self._close(job, Reply("failed", words=words or failure))
        else:
            self._put_aside(job, Reply("failed", words=words or failure), sentence)

    def _put_aside(self, job: Job, reply: Reply, sentence: str) -> None:
        """Wait for another request to pass; where several in a row do not, the run is over."""
        with self.lock:
            self.aside.append(Aside(job, reply, sentence))
            together = max(HOPELESS_TOGETHER, self.model.concurrency) if self.answered else HOPELESS_TOGETHER
            if len({one.job.number for one in self.aside}) >= together:
                raise UserError(self.aside[0].sentence)
        self.left.finished(job, proves=False)

    def _end(self) -> None:
        """All is asked: what was put aside failed by itself if any request of this run passed."""
        with self.lock:
            aside, self.aside = self.aside, []
        if aside and not self.answered:
            raise UserError(aside[0].sentence)
        for one in aside:
            self._out(one.job, one.reply)

    # ---- parameters

    def _leave_out(self, job: Job, outcome: Outcome, said: Said, body: dict[str, Any]) -> None:
        """Ask again without the parameters that a refusal is about; UserError where the responses would be others."""
        self._require_dispensable(outcome.names, said, body)
        with self.lock:
            if job.doubt:  # that one has passed, now another is blamed
                self.known.confirm(job.doubt.names, job.doubt.sure, job.most)
        job.doubt = Doubt(outcome.names, said.words, outcome.sure)
        fewer = outcome.most if outcome.most and 1 < outcome.most < len(job.samples) else None
        job.most = fewer or job.most
        job.without |= set(outcome.names) - ({"n"} if fewer else set())
        if len(job.without) > MOST_WITHOUT:
            self._close(job, Reply("refused", words=said.quoted))
        else:
            self.left.back(job)

    def _undo(self, job: Job) -> None:
        """Leaving parameters out changed nothing: they were not to blame."""
        job.without -= set(job.doubt.names)
        job.doubt = None

    def _require_dispensable(self, names: tuple[str, ...], said: Said, body: dict[str, Any]) -> None:
        where, told = f"The server {self.engine.place.url} refuses", f"({said.quoted})"
        if "temperature" in names:
            raise UserError(
                f"{where} the temperature {body['temperature']:g} {told}: set teacher_sampling.temperatures to "
                f"default, which leaves it to the server, or give temperatures that it takes; {KEPT}"
            )
        if "top_p" in names and body["top_p"] < 1:
            raise UserError(
                f"{where} top_p {body['top_p']:g} {told}: set generation.top_p to 1, or name top_p in the teacher's "
                f"leave_out; {KEPT}"
            )
        if own := [name for name in names if name in self.model.request.body]:
            raise UserError(f"{where} the field {own[0]} {told}: take it out of the teacher's request.body; {KEPT}")


_ADDRESS = "check base_url, which usually ends in /v1; "
_SLOW = "raise timeout or lower concurrency in the profile; "


def _without_prompt(text: str, body: Mapping[str, Any]) -> str:
    """What a server said, without the question where it repeats that: a question's words mean nothing."""
    for message in body["messages"]:
        for content in (message["content"], one_line(message["content"])):
            text = text.replace(content.lower(), " ") if len(content) > 3 else text
    return text
