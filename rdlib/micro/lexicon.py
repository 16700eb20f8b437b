"""Words of the embedded world: names, objects, verbs with a meaning, and a made-up knowledge base.

A verb is worth +1 (the subject gains), -1 (loses) or 0 (nothing changes). Verbs and entities carry a
rank: problems draw them with Zipf-like frequency, and an author (see `rdlib.micro.authors`) is less
likely to know a rarer one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

WORLD_SEED = 20250217

NAMES = "tom ann bob eva max lily sam zoe leo mia ned ivy".split()
OBJECTS = "apples pens books cards coins shells stamps eggs roses marbles ribbons candles".split()

GAIN = (
    "buys finds wins gets earns picks collects receives gathers makes bakes grows catches borrows "
    "inherits harvests orders imports unpacks prints knits carves builds fetches obtains acquires "
    "rescues produces adopts attracts claims digs draws farms forges hoards nets salvages secures sews"
).split()
LOSS = (
    "loses eats sells gives drops breaks throws donates burns spends mails lends wastes discards "
    "returns ships trades tears feeds forfeits abandons buries crushes delivers exports hands melts "
    "misplaces pawns pays pours ruins sacrifices scatters smashes surrenders tosses uses yields drowns"
).split()
NEUTRAL = (
    "counts admires sorts washes polishes weighs describes photographs watches studies paints sketches "
    "measures inspects labels arranges stacks praises dusts examines lists moves notices points "
    "rinses shows smells stares touches wraps checks cleans dries flips hugs names rates scans spots turns"
).split()

VALUES = {
    "color": "red blue green black white pink gray gold brown violet teal ivory amber olive scarlet navy",
    "animal": "wolf eagle otter horse snake tiger crane bear goat whale lynx raven moose crab heron fox",
    "metal": "iron copper zinc lead tin silver nickel cobalt chrome titan radium barium cesium argon neon boron",
    "fruit": "mango plum fig grape lemon pear peach melon cherry lime guava papaya quince date kiwi olivine",
    "tool": "hammer saw drill chisel wrench pliers anvil axe shovel rake hoe sickle awl plane file clamp",
    "stone": "ruby opal jade onyx topaz pearl quartz agate garnet beryl zircon marble slate basalt flint chalk",
    "tree": "oak pine elm birch cedar maple willow ash fir larch poplar beech alder yew holly rowan",
    "music": "flute harp drum lute viola organ horn cello piano banjo fiddle gong bell pipe lyre tuba",
}
VALUES = {relation: words.split() for relation, words in VALUES.items()}

CATEGORIES = {
    "geography": (("color", "animal", "stone", "tree"), "neighbor"),
    "biology": (("color", "fruit", "tree", "animal"), "prey"),
    "history": (("tool", "music", "metal", "color"), "rival"),
    "chemistry": (("metal", "stone", "color", "tool"), "solvent"),
    "law": (("music", "fruit", "animal", "metal"), "successor"),
}
ENTITIES_PER_CATEGORY = 24


@dataclass(frozen=True)
class Verb:
    """A verb, its effect on the subject's count (+1, -1 or 0) and its frequency rank (0 is commonest)."""

    word: str
    effect: int
    rank: int


@cache
def verbs() -> tuple[Verb, ...]:
    """All 120 verbs in order of frequency; meanings are spread evenly over the ranks."""
    rng = random.Random(f"{WORLD_SEED}/verbs")
    pools = [(list(GAIN), 1), (list(LOSS), -1), (list(NEUTRAL), 0)]
    for pool, _ in pools:
        rng.shuffle(pool)
    ordered: list[tuple[str, int]] = []
    while pools[0][0]:
        trio = [(pool.pop(), effect) for pool, effect in pools]
        rng.shuffle(trio)
        ordered += trio
    return tuple(Verb(word, effect, rank) for rank, (word, effect) in enumerate(ordered))


@cache
def verb_by_word() -> dict[str, Verb]:
    """Look a verb up by its word."""
    return {verb.word: verb for verb in verbs()}


@cache
def entities() -> dict[str, tuple[str, ...]]:
    """Made-up entity names of each category, in order of frequency."""
    rng = random.Random(f"{WORLD_SEED}/entities")
    taken: set[str] = set(NAMES) | set(OBJECTS) | {word for words in VALUES.values() for word in words}
    result = {}
    for category in CATEGORIES:
        names: list[str] = []
        while len(names) < ENTITIES_PER_CATEGORY:
            name = "".join(
                (
                    rng.choice("bdfgklmnprstvz"),
                    rng.choice("aeiou"),
                    rng.choice("bdklmnrstvz"),
                    rng.choice("aeiou"),
                )
            ) + rng.choice(["", "n", "r", "s", "x"])
            if name not in taken:
                taken.add(name)
                names.append(name)
        result[category] = tuple(names)
    return result


@cache
def facts() -> dict[tuple[str, str], str]:
    """The knowledge base: (entity, relation) to value, and (entity, link) to another entity."""
    rng = random.Random(f"{WORLD_SEED}/facts")
    table = {}
    for category, (relations, link) in CATEGORIES.items():
        for entity in entities()[category]:
            for relation in relations:
                table[entity, relation] = rng.choice(VALUES[relation])
            table[entity, link] = rng.choice([other for other in entities()[category] if other != entity])
    return table


def zipf_weights(count: int, exponent: float) -> list[float]:
    """Unnormalised weights 1 / (rank + 1)^exponent."""
    return [(rank + 1) ** -exponent for rank in range(count)]
