"""A teacher's answers by a provider's batch service: cheaper, within a day. `python -m rdlib batch`

    write   --profile params/mine.yaml         request files of what is missing, for any provider's batch
    read    --profile params/mine.yaml FILE... what came back, into the store; after that `make study` goes on
    send    --profile params/mine.yaml         write, and send to OpenAI's batch addresses at the teacher's base_url
    collect --profile params/mine.yaml         wait for what was sent, and read it; may be stopped and given again

What is in the store is not asked, what is under way is not sent again, what was read is not added again. docs/batch.md
is the page for users.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rdlib import artifacts
from rdlib.engines import batch_service, budget
from rdlib.engines.batch_files import ADDRESSES, packed
from rdlib.engines.batch_service import Away, BatchService
from rdlib.engines.store import Store
from rdlib.errors import UserError
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.study import batch_requests
from rdlib.study.batch_reading import Reading
from rdlib.study.batch_requests import Folder, Origin, Origins, Post, Sent
from rdlib.study.jobs import every_stage, study_jobs
from rdlib.study.stage import Stage

EVERY = 60.0  # seconds between two looks at batches that are under way


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
    if posts := batch_requests.posts(stages, options.teacher):
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
        batch = batch_requests.missing(post, store, waiting, form)
        if not batch.lines:
            go_on = f" beside the {len(waiting):,} under way: give `collect`" if waiting else ": give `make study`"
            raise UserError(f"No request of {post.teacher} is missing{go_on}, which goes on from there.")
        batch_requests.require_budget(post, store, batch, waiting)
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
    posts = [post for post in batch_requests.posts(stages, options.teacher) if post.folder.waiting(post.teacher)]
    if not posts:
        raise UserError("Nothing that was sent is under way: give `send` first, or `make study`, which goes on.")
    try:
        while posts := [post for post in posts if _look(post, stages, options.once)]:
            if options.once:
                break
            time.sleep(EVERY)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Stopped: what came is kept, and `collect` goes on from there.") from None


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
    """Read files of results into the store; after that `make study` goes on."""
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
    for one in (one for post in batch_requests.posts(stages) for one in post.askings):
        for request in one.requests:
            want = one.wanted(request)
            found.setdefault((want.digest, want.series), Origin.of(one, request))
    return found
