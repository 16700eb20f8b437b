"""What came back of batches, into the store: every reply once, whatever file it is in and however often it is read."""

from __future__ import annotations

import itertools
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rdlib.engines import batch_files, server_said
from rdlib.engines.asking import Reply
from rdlib.engines.batch_files import Result, Ticket
from rdlib.engines.generation import approximate_tokens
from rdlib.engines.server_answers import Fault, replies_of
from rdlib.engines.server_failures import Outcome, Place, judge
from rdlib.engines.server_parameters import Learnt
from rdlib.engines.server_said import Said
from rdlib.engines.store import Store
from rdlib.engines.stored_server import place_of
from rdlib.errors import UserError
from rdlib.settings import Model
from rdlib.study.batch_requests import Origin, Origins

AT_ONCE = 500  # lines that are taken into the store together


@dataclass
class Tally:
    """What became of one teacher's samples: `known` were in the store before, `failed` are to be asked again.

    `refused` waits until all is read; `unkept` of it is not taken, since most was refused.
    """

    model: Model
    known: int = 0
    kept: int = 0
    refused: list[tuple[Ticket, Origin, str]] = field(default_factory=list)
    unkept: str = ""
    failed: Counter = field(default_factory=Counter)
    sentences: dict[str, None] = field(default_factory=dict)
    learnt: Learnt = field(default_factory=Learnt)

    def lines(self, teacher: str) -> list[str]:
        """The tally in words, a line each."""
        words = Counter()
        for ticket, _, said in self.refused:
            words[said] += ticket.count
        found = [
            f"{teacher}: {self.kept:,} responses were added to the store, {self.known:,} were in it, "
            f"{words.total():,} were refused for good, {self.failed.total():,} failed and are missing."
        ]
        found += [f"  {count:,} refused: {said}" for said, count in words.most_common(3)]
        found += [f"  {count:,} failed: {said}" for said, count in self.failed.most_common(3)]
        return [*found, *(f"  {one}" for one in (*self.sentences, self.unkept) if one)]


class Reading:
    """Reads files of results into a store; `origins` is what the study asked for, `models` are its teachers."""

    def __init__(self, store: Store, origins: Origins, models: Mapping[str, Model]):
        self.store, self.origins, self.run = store, origins, uuid.uuid4().hex
        self.tallies = {name: Tally(model) for name, model in models.items()}
        for tally in self.tallies.values():
            tally.learnt.take(store.learnt(place_of(tally.model)))

    def read(self, paths: Sequence[Path]) -> list[str]:
        """Take in these files, after all were looked through; what became of them, in lines.

        UserError for a file that is none or is of another study, of which nothing is taken.
        """
        for path in paths:
            self._check(path)
        for path in paths:
            found = batch_files.results(path)
            while part := list(itertools.islice(found, AT_ONCE)):
                with self.store.together():
                    for result in part:
                        self._take(result)
        lines = []
        for name, tally in self.tallies.items():
            self._keep_refused(tally)
            self.store.remember(place_of(tally.model), tally.learnt.as_json())
            if tally.known or tally.kept or tally.refused or tally.failed:
                lines += tally.lines(name)
        return lines or ["The files hold no results."]

    def _check(self, path: Path) -> None:
        for result in batch_files.results(path):
            origin = self.origins.get((result.ticket.digest, result.ticket.series))
            if origin is None or origin.teacher not in self.tallies:
                raise UserError(
                    f"{path} is a batch file of another study, or of another teacher or seed: it answers "
                    f"{result.ticket.custom_id}, which was not asked here; nothing of it was read."
                )

    def _take(self, result: Result) -> None:
        """Take in a line."""
        ticket = result.ticket
        origin = self.origins[ticket.digest, ticket.series]
        tally = self.tallies[origin.teacher]
        read = replies_of(result.content, ticket.max_tokens)
        if read is not None:
            self._answers(tally, ticket, origin, read)
            return
        said = server_said.read(result.status, {}, result.content)
        if result.not_run:
            tally.failed[said.quoted] += ticket.count
        else:
            sent = sent_of(tally.model, ticket, origin.content)
            outcome = judge(replace(said, text=_without_prompt(said.text, origin.content)), sent)
            self._refusal(tally, ticket, origin, outcome, said, sent)

    def _answers(self, tally: Tally, ticket: Ticket, origin: Origin, read: Sequence[Reply | Fault]) -> None:
        """Keep the choices that are answers, and those that are odd but whole; the others are missing."""
        kept = self.store.kept([ticket.wanted], refused=False)[0]
        tally.learnt.gave(len(read), ticket.count)
        if len(read) < ticket.count:
            tally.failed["the server gave fewer choices than were asked for"] += ticket.count - len(read)
        for place, (sample, one) in enumerate(zip(ticket.samples, read, strict=False)):
            reply = one if isinstance(one, Reply) else one.fallback if one.odd else None
            if sample in kept:
                tally.known += 1
            elif reply is None:
                tally.failed[one.words] += 1
            else:
                self._add(ticket, origin, sample, reply if place else _with_prompt_tokens(reply, origin))
                tally.kept += 1

    def _add(self, ticket: Ticket, origin: Origin, sample: int, reply: Reply) -> None:
        question = (origin.id, origin.question)
        self.store.add(ticket.wanted, origin.content, question, sample, reply, self.run)

    def _refusal(
        self, tally: Tally, ticket: Ticket, origin: Origin, outcome: Outcome, said: Said, sent: dict[str, Any]
    ) -> None:
        """A line without an answer: refused for good, or of something that the next batch may do better."""
        if outcome.kind == "refused":
            tally.refused.append((ticket, origin, said.quoted))
            return
        tally.failed[said.quoted] += ticket.count
        if outcome.kind == "parameter":
            if own := _needed(outcome.names, tally.model, sent):
                tally.sentences[_refused_parameter(own, said)] = None
            else:
                tally.learnt.confirm(outcome.names, True, outcome.most)
                again = f"The service takes no {', '.join(outcome.names)}: the next batch goes without."
                tally.sentences[again] = None
        elif outcome.kind == "hopeless":
            place = Place(str(tally.model.base_url), tally.model.model, f"check the key in {tally.model.api_key_env}")
            tally.sentences[place.hopeless(outcome.why, said, ticket.max_tokens)] = None

    def _keep_refused(self, tally: Tally) -> None:
        """Keep what was refused for good, unless that is most of all: then the questions are not the cause."""
        refused = sum(ticket.count for ticket, *_ in tally.refused)
        answered = self.store.spent(tally.model.model).responses
        if refused > tally.model.most_unanswered * (refused + answered):
            tally.unkept = (
                f"More was refused than most_unanswered ({tally.model.most_unanswered:g}) allows, so it was not kept: "
                f"read it after the file of the answers, or mend the cause and ask again."
            )
            return
        with self.store.together():
            for ticket, origin, words in tally.refused:
                kept = self.store.kept([ticket.wanted])[0]
                for sample in [sample for sample in ticket.samples if sample not in kept]:
                    self._add(ticket, origin, sample, Reply("refused", words=words))


def sent_of(model: Model, ticket: Ticket, content: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a line was sent with, for a refusal that names one."""
    sent = {"max_tokens": ticket.max_tokens, "seed": 0, "n": ticket.count} | dict(content)
    own = sent.pop("request", {})
    kept = {name: value for name, value in sent.items() if name not in model.leave_out and value is not None}
    return kept | own


def _needed(names: Sequence[str], model: Model, sent: Mapping[str, Any]) -> str:
    """Which of these parameters decides the responses, so that it cannot be left out; "" where none does."""
    deciding = {"temperature", "stop", *model.request.body} | ({"top_p"} if sent.get("top_p", 1) < 1 else set())
    return next((name for name in names if name in deciding), "")


def _refused_parameter(name: str, said: Said) -> str:
    advice = {
        "temperature": "set teacher_sampling.temperatures to default, which leaves it to the server",
        "top_p": "set generation.top_p to 1, or name top_p in the teacher's leave_out",
        "stop": "take generation.stop out of the profile",
    }.get(name, f"take {name} out of the teacher's request.body")
    return f"The service refuses {name} ({said.quoted}): {advice}."


def _with_prompt_tokens(reply: Reply, origin: Origin) -> Reply:
    """The first reply of a line with its prompt's tokens, about as many where the server does not tell."""
    if reply.prompt_tokens is not None:
        return reply
    text = "".join(message["content"] for message in origin.content["messages"])
    return replace(reply, prompt_tokens=approximate_tokens(text))


def _without_prompt(text: str, content: Mapping[str, Any]) -> str:
    """What a server said without the question, whose words mean nothing."""
    for message in content["messages"]:
        text = text.replace(message["content"].lower(), " ") if len(message["content"]) > 3 else text
    return text
