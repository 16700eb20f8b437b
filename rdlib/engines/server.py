"""The server engine: any server with OpenAI's chat completions at `base_url`, local or not.

Each request goes out on its own, at most `concurrency` at a time and `requests_per_minute` a minute. What may pass
(429, 5xx, time-outs, broken connections and answers) is tried again after a pause that doubles and varies, or that the
server asks for; what will not pass (401, 403, 404, a refused request) ends the run with one sentence. Requests
have seeds of their own, so a server that honours `seed` answers the same whatever else is asked.

Before a stage or a study starts, the server is asked which models it has (`ServerEngine.check`): one that does not
answer, or has others than the profile names, is no use.

What a server does not take is learnt from its first answer: `n` (then samples are asked for one by one), `seed`
(then it is left out) and `max_tokens` (then it is called max_completion_tokens).

The stop strings of a prompt's plain text are not sent: a server is asked in a chat, and they would end thinking that
mentions a question. Its responses are cut at them here, behind the thinking.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from rdlib.engines.asking import Settings
from rdlib.engines.generation import Completion, Request, approximate_tokens, clean, cut_at, cut_run_on, derive_seed
from rdlib.errors import UserError
from rdlib.settings import Model
from rdlib.tasks.prompts import Prompt

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds between tries
LONGEST_RETRY_AFTER = 900.0  # seconds; a server that refuses requests for longer has a quota that is used up
MOST_TOKENS = 10**9  # of an answer; a server that counts more has miscounted
TRIES_TO_REACH = 3  # of a server that has not answered yet: more likely a wrong address than a short failure
PASSING = {408, 409, 425, 429}  # besides all from 500 up
ENDS = {"stop", "eos", "eos_token", "stop_sequence", "end_turn"}  # names of servers for a response that ended
CUTS = {"length", "max_tokens", "model_length", "content_filter"}  # and for one that did not


class Clock:
    """Time, in seconds, and waiting that `stop` ends early."""

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def sleep(self, seconds: float, stop: threading.Event) -> None:
        """Wait; at once when `stop` is set."""
        stop.wait(seconds)


class Pace:
    """Lets requests start at an even rate, and none before a moment that the server named."""

    def __init__(self, per_minute: int | None, clock: Clock):
        self.interval = 60 / per_minute if per_minute else 0.0
        self.clock, self.lock, self.next = clock, threading.Lock(), clock.now()

    def wait(self, stop: threading.Event) -> None:
        """Wait for a turn."""
        with self.lock:
            now = self.clock.now()
            turn = max(self.next, now)
            self.next = turn + self.interval
        if turn > now:
            self.clock.sleep(turn - now, stop)

    def hold(self, seconds: float) -> None:
        """Let nothing start for so long."""
        with self.lock:
            self.next = max(self.next, self.clock.now() + seconds)


class PassingError(Exception):
    """A failure that may pass: what it was, and for how long the server asks to wait, in seconds."""

    def __init__(self, what: str, wait: float | None = None, unreachable: bool = False):
        super().__init__(what)
        self.wait, self.unreachable = wait, unreachable


class UnsupportedError(Exception):
    """The server refused a parameter that requests can do without."""


class ServerEngine:
    """Samples from a server; see the module. `key` goes into the requests' header and nowhere else."""

    def __init__(self, model: Model, settings: Settings, key: str | None = None, clock: Clock | None = None):
        self.model, self.settings, self.key = model, settings, _checked_key(key, model.api_key_env)
        self.address = _checked_url(model.base_url)
        self.url = self.address + "/chat/completions"
        self.clock = clock or Clock()
        self.pace = Pace(model.requests_per_minute, self.clock)
        self.unsupported: set[str] = set()
        self.reached = False
        self.client = httpx.Client(
            timeout=httpx.Timeout(model.timeout, connect=10.0),
            limits=httpx.Limits(max_connections=model.concurrency, max_keepalive_connections=model.concurrency),
            headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
        )

    def check(self) -> None:
        """Ask which models the server has; UserError where none answers, it refuses access, or has only others.

        A server that does not tell, as few do, is taken at its word when it answers the first question.
        """
        try:
            response = self.client.get(self.address + "/models")
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise UserError(
                f"No server answers at {self.address}: start it, or mend the teacher's base_url in the profile; what "
                f"was finished is kept."
            ) from None
        except httpx.HTTPError:  # it is there, and slow or at fault: requests are tried again, this is not
            return
        if response.status_code in (401, 403):
            raise self._refused_access(response.status_code)
        known = _names(response) if response.status_code == 200 else []
        if known and not any(name == self.settings.model or name.endswith("/" + self.settings.model) for name in known):
            more = f" and {len(known) - 5} more" if len(known) > 5 else ""
            raise UserError(
                f"The server {self.address} has no model {self.settings.model!r} but {', '.join(known[:5])}{more}: "
                f"name one of these in the profile, or start the server with the profile's."
            )

    def encode(self, prompt: Prompt) -> Prompt:
        """The prompt itself: the server has the chat template and the tokenizer."""
        return prompt

    def generate(self, requests: Sequence[Request], seed: int) -> list[list[Completion]]:
        """The completions of each request, in the order of the requests; UserError when the server fails for good."""
        answers = dict(self.stream(dict(enumerate(requests)), seed))
        return [answers[index] for index in range(len(requests))]

    def stream(self, requests: Mapping[int, Request], seed: int) -> Iterator[tuple[int, list[Completion]]]:
        """(number, completions) as the answers come.

        After a failure for good nothing new is asked, what is under way is still given out, then UserError is raised.
        """
        todo, done, stop = queue.SimpleQueue(), queue.SimpleQueue(), threading.Event()
        for item in requests.items():
            todo.put(item)
        workers = min(self.model.concurrency, len(requests))
        for _ in range(workers):  # daemons: Ctrl-C waits for no server
            threading.Thread(target=self._work, args=(todo, done, seed, stop), daemon=True).start()
        failure = None
        try:
            while workers:
                index, result = done.get()
                if isinstance(result, Exception):
                    failure = failure or result
                    stop.set()
                elif index is None:
                    workers -= 1
                else:
                    yield index, result
        finally:
            stop.set()
        if failure:
            raise failure

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def _work(self, todo: queue.SimpleQueue, done: queue.SimpleQueue, seed: int, stop: threading.Event) -> None:
        with contextlib.suppress(queue.Empty):
            while not stop.is_set():
                index, request = todo.get_nowait()
                try:
                    done.put((index, self._answer(request, derive_seed(seed, index), stop)))
                except Exception as error:  # raised again where the answers are collected
                    done.put((index, error))
        done.put((None, None))

    # ---- one request

    def _answer(self, request: Request, seed: int, stop: threading.Event) -> list[Completion]:
        """All samples of a request; greedy ones are equal, so one is asked for."""
        wanted = request.n if request.temperature > 0 else 1
        got: list[Completion] = []
        while len(got) < wanted:
            missing = 1 if "n" in self.unsupported else wanted - len(got)
            choices = self._ask(request, missing, derive_seed(seed, len(got)) >> 32, stop)
            if len(choices) < missing:
                self.unsupported.add("n")
            got += choices[:missing]
        return got if request.temperature > 0 else got * request.n

    def _ask(self, request: Request, n: int, seed: int, stop: threading.Event) -> list[Completion]:
        """One call, tried again while its failures may pass."""
        attempt = 0
        while True:
            self.pace.wait(stop)
            try:
                return self._call(request, n, seed)
            except UnsupportedError:
                n = 1 if "n" in self.unsupported else n
            except PassingError as failure:
                attempt += 1
                limit = self.model.attempts if self.reached else min(TRIES_TO_REACH, self.model.attempts)
                if attempt >= (limit if failure.unreachable else self.model.attempts) or stop.is_set():
                    raise self._given_up(failure, attempt) from None
                self._pause(failure, attempt, stop)

    def _pause(self, failure: PassingError, attempt: int, stop: threading.Event) -> None:
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
        if failure.wait:
            pause = failure.wait * random.uniform(1.0, 1.1)
            self.pace.hold(failure.wait)  # the others wait too
        self.clock.sleep(pause, stop)

    def _call(self, request: Request, n: int, seed: int) -> list[Completion]:
        """One call; raises PassingError, UnsupportedError or UserError."""
        body = self._body(request, n, seed)
        try:
            response = self.client.post(self.url, json=body)
        except httpx.TimeoutException as error:
            unreachable = isinstance(error, httpx.ConnectTimeout)
            raise PassingError(f"it did not answer within {self.model.timeout:g} s", unreachable=unreachable) from None
        except httpx.ConnectError:
            raise PassingError("the connection was refused", unreachable=True) from None
        except httpx.HTTPError as error:
            raise PassingError(f"the connection broke ({type(error).__name__})") from None
        self.reached = True
        if response.status_code != 200:
            self._refuse(response, request, body)
        return [cut_run_on(c, request.stop) for c in _completions(response, self.settings.stop)]

    def _body(self, request: Request, n: int, seed: int) -> dict[str, Any]:
        settings = self.settings
        limit = "max_completion_tokens" if "max_tokens" in self.unsupported else "max_tokens"
        body = {"model": settings.model, "messages": request.prompt.chat, limit: settings.max_tokens}
        body |= {"temperature": request.temperature, "seed": seed}
        body |= {"n": n} if n > 1 else {}
        body |= {"top_p": settings.top_p} if settings.top_p < 1 else {}
        body |= {"stop": list(settings.stop)} if settings.stop else {}
        return {name: value for name, value in body.items() if name not in self.unsupported}

    # ---- failures

    def _refuse(self, response: httpx.Response, request: Request, body: dict[str, Any]) -> None:
        """Raise what a status other than 200 means."""
        status, said = response.status_code, self._said(response)
        if status in (401, 403):
            raise self._refused_access(status)
        if status == 404:
            raise UserError(
                f"The server {self.url} knows no such address or no model {self.settings.model!r} (404): check "
                f"base_url, which usually ends in /v1, and the model's name in the profile."
            )
        wait = _retry_after(response)
        if status == 429 and ("insufficient_quota" in said or (wait or 0) > LONGEST_RETRY_AFTER):
            raise UserError(f"The server {self.url} says that the quota is used up ({said}): {_KEPT}")
        if status in PASSING or status >= 500:
            raise PassingError(f"it answered with status {status}", wait and min(wait, LONGEST_RETRY_AFTER))
        for name in ("n", "seed", "max_tokens"):
            if status in (400, 422) and name in body and _blames(response, said, name):
                self.unsupported.add(name)
                raise UnsupportedError
        which = request.prompt.id or request.prompt.plain[:80]
        raise UserError(f"The server {self.url} refuses the request of question {which!r} ({status}: {said}).")

    def _refused_access(self, status: int) -> UserError:
        return UserError(
            f"The server {self.url} refuses access to {self.settings.model} ({status}): set the environment "
            f"variable {self.model.api_key_env} to a key that may use it."
        )

    def _given_up(self, failure: PassingError, attempts: int) -> UserError:
        return UserError(f"The server {self.url} failed {attempts} times in a row, at last because {failure}: {_KEPT}")

    def _said(self, response: httpx.Response) -> str:
        """The server's own words in one line, without the key that it may repeat."""
        said = response.content.decode("utf-8", "replace")
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
            error = response.json()["error"]
            said = f"{error.get('message', '')} {error.get('code') or ''}" if isinstance(error, dict) else str(error)
        said = said.replace(self.key, "[key]") if self.key else said
        return " ".join("".join(c if c.isprintable() else " " for c in said).split())[:200]


_KEPT = "what it has answered is kept, and the same command goes on from there."


def _names(response: httpx.Response) -> list[str]:
    """The models that a server lists; none where its answer is no such list."""
    try:
        return [clean(str(one["id"]))[:80] for one in json.loads(response.content)["data"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return []


def _blames(response: httpx.Response, said: str, name: str) -> bool:
    """Whether a refusal is about the parameter `name`: OpenAI's servers name it in `param`, others in the message."""
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        if (blamed := response.json()["error"].get("param")) is not None:
            return blamed == name
    quoted = any(f"{q}{name}{q}" in said for q in "'\"`")
    return quoted or (name != "n" and name in said and "support" in said.lower())


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks to wait, given as a number or as a date; None where it does not say."""
    value = response.headers.get("Retry-After", "")
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _completions(response: httpx.Response, stop: Sequence[str]) -> list[Completion]:
    """The choices of an answer as completions; PassingError when it is not what the interface promises."""
    try:
        answer = json.loads(response.content)
        choices = [(c["message"]["content"], c.get("finish_reason")) for c in answer["choices"]]
        total = (answer.get("usage") or {}).get("completion_tokens")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise PassingError("its answer was not a chat completion") from None
    if not choices:
        raise PassingError("its answer had no choices")
    texts = [cut_at(clean(_text(*choice)), stop).strip() for choice in choices]
    reasons = ["stop" if reason in ENDS else "length" for _, reason in choices]
    if type(total) is int and 0 <= total < MOST_TOKENS:  # which a bool is not
        counts = shares(total, [max(1, len(text)) for text in texts])
    else:
        counts = [approximate_tokens(text) for text in texts]
    return [Completion(t, None, c, r) for t, c, r in zip(texts, counts, reasons, strict=True)]


def _text(content: Any, reason: Any) -> str:
    """A choice's text: empty where the server withheld it or all tokens went into reasoning."""
    if not isinstance(reason, str) or reason not in ENDS | CUTS:
        raise PassingError(f"its answer ended for the unknown reason {str(reason)[:40]!r}")
    if content is None and reason in CUTS:
        return ""
    if not isinstance(content, str):
        raise PassingError("its answer had no content")
    return content


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """Whole numbers that add up to `total` and are about in proportion to the weights.

    Servers count the tokens of all choices together, so a single choice's count is its share by length.
    """
    ends, seen = [0], 0
    for weight in weights:
        seen += weight
        ends.append(round(total * seen / sum(weights)))
    return [end - start for start, end in zip(ends, ends[1:], strict=False)]


def _checked_key(key: str | None, name: str) -> str | None:
    """The key without surrounding white space; UserError, which does not show it, when a header can't hold it."""
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"The environment variable {name} holds no valid key: it has characters that no key has.")
    return key or None


def _checked_url(url: str | None) -> str:
    """The server's address without a slash at its end; UserError for none, a foreign one or one with a password."""
    try:
        parsed = httpx.URL(url or "")
    except (httpx.InvalidURL, TypeError):
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UserError(f"base_url is {url!r}: give the server's address, such as http://localhost:8000/v1.")
    if parsed.userinfo:
        raise UserError("base_url holds a user name or password: give the key by the variable that api_key_env names.")
    return str(url).rstrip("/")


def key_of(model: Model) -> str | None:
    """The key from the environment variable that the model names; None where it is not set, as for a local server."""
    return os.environ.get(model.api_key_env)
