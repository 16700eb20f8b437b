"""A teacher behind a server, whose answers are kept in the study's store: what is there is not asked again.

    with closing(StoredServer.open(...)) as engine:
        groups = engine.generate(requests, seed=0)     # out of the store, then from the server what is missing

An answer is stored before the next one is waited for. Requests stop when too many samples got no answer
(`Model.most_unanswered`), or when the budget is used up. One process at a time asks a teacher: so limits of pace and
money hold for the whole study, and no question is asked twice.
"""

from __future__ import annotations

import contextlib
import fcntl
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from rdlib import artifacts
from rdlib.engines import asking, budget
from rdlib.engines.asking import Ask, Reply
from rdlib.engines.budget import Spent
from rdlib.engines.generation import Completion, Request, approximate_tokens, derive_seed
from rdlib.engines.progress import AskingProgress
from rdlib.engines.server import ServerEngine, key_of
from rdlib.engines.server_answers import completion_of
from rdlib.engines.server_parameters import Learnt
from rdlib.engines.store import Store, Wanted
from rdlib.errors import UserError
from rdlib.settings import Model
from rdlib.tasks.prompts import Prompt

PAID = ("answer", "withheld")  # kinds of replies that a provider asks money for
FEWEST = 20  # samples that came before the share of unanswered ones says anything


@dataclass(frozen=True)
class Missing:
    """Requests that the store does not answer whole, the samples that they lack, and the calls these would take."""

    which: list[Request]
    samples: int
    requests: int


class StoredServer:
    """An engine; see the module. `series` is the study's seed, `progress` the file that the terminal looks at."""

    def __init__(
        self, model: Model, settings: asking.Settings, store: Store, seed: int, progress: Path | None = None,
        server: ServerEngine | None = None,
    ):  # fmt: skip
        self.model, self.settings, self.store, self.seed = model, settings, store, seed
        self.progress_file, self.label = progress, settings.model
        self._server, self._closing = server, ExitStack()
        self.run = uuid.uuid4().hex
        self._refused: dict[tuple[bytes, str, int], Reply] = {}  # of this run: served, and not asked again in it

    @classmethod
    def open(
        cls, model: Model, settings: asking.Settings, path: Path, seed: int, progress: Path | None
    ) -> StoredServer:
        """An engine with the store in a file, which `close` closes."""
        stack = ExitStack()
        engine = cls(model, settings, stack.enter_context(Store.open(path)), seed, progress)
        engine._closing = stack
        return engine

    @property
    def server(self) -> ServerEngine:
        """The client, made when something has to be asked, with what was learnt of the server before."""
        if self._server is None:
            known = self.store.learnt(place_of(self.model))
            self._server = ServerEngine(self.model, self.settings, key_of(self.model), known=known)
        return self._server

    def encode(self, prompt: Prompt) -> Prompt:
        """The prompt itself: the server has the chat template and the tokenizer."""
        return prompt

    def generate(self, requests: Sequence[Request], seed: int = 0) -> list[list[Completion]]:
        """The completions of each request; UserError when requests have to stop. The `seed` is the study's own."""
        answers = self.replies(requests)
        return [
            [
                completion_of(replies[number], self.model, self.settings.stop, request.stop)
                for number in self.wanted(request).samples
            ]
            for request, replies in zip(requests, answers, strict=True)
        ]

    def close(self) -> None:
        """Close the store and the connections."""
        if self._server is not None:
            self._server.close()
        self._closing.close()

    def wanted(self, request: Request) -> Wanted:
        """What a request wants of the store."""
        return wanted_of(self.model, self.settings, request, self.seed)

    def replies(self, requests: Sequence[Request]) -> list[dict[int, Reply]]:
        """The reply to every sample of each request, by its number."""
        wanted = [self.wanted(request) for request in requests]
        found = self._kept(wanted)
        if _missing(wanted, found):
            with self._alone():
                found = self._kept(wanted)  # another process may have asked meanwhile
                asks = {
                    index: Ask(requests[index], samples, derive_seed(wanted[index].series, wanted[index].digest.hex()))
                    for index, samples in _missing(wanted, found).items()
                }
                self._ask(asks, wanted, found)
        return found

    def count_missing(self, requests: Sequence[Request]) -> Missing:
        """What would have to be asked of the server for these requests."""
        wanted = [self.wanted(request) for request in requests]
        missing = _missing(wanted, self._kept(wanted))
        known = self.store.learnt(place_of(self.model)).get("most_choices")
        most = known or max([1, *(len(samples) for samples in missing.values())])
        calls = sum(-(-len(samples) // most) for samples in missing.values())
        return Missing([requests[i] for i in missing], sum(map(len, missing.values())), calls)

    def notes(self) -> list[str]:
        """What the report says of the server: parameters that it does not take, and whose defaults apply."""
        if self._server is not None:
            return self._server.notes()
        return Learnt().take(self.store.learnt(place_of(self.model))).notes(self.model)  # as it was asked before

    def say(self, text: str) -> None:
        """Show a text here and in the terminal."""
        print(text, flush=True)
        if self.progress_file is not None:
            artifacts.write_bytes(self.progress_file.with_suffix(".txt"), (text + "\n").encode())

    # ---- what has to be asked

    def _kept(self, wanted: Sequence[Wanted]) -> list[dict[int, Reply]]:
        found = self.store.kept(wanted, refused=not self.model.ask_refused_again)
        for one, replies in zip(wanted, found, strict=True) if self._refused else ():
            for sample in one.samples:
                if reply := self._refused.get((one.digest, one.series, sample)):
                    replies.setdefault(sample, reply)
        return found

    def _ask(self, asks: dict[int, Ask], wanted: Sequence[Wanted], found: list[dict[int, Reply]]) -> None:
        """Ask the server, keeping each reply as it comes; UserError where requests have to stop."""
        total, missing = sum(map(len, (one.samples for one in wanted))), sum(len(ask.samples) for ask in asks.values())
        kept = sum(reply.kind == "answer" for replies in found for reply in replies.values())
        guard = Guard(self.model, self.settings, self.store.spent(self.settings.model), missing, kept)
        guard.require_budget()
        told: set[int] = set()  # asks whose prompt's tokens are counted
        came: list[tuple[int, int, Reply]] = []  # and not kept yet

        def keep() -> None:
            """Put what came since the last time into the store."""
            with self.store.together():  # the samples of a call are one write
                for index, sample, reply in came:
                    self._keep(wanted[index], asks[index], sample, reply)
            came.clear()
            progress.show()

        with AskingProgress(self.label, total, total - missing, self.progress_file, self.model.prices) as progress:
            replies = self.server.replies(asks, guard.may_ask, keep)
            try:
                for index, sample, reply in replies:
                    reply = _with_prompt_tokens(reply, asks[index], told, index)
                    came.append((index, sample, reply))
                    found[index][sample] = reply
                    progress.came_in(reply.tokens, reply.prompt_tokens or 0)
                    guard.came(reply)
            except MostUnansweredError as error:
                self.store.void(self.run)
                raise UserError(str(error)) from None
            finally:
                keep()
                replies.close()
                self.store.remember(place_of(self.model), self.server.learnt())
        guard.require_whole(_missing(wanted, found))

    def _keep(self, wanted: Wanted, ask: Ask, sample: int, reply: Reply) -> None:
        if reply.kind in ("refused", "failed"):
            self._refused[wanted.digest, wanted.series, sample] = reply
        if reply.kind != "failed":  # which is no answer, and asked again by the next run
            prompt = ask.request.prompt
            content = asking.asked(self.model, self.settings, ask.request)
            self.store.add(wanted, content, (prompt.id, prompt.question), sample, reply, self.run)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait until no other process asks this teacher for this study."""
        path = self.store.path
        name = asking.digest(place_of(self.model)).hex()[:8]
        with path.with_name(f".{path.name}.{name}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"Another notebook of this study is asking {self.settings.model}; waiting for it.", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def wanted_of(model: Model, settings: asking.Settings, request: Request, seed: int) -> Wanted:
    """What a request of a study with a seed wants of the store; of greedy samples, which are equal, one."""
    content = asking.asked(model, settings, request)
    samples = tuple(range(1 if content["temperature"] == 0 else request.n))
    return Wanted(asking.digest(content), asking.series_of(content, seed), samples, settings.max_tokens)


def place_of(model: Model) -> str:
    """The identity of a server: a model at an address. What was learnt of one holds for no other."""
    return f"{model.model} {model.base_url}"


class MostUnansweredError(Exception):
    """More samples than the profile allows got no answer; the message says why, in the server's words."""


class Guard:
    """Watches an asking of so many `missing` samples, beside `kept` ones that have an answer already.

    It counts how many stay unanswered, and what is left of the budget.
    """

    def __init__(self, model: Model, settings: asking.Settings, spent: Spent, missing: int, kept: int):
        self.model, self.settings, self.spent, self.missing, self.kept = model, settings, spent, missing, kept
        self.answered, self.unanswered = 0, Counter()

    def require_budget(self) -> None:
        """UserError where the budget was used up before."""
        if used := budget.used_up(self.model, self.spent):
            raise UserError(f"{used} {self.missing} responses are missing: raise the budget, or ask for fewer.")

    def may_ask(self, under_way: int) -> bool:
        """Whether another request may go out while `under_way` samples are awaited."""
        return not budget.used_up(self.model, self.spent.ahead(under_way, self.settings.max_tokens))

    def came(self, reply: Reply) -> None:
        """Count a reply; MostUnansweredError where too many are none."""
        if reply.kind in PAID:
            self.spent = self.spent.plus(1, reply.prompt_tokens or 0, reply.tokens)
        if reply.kind == "answer":
            self.answered += 1
        else:
            self.unanswered[reply.words] += 1
        came, unanswered = self.answered + self.unanswered.total(), self.unanswered.total()
        counted = came if self.missing >= FEWEST else came + self.kept  # a few alone say nothing of the rest
        enough = came >= min(FEWEST, self.missing)
        if enough and unanswered > self.model.most_unanswered * counted:
            words, times = self.unanswered.most_common(1)[0]
            raise MostUnansweredError(
                f"{unanswered} of the first {came} samples got no answer from {self.settings.model}, most often "
                f"({times} times) because: {words or 'the response was empty'}. That is more than most_unanswered "
                f"({self.model.most_unanswered:g}) allows; what was answered is kept, and the same command continues."
            )

    def require_whole(self, missing: dict[int, tuple[int, ...]]) -> None:
        """UserError where the budget was used up before all had been asked."""
        left = sum(map(len, missing.values()))
        if left:
            used = budget.used_up(self.model, self.spent)
            used = used or f"The budget of {self.settings.model} leaves no room for another request."
            raise UserError(
                f"{used} {self.missing - left} responses came and are kept, {left} are missing: raise the budget, or "
                f"ask for fewer, and give the same command again."
            )


def _missing(wanted: Sequence[Wanted], found: Sequence[dict[int, Reply]]) -> dict[int, tuple[int, ...]]:
    """The numbers of the samples that are missing, by the request's place; requests that are whole are left out."""
    pairs = enumerate(zip(wanted, found, strict=True))
    missing = {index: tuple(n for n in one.samples if n not in replies) for index, (one, replies) in pairs}
    return {index: samples for index, samples in missing.items() if samples}


def _with_prompt_tokens(reply: Reply, ask: Ask, told: set[int], index: int) -> Reply:
    """A reply whose prompt's tokens are counted about, once a request, where the server does not tell them."""
    if reply.prompt_tokens is not None or reply.kind == "refused":
        told.add(index)
        return reply
    if index in told:
        return reply
    told.add(index)
    return replace(reply, prompt_tokens=approximate_tokens("".join(m["content"] for m in ask.request.prompt.chat)))
