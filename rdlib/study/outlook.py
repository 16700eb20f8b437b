"""Requests that a study will send to teachers behind servers, from its questions and its store of responses.

They are counted before a study starts, and written to files for a provider's batch service.

    for look in outlook.of(stages): print(*look.lines(), sep="\\n")

The requests are those that the stages will make, since both come from the same plans. A batch asks for the samples that
the store lacks, each once. Its files lie beside the study's store, and nothing here removes one:

    responses/mine.batches/teacher-1a2b3c4d.jsonl          what is sent, named by what is in it
    responses/mine.batches/teacher-1a2b3c4d.asked.jsonl    what its lines ask for: what the store keeps beside answers
    responses/mine.batches/sent.json                       which file was sent as which batch, and how far it is
    responses/mine.batches/batch_abc-output.jsonl          what came back
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from rdlib import artifacts, engines
from rdlib.engines import asking, budget
from rdlib.engines.asking import Ask, Settings
from rdlib.engines.batch_files import Ticket, request_line
from rdlib.engines.budget import Spent
from rdlib.engines.generation import Request, approximate_tokens, derive_seed
from rdlib.engines.server_parameters import Learnt, body_of
from rdlib.engines.server_work import Job
from rdlib.engines.store import Store, Wanted
from rdlib.engines.stored_server import place_of, wanted_of
from rdlib.errors import UserError
from rdlib.method import evaluate, held_out, teacher
from rdlib.settings import Model
from rdlib.tasks import data
from rdlib.tasks.questions import TESTED

SUFFIX = ".batches"  # of the folder, instead of the store's own

Seen = set[tuple[bytes, str, int]]  # samples that are counted: digest and series of a request, number


# ---- what stages ask for


@dataclass(frozen=True)
class Asking:
    """The requests of a stage to the server of its teacher, and the seed of its samples."""

    stage: Any
    model: Model
    settings: Settings
    requests: list[Request]

    def wanted(self, request: Request) -> Wanted:
        """What a request wants of the store."""
        return wanted_of(self.model, self.settings, request, self.stage.seed)

    def missing(self, store: Store | None, seen: Seen) -> Iterator[Missing]:
        """What is missing of each request, each sample once: `seen`, which grows, has those counted before."""
        wanted = [self.wanted(request) for request in self.requests]
        kept = store.kept(wanted, refused=not self.model.ask_refused_again) if store else [{}] * len(wanted)
        for request, want, replies in zip(self.requests, wanted, kept, strict=True):
            numbers = [n for n in want.samples if (want.digest, want.series, n) not in seen]
            seen.update((want.digest, want.series, n) for n in numbers)
            samples = [n for n in numbers if n not in replies]
            yield Missing(request, want, Origin.of(self, request), samples, len(numbers) - len(samples))


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

    @property
    def prompt_tokens(self) -> int:
        """About how many tokens its messages have."""
        return approximate_tokens("".join(message["content"] for message in self.content["messages"]))


Origins = dict[tuple[bytes, str], Origin]


@dataclass(frozen=True)
class Missing:
    """The samples of a request that its teacher is still to give, and how many others the store has."""

    request: Request
    want: Wanted
    origin: Origin
    samples: list[int]
    kept: int


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
        model = stage.asked
        if model is not None and model.engine == "openai":
            post = found.setdefault(stage.teacher, Post(stage.teacher, model, engines.store_path(stage)))
            post.askings.append(Asking(stage, model, engines.server_settings(stage, model), _requests(stage)))
    if teacher is not None and teacher not in found:
        known = ", ".join(found) or "none"
        raise UserError(f"No stage that is left asks a teacher {teacher!r} behind a server (there is {known}).")
    return [post for name, post in found.items() if teacher in (None, name)]


def _requests(stage) -> list[Request]:
    """The requests of a stage, by the plan that it samples by itself."""
    questions = data.load(stage.dataset, stage.dataset_settings, stage.root)
    table = data.table_of(questions)
    if stage.name == "01_teacher_responses":
        plan, texts = teacher.planned(stage, table)
    elif stage.name == "01_held_out":
        plan, texts = held_out.planned(stage, table, pd.Series({q.id: q.answer for q in questions}, dtype=object))
    else:
        plan, texts = evaluate.planned(stage, table[table["split"].isin(TESTED)].reset_index(drop=True))
    temperatures = [None if pd.isna(temperature) else temperature for temperature in plan["temperature"]]
    return [
        Request(texts[key], n, temperature, texts[key].stop)
        for key, n, temperature in zip(plan["id"], plan["n"], temperatures, strict=True)
    ]


def check_recording(stage) -> None:
    """UserError where the recording that stands for a stage's teacher lacks a response that the stage will need."""
    if stage.asked is not None and stage.asked.engine == "replay":
        with closing(engines.open_engine(stage, stage.asked)) as engine:
            engine.generate(_requests(stage), 0)


# ---- counted before a study starts


@dataclass
class Outlook:
    """What one teacher will be asked: requests, calls, and the samples, prompts (about) and responses (at most).

    `requests` if the server gives all samples of a request at once; `calls` where it is known to give fewer. `kept`
    samples are in the store. `again` requests ask what the store has answers to, apart from what `differs`.
    """

    teacher: str
    model: Model
    requests: int = 0
    calls: int = 0
    most: Spent = Spent()
    kept: int = 0
    again: int = 0
    differs: set[str] = field(default_factory=set)

    def add(self, part: Missing, most: int | None) -> None:
        """Count what is missing; `most` samples come of a call (None: not known yet)."""
        count, self.kept = len(part.samples), self.kept + part.kept
        calls = -(-count // (most or 1))
        self.requests += calls if most else bool(count)
        self.calls += calls
        self.most = self.most.plus(count, part.origin.prompt_tokens * calls, count * part.want.max_tokens)

    def add_paid(self, part: Missing, others: Sequence[dict[str, Any]]) -> None:
        """Count a request to which the store has answers under other prompts, models or settings."""
        differences = [_differences(part.origin.content, other) for other in others]
        if differences:
            self.again += 1
            self.differs |= min(differences, key=len)

    def lines(self) -> list[str]:
        """The outlook in words, with the least time by the pace and the highest cost where the profile names them."""
        alone = f" ({self.calls:,} where it gives one sample at a time)" if self.calls > self.requests else ""
        lines = [
            f"Asked of the server of {self.teacher}: {self.requests:,} requests{alone} of about "
            f"{_amount(self.most.prompt_tokens)} tokens in all, {self.most.responses:,} responses of "
            f"{self.model.model} of at most {_amount(self.most.tokens)} tokens in all; {self.kept:,} responses are in "
            f"the store already."
        ]
        if (pace := self.model.requests_per_minute) and self.calls:
            lines.append(f"  At requests_per_minute {pace}: {self.calls / pace / 60:,.2f} h at least.")
        if (prices := self.model.prices) is not None:
            lines.append(f"  It costs at most {budget.money(prices, self.most):,.2f} {prices.currency}.")
        return [*lines, *([f"  {self.warning}"] if self.again else [])]

    @property
    def warning(self) -> str:
        """One sentence on requests that ask for what looks paid already; empty where there are none."""
        if not self.again:
            return ""
        return (
            f"{self.again:,} of the {self.requests:,} requests to {self.model.model} ask again what the store has "
            f"answers to, since {' and '.join(sorted(self.differs))} changed; undo that if it was not meant."
        )


def _differences(content: dict[str, Any], other: dict[str, Any]) -> set[str]:
    names = {"messages": "the prompt", "model": "the model", "request": "request.body"}
    keys = (content | other).keys() - {"question"}
    return {names.get(key, key) for key in keys if content.get(key) != other.get(key)}


def of(stages: Iterable) -> list[Outlook]:
    """The outlook on each teacher behind a server that these stages would ask, what several ask counted once."""
    seen: Seen = set()
    return [_look(post, seen) for post in posts(stages)]


def _look(post: Post, seen: Seen) -> Outlook:
    """Count what a teacher is asked that is neither in the store nor `seen`."""
    look = Outlook(post.teacher, post.model)
    with Store.open(post.store) if post.store.is_file() else nullcontext() as store:
        most = store.learnt(place_of(post.model)).get("most_choices") if store else None
        parts = [part for one in post.askings for part in one.missing(store, seen)]
        digests = {part.want.digest for part in parts}
        for part in parts:
            look.add(part, 1 if "n" in post.model.leave_out else most)
            if store and part.samples:
                origin = part.origin
                look.add_paid(part, store.others([origin.question], origin.content["temperature"], digests))
    return look


def _amount(tokens: int) -> str:
    return f"{tokens / 1e6:,.2f} million" if tokens >= 100_000 else f"{tokens:,}"


# ---- the folder of batches


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


class Folder:
    """The folder of a store's batches. `held` lets one process at a time work with it."""

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
            raise UserError(f"{self.notes} cannot be read ({error}): restore a copy of it, or correct it.") from None

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
            for one in map(json.loads, path.read_text().splitlines()):
                key = bytes.fromhex(one.pop("digest")), one.pop("series")
                found[key] = Origin(**one)
        return found

    def waiting(self, teacher: str) -> list[Sent]:
        """Files of a teacher of which the end was not read."""
        return [one for one in self.sent() if one.teacher == teacher and not one.finished]

    def under_way(self, teacher: str) -> list[Ticket]:
        """What was sent to a teacher and has not come back; UserError where a file that was sent is gone."""
        found = []
        for path in (self.path / one.file for one in self.waiting(teacher) if one.batch_id):
            if not path.is_file():
                raise UserError(f"{path} is gone, of which {self.notes} says that it was sent: restore a copy of it.")
            found += [Ticket.read(json.loads(line)["custom_id"]) for line in path.read_bytes().splitlines()]
        return found


def under_way(stage) -> str:
    """One sentence where batches are under way whose answers a stage would ask for again; else empty."""
    folder = Folder(engines.store_path(stage).with_suffix(SUFFIX))
    waiting = sum(ticket.count for ticket in folder.under_way(stage.teacher))
    if not waiting:
        return ""
    return (
        f"{waiting:,} samples of {stage.teacher} are under way in batches and would be paid for twice: give "
        f"`python -m rdlib batch collect` first, or cancel them at the provider and then give it."
    )


# ---- a batch of what is missing


@dataclass
class Batch:
    """The request lines of one teacher, what they ask for, and the most that they take."""

    lines: list[tuple[Ticket, bytes]] = field(default_factory=list)
    origins: Origins = field(default_factory=dict)
    most: Spent = Spent()

    @property
    def samples(self) -> int:
        """How many samples the lines ask for."""
        return self.most.responses


def batch_of(post: Post, store: Store, under_way: Sequence[Ticket], form: str) -> Batch:
    """What a teacher has not answered yet and is not being asked, as the client would ask it."""
    batch, known = Batch(), Learnt().take(store.learnt(place_of(post.model)))
    most = 1 if "n" in {*known.unsupported, *post.model.leave_out} else known.most_choices
    seen = {(ticket.digest, ticket.series, sample) for ticket in under_way for sample in ticket.samples}
    for one in post.askings:
        for part in one.missing(store, seen):
            want = part.want
            for numbers in _runs(part.samples, most):
                batch.origins[want.digest, want.series] = part.origin
                ticket = Ticket(want.digest, want.series, numbers[0], len(numbers), want.max_tokens)
                ask = Ask(part.request, tuple(numbers), derive_seed(want.series, want.digest.hex()))
                seed = Job(0, ask, ask.samples).seed
                body = body_of(one.model, one.settings, part.request, len(numbers), seed, known)
                batch.lines.append((ticket, request_line(ticket, body, form)))
                batch.most = batch.most.plus(len(numbers), part.origin.prompt_tokens, len(numbers) * want.max_tokens)
    return batch


def _runs(samples: Sequence[int], most: int | None) -> list[list[int]]:
    """The numbers in runs without a gap, of at most so many."""
    runs: list[list[int]] = []
    for sample in samples:
        if runs and sample == runs[-1][-1] + 1 and len(runs[-1]) != most:
            runs[-1].append(sample)
        else:
            runs.append([sample])
    return runs


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
