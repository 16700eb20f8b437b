"""What a batch asks for: exactly what the stages that ask a teacher's server lack in the store, each sample once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rdlib import engines
from rdlib.engines import asking, budget
from rdlib.engines.asking import Ask
from rdlib.engines.batch_files import Ticket, request_line
from rdlib.engines.budget import Spent
from rdlib.engines.generation import Request, approximate_tokens, derive_seed
from rdlib.engines.server_parameters import Learnt, body_of
from rdlib.engines.server_work import Job
from rdlib.engines.store import Store, Wanted
from rdlib.engines.stored_server import place_of
from rdlib.errors import UserError
from rdlib.settings import Model
from rdlib.study import outlook
from rdlib.study.batch_folder import SUFFIX, Origin, Origins
from rdlib.study.outlook import Asking
from rdlib.study.stage import Stage


@dataclass
class Post:
    """What one teacher behind a server is asked by a study: by which stages, and where its answers are kept."""

    teacher: str
    model: Model
    store: Path
    askings: list[Asking] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Where the files of its batches lie."""
        return self.store.with_suffix(SUFFIX)


def posts(stages: Iterable[Stage], teacher: str | None = None) -> list[Post]:
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
        wanted = [one.wanted(request) for request in one.requests]
        kept = store.kept(wanted, refused=not one.model.ask_refused_again)
        for request, want, replies in zip(one.requests, wanted, kept, strict=True):
            samples = [n for n in want.samples if n not in replies and (want.digest, want.series, n) not in seen]
            seen |= {(want.digest, want.series, n) for n in samples}
            _add(batch, one, request, want, samples, known, form)
    return batch


def _add(batch: Batch, one: Asking, request: Request, want: Wanted, samples: list[int], known: Learnt, form: str):
    """Add the lines for some samples of a request, with as many samples a line as the server gives."""
    if not samples:
        return
    content = asking.asked(one.model, one.settings, request)
    batch.origins[want.digest, want.series] = Origin(
        one.stage.teacher, request.prompt.id, request.prompt.question, content
    )
    prompt = approximate_tokens("".join(message["content"] for message in content["messages"]))
    for numbers in _runs(samples, _most(one.model, known)):
        ticket = Ticket(want.digest, want.series, numbers[0], len(numbers), want.max_tokens)
        ask = Ask(request, tuple(numbers), derive_seed(want.series, want.digest.hex()))
        seed = Job(0, ask, ask.samples).seed
        body = body_of(one.model, one.settings, request, len(numbers), seed, known)
        batch.lines.append((ticket, request_line(ticket, body, form)))
        batch.most = batch.most.plus(len(numbers), prompt, len(numbers) * want.max_tokens)


def _most(model: Model, known: Learnt) -> int | None:
    alone = "n" in known.unsupported or "n" in model.leave_out
    return 1 if alone else known.most_choices


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
