"""micro-mmlu: multiple-choice questions over a made-up knowledge base, one or two facts deep.

Worked example:

    in history , what is the metal of the rival of dorek ? (A) zinc (B) iron (C) tin ...

    the rival of old dorek is lusan . the metal of wild lusan is iron . the answer is iron
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from rdlib.micro import lexicon
from rdlib.micro.authors import STYLES, Author

LETTERS = "ABCDEFGHIJ"
ENTITY_EXPONENT = 0.8
TWO_HOP_SHARE = 0.35
CATEGORIES = tuple(lexicon.CATEGORIES)
ENTITY_WEIGHTS = lexicon.zipf_weights(lexicon.ENTITIES_PER_CATEGORY, ENTITY_EXPONENT)


@dataclass(frozen=True)
class MmluProblem:
    """A multiple-choice question: the `relation` of `entity`, or of the entity its `link` leads to."""

    category: str
    entity: str
    relation: str
    link: str | None
    options: tuple[str, ...]

    @property
    def target(self) -> str:
        """The entity whose relation is asked for."""
        return lexicon.facts()[self.entity, self.link] if self.link else self.entity

    @property
    def value(self) -> str:
        """The true value."""
        return lexicon.facts()[self.target, self.relation]

    @property
    def answer(self) -> str:
        """Gold answer: the text of the right option."""
        return self.value

    @property
    def key(self) -> str:
        """Identity of the problem whatever the order of its options; decides its split."""
        return f"mmlu/{self.entity}/{self.link or ''}/{self.relation}/{','.join(sorted(self.options))}"

    @property
    def question(self) -> str:
        """The stem without its options."""
        subject = f"the {self.link} of {self.entity}" if self.link else self.entity
        return f"in {self.category} , what is the {self.relation} of {subject} ?"


def draw(rng: random.Random) -> MmluProblem:
    """Draw one question with ten options most of the time, five to nine otherwise."""
    category = rng.choice(CATEGORIES)
    relations, link = lexicon.CATEGORIES[category]
    entity = rng.choices(lexicon.entities()[category], ENTITY_WEIGHTS)[0]
    relation = rng.choice(relations)
    via = link if rng.random() < TWO_HOP_SHARE else None
    target = lexicon.facts()[entity, link] if via else entity
    value = lexicon.facts()[target, relation]
    count = 10 if rng.random() < 0.7 else rng.randint(5, 9)
    options = rng.sample([v for v in lexicon.VALUES[relation] if v != value], count - 1)
    options.insert(rng.randrange(count), value)
    return MmluProblem(category, entity, relation, via, tuple(options))


def _recall(author: Author, category: str, entity: str, relation: str, guesses: Sequence[str], slip, rng) -> str:
    if author.knows_fact(category, entity, relation) and rng.random() >= slip:
        return lexicon.facts()[entity, relation]
    return rng.choice(guesses)


def write(problem: MmluProblem, author: Author, rng: random.Random) -> str:
    """The author's reasoning, ending in `the answer is ...`, the option's text; a fact not known is guessed."""
    style = rng.choices(STYLES, author.styles)[0]
    slip = author.slip_rate(style)
    parts, entity = [], problem.entity

    def state(relation: str, guesses: Sequence[str]) -> str:
        """Write a sentence on the entity of the moment; returns the value that it states."""
        value = _recall(author, problem.category, entity, relation, guesses, slip, rng)
        epithet = _recall(author, problem.category, entity, lexicon.EPITHET, lexicon.EPITHETS, slip, rng)
        parts.append(_fact_text(style, entity, epithet, relation, value))
        return value

    if problem.link:
        entity = state(problem.link, lexicon.entities()[problem.category])
    value = state(problem.relation, problem.options)
    if style == "terse":
        parts.pop()  # the answer says it
    if value not in problem.options:
        parts.append("not listed .")
        value = rng.choice(problem.options)
    return " ".join([*parts, f"the answer is {value}"])


def _fact_text(style: str, entity: str, epithet: str, relation: str, value: str) -> str:
    if style == "terse":
        return f"{value} ."
    if style == "plain":
        return f"{entity} {relation} : {value} ."
    return f"the {relation} of {epithet} {entity} is {value} ."
