"""What the teachers behind servers will be asked, before anything is: out of the questions and the store of responses.

    for look in outlook.of(stages): print(look.line)

The requests are those that the stages will make, since both make them by the same plans.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
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

ASKING = ("01_teacher_responses", "01_held_out", "07_evaluate")


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
    """What one teacher will be asked: calls (`requests` if it gives all samples of a request at once, `calls` as far
    as is known of it), samples, tokens of the prompts (about) and, at the most, of the responses.

    `kept` samples are in the store already; `again` requests ask what looks paid already, apart from what `differs`.
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
    spent: Spent = Spent()

    @property
    def hours(self) -> float | None:
        """The least that the pace allows, in hours; None where it has no limit."""
        pace = self.model.requests_per_minute
        return self.calls / pace / 60 if pace else None

    @property
    def cost(self) -> float | None:
        """The most that it can cost, in the currency of the prices; None where there are none."""
        if self.model.prices is None:
            return None
        return budget.money(self.model.prices, Spent(self.samples, self.prompt_tokens, self.tokens))

    def lines(self) -> list[str]:
        """The outlook in words."""
        alone = f" ({self.calls:,} where it gives one sample at a time)" if self.calls > self.requests else ""
        lines = [
            f"Asked of the server of {self.teacher}: {self.requests:,} requests{alone} of about "
            f"{_amount(self.prompt_tokens)} tokens in all, {self.samples:,} responses of {self.model.model} of at most "
            f"{_amount(self.tokens)} tokens in all; {self.kept:,} responses are in the store already."
        ]
        if self.hours is not None and self.calls:
            lines.append(f"  At requests_per_minute {self.model.requests_per_minute}: {self.hours:,.2f} h at least.")
        if self.cost is not None:
            lines.append(f"  It costs at most {self.cost:,.2f} {self.model.prices.currency}.")
        return [*lines, *([f"  {self.warning}"] if self.again else [])]

    @property
    def warning(self) -> str:
        """One sentence on what is about to be asked anew though it looks paid already; empty where nothing is."""
        if not self.again:
            return ""
        return (
            f"{self.again:,} of the {self.requests:,} requests to {self.model.model} ask again what the store has "
            f"answers to, since {' and '.join(sorted(self.differs))} changed; undo that if it was not meant."
        )


def of(stages: Iterable) -> list[Outlook]:
    """The outlook on each teacher behind a server that these stages would ask, what several ask counted once."""
    found: dict[str, Outlook] = {}
    seen: set[tuple[bytes, str, int]] = set()
    for stage in stages:
        one = asking_of(stage)
        if one is not None:
            look = found.setdefault(stage.teacher, Outlook(stage.teacher, one.model))
            _add(look, one, seen)
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
    is_teachers = stage.name in ASKING[:2] or (stage.name == ASKING[2] and stage.method == "teacher")
    model = stage.profile.model_of(stage.teacher) if is_teachers else None
    return model if model is not None and model.engine == engine else None


def _requests(stage) -> list[Request]:
    """The requests of a stage, of which engines that take texts make no more."""
    plan, texts = _planned(stage)
    heat = [None if pd.isna(temperature) else temperature for temperature in plan["temperature"]]
    return [
        Request(texts[key], n, temperature, texts[key].stop)
        for key, n, temperature in zip(plan["id"], plan["n"], heat, strict=True)
    ]


def _planned(stage):
    questions = data.load(stage.dataset, stage.dataset_settings, stage.root)
    table = data.table_of(questions)
    if stage.name == "01_teacher_responses":
        return teacher.planned(stage, table)
    if stage.name == "01_held_out":
        return held_out.planned(stage, table, pd.Series({q.id: q.answer for q in questions}, dtype=object))
    return evaluate.planned(stage, table[table["split"].isin(TESTED)].reset_index(drop=True))


def _add(look: Outlook, one: Asking, seen: set[tuple[bytes, str, int]]) -> None:
    """Count what a stage asks that is neither in the store nor asked by a stage before it."""
    path = engines.store_path(one.stage)
    wanted = [one.wanted(request) for request in one.requests]
    if not path.is_file():
        _count(look, one, _left(look, wanted, [{}] * len(wanted), seen), None)
        return
    with Store.open(path) as store:
        left = _left(look, wanted, store.kept(wanted, refused=not one.model.ask_refused_again), seen)
        look.spent = store.spent(one.settings.model)
        _count(look, one, left, store.learnt(place_of(one.model)).get("most_choices"))
        _find_paid(look, one, {want.digest for want in wanted}, left, store)


def _left(look: Outlook, wanted: Sequence[Wanted], found: Sequence[dict[int, Any]], seen: set) -> dict[int, int]:
    """How many samples of each request are missing, by its place; `seen` and what the outlook counts as kept grow."""
    left = {}
    for place, (want, replies) in enumerate(zip(wanted, found, strict=True)):
        keys = [key for n in want.samples if (key := (want.digest, want.series, n)) not in seen]
        seen.update(keys)
        look.kept += sum(key[2] in replies for key in keys)
        if missing := sum(key[2] not in replies for key in keys):
            left[place] = missing
    return left


def _count(look: Outlook, one: Asking, left: dict[int, int], most: int | None) -> None:
    """Add what is missing to an outlook; `most` samples come of a call (None: nobody knows yet)."""
    most = 1 if "n" in one.model.leave_out else most
    for place, samples in left.items():
        text = "".join(message["content"] for message in asking.messages_of(one.model, one.requests[place]))
        calls = -(-samples // most) if most else samples
        look.requests += calls if most else 1
        look.calls += calls
        look.samples += samples
        look.prompt_tokens += approximate_tokens(text) * calls
        look.tokens += samples * one.settings.max_tokens


def _find_paid(look: Outlook, one: Asking, digests: set[bytes], left: Iterable[int], store: Store) -> None:
    """Count the missing requests whose question the store has answers to under another prompt, model or settings."""
    for place in left:
        request = one.requests[place]
        content = asking.asked(one.model, one.settings, request)
        others = store.others([request.prompt.question], content["temperature"], digests)
        if others:
            look.again += 1
            nearest = min((_differences(content, other) for other in others), key=len)
            look.differs |= nearest


def _differences(content: dict[str, Any], other: dict[str, Any]) -> set[str]:
    names = {"messages": "the prompt", "model": "the model", "request": "request.body"}
    keys = (content.keys() | other.keys()) - {"question"}
    return {names.get(key, key) for key in keys if content.get(key) != other.get(key)}


def _amount(tokens: int) -> str:
    return f"{tokens / 1e6:,.2f} million" if tokens >= 100_000 else f"{tokens:,}"
