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
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

from rdlib import artifacts
from rdlib.engines import asking, batch_service, budget
from rdlib.engines.batch_files import ADDRESSES, packed
from rdlib.engines.batch_service import Away, BatchService
from rdlib.engines.store import Store
from rdlib.errors import UserError
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.study import batch_plan
from rdlib.study.batch_folder import Folder, Origin, Origins, Sent
from rdlib.study.batch_plan import Batch, Post
from rdlib.study.batch_reading import Reading
from rdlib.study.jobs import stages_behind, stages_to_run, study_jobs
from rdlib.study.stage import Stage

EVERY = 60.0  # seconds between two looks at batches that are under way


def stages_of(arguments: argparse.Namespace) -> list[Stage]:
    """Every stage of the study, for the seeds asked for."""
    profile = load_profile(ROOT / arguments.profile)
    return stages_behind(study_jobs(arguments.profile, arguments.seeds or profile.grid.seeds))


def posts_of(arguments: argparse.Namespace) -> list[Post]:
    """What is left to ask of each teacher."""
    profile = load_profile(ROOT / arguments.profile)
    jobs = study_jobs(arguments.profile, arguments.seeds or profile.grid.seeds)
    return batch_plan.posts(stages_to_run(jobs), arguments.teacher)


def write(arguments: argparse.Namespace) -> int:
    """Write the request files of what is missing; they are sent by hand, and `read` takes what comes back."""
    for post in _require(posts_of(arguments)):
        folder = Folder(post.folder)
        with folder.held():
            paths = _written(post, folder, arguments.form)
        print(f"Run {'it' if len(paths) == 1 else 'them'} at the provider, then give `read` with what comes back.")
    return 0


def _require(posts: list[Post]) -> list[Post]:
    if not posts:
        raise UserError("No request is missing: all that teachers behind servers are asked is in finished stages.")
    return posts


def _written(post: Post, folder: Folder, form: str) -> list[Path]:
    """The request files of what a teacher lacks; UserError where that is nothing, or more than the budget."""
    waiting = folder.under_way(post.teacher)
    with Store.open(post.store) as store:
        batch = batch_plan.missing(post, store, waiting, form)
        if not batch.lines:
            raise UserError(_nothing(post, len(waiting)))
        batch_plan.require_budget(post, store, batch, waiting)
    paths = [folder.keep(post.teacher, part, batch.origins) for part in packed(batch.lines)]
    print(_summary(post, batch), *(f"  {shown(path)}" for path in paths), sep="\n", flush=True)
    return paths


def _nothing(post: Post, waiting: int) -> str:
    if waiting:
        return f"No request of {post.teacher} is missing beside the {waiting:,} under way: give `collect`."
    return f"No request of {post.teacher} is missing: give `make study`, which goes on from the store."


def _summary(post: Post, batch: Batch) -> str:
    most = f"at most {batch.most.prompt_tokens + batch.most.tokens:,} tokens"
    if prices := post.model.prices:
        most += f" and {budget.money(prices, batch.most):,.2f} {prices.currency}"
    return f"{post.teacher}: {len(batch.lines):,} requests for {batch.samples:,} samples are missing, {most}:"


# ---- OpenAI's batch addresses


def send(arguments: argparse.Namespace) -> int:
    """Write what is missing and send it; what was sent before and not collected is neither written nor sent."""
    for post in _require(posts_of(arguments)):
        folder = Folder(post.folder)
        with folder.held(), closing(BatchService(post.model)) as service:
            try:
                _take_up(folder, service, post)
                for path in _written(post, folder, arguments.form):
                    _send(folder, service, post, path, ADDRESSES[arguments.form] or "/v1/chat/completions")
            except Away as error:
                raise UserError(
                    f"The server {service.address} did not take the batch ({error}): {batch_service.GO_ON}"
                ) from None
    print("Give `collect` to wait for what was sent; it may be stopped and given again.")
    return 0


def _take_up(folder: Folder, service: BatchService, post: Post) -> None:
    """Find out what became of files whose sending was cut off: sent, or not sent and forgotten."""
    sent = folder.sent()
    for one in [one for one in sent if one.batch_id is None and one.teacher == post.teacher]:
        one.batch_id = service.batch_of(one.file_id, one.file, folder.notes) if one.file_id else None
        if one.batch_id:
            print(f"{one.file} had been sent as {one.batch_id}.", flush=True)
        else:
            print(f"{one.file} had not been sent.", flush=True)
            sent.remove(one)
        folder.note(sent)


def _send(folder: Folder, service: BatchService, post: Post, path: Path, endpoint: str) -> None:
    """Send a file, each step noted before the next, so that a kill is followed by no second sending."""
    one = Sent(path.name, post.teacher, service.address, endpoint)
    one.file_id = service.upload(path)
    sent = [*folder.sent(), one]
    folder.note(sent)
    one.batch_id = service.create(one.file_id, endpoint)
    folder.note(sent)
    print(f"{path.name} was sent as {one.batch_id}.", flush=True)


def collect(arguments: argparse.Namespace) -> int:
    """Look at what was sent until all has ended, and read what came back."""
    stages = stages_of(arguments)
    posts = [post for post in batch_plan.posts(stages, arguments.teacher) if _waiting(post)]
    if not posts:
        raise UserError("Nothing that was sent is under way: give `send` first, or `make study`, which goes on.")
    try:
        while posts := [post for post in posts if _look(post, stages, arguments.once)]:
            if arguments.once:
                break
            time.sleep(EVERY)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Stopped: what came is kept, and `collect` goes on from there.") from None
    return 0


def _waiting(post: Post) -> list[Sent]:
    return [one for one in Folder(post.folder).sent() if one.teacher == post.teacher and not one.finished]


def _look(post: Post, stages: Iterable[Stage], once: bool) -> bool:
    """Ask after each batch of a teacher and read those that have ended; whether some have not."""
    folder = Folder(post.folder)
    with folder.held(), closing(BatchService(post.model)) as service:
        _take_up_quietly(folder, service, post)
        sent = folder.sent()
        for one in [one for one in sent if one.teacher == post.teacher and not one.finished]:
            try:
                _look_at(folder, service, post, one, stages)
            except Away as error:
                if once:
                    raise UserError(f"The server {service.address} does not answer ({error}): try later.") from None
                print(f"{one.batch_id}: no answer ({error}), asked again later.", flush=True)
            folder.note(sent)
    return bool(_waiting(post))


def _take_up_quietly(folder: Folder, service: BatchService, post: Post) -> None:
    """As `_take_up`; a service that is away is asked again later."""
    try:
        _take_up(folder, service, post)
    except Away:
        return


def _look_at(folder: Folder, service: BatchService, post: Post, one: Sent, stages: Iterable[Stage]) -> None:
    if one.batch_id is None:
        return
    state = service.state(one.batch_id)
    if (said := batch_service.words_of(state)) != one.said:
        print(f"{one.batch_id} ({one.file}): {said}", flush=True)
        one.said = said
    if str(state.get("status")) in batch_service.ENDED:
        paths = [
            _fetched(folder, service, one.batch_id, kind, state.get(f"{kind}_file_id")) for kind in ("output", "error")
        ]
        if found := [path for path in paths if path is not None]:
            print(*read_into(post.store, origins_of(stages, folder), [post], found), sep="\n", flush=True)
        one.finished = True


def _fetched(folder: Folder, service: BatchService, batch_id: str, kind: str, file_id: str | None) -> Path | None:
    """A file of results, brought here unless it is; None where the batch has none."""
    if not isinstance(file_id, str) or not file_id:
        return None
    path = folder.path / f"{batch_id}-{kind}.jsonl"
    if not path.is_file():
        artifacts.write_bytes(path, service.content(file_id))
    return path


# ---- what came back


def read(arguments: argparse.Namespace) -> int:
    """Read files of results into the store."""
    stages = stages_of(arguments)
    posts = batch_plan.posts(stages, arguments.teacher)
    _require(posts)
    folder = Folder(posts[0].folder)
    with folder.held():
        paths = [Path(file) for file in arguments.files]
        print(*read_into(posts[0].store, origins_of(stages, folder), posts, paths), sep="\n", flush=True)
    return 0


def read_into(store: Path, origins: Origins, posts: Sequence[Post], paths: Sequence[Path]) -> list[str]:
    """Read files of results into a store, as `Reading.read` does."""
    with Store.open(store) as opened:
        return Reading(opened, origins, {post.teacher: post.model for post in posts}).read(paths)


def origins_of(stages: Iterable[Stage], folder: Folder) -> Origins:
    """All that the study asks for now, and what its request files asked for when they were written."""
    found = folder.origins()
    for post in batch_plan.posts(stages):
        for one in post.askings:
            for request in one.requests:
                want, content = one.wanted(request), asking.asked(one.model, one.settings, request)
                origin = Origin(post.teacher, request.prompt.id, request.prompt.question, content)
                found.setdefault((want.digest, want.series), origin)
    return found


def shown(path: Path) -> str:
    """A path as a user has it: from the repository where it lies in there."""
    return os.path.relpath(path, ROOT) if path.is_relative_to(ROOT) else str(path)


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


def run(options: argparse.Namespace) -> int:
    """Write, send, collect or read."""
    if any(seed < 0 for seed in options.seeds or []):
        raise UserError("--seeds must not be below 0.")
    return options.action(options)
