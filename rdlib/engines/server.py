"""The server engine: any server with OpenAI's chat completions at `base_url`, local or not.

    for number, sample, reply in engine.replies({0: Ask(request, (0, 1, 2), seed)}): ...

Each request goes out on its own, at most `concurrency` at a time and `requests_per_minute` a minute, and slower where
the server asks for that (server_pace). What may pass is tried again, later and with another seed, while others are
asked; a request that the server refuses, or that fails again and again while others pass, is given out as such. Only
what no request can pass (a wrong key, no credit, no such model) ends the run, with one sentence that has the server's
own words (server_failures). Seeds depend on the request and the sample alone.

What a server does not take is learnt from its refusals (server_parameters), and of each temperature one request goes
out alone before all others: a server that refuses it does so before anything else is paid for.

The stop strings of a prompt's plain text are not sent: a server is asked in a chat, and they would end thinking that
mentions a question. Its responses are cut at them here, after the thinking.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx

from rdlib.engines import server_address, server_models, server_said
from rdlib.engines.asking import Ask, Reply, Settings
from rdlib.engines.generation import Completion, Request, clean, derive_seed
from rdlib.engines.server_address import key_of
from rdlib.engines.server_answers import completion_of
from rdlib.engines.server_failures import Place
from rdlib.engines.server_pace import LONGEST_RETRY_AFTER, Clock, Pace
from rdlib.engines.server_parameters import Learnt, body_of
from rdlib.engines.server_run import MayAsk, Run
from rdlib.engines.server_said import Said
from rdlib.engines.server_work import Work, jobs_of
from rdlib.errors import UserError
from rdlib.settings import Model
from rdlib.tasks.prompts import Prompt

__all__ = ["LONGEST_RETRY_AFTER", "Clock", "Pace", "ServerEngine", "Settings", "completion_of", "key_of"]


class ServerEngine:
    """Samples from a server; see the module.

    `key` goes into the requests' header and nowhere else. `known` is what `learnt` gave in an earlier run. `requests`
    counts the calls so far.
    """

    def __init__(
        self,
        model: Model,
        settings: Settings,
        key: str | None = None,
        clock: Clock | None = None,
        known: Mapping[str, Any] | None = None,
    ):
        self.model, self.settings = model, settings
        self.key = server_address.checked_key(key, model.api_key_env)
        self.base = server_address.checked_url(model.base_url)
        self.address = server_address.shown(self.base)
        self.url = server_address.under(self.base, "/chat/completions")
        headers, self.secrets = server_address.headers_of(model, self.key)
        mend = f"set the environment variable {model.api_key_env} to a key that may use it"
        if self.secrets and not self.key:
            mend = "check the key in the teacher's request.headers"
        self.place = Place(self.address + "/chat/completions", settings.model, mend)
        self.clock = clock or Clock()
        self.pace = Pace(model.requests_per_minute, model.concurrency, self.clock)
        self.known = Learnt().take(known)
        self.requests, self.reached, self.looked = 0, False, False
        self.lock = threading.Lock()
        self.client = server_address.client_of(model, self.base, headers)

    @property
    def unsupported(self) -> set[str]:
        """The parameters that the server was found not to take."""
        return self.known.unsupported

    @property
    def most_choices(self) -> int | None:
        """How many choices a request can have, as far as was learnt; None: as many as were asked for."""
        return self.known.most_choices

    @property
    def waiting(self) -> float:
        """Seconds for which nothing starts, since the server asked to wait."""
        return max(0.0, self.pace.next - self.clock.now())

    def notes(self) -> list[str]:
        """What a report says of how the server was asked, in plain sentences."""
        return self.known.notes(self.model)

    def learnt(self) -> dict[str, Any]:
        """What was learnt of the server, JSON-able: the `known` of the next run's engine."""
        return self.known.as_json()

    def check(self) -> None:
        """Ask which models the server has; UserError where none answers, or it surely has only others.

        It takes seconds at most. What the list leaves open, the first question tells. Where the model's `check_models`
        is off, nothing is asked.
        """
        if not self.model.check_models:
            return
        try:
            found = self._listed()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise UserError(self._nobody(error)) from None
        except httpx.HTTPError:  # it is there, and slow or at fault: requests are tried again, this is not
            self.known.remark("The server did not tell its models in time, so the model's name is unchecked.")
            return
        if sentence := self._take_list(found):
            raise UserError(sentence)

    def _take_list(self, found: server_models.Listed) -> str | None:
        """Take in what the list of models tells: remarks, and the sentence where it shows that no request will pass."""
        response, name = found.response, self.settings.model
        self.known.recognise(found.owners[0] if found.owners else None, response.headers.get("server", ""))
        if 300 <= response.status_code < 400:
            return self._of_redirect(response)
        if response.status_code in (401, 403):
            self.known.remark("The server does not show its models to this key, so the model's name is unchecked.")
        elif not found.names and response.status_code == 200 and "unexpected endpoint" in self.said(response).text:
            return self.place.hopeless("address", self.said(response))
        elif found.names and not server_models.has(found.names, name) and not server_models.serves_any_name(found):
            return self._of_others(found)
        return None

    def _of_others(self, found: server_models.Listed) -> str | None:
        """The sentence for a list of other models; None where requests may name more than is listed."""
        azure = self.base.host.endswith("azure.com") or "api-version" in self.base.params  # lists what can be deployed
        if azure or not found.whole:
            self.known.remark(f"The server's list of models has no {self.settings.model}, which may be right.")
            return None
        shown = [one[:80] for one in found.names]
        more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
        return (
            f"The server {self.address} has no model {self.settings.model!r} but {', '.join(shown[:5])}{more}: "
            f"name one of these in the profile, or start the server with the profile's."
        )

    def _of_redirect(self, response: httpx.Response) -> str | None:
        target = server_address.location(self.base, response.headers.get("location", ""))
        if target and target != self.address:
            return replace(self.place, location=target).hopeless("redirect", self.said(response))
        return None

    def _nobody(self, error: httpx.HTTPError) -> str:
        reason = server_address.unreachable(error)
        because = "" if "connection was refused" in reason else f" ({reason})"
        return server_address.insecure(error, self.address) or (
            f"No server answers at {self.address}{because}: start it, or correct the teacher's base_url in the "
            f"profile; what was finished is kept."
        )

    def _listed(self) -> server_models.Listed:
        self.looked = True
        return server_models.listed(self.client.get, server_address.under(self.base, "/models"))

    def encode(self, prompt: Prompt) -> Prompt:
        """The prompt itself: the server has the chat template and the tokenizer."""
        return prompt

    def generate(self, requests: Sequence[Request], seed: int) -> list[list[Completion]]:
        """The completions of each request, in the order of the requests; UserError when no request passes."""
        asks = {n: Ask(r, tuple(range(r.n)), derive_seed(seed, n)) for n, r in enumerate(requests)}
        groups: list[dict[int, Completion]] = [{} for _ in requests]
        for number, sample, reply in self.replies(asks):
            done = completion_of(reply, self.model, self.settings.stop, requests[number].stop)
            groups[number][sample] = done
        return [[group[sample] for sample in sorted(group)] for group in groups]

    def replies(
        self, asks: Mapping[int, Ask], may_ask: MayAsk | None = None, keep: Callable[[], None] | None = None
    ) -> Iterator[tuple[int, int, Reply]]:
        """(number of the ask, sample, reply) as they come: one for every sample of every ask, in any order.

        `may_ask` gets the number of awaited samples; once it says no, nothing new is asked. `keep` is called when all
        replies of a call were given out, before its worker asks on: what it keeps survives a kill.

        After a failure that no request can pass, nothing new is asked. Replies under way are still given out, then
        UserError is raised. Closing the iterator stops the requests.
        """
        self._look()
        self.pace.begin()
        work = Work(jobs_of(asks), self.pace, self.known.temperatures)
        done: queue.SimpleQueue = queue.SimpleQueue()
        run = Run(self, work, done, may_ask, taken_at_once=True)
        workers = min(self.model.concurrency, sum(len(ask.samples) for ask in asks.values()))
        for _ in range(workers):  # daemons: Ctrl-C waits for no server
            threading.Thread(target=run.work, daemon=True).start()
        failure = None
        try:
            while workers:
                item = done.get()
                if isinstance(item, Exception):
                    failure = failure or item
                    work.stop()
                elif item is None:
                    workers -= 1
                elif isinstance(item, threading.Event):  # what came before it was taken
                    if keep is not None:
                        keep()
                    item.set()
                else:
                    yield item
        finally:
            work.stop()
        if failure:
            raise failure

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def _look(self) -> None:
        """Find out what server it is, if its list of models may be asked for and was not."""
        if self.model.check_models and not self.looked and self.known.server is None:
            with contextlib.suppress(httpx.HTTPError):
                self._take_list(self._listed())

    # ---- one call

    def body(self, request: Request, n: int, seed: int, without: frozenset[str]) -> dict[str, Any]:
        """What a call for `n` samples sends."""
        return body_of(self.model, self.settings, request, n, seed, self.known, without)

    def post(self, body: dict[str, Any]) -> httpx.Response:
        """Make a call; httpx.HTTPError when nothing comes back."""
        with self.lock:
            self.requests += 1
        content = clean(json.dumps(body, ensure_ascii=False)).encode()
        response = self.client.post(self.url, content=content, headers={"Content-Type": "application/json"})
        self.reached = True
        if self.known.server is None:
            self.known.recognise(header=response.headers.get("server", ""))
        return response

    def said(self, response: httpx.Response) -> Said:
        """What a response says that is no answer, without keys."""
        return server_said.read(response.status_code, response.headers, response.content, self.secrets)
