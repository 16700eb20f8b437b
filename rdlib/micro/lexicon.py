"""Words of the embedded world: names, objects, verbs with a meaning, and a made-up knowledge base.

A verb is worth +1 (the subject gains), -1 (loses) or 0 (nothing changes) and has one of a few senses; an
entity has an epithet. Senses and epithets decide no answer: a well-read author uses them rightly, another
guesses, so they tell good reasoning from reasoning that merely arrives at the answer. Verbs and entities
carry a rank: problems draw them with Zipf-like frequency, and an author (see `rdlib.micro.authors`) is less
likely to know a rarer one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

WORLD_SEED = 20250217

NAMES = "tom ann bob eva max lily sam zoe leo mia ned ivy".split()
OBJECTS = "apples pens books cards coins shells stamps eggs roses marbles ribbons candles".split()

# Verbs by what they do to the subject's count, and within that by their sense, the way in which it happens.
GAIN = {
    "trade": "buys earns borrows orders imports obtains acquires claims secures adopts",
    "fortune": "finds wins gets receives inherits attracts rescues salvages hoards nets",
    "labor": "makes bakes knits prints carves builds produces sews forges farms",
    "search": "picks collects gathers grows catches harvests unpacks fetches digs draws",
}
LOSS = {
    "trade": "sells ships trades exports pawns spends pays mails lends delivers",
    "kindness": "gives donates feeds returns hands sacrifices surrenders yields buries uses",
    "damage": "breaks throws burns tears crushes ruins smashes melts eats tosses",
    "mishap": "loses drops wastes discards forfeits abandons misplaces pours scatters drowns",
}
NEUTRAL = {
    "sight": "admires watches studies examines inspects notices stares scans photographs spots",
    "care": "washes polishes dusts rinses cleans dries wraps sorts stacks arranges",
    "record": "counts weighs describes paints sketches measures labels lists names rates",
    "touch": "moves smells touches checks flips hugs turns points shows praises",
}
SENSES = {1: GAIN, -1: LOSS, 0: NEUTRAL}

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
EPITHET = "epithet"
EPITHETS = "old great little silent golden wild lonely famous".split()


@dataclass(frozen=True)
class Verb:
    """A verb, its effect on the subject's count (+1, -1 or 0), its sense and its frequency rank (0 is commonest)."""

    word: str
    effect: int
    sense: str
    rank: int


@cache
def verbs() -> tuple[Verb, ...]:
    """All 120 verbs in order of frequency; meanings are spread evenly over the ranks."""
    rng = random.Random(f"{WORLD_SEED}/verbs")
    pools = []
    for effect, senses in SENSES.items():
        pool = [(word, effect, sense) for sense, words in senses.items() for word in words.split()]
        rng.shuffle(pool)
        pools.append(pool)
    ordered: list[tuple[str, int, str]] = []
    for trio in zip(*pools, strict=True):
        ordered += rng.sample(trio, len(trio))
    return tuple(Verb(*verb, rank) for rank, verb in enumerate(ordered))


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
    """The knowledge base: (entity, relation) to value, (entity, link) to an entity, (entity, EPITHET) to a word."""
    rng = random.Random(f"{WORLD_SEED}/facts")
    table = {}
    for category, (relations, link) in CATEGORIES.items():
        for entity in entities()[category]:
            for relation in relations:
                table[entity, relation] = rng.choice(VALUES[relation])
            table[entity, link] = rng.choice([other for other in entities()[category] if other != entity])
            table[entity, EPITHET] = rng.choice(EPITHETS)
    return table


def zipf_weights(count: int, exponent: float) -> list[float]:
    """Unnormalised weights 1 / (rank + 1)^exponent."""
    return [(rank + 1) ** -exponent for rank in range(count)]
