"""Authors: fallible writers of reasoning texts, from whose corpora the base models learn.

An author knows some verbs and facts and not others; where it does not know, it guesses each
time, so a model trained on its texts is uncertain there rather than confidently wrong. It also slips
now and then, more often when it writes tersely. Every error is one of meaning (a verb taken the wrong
way, somebody else's sentence counted, a step skipped, a fact not known), never of arithmetic.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

from rdlib.micro import lexicon

STYLES = ("polished", "plain", "terse")


def unit_hash(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@dataclass(frozen=True)
class Author:
    """What one author knows and how it writes.

    `verb_reach` and `fact_reach` are the relative frequency rank (0 commonest, 1 rarest) at which the
    author knows half of the verbs or facts; `slip` is the chance of a careless step; `styles` are the
    shares of polished, plain and terse texts.
    """

    name: str
    verb_reach: float
    fact_reach: float
    slip: float
    styles: tuple[float, float, float]
    _cache: dict = field(default_factory=dict, compare=False, repr=False)

    def _knows(self, kind: str, item: object, relative_rank: float, reach: float) -> bool:
        key = (kind, item)
        if key not in self._cache:
            chance = 1 / (1 + math.exp((relative_rank - reach) / 0.1))
            self._cache[key] = unit_hash("author", self.name, kind, item) < chance
        return self._cache[key]

    def knows_verb(self, verb: lexicon.Verb) -> bool:
        """Whether the author knows what the verb means."""
        return self._knows("verb", verb.word, verb.rank / len(lexicon.verbs()), self.verb_reach)

    def knows_fact(self, category: str, entity: str, relation: str) -> bool:
        """Whether the author knows this entry of the knowledge base."""
        rank = lexicon.entities()[category].index(entity) / lexicon.ENTITIES_PER_CATEGORY
        return self._knows("fact", (entity, relation), rank, self.fact_reach)

    def slip_rate(self, style: str) -> float:
        """Chance of a careless step: terse texts have three times that of the others."""
        return min(0.5, self.slip * (3.0 if style == "terse" else 1.0))
