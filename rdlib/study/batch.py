"""A teacher's answers by a provider's batch service: cheaper, within a day. `python -m rdlib batch`

    write   --profile params/mine.yaml         request files of what is missing, for any provider's batch
    read    --profile params/mine.yaml FILE... what came back, into the store; after that `make study` continues
    send    --profile params/mine.yaml         write, and send to OpenAI's batch addresses at the teacher's base_url
    collect --profile params/mine.yaml         wait for what was sent, and read it; may be stopped and given again

Stored answers are not asked for, requests under way are not sent again, and answers are added once. docs/batch.md is
the page for users.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rdlib import artifacts
from rdlib.engines import batch_files, batch_service, budget, server_said
from rdlib.engines.asking import Reply
from rdlib.engines.batch_files import ADDRESSES, Result, Ticket, packed
from rdlib.engines.batch_service import Away, BatchService
from rdlib.engines.generation import approximate_tokens
from rdlib.engines.server_answers import Fault, replies_of
from rdlib.engines.server_failures import Outcome, Place, judge
from rdlib.engines.server_parameters import Learnt
from rdlib.engines.server_said import Said
from rdlib.engines.store import Store
from rdlib.engines.stored_server import place_of
from rdlib.errors import UserError
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.settings import Model
from rdlib.study import outlook
from rdlib.study.jobs import every_stage, study_jobs
from rdlib.study.outlook import Folder, Origin, Origins, Post, Sent
from rdlib.study.stage import Stage

EVERY = 60.0  # seconds between two looks at batches that are under way
AT_ONCE = 500  # lines that are taken into the store together


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m rdlib batch`: write, send, collect or read."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="{write,read,send,collect}")
    for action in (write, read, send, collect):
        one = actions.add_parser(action.__name__, help=action.__doc__, description=action.__doc__)
        one.set_defaults(action=action)
        one.add_argument("--profile", required=True, help="profile, relative to the repository")
        one.add_argument("--seeds", type=int, nargs="*", help="seeds instead of the profile's")
        one.add_argument("--teacher", help="one teacher of the profile instead of all")
        if action in (write, send):
            words = "azure: a shorter address; bare: none"
            one.add_argument("--form", choices=list(ADDRESSES), default="openai", help=words)
        if action is collect:
            one.add_argument("--once", action="store_true", help="look once instead of waiting")
        if action is read:
            one.add_argument("files", nargs="+", help="the files that the service gave back")


def run(options: argparse.Namespace) -> None:
    """Write, send, collect or read."""
    if any(seed < 0 for seed in options.seeds or []):
        raise UserError("--seeds must not be below 0.")
    options.action(options)


def stages_of(options: argparse.Namespace) -> list[Stage]:
    """Every stage of the study, for the seeds asked for."""
    profile = load_profile(ROOT / options.profile)
    return every_stage(study_jobs(options.profile, options.seeds or profile.grid.seeds))


def _posts(options: argparse.Namespace, stages: Iterable[Stage]) -> list[Post]:
    if posts := outlook.posts(stages, options.teacher):
        return posts
    raise UserError("No request is missing: all that teachers behind servers are asked is in finished stages.")


def write(options: argparse.Namespace) -> None:
    """Write the request files of what is missing, to be sent by hand."""
    for post in _posts(options, [stage for stage in stages_of(options) if not stage.done]):
        with post.folder.held():
            paths = _written(post, options.form)
        print(f"Run {'it' if len(paths) == 1 else 'them'} at the provider, then give `read` with what comes back.")


def _written(post: Post, form: str) -> list[Path]:
    """The request files of what a teacher lacks; UserError where that is nothing, or more than the budget."""
    waiting = post.folder.under_way(post.teacher)
    with Store.open(post.store) as store:
        batch = outlook.batch_of(post, store, waiting, form)
        if not batch.lines:
            go_on = f" beside the {len(waiting):,} under way: give `collect`" if waiting else ": give `make study`"
            raise UserError(f"No request of {post.teacher} is missing{go_on}, which continues from there.")
        outlook.require_budget(post, store, batch, waiting)
    paths = [post.folder.keep(post.teacher, part, batch.origins) for part in packed(batch.lines)]
    most = f"at most {batch.most.prompt_tokens + batch.most.tokens:,} tokens"
    if prices := post.model.prices:
        most += f" and {budget.money(prices, batch.most):,.2f} {prices.currency}"
    print(f"{post.teacher}: {len(batch.lines):,} requests for {batch.samples:,} samples are missing, {most}:")
    print(*(f"  {shown(path)}" for path in paths), sep="\n", flush=True)
    return paths


def shown(path: Path) -> str:
    """A path as a user has it: from the repository where it lies in there."""
    return os.path.relpath(path, ROOT) if path.is_relative_to(ROOT) else str(path)


# ---- OpenAI's batch addresses


def send(options: argparse.Namespace) -> None:
    """Write what is missing and send it; what was sent before and not collected is neither written nor sent."""
    for post in _posts(options, [stage for stage in stages_of(options) if not stage.done]):
        with post.folder.held(), closing(BatchService(post.model)) as service:
            try:
                _take_up(service, post)
                for path in _written(post, options.form):
                    _send(service, post, path, ADDRESSES[options.form] or "/v1/chat/completions")
            except Away as error:
                raise UserError(
                    f"The server {service.address} did not take the batch ({error}): {batch_service.GO_ON}"
                ) from None
    print("Give `collect` to wait for what was sent; it may be stopped and given again.")


def _take_up(service: BatchService, post: Post) -> None:
    """Find out what became of files whose sending was cut off: sent, or not sent and forgotten."""
    folder, sent = post.folder, post.folder.sent()
    for one in [one for one in sent if one.batch_id is None and one.teacher == post.teacher]:
        one.batch_id = service.batch_of(one.file_id, one.file, folder.notes) if one.file_id else None
        if not one.batch_id:
            sent.remove(one)
        print(f"{one.file} had {f'been sent as {one.batch_id}' if one.batch_id else 'not been sent'}.", flush=True)
        folder.note(sent)


def _send(service: BatchService, post: Post, path: Path, endpoint: str) -> None:
    """Send a file, each step noted before the next, so that a kill is followed by no second sending."""
    one = Sent(path.name, post.teacher, service.address, endpoint)
    one.file_id = service.upload(path)
    sent = [*post.folder.sent(), one]
    post.folder.note(sent)
    one.batch_id = service.create(one.file_id, endpoint)
    post.folder.note(sent)
    print(f"{path.name} was sent as {one.batch_id}.", flush=True)


def collect(options: argparse.Namespace) -> None:
    """Look at what was sent until all has ended, and read what came back."""
    stages = stages_of(options)
    posts = [post for post in outlook.posts(stages, options.teacher) if post.folder.waiting(post.teacher)]
    if not posts:
        raise UserError("Nothing that was sent is under way: give `send` first, or `make study`, which continues.")
    try:
        while posts := [post for post in posts if _look(post, stages, options.once)]:
            if options.once:
                break
            time.sleep(EVERY)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Stopped: what came is kept, and `collect` continues from there.") from None


def _look(post: Post, stages: Iterable[Stage], once: bool) -> bool:
    """Ask after each batch of a teacher and read those that have ended; whether some have not."""
    folder = post.folder
    with folder.held(), closing(BatchService(post.model)) as service:
        with contextlib.suppress(Away):  # it is asked again later
            _take_up(service, post)
        sent = folder.sent()
        for one in [one for one in sent if one.teacher == post.teacher and one.batch_id and not one.finished]:
            try:
                _look_at(service, post, one, stages)
            except Away as error:
                if once:
                    raise UserError(f"The server {service.address} does not answer ({error}): try later.") from None
                print(f"{one.batch_id}: no answer ({error}), asked again later.", flush=True)
            folder.note(sent)
    return bool(folder.waiting(post.teacher))


def _look_at(service: BatchService, post: Post, one: Sent, stages: Iterable[Stage]) -> None:
    state = service.state(one.batch_id)
    if (said := batch_service.words_of(state)) != one.said:
        print(f"{one.batch_id} ({one.file}): {said}", flush=True)
        one.said = said
    if str(state.get("status")) in batch_service.ENDED:
        if found := list(_fetched(post.folder, service, one.batch_id, state)):
            print(*_read_into(post.store, stages, [post], found), sep="\n", flush=True)
        one.finished = True


def _fetched(folder: Folder, service: BatchService, batch_id: str, state: dict[str, Any]) -> Iterable[Path]:
    """The files of results that a batch has, brought here unless they are."""
    for kind in ("output", "error"):
        file_id, path = state.get(f"{kind}_file_id"), folder.path / f"{batch_id}-{kind}.jsonl"
        if isinstance(file_id, str) and file_id:
            if not path.is_file():
                artifacts.write_bytes(path, service.content(file_id))
            yield path


# ---- what came back


def read(options: argparse.Namespace) -> None:
    """Read files of results into the store; after that `make study` continues."""
    stages = stages_of(options)
    posts = _posts(options, stages)
    with posts[0].folder.held():
        lines = _read_into(posts[0].store, stages, posts, [Path(file) for file in options.files])
        print(*lines, sep="\n", flush=True)


def _read_into(store: Path, stages: Iterable[Stage], posts: Sequence[Post], paths: Sequence[Path]) -> list[str]:
    """Read files of results into a store, as `Reading.read` does."""
    origins = _origins(stages, posts[0].folder)
    with Store.open(store) as opened:
        return Reading(opened, origins, {post.teacher: post.model for post in posts}).read(paths)


def _origins(stages: Iterable[Stage], folder: Folder) -> Origins:
    """All that the study asks for now, and what its request files asked for when they were written."""
    found = folder.origins()
    for one in (one for post in outlook.posts(stages) for one in post.askings):
        for request in one.requests:
            want = one.wanted(request)
            found.setdefault((want.digest, want.series), Origin.of(one, request))
    return found


# ---- into the store: every reply once, whatever file it is in and however often it is read


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
                f"read it after the file of the answers, or remove the cause and ask again."
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
