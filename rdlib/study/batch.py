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
from dataclasses import replace
from pathlib import Path
from typing import Any

from rdlib import artifacts
from rdlib.engines import batch_files, batch_service, budget, server_said
from rdlib.engines.asking import Reply
from rdlib.engines.batch_files import ADDRESSES, Result, Ticket, packed
from rdlib.engines.batch_service import Away, BatchService
from rdlib.engines.generation import approximate_tokens
from rdlib.engines.server_answers import Fault, replies_of
from rdlib.engines.server_failures import Place, judge
from rdlib.engines.server_parameters import Learnt
from rdlib.engines.server_said import Said
from rdlib.engines.store import Store
from rdlib.engines.stored_server import place_of
from rdlib.errors import UserError
from rdlib.paths import ROOT
from rdlib.settings import Model
from rdlib.study import outlook
from rdlib.study.jobs import every_stage, study_jobs
from rdlib.study.outlook import Origin, Origins, Post, Sent
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
    return every_stage(study_jobs(options.profile, options.seeds))


def _posts(options: argparse.Namespace, stages: Iterable[Stage]) -> list[Post]:
    if posts := outlook.posts(stages, options.teacher):
        return posts
    raise UserError("No request is missing: all that teachers behind servers are asked is in finished stages.")


def _missing(options: argparse.Namespace) -> list[Post]:
    return _posts(options, [stage for stage in stages_of(options) if not stage.done])


def write(options: argparse.Namespace) -> None:
    """Write the request files of what is missing, to be sent by hand."""
    for post in _missing(options):
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
    print(*(f"  {os.path.relpath(path, ROOT)}" for path in paths), sep="\n", flush=True)
    return paths


# ---- OpenAI's batch addresses


def send(options: argparse.Namespace) -> None:
    """Write what is missing and send it; what was sent before and not collected is neither written nor sent."""
    for post in _missing(options):
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
    if str(state.get("status")) not in batch_service.ENDED:
        return
    files = {kind: state.get(f"{kind}_file_id") for kind in ("output", "error")}
    files = {post.folder.path / f"{one.batch_id}-{kind}.jsonl": name for kind, name in files.items()}
    files = {path: name for path, name in files.items() if isinstance(name, str) and name}
    for path, name in files.items():
        if not path.is_file():
            artifacts.write_bytes(path, service.content(name))
    if files:
        _read_into([post], stages, list(files))
    one.finished = True


# ---- what came back


def read(options: argparse.Namespace) -> None:
    """Read files of results into the store; after that `make study` continues."""
    stages = stages_of(options)
    posts = _posts(options, stages)
    with posts[0].folder.held():
        _read_into(posts, stages, [Path(file) for file in options.files])


def _read_into(posts: Sequence[Post], stages: Iterable[Stage], paths: Sequence[Path]) -> None:
    """Read files of results into the teachers' store, by all that the study asks for now or had written before."""
    origins = posts[0].folder.origins()
    for one in (one for post in outlook.posts(stages) for one in post.askings):
        for request in one.requests:
            want = one.wanted(request)
            origins.setdefault((want.digest, want.series), Origin.of(one, request))
    with Store.open(posts[0].store) as store:
        lines = Reading(store, origins, {post.teacher: post.model for post in posts}).read(paths)
    print(*lines, sep="\n", flush=True)


# ---- into the store: every reply once, whatever file it is in and however often it is read


class Reading:
    """Reads files of results into a store; `origins` is what the study asked for, `models` are its teachers.

    `counts` are the samples of each teacher by what became of them and the service's words: `known` were in the store
    before, `failed` are to be asked again. What was `refused` is kept when all is read.
    """

    def __init__(self, store: Store, origins: Origins, models: Mapping[str, Model]):
        self.store, self.origins, self.models, self.run = store, origins, models, uuid.uuid4().hex
        self.counts = {name: {kind: Counter() for kind in ("added", "known", "refused", "failed")} for name in models}
        self.refused: dict[str, list[tuple[Ticket, Origin, str]]] = {name: [] for name in models}
        self.notes: dict[str, dict[str, None]] = {name: {} for name in models}
        self.learnt = {name: Learnt().take(store.learnt(place_of(model))) for name, model in models.items()}

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
        for name, model in self.models.items():
            self._keep_refused(name)
            self.store.remember(place_of(model), self.learnt[name].as_json())
        return [line for name in self.models for line in self._lines(name)] or ["The files hold no results."]

    def _lines(self, teacher: str) -> list[str]:
        """What became of a teacher's samples; no line where there are none."""
        counts = self.counts[teacher]
        added, known, refused, failed = (one.total() for one in counts.values())
        if not added + known + refused + failed:
            return []
        lines = [
            f"{teacher}: {added:,} responses were added to the store, {known:,} were in it, {refused:,} were refused "
            f"for good, {failed:,} failed and are missing."
        ]
        for kind in ("refused", "failed"):
            lines += [f"  {count:,} {kind}: {said}" for said, count in counts[kind].most_common(3)]
        return [*lines, *(f"  {note}" for note in self.notes[teacher])]

    def _check(self, path: Path) -> None:
        for result in batch_files.results(path):
            origin = self.origins.get((result.ticket.digest, result.ticket.series))
            if origin is None or origin.teacher not in self.models:
                raise UserError(
                    f"{path} is a batch file of another study, or of another teacher or seed: it answers "
                    f"{result.ticket.custom_id}, which was not asked here; nothing of it was read."
                )

    def _take(self, result: Result) -> None:
        """Take in a line."""
        ticket = result.ticket
        origin = self.origins[ticket.digest, ticket.series]
        if (replies := replies_of(result.content, ticket.max_tokens)) is not None:
            self._answers(ticket, origin, replies)
            return
        said = server_said.read(result.status, {}, result.content)
        if result.not_run:
            self.counts[origin.teacher]["failed"][said.quoted] += ticket.count
        else:
            self._refusal(ticket, origin, said)

    def _answers(self, ticket: Ticket, origin: Origin, replies: Sequence[Reply | Fault]) -> None:
        """Keep the choices that are answers, and those that are odd but whole; the others are missing."""
        kept = self.store.kept([ticket.wanted], refused=False)[0]
        counts = self.counts[origin.teacher]
        self.learnt[origin.teacher].gave(len(replies), ticket.count)
        if len(replies) < ticket.count:
            counts["failed"]["the server gave fewer choices than were asked for"] += ticket.count - len(replies)
        for place, (sample, one) in enumerate(zip(ticket.samples, replies, strict=False)):
            reply = one if isinstance(one, Reply) else one.fallback if one.odd else None
            if sample in kept:
                counts["known"][""] += 1
            elif reply is None:
                counts["failed"][one.words] += 1
            else:
                self._add(ticket, origin, sample, reply if place else _with_prompt_tokens(reply, origin))
                counts["added"][""] += 1

    def _add(self, ticket: Ticket, origin: Origin, sample: int, reply: Reply) -> None:
        question = (origin.id, origin.question)
        self.store.add(ticket.wanted, origin.content, question, sample, reply, self.run)

    def _refusal(self, ticket: Ticket, origin: Origin, said: Said) -> None:
        """A line without an answer: refused for good, or of something that the next batch may do better."""
        teacher, model = origin.teacher, self.models[origin.teacher]
        sent = sent_of(model, ticket, origin.content)
        outcome = judge(replace(said, text=_without_prompt(said.text, origin.content)), sent)
        self.counts[teacher]["refused" if outcome.kind == "refused" else "failed"][said.quoted] += ticket.count
        if outcome.kind == "refused":
            self.refused[teacher].append((ticket, origin, said.quoted))
        elif outcome.kind == "parameter" and (advice := _advice(outcome.names, model, sent, said)):
            self.notes[teacher][advice] = None
        elif outcome.kind == "parameter":
            self.learnt[teacher].confirm(outcome.names, True, outcome.most)
            again = f"The service takes no {', '.join(outcome.names)}: the next batch goes without."
            self.notes[teacher][again] = None
        elif outcome.kind == "hopeless":
            place = Place(str(model.base_url), model.model, f"check the key in {model.api_key_env}")
            self.notes[teacher][place.hopeless(outcome.why, said, ticket.max_tokens)] = None

    def _keep_refused(self, teacher: str) -> None:
        """Keep what was refused for good, unless that is most of all: then the questions are not the cause."""
        model, refused = self.models[teacher], self.counts[teacher]["refused"].total()
        answered = self.store.spent(model.model).responses
        if refused > model.most_unanswered * (refused + answered):
            unkept = (
                f"More was refused than most_unanswered ({model.most_unanswered:g}) allows, so it was not kept: "
                f"read it after the file of the answers, or remove the cause and ask again."
            )
            self.notes[teacher][unkept] = None
            return
        with self.store.together():
            for ticket, origin, words in self.refused[teacher]:
                kept = self.store.kept([ticket.wanted])[0]
                for sample in [sample for sample in ticket.samples if sample not in kept]:
                    self._add(ticket, origin, sample, Reply("refused", words=words))


def sent_of(model: Model, ticket: Ticket, content: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that a line was sent with, for a refusal that names one."""
    sent = {"max_tokens": ticket.max_tokens, "seed": 0, "n": ticket.count} | dict(content)
    own = sent.pop("request", {})
    kept = {name: value for name, value in sent.items() if name not in model.leave_out and value is not None}
    return kept | own


def _advice(names: Sequence[str], model: Model, sent: Mapping[str, Any], said: Said) -> str:
    """What to do about a refused parameter that decides the responses, so cannot be left out; "" where none does."""
    deciding = {name: f"take {name} out of the teacher's request.body" for name in model.request.body}
    deciding |= {
        "temperature": "set teacher_sampling.temperatures to default, which leaves it to the server",
        "stop": "take generation.stop out of the profile",
    }
    if sent.get("top_p", 1) < 1:
        deciding["top_p"] = "set generation.top_p to 1, or name top_p in the teacher's leave_out"
    return next((f"The service refuses {n} ({said.quoted}): {deciding[n]}." for n in names if n in deciding), "")


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
