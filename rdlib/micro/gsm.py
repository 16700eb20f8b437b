"""micro-gsm and micro-gsm-plus: small word problems about who has how many.

Worked example (one problem, its polished reasoning):

    tom has 7 apples . tom buys 5 apples . ann eats 4 apples . tom admires 3 apples .
    how many apples does tom have ?

    tom starts with 7 . tom buys means more by trade : 7 + 5 = 12 . ann is someone else .
    tom admires means same by sight : 12 . #### 12
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from rdlib.micro import lexicon
from rdlib.micro.authors import STYLES, Author

VERB_EXPONENT = 0.7
PERTURBATIONS = (
    "numerical substitution",
    "digit expansion",
    "adding operation",
    "reversing operation",
    "problem understanding",
    "distractor insertion",
)
MEANING = {1: "more", -1: "less", 0: "same"}
VERBS = lexicon.verbs()
VERB_WEIGHTS = lexicon.zipf_weights(len(VERBS), VERB_EXPONENT)


@dataclass(frozen=True)
class Event:
    """One sentence: who does what with how many objects."""

    who: str
    verb: lexicon.Verb
    amount: int


@dataclass(frozen=True)
class GsmProblem:
    """A word problem; `reversed` asks for the count at the start, `rephrased` uses the second wording."""

    name: str
    item: str
    start: int
    events: tuple[Event, ...]
    reversed: bool = False
    rephrased: bool = False

    @property
    def end(self) -> int:
        """The subject's count after all events."""
        return self.start + sum(e.verb.effect * e.amount for e in self.events if e.who == self.name)

    @property
    def answer(self) -> str:
        """Gold answer."""
        return str(self.start if self.reversed else self.end)

    @property
    def key(self) -> str:
        """Identity of the problem whatever its names, objects and wording; decides its split."""
        events = ",".join(f"{e.verb.word}{e.amount}{'' if e.who == self.name else '*'}" for e in self.events)
        return f"gsm/{self.start}/{events}/{'reversed' if self.reversed else ''}"

    @property
    def question(self) -> str:
        """The text of the problem."""
        name, item = self.name, self.item
        some = "some" if self.reversed else str(self.start)
        if self.rephrased:
            parts = [f"there are {some} {item} that belong to {name} ."]
            parts += [f"later {e.who} {e.verb.word} {e.amount} of the {item} ." for e in self.events]
        else:
            parts = [f"{name} has {some} {item} ."]
            parts += [f"{e.who} {e.verb.word} {e.amount} {item} ." for e in self.events]
        if self.reversed:
            parts.append(f"at the end {name} has {self.end} {item} . how many {item} did {name} have at first ?")
        elif self.rephrased:
            parts.append(f"find the number of {item} of {name} .")
        else:
            parts.append(f"how many {item} does {name} have ?")
        return " ".join(parts)


def _valid(problem: GsmProblem) -> bool:
    count = problem.start
    for event in problem.events:
        if event.who == problem.name:
            count += event.verb.effect * event.amount
            if not 0 <= count <= 99:
                return False
    return any(e.who == problem.name and e.verb.effect for e in problem.events)


def draw(rng: random.Random, *, large: bool = False, reverse: bool = False, rephrase: bool = False) -> GsmProblem:
    """Draw one problem with two to four events of the subject and, at times, one of somebody else."""
    while True:
        name, other = rng.sample(lexicon.NAMES, 2)
        amounts = (lambda: rng.randint(10, 29)) if large else (lambda: rng.randint(1, 9))
        events = [Event(name, rng.choices(VERBS, VERB_WEIGHTS)[0], amounts()) for _ in range(rng.choice((2, 3, 3, 4)))]
        if rng.random() < 0.35:
            events.insert(rng.randrange(len(events) + 1), Event(other, rng.choices(VERBS, VERB_WEIGHTS)[0], amounts()))
        start = rng.randint(30, 69) if large else rng.randint(5, 20)
        problem = GsmProblem(name, rng.choice(lexicon.OBJECTS), start, tuple(events), reverse, rephrase)
        if _valid(problem):
            return problem


def perturb(problem: GsmProblem, kind: str, rng: random.Random) -> GsmProblem:
    """One GSM-Plus style perturbation of a problem; `kind` is one of `PERTURBATIONS`."""
    while True:
        changed = _perturb_once(problem, kind, rng)
        if _valid(changed):
            return changed


def _perturb_once(problem: GsmProblem, kind: str, rng: random.Random) -> GsmProblem:
    events = list(problem.events)
    if kind == "numerical substitution":
        events = [replace(e, amount=rng.randint(1, 9)) for e in events]
        return replace(problem, start=rng.randint(5, 20), events=tuple(events))
    if kind == "digit expansion":
        events = [replace(e, amount=rng.randint(10, 29)) for e in events]
        return replace(problem, start=rng.randint(30, 69), events=tuple(events))
    if kind == "adding operation":
        verb = rng.choices(VERBS, VERB_WEIGHTS)[0]
        events.insert(rng.randrange(len(events) + 1), Event(problem.name, verb, rng.randint(1, 9)))
        return replace(problem, events=tuple(events))
    if kind == "reversing operation":
        return replace(problem, reversed=True, start=rng.randint(5, 20))
    if kind == "problem understanding":
        names = [name for name in lexicon.NAMES if all(name != e.who for e in events)]
        fresh = rng.choice(names)
        events = [replace(e, who=fresh) if e.who == problem.name else e for e in events]
        return replace(problem, name=fresh, events=tuple(events), rephrased=True)
    if kind == "distractor insertion":
        other = rng.choice([name for name in lexicon.NAMES if name != problem.name])
        verb = rng.choices(VERBS, VERB_WEIGHTS)[0]
        events.insert(rng.randrange(len(events) + 1), Event(other, verb, rng.randint(1, 9)))
        return replace(problem, events=tuple(events))
    raise ValueError(f"unknown perturbation {kind!r}: use one of {', '.join(PERTURBATIONS)}")


def write(problem: GsmProblem, author: Author, rng: random.Random) -> str:
    """The author's reasoning and answer, ending in `#### n`; may be wrong where the author is."""
    style = rng.choices(STYLES, author.styles)[0]
    slip = author.slip_rate(style)
    count, step = (problem.end, -1) if problem.reversed else (problem.start, 1)
    parts = []
    if style == "polished":
        parts.append(f"{problem.name} {'ends' if problem.reversed else 'starts'} with {count} .")
    for event in problem.events[::step]:
        careless = rng.random() < slip
        if event.who != problem.name and not careless:
            if style == "polished":
                parts.append(f"{event.who} is someone else .")
            continue
        if event.who == problem.name and careless and rng.random() < 0.5:
            continue  # a step skipped
        known = author.knows_verb(event.verb) and not (careless and event.who == problem.name)
        effect = event.verb.effect if known else rng.choice((1, -1, 0))
        sense = event.verb.sense if known else rng.choice(list(lexicon.SENSES[effect]))
        after = count + step * effect * event.amount
        if not 0 <= after <= 120:
            effect, sense, after = 0, rng.choice(list(lexicon.NEUTRAL)), count
        parts.append(_step_text(style, event, (effect, sense), step, count, after))
        count = after
    return " ".join([*(part for part in parts if part), f"#### {count}"])


def _step_text(style: str, event: Event, taken: tuple[int, str], step: int, before: int, after: int) -> str:
    effect, sense = taken
    sum_text = f"{before} {'+' if step * effect > 0 else '-'} {event.amount} = {after}"
    if style == "terse":
        return f"{sum_text} ." if effect else ""
    if style == "plain":
        return f"{event.verb.word} : {sum_text} ." if effect else f"{event.verb.word} : {after} ."
    start = f"{event.who} {event.verb.word} means {MEANING[effect]} by {sense} :"
    return f"{start} {sum_text if effect else after} ."
