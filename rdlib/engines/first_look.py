"""The first look at a teacher behind a server: some questions are asked, and one screen says what the rest will take.

Where most of the answers are of no use, nothing more is asked. One sentence then names the setting to change (`look`).
"""

from __future__ import annotations

import time

import pandas as pd

from rdlib.engines import budget, generation, look
from rdlib.engines.budget import Spent
from rdlib.engines.generation import approximate_tokens
from rdlib.engines.stored_server import StoredServer
from rdlib.errors import UserError
from rdlib.settings import Model
from rdlib.tasks.prompts import Prompt


def take(stage, engine: StoredServer, plan: pd.DataFrame, texts: dict[str, Prompt]) -> None:
    """Ask the first questions of a plan, show what came, and raise UserError where most of it is of no use."""
    model = engine.model
    part = first_of(plan, model.first_look)
    if part.empty:
        return
    requests = generation.requests_of(engine, part, texts)
    _require_budget(engine, requests)
    missing, started = engine.count_missing(requests), time.time()
    groups = engine.generate(requests)
    seconds = time.time() - started
    table = generation.table_of(part, groups)
    table["words"] = [completion.words for group in groups for completion in group]
    counts = look.count(generation.with_answers(table, stage.answer_kind, texts))
    left = engine.count_missing(generation.requests_of(engine, plan, texts))
    speed = missing.samples / seconds if missing.samples else None
    screen = "\n".join(
        [
            f"First look: {counts.questions} questions, {counts.samples} samples of {model.model}",
            *look.lines(counts),
            *engine.notes(),
            *forecast(model, left.requests, left.samples, engine.store.spent(engine.settings.model), speed),
            "Examples:",
            *look.examples(table, {key: prompt.question for key, prompt in texts.items()}),
        ]
    )
    engine.say(screen)
    if model.first_look and (reason := look.reason_to_stop(counts, engine.settings.max_tokens)):
        what, advice = reason
        raise UserError(
            f"{stage.label}: in the first look at {counts.questions} questions {what}: {advice}. What came is kept; "
            f"first_look: 0 asks all the others as it is."
        )


def first_of(plan: pd.DataFrame, questions: int) -> pd.DataFrame:
    """The rows of a plan that ask its first so many questions."""
    return plan[plan["id"].isin(list(dict.fromkeys(plan["id"]))[:questions])]


def forecast(model: Model, requests: int, samples: int, spent: Spent, speed: float | None) -> list[str]:
    """What is left to ask, as lines: requests, tokens, hours by the pace allowed and as fast as so far, money.

    `spent` is what came so far, `speed` samples a second of it (None: nothing was asked just now).
    """
    if not samples:
        return ["Nothing is left to ask."]
    rest = spent.of(samples)
    lines = [
        f"Left to ask: {samples:,} samples in about {requests:,} requests; some {rest.prompt_tokens + rest.tokens:,} "
        f"tokens, {rest.tokens:,} of them responses."
    ]
    hours = [f"{samples / speed / 3600:.2f} h as fast as so far"] if speed else []
    if model.requests_per_minute:
        hours.append(f"at least {requests / model.requests_per_minute / 60:.2f} h by requests_per_minute")
    lines += [f"Time: {', '.join(hours)}."] if hours else []
    if model.prices is not None:
        cost, currency = budget.money(model.prices, rest), model.prices.currency
        lines.append(f"Money: about {cost:,.2f} {currency}, after {budget.money(model.prices, spent):,.2f} {currency}.")
    return lines


def _require_budget(engine: StoredServer, requests: list[generation.Request]) -> None:
    """UserError where the budget might not pay the first look itself."""
    missing = engine.count_missing(requests)
    prompts = sum(
        approximate_tokens("".join(message["content"] for message in request.prompt.chat)) for request in missing.which
    )
    bound = Spent(missing.samples, prompts, missing.samples * engine.settings.max_tokens)
    if why := budget.too_small(engine.model, engine.store.spent(engine.settings.model), bound):
        raise UserError(
            f"The first look at {engine.model.model} {why}: raise the budget, lower max_tokens, or look at fewer "
            f"questions (first_look, now {engine.model.first_look})."
        )
