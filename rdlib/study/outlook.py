"""What the teachers behind servers will be asked, before anything is: from the questions and the store of responses.

    for look in outlook.of(stages): print(*look.lines(), sep="\\n")

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


def _add(look: Outlook, one: Asking, seen: Seen) -> None:
    """Count what a stage asks that is neither in the store nor asked by a stage before it."""
    path = engines.store_path(one.stage)
    wanted = [one.wanted(request) for request in one.requests]
    if not path.is_file():
        _count(look, one, _missing(look, wanted, [{}] * len(wanted), seen), None)
        return
    with Store.open(path) as store:
        missing = _missing(look, wanted, store.kept(wanted, refused=not one.model.ask_refused_again), seen)
        _count(look, one, missing, store.learnt(place_of(one.model)).get("most_choices"))
        _count_paid(look, one, {want.digest for want in wanted}, missing, store)


def _missing(look: Outlook, wanted: Sequence[Wanted], found: Sequence[dict[int, Any]], seen: Seen) -> dict[int, int]:
    """How many samples of each request are missing, by its place; `seen` and what the outlook counts as kept grow."""
    missing = {}
    for place, (want, replies) in enumerate(zip(wanted, found, strict=True)):
        keys = [key for n in want.samples if (key := (want.digest, want.series, n)) not in seen]
        seen.update(keys)
        kept = sum(key[2] in replies for key in keys)
        look.kept += kept
        if kept < len(keys):
            missing[place] = len(keys) - kept
    return missing


def _count(look: Outlook, one: Asking, missing: dict[int, int], most: int | None) -> None:
    """Add what is missing to an outlook; `most` samples come of a call (None: not known yet)."""
    most = 1 if "n" in one.model.leave_out else most
    for place, samples in missing.items():
        text = "".join(message["content"] for message in asking.messages_of(one.model, one.requests[place]))
        calls = -(-samples // most) if most else samples
        look.requests += calls if most else 1
        look.calls += calls
        look.samples += samples
        look.prompt_tokens += approximate_tokens(text) * calls
        look.tokens += samples * one.settings.max_tokens


def _count_paid(look: Outlook, one: Asking, digests: set[bytes], missing: Iterable[int], store: Store) -> None:
    """Count the missing requests whose question the store has answers to under another prompt, model or settings."""
    for place in missing:
        request = one.requests[place]
        content = asking.asked(one.model, one.settings, request)
        others = store.others([request.prompt.question], content["temperature"], digests)
        if others:
            look.again += 1
            look.differs |= min((_differences(content, other) for other in others), key=len)


def _differences(content: dict[str, Any], other: dict[str, Any]) -> set[str]:
    names = {"messages": "the prompt", "model": "the model", "request": "request.body"}
    keys = (content.keys() | other.keys()) - {"question"}
    return {names.get(key, key) for key in keys if content.get(key) != other.get(key)}


def _amount(tokens: int) -> str:
    return f"{tokens / 1e6:,.2f} million" if tokens >= 100_000 else f"{tokens:,}"
