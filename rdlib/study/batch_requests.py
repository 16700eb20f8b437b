"""What batches ask for, and the folder where they lie beside a study's store.

    responses/mine.batches/teacher-1a2b3c4d.jsonl          what is sent
    responses/mine.batches/teacher-1a2b3c4d.asked.jsonl    what its lines ask for: what the store keeps beside answers
    responses/mine.batches/sent.json                       which file was sent as which batch, and how far it is
    responses/mine.batches/batch_abc-output.jsonl          what came back

A batch asks for exactly what the stages that ask a teacher's server lack in the store, each sample once. A file is
named by what is in it, so the same requests make the same file. Nothing here removes one.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rdlib import artifacts, engines
from rdlib.engines import asking, budget
from rdlib.engines.asking import Ask
from rdlib.engines.batch_files import Ticket, request_line
from rdlib.engines.budget import Spent
from rdlib.engines.generation import Request, approximate_tokens, derive_seed
from rdlib.engines.server_parameters import Learnt, body_of
from rdlib.engines.server_work import Job
from rdlib.engines.store import Store
from rdlib.engines.stored_server import place_of
from rdlib.errors import UserError
from rdlib.settings import Model
from rdlib.study import outlook
from rdlib.study.outlook import Asking, Missing

SUFFIX = ".batches"  # of the folder, in the place of the store's own


@dataclass(frozen=True)
class Origin:
    """What a request asks for: of which teacher, the id and text of its question, and `asking.asked`."""

    teacher: str
    id: str
    question: str
    content: dict[str, Any]

    @classmethod
    def of(cls, one: Asking, request: Request) -> Origin:
        """What a request of a stage asks for."""
        content = asking.asked(one.model, one.settings, request)
        return cls(one.stage.teacher, request.prompt.id, request.prompt.question, content)


@dataclass
class Sent:
    """A request file on its way: sent to an `address`, as far as the identifiers tell; `finished`: its end was read."""

    file: str
    teacher: str
    address: str
    endpoint: str
    file_id: str | None = None
    batch_id: str | None = None
    said: str = ""
    finished: bool = False


Origins = dict[tuple[bytes, str], Origin]


class Folder:
    """See the module. `held` lets one process at a time work with it."""

    def __init__(self, path: Path):
        self.path, self.notes = path, path / "sent.json"

    def held(self) -> contextlib.AbstractContextManager[int]:
        """Keep other processes out; UserError where one is at work."""
        return artifacts.locked(self.path, f"Another command is at work in {self.path}: wait until it has ended.")

    def sent(self) -> list[Sent]:
        """What was sent so far, and what became of it."""
        if not self.notes.is_file():
            return []
        try:
            return [Sent(**one) for one in json.loads(self.notes.read_text(encoding="utf-8"))]
        except (ValueError, TypeError) as error:
            raise UserError(f"{self.notes} cannot be read ({error}): restore a copy of it, or mend it.") from None

    def note(self, sent: Sequence[Sent]) -> None:
        """Keep what was sent, at once and as a whole."""
        artifacts.write_json(self.notes, [asdict(one) for one in sent])

    def keep(self, teacher: str, part: Sequence[tuple[Ticket, bytes]], origins: Origins) -> Path:
        """Write a request file, what it asks for first; its path."""
        content = b"".join(line for _, line in part)
        name = f"{re.sub(r'[^A-Za-z0-9_.-]', '_', teacher)}-{artifacts.content_hash(content.decode())[:8]}"
        keys = dict.fromkeys((ticket.digest, ticket.series) for ticket, _ in part)
        asked = [{"digest": key[0].hex(), "series": key[1]} | asdict(origins[key]) for key in keys]
        lines = "".join(json.dumps(one) + "\n" for one in asked)
        artifacts.write_bytes(self.path / f"{name}.asked.jsonl", lines.encode())
        artifacts.write_bytes(self.path / f"{name}.jsonl", content)
        return self.path / f"{name}.jsonl"

    def origins(self) -> Origins:
        """What all request files of this folder ask for."""
        found: Origins = {}
        for path in sorted(self.path.glob("*.asked.jsonl")):
            for line in path.read_text().splitlines():
                one = json.loads(line)
                key = bytes.fromhex(one.pop("digest")), one.pop("series")
                found[key] = Origin(**one)
        return found

    def waiting(self, teacher: str) -> list[Sent]:
        """Files of a teacher of which the end was not read."""
        return [one for one in self.sent() if one.teacher == teacher and not one.finished]

    def tickets(self, file: str) -> list[Ticket]:
        """What the lines of a request file are about."""
        path = self.path / file
        if not path.is_file():
            raise UserError(f"{path} is gone, of which {self.notes} says that it was sent: restore a copy of it.")
        with path.open("rb") as lines:
            return [Ticket.read(json.loads(line)["custom_id"]) for line in lines]

    def under_way(self, teacher: str) -> list[Ticket]:
        """What was sent to a teacher and has not come back."""
        return [ticket for one in self.waiting(teacher) if one.batch_id for ticket in self.tickets(one.file)]


def under_way(stage) -> str:
    """One sentence where batches are under way whose answers a stage would ask for once more; else empty."""
    folder = Folder(engines.store_path(stage).with_suffix(SUFFIX))
    waiting = sum(ticket.count for ticket in folder.under_way(stage.teacher))
    if not waiting:
        return ""
    return (
        f"{waiting:,} samples of {stage.teacher} are under way in batches and would be paid for twice: give "
        f"`python -m rdlib batch collect` first, or cancel them at the provider and then give it."
    )


# ---- what is asked for


@dataclass
class Post:
    """What one teacher behind a server is asked by a study: by which stages, and where its answers are kept."""

    teacher: str
    model: Model
    store: Path
    askings: list[Asking] = field(default_factory=list)

    @property
    def folder(self) -> Folder:
        """Where the files of its batches lie."""
        return Folder(self.store.with_suffix(SUFFIX))


def posts(stages: Iterable, teacher: str | None = None) -> list[Post]:
    """What each teacher behind a server is asked by these stages; UserError where `teacher` is none of them."""
    found: dict[str, Post] = {}
    for stage in stages:
        if (one := outlook.asking_of(stage)) is not None:
            post = found.setdefault(stage.teacher, Post(stage.teacher, one.model, engines.store_path(stage)))
            post.askings.append(one)
    if teacher is not None and teacher not in found:
        known = ", ".join(found) or "none"
        raise UserError(f"No stage that is left asks a teacher {teacher!r} behind a server (there is {known}).")
    return [post for name, post in found.items() if teacher in (None, name)]


@dataclass
class Batch:
    """The request lines of one teacher, what they ask for, and the most that they take."""

    lines: list[tuple[Ticket, bytes]] = field(default_factory=list)
    origins: Origins = field(default_factory=dict)
    most: Spent = Spent()

    @property
    def samples(self) -> int:
        """How many samples the lines ask for."""
        return sum(ticket.count for ticket, _ in self.lines)


def missing(post: Post, store: Store, under_way: Sequence[Ticket], form: str) -> Batch:
    """What a teacher has not answered yet and is not being asked, as the client would ask it."""
    batch, known = Batch(), Learnt().take(store.learnt(place_of(post.model)))
    seen = {(ticket.digest, ticket.series, sample) for ticket in under_way for sample in ticket.samples}
    for one in post.askings:
        for part in outlook.missing(one, store, seen):
            if part.samples:
                _add(batch, one, part, known, form)
    return batch


def _add(batch: Batch, one: Asking, part: Missing, known: Learnt, form: str) -> None:
    """Add the lines for the samples of a request that are missing, with as many a line as the server gives."""
    request, want = part.request, part.want
    origin = Origin.of(one, request)
    batch.origins[want.digest, want.series] = origin
    prompt = approximate_tokens("".join(message["content"] for message in origin.content["messages"]))
    alone = "n" in known.unsupported or "n" in one.model.leave_out
    for numbers in _runs(part.samples, 1 if alone else known.most_choices):
        ticket = Ticket(want.digest, want.series, numbers[0], len(numbers), want.max_tokens)
        ask = Ask(request, tuple(numbers), derive_seed(want.series, want.digest.hex()))
        body = body_of(one.model, one.settings, request, len(numbers), Job(0, ask, ask.samples).seed, known)
        batch.lines.append((ticket, request_line(ticket, body, form)))
        batch.most = batch.most.plus(len(numbers), prompt, len(numbers) * want.max_tokens)


def _runs(samples: Sequence[int], most: int | None) -> Iterator[list[int]]:
    """The numbers in runs without a gap, of at most so many."""
    run: list[int] = []
    for sample in samples:
        if run and (sample != run[-1] + 1 or len(run) == most):
            yield run
            run = []
        run.append(sample)
    yield run


def require_budget(post: Post, store: Store, batch: Batch, under_way: Sequence[Ticket]) -> None:
    """UserError where the teacher's budget might not pay a batch beside what was spent and what is under way."""
    waiting = sum(ticket.count for ticket in under_way)
    tokens = sum(ticket.count * ticket.max_tokens for ticket in under_way)
    spent = store.spent(post.model.model).plus(waiting, 0, tokens)
    if why := budget.too_small(post.model, spent, batch.most):
        raise UserError(
            f"The batch for {post.teacher} {why}: raise the budget, lower max_tokens, or take fewer questions; nothing "
            f"was written or sent."
        )
