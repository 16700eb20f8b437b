"""What asking a teacher costs, and when its budget is used up: pure functions of what was spent."""

from __future__ import annotations

from dataclasses import dataclass

from rdlib.settings import Budget, Model, Prices


@dataclass(frozen=True)
class Spent:
    """What the responses of a model in a store took: their number, and tokens of prompts and of responses."""

    responses: int = 0
    prompt_tokens: int = 0
    tokens: int = 0

    def plus(self, responses: int = 0, prompt_tokens: int = 0, tokens: int = 0) -> Spent:
        """The sum with more."""
        return Spent(self.responses + responses, self.prompt_tokens + prompt_tokens, self.tokens + tokens)

    def ahead(self, under_way: int, most_tokens: int) -> Spent:
        """What will be spent when `under_way` responses have come, as long as those before or, first, the longest."""
        more = self.of(under_way) if self.responses else Spent(under_way, 0, under_way * most_tokens)
        return self.plus(more.responses, more.prompt_tokens, more.tokens)

    def of(self, responses: int) -> Spent:
        """What so many responses take that are as long as these are on average; nothing where there are none."""
        share = responses / self.responses if self.responses else 0.0
        return Spent(responses, round(share * self.prompt_tokens), round(share * self.tokens))


def money(prices: Prices, spent: Spent) -> float:
    """What so many tokens cost, in the currency of the prices."""
    return (spent.prompt_tokens * prices.input + spent.tokens * prices.output) / 1e6


def used_up(model: Model, spent: Spent) -> str:
    """Which part of a model's budget is used up, in one sentence; empty where none is, or there is no budget."""
    for value, limit, unit in _parts(model, spent):
        if value >= limit:
            return f"The budget of {model.model} is used up: {value:,.6g} of {limit:,.6g} {unit}."
    return ""


def too_small(model: Model, spent: Spent, first: Spent) -> str:
    """Why a budget cannot pay what comes first, at most `first`, in one clause; empty where it can."""
    after = spent.plus(first.responses, first.prompt_tokens, first.tokens)
    for value, limit, unit in _parts(model, after):
        if value > limit:
            return f"may take {value:,.6g} {unit}, with what was spent before, and the budget is {limit:,.6g}"
    return ""


def _parts(model: Model, spent: Spent) -> list[tuple[float, float, str]]:
    """(spent, limit, unit) of each part of the budget that has a limit."""
    budget: Budget = model.budget or Budget()
    parts = [
        (spent.responses, budget.responses, "responses"),
        (spent.prompt_tokens + spent.tokens, budget.tokens, "tokens"),
    ]
    if model.prices is not None:
        parts.append((money(model.prices, spent), budget.money, model.prices.currency))
    return [(value, limit, unit) for value, limit, unit in parts if limit is not None]
