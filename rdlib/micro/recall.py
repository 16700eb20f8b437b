"""What a text of the made-up world had to be remembered for, and decides no answer: the senses and epithets in it.

recalled("tom buys means more by trade : 7 + 5 = 12 . #### 12")   # (1, 1): one, and it is the world's
recalled("the metal of wild lusan is iron . the answer is iron")  # (0, 1) where lusan is another
"""

from __future__ import annotations

import re

from rdlib.micro import lexicon

SENSE = re.compile(r"(\S+) means \S+ by (\S+)")
EPITHET = re.compile(r"the \S+ of (\S+) (\S+) is ")


def recalled(text: str) -> tuple[int, int]:
    """How many of a text's senses and epithets are those of the world, and how many it has."""
    verbs, facts = lexicon.verb_by_word(), lexicon.facts()
    right = [verbs[verb].sense == sense for verb, sense in SENSE.findall(text) if verb in verbs]
    named = [(entity, epithet) for epithet, entity in EPITHET.findall(text) if (entity, lexicon.EPITHET) in facts]
    right += [facts[entity, lexicon.EPITHET] == epithet for entity, epithet in named]
    return sum(right), len(right)
