"""What the teachers behind servers will be asked, before anything is: from the questions and the store of responses.

    for look in outlook.of(stages): print(*look.lines(), sep="\\n")

The requests are those that the stages will make, since both make them by the same plans.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from rdlib import engines
from rdlib.engines import asking, budget
from rdlib.engines.asking import Settings
from rdlib.engines.budget import Spent
from rdlib.engines.generation import Request, approximate_tokens
from rdlib.engines.store import Store, Wanted
from rdlib.engines.stored_server import place_of, wanted_of
from rdlib.method import evaluate, held_out, teacher
from rdlib.settings import Model
from rdlib.tasks import data
from rdlib.tasks.questions import TESTED

Seen = set[tuple[bytes, str, int]]  # samples that are counted: digest and series of a request, number


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


@dataclass
class Outlook:
    """What one teacher will be asked: requests, calls, samples, and tokens of prompts (about) and responses (at most).

    `requests` if the server gives all samples of a request at once; `calls` where it is known to give fewer. `kept`
    samples are in the store. `again` requests ask what the store has answers to, apart from what `differs`.
    """

    teacher: str
    model: Model
    requests: int = 0
    calls: int = 0
    samples: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    kept: int = 0
    again: int = 0
    differs: set[str] = field(default_factory=set)

    def lines(self) -> list[str]:
        """The outlook in words, with the least time by the pace and the highest cost where the profile names them."""
        alone = f" ({self.calls:,} where it gives one sample at a time)" if self.calls > self.requests else ""
        lines = [
            f"Asked of the server of {self.teacher}: {self.requests:,} requests{alone} of about "
            f"{_amount(self.prompt_tokens)} tokens in all, {self.samples:,} responses of {self.model.model} of at most "
            f"{_amount(self.tokens)} tokens in all; {self.kept:,} responses are in the store already."
        ]
        if (pace := self.model.requests_per_minute) and self.calls:
            lines.append(f"  At requests_per_minute {pace}: {self.calls / pace / 60:,.2f} h at least.")
        if (prices := self.model.prices) is not None:
            cost = budget.money(prices, Spent(self.samples, self.prompt_tokens, self.tokens))
            lines.append(f"  It costs at most {cost:,.2f} {prices.currency}.")
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


def of(stages: Iterable) -> list[Outlook]:
    """The outlook on each teacher behind a server that these stages would ask, what several ask counted once."""
    found: dict[str, Outlook] = {}
    seen: Seen = set()
    for stage in stages:
        one = asking_of(stage)
        if one is not None:
            _add(found.setdefault(stage.teacher, Outlook(stage.teacher, one.model)), one, seen)
    return list(found.values())


def asking_of(stage) -> Asking | None:
    """What a stage asks a server; None for a stage that asks none."""
    model = _teacher_of(stage, "openai")
    return model and Asking(stage, model, engines.server_settings(stage, model), _requests(stage))


def check_recording(stage) -> None:
    """UserError where the recording that stands for a stage's teacher lacks a response that the stage will need."""
    if (model := _teacher_of(stage, "replay")) and not stage.done:
        with closing(engines.open_engine(stage, model)) as engine:
            engine.generate(_requests(stage), 0)


def _teacher_of(stage, engine: str) -> Model | None:
    """The teacher that a stage samples from, if it has this engine."""
    evaluated = stage.name == "07_evaluate" and stage.method == "teacher"
    sampled = stage.name in ("01_teacher_responses", "01_held_out") or evaluated
    model = stage.profile.model_of(stage.teacher) if sampled else None
    return model if model is not None and model.engine == engine else None


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


@dataclass(frozen=True)
class Missing:
    """The samples of a request that its teacher is still to give, and how many others the store has."""

    request: Request
    want: Wanted
    samples: list[int]
    kept: int


def missing(one: Asking, store: Store | None, seen: Seen) -> list[Missing]:
    """What is missing of each request of a stage, each sample once: `seen`, which grows, has those counted before."""
    found, wanted = [], [one.wanted(request) for request in one.requests]
    kept = store.kept(wanted, refused=not one.model.ask_refused_again) if store else [{}] * len(wanted)
    for request, want, replies in zip(one.requests, wanted, kept, strict=True):
        numbers = [n for n in want.samples if (want.digest, want.series, n) not in seen]
        seen.update((want.digest, want.series, n) for n in numbers)
        samples = [n for n in numbers if n not in replies]
        found.append(Missing(request, want, samples, len(numbers) - len(samples)))
    return found


def _add(look: Outlook, one: Asking, seen: Seen) -> None:
    """Count what a stage asks that is neither in the store nor asked by a stage before it."""
    path = engines.store_path(one.stage)
    with Store.open(path) if path.is_file() else nullcontext() as store:
        found = missing(one, store, seen)
        most = store.learnt(place_of(one.model)).get("most_choices") if store else None
        look.kept += sum(part.kept for part in found)
        asked = [part for part in found if part.samples]
        _count(look, one, asked, most)
        if store:
            _count_paid(look, one, {part.want.digest for part in found}, asked, store)


def _count(look: Outlook, one: Asking, asked: Iterable[Missing], most: int | None) -> None:
    """Add what is missing to an outlook; `most` samples come of a call (None: not known yet)."""
    most = 1 if "n" in one.model.leave_out else most
    for part in asked:
        text = "".join(message["content"] for message in asking.messages_of(one.model, part.request))
        calls = -(-len(part.samples) // most) if most else len(part.samples)
        look.requests += calls if most else 1
        look.calls += calls
        look.samples += len(part.samples)
        look.prompt_tokens += approximate_tokens(text) * calls
        look.tokens += len(part.samples) * one.settings.max_tokens


def _count_paid(look: Outlook, one: Asking, digests: set[bytes], asked: Iterable[Missing], store: Store) -> None:
    """Count the missing requests whose question the store has answers to under another prompt, model or settings."""
    for part in asked:
        content = asking.asked(one.model, one.settings, part.request)
        others = store.others([part.request.prompt.question], content["temperature"], digests)
        if others:
            look.again += 1
            look.differs |= min((_differences(content, other) for other in others), key=len)


def _differences(content: dict[str, Any], other: dict[str, Any]) -> set[str]:
    names = {"messages": "the prompt", "model": "the model", "request": "request.body"}
    keys = (content.keys() | other.keys()) - {"question"}
    return {names.get(key, key) for key in keys if content.get(key) != other.get(key)}


def _amount(tokens: int) -> str:
    return f"{tokens / 1e6:,.2f} million" if tokens >= 100_000 else f"{tokens:,}"
