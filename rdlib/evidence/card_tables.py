"""Tables for the cards of the embedded models and of the made-up world, and for the page of artifact evaluation.

Each is a function of the repository's root. Templates use their rows by the names in `documents.COMPUTED`.
"""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from rdlib.evidence import gallery
from rdlib.evidence.gallery import Exhibit
from rdlib.evidence.result_tables import Evidence, open_results
from rdlib.micro import gsm, lexicon, mmlu
from rdlib.micro.authors import STYLES, Author
from rdlib.micro.splits import SHARES
from rdlib.profile import load_profile

PROFILES = ("params/micro.yaml", "params/reference.yaml")
# The exhibit that shows each claim
CLAIMS = {
    **dict.fromkeys(("C1", "C2", "C3", "C4"), "figure_claims_methods"),
    "C5": "figure_3_failure_ratio",
    "C6": "table_4_reward_source",
    "C7": "figure_5_lambda",
    "C8": "figure_6_data_ratio",
    "C9": "table_7_correctness_validation",
}
MEASURING = ("02_judgement", "07_evaluate")  # stages that nothing reads
STAGE = ["key", "stage", "seed"]


def models(root: Path) -> pd.DataFrame:
    """The embedded models: a row a model, with its size, its recipe and what it reached."""
    profile = load_profile(root / PROFILES[0])
    names = {"teacher": profile.teachers, "student": profile.students}
    found = [(name, role) for role, some in names.items() for name in some]
    return pd.DataFrame([_model(root / profile.model_of(name).model, name, role) for name, role in found])


def _model(folder: Path, name: str, role: str) -> dict[str, Any]:
    made, config = (json.loads((folder / f"{file}.json").read_text()) for file in ("recipe", "config"))
    recipe, last = made["recipe"], made["curve"][-1]
    phase = recipe["phase"]
    shape = {key: recipe[key] for key in ("layers", "width", "intermediate")}
    return shape | {
        "name": name,
        "role": role,
        "trunk": bool(recipe["trunk"]),
        "parameters": made["parameters"],
        "heads": config["num_attention_heads"],
        "vocabulary": config["vocab_size"],
        "context": config["max_position_embeddings"],
        "weights": config["dtype"],
        "kb": (folder / "model.safetensors").stat().st_size / 1000,
        "sha256": made["sha256"],
        "steps": phase["steps"],
        "learning_rate": phase["learning_rate"],
        "seed": phase["seed"],
        "minutes": made["seconds"] / 60,
        "processor": made["environment"]["processor"],
        "slip": 100 * phase["author"]["slip"],
        "verb_reach": phase["author"]["verb_reach"],
        "fact_reach": phase["author"]["fact_reach"],
        "gsm": 100 * last["gsm"],
        "mmlu": 100 * last["mmlu"],
        **{style: 100 * share for style, share in zip(STYLES, phase["author"]["styles"], strict=True)},
    }


def world(root: Path) -> pd.DataFrame:
    """The made-up world in one row: how many words of each kind it has, and the share of each split in per cent."""
    counts = {
        "names": len(lexicon.NAMES),
        "objects": len(lexicon.OBJECTS),
        "verbs": len(lexicon.verbs()),
        "senses": sum(map(len, lexicon.SENSES.values())),
        "categories": len(lexicon.CATEGORIES),
        "entities": sum(map(len, lexicon.entities().values())),
        "relations": len(lexicon.VALUES),
        "words": sum(map(len, lexicon.VALUES.values())),
        "epithets": len(lexicon.EPITHETS),
        "facts": len(lexicon.facts()),
        "perturbations": len(gsm.PERTURBATIONS),
        "seed": lexicon.WORLD_SEED,
    }
    return pd.DataFrame([counts | {name: 100 * share for name, share in SHARES.items()}])


def micro_sizes(root: Path) -> pd.DataFrame:
    """How many questions each split of a dataset has in the profiles: profile, dataset, split, questions."""
    rows = []
    for path in PROFILES:
        for name, one in load_profile(root / path).datasets.items():
            sizes = {split: getattr(one, split) for split in ("train", "validation", "test", "perturbed_test")}
            rows += [(path, name, split, questions) for split, questions in sizes.items() if questions]
    return pd.DataFrame(rows, columns=["profile", "dataset", "split", "questions"])


def micro_examples(root: Path) -> pd.DataFrame:
    """A problem of each benchmark, drawn by seed 0, and what the authors of a teacher and a student write of it."""
    writers = ("strong", "small")
    made = {name: json.loads((root / "models" / name / "recipe.json").read_text()) for name in writers}
    rows = []
    for name, module in (("gsm", gsm), ("mmlu", mmlu)):
        problem = module.draw(random.Random(0))
        options = ", ".join(getattr(problem, "options", ()))
        for model in writers:
            author = Author(**made[model]["recipe"]["phase"]["author"])
            text = module.write(problem, author, random.Random(0))
            rows.append((name, problem.question, options, problem.answer, model, text))
    return pd.DataFrame(rows, columns=["dataset", "question", "options", "answer", "author", "text"])


# ---- artifact evaluation


@cache
def retraining(root: Path) -> pd.DataFrame:
    """What retraining each exhibit for one seed takes by the released run: name, experiments, stages, minutes.

    Minutes are those of two notebooks at a time: seconds of the stages times what a measured seed took for each second.
    A stage that was not timed counts as the mean of its kind.
    """
    evidence = open_results(root / "figures/results")
    asked = [one for one in gallery.EXHIBITS.values() if one.experiments and not one.cells]
    costs = evidence.rows("costs", *sorted({name for one in asked for name in _names_of(one)}), moment="")
    costs = costs[costs["stage"] != "all"]
    kinds = costs.drop_duplicates(STAGE).groupby("stage")["seconds"].mean()
    costs = costs.assign(seconds=costs["seconds"].fillna(costs["stage"].map(kinds)))
    found = [one for one in asked if set(_names_of(one)) <= set(costs["experiment"])]
    rows = [(one.name, ", ".join(one.experiments), *_spent(costs, one)) for one in found]
    table = pd.DataFrame(rows, columns=["name", "experiments", "stages", "seconds"])
    return table.assign(minutes=table["seconds"] * minutes_a_second(evidence))


def claim_runs(root: Path) -> pd.DataFrame:
    """The exhibit that shows each claim, with what retraining it takes: claim and the columns of `retraining`."""
    table = pd.DataFrame(CLAIMS.items(), columns=["claim", "name"])
    return table.merge(retraining(root), on="name", how="left")


def families(root: Path) -> pd.DataFrame:
    """The exhibits by the experiments that they depend on: experiments, names, example; stages and minutes a seed."""
    of = retraining(root).groupby("experiments", sort=False)
    names = of["name"].agg(lambda some: ", ".join(f"`{name}`" for name in some))
    table = pd.DataFrame({"names": names, "example": of["name"].first()})
    return table.assign(stages=of["stages"].max(), minutes=of["minutes"].max()).reset_index()


def _names_of(exhibit: Exhibit) -> list[str]:
    """What result tables call an exhibit's experiments."""
    return [one.removeprefix("params/").replace(".yaml:", ":") for one in exhibit.experiments]


def _spent(costs: pd.DataFrame, exhibit: Exhibit) -> tuple[int, float]:
    """Stages of one seed and their seconds, means over seeds; NaN seconds where no stage of a kind was timed.

    Up to the exhibit's `last` stage, where it has one.
    """
    table = costs[costs["experiment"].isin(_names_of(exhibit))].drop_duplicates(STAGE)
    if exhibit.last:
        table = table[(table["stage"] <= exhibit.last) & ~table["stage"].isin(MEASURING)]
    by_seed = table.groupby("seed")["seconds"]
    return round(by_seed.size().mean()), float(by_seed.apply(lambda one: one.sum(skipna=False)).mean())


def minutes_a_second(evidence: Evidence) -> float:
    """Minutes of wall time of a measured seed of the study for a second of its stages; of none half a second's."""
    spent = evidence.costs.drop_duplicates(STAGE).groupby("seed")["seconds"].sum()
    alone = {seed: one["minutes"] for seed, one in evidence.measured.items() if not one.get("questions")}
    return sum(minutes / spent[seed] for seed, minutes in alone.items()) / len(alone) if alone else 1 / 120


TABLES = (models, world, micro_sizes, micro_examples, claim_runs, families)
