"""C1 with other learning rates of SFT and of the warm-up: the same seeds with the warm-up's, and other rules to choose.

The release chose both rates in two cells by agreement with the vote on validation questions. A rule here takes, of the
four rates that were tried in all eight cells on a seed that is not released, the one with the highest mean of a
criterion over its cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from rdlib.evidence import claims, paper, tables
from rdlib.evidence.criteria import load_criteria
from rdlib.evidence.verdicts import Claim

if TYPE_CHECKING:
    from rdlib.evidence.result_tables import Evidence

# ---- the same seeds with another rate

AGAIN = "SFT with the warm-up's rate"
OWN = "Ours - SFT"
OURS, WARM_UP, RATE = f"Ours - {AGAIN}", f"Ours w/o R - {AGAIN}", f"{AGAIN} - SFT"


def differences(evidence: Evidence) -> dict[str, Claim]:
    """The four comparisons, each judged as C1 in every cell that has both; none where a seed lacks the other rate.

    Ours minus either SFT, the warm-up minus SFT at the same rate, and the two rates of SFT.
    """
    if len(evidence.seeds_of("same_rate")) < len(evidence.folders):
        return {}
    released, again = tables.select(evidence.correctness, variant=""), evidence.same_rate
    ours, warm_up, sft = (released[released["method"] == name] for name in ("ours", "ours_wo_r", "sft"))
    pairs = {OWN: (ours, sft), OURS: (ours, again), WARM_UP: (warm_up, again), RATE: (again, sft)}
    found, criterion = {}, load_criteria()["C1"]
    for name, (first, second) in pairs.items():
        both = [first.assign(method="ours", variant=""), second.assign(method="sft", variant="")]
        found[name] = claims.better_than("C1", criterion, pd.concat(both, ignore_index=True))
    return found


def rate_table(found: dict[str, Claim]) -> pd.DataFrame:
    """A row a comparison and cell, and one of their mean: difference_pp with its interval, and of each seed."""
    names = {"study_difference": "difference_pp", "study_low": "low_pp", "study_high": "high_pp"}
    parts = [claims.cells_and_means([claim]).assign(comparison=name) for name, claim in found.items()]
    return pd.concat(parts, ignore_index=True)[["comparison", "cell", *names, "study_seeds"]].rename(columns=names)


# ---- other rules

TRAININGS = {"sft": ("sft_gsm", "sft_mmlu"), "warm-up": ("warmup_gsm", "warmup_mmlu")}
SETTINGS = {"sft": "sft.learning_rate", "warm-up": "sft.learning_rate_of_warmup"}
RELEASED = "the release's: agreement, in its two cells"
RULES = {  # the criterion of a cell's training, of its agreement and its accuracy on perturbed validation questions
    "agreement, in all eight cells": ["agreement"],
    "mean of agreement and perturbed accuracy": ["agreement", "perturbed"],
}


def trials(evidence: Evidence) -> pd.DataFrame:
    """A row a training, cell and rate: agreement of its best checkpoint, accuracy on perturbed questions.

    Both are shares of 1, means over seeds; only micro-gsm has perturbed questions. Empty where no trial has been run.
    """
    parts, keys = [], ["cell", "level", "seed"]
    for training, names in TRAININGS.items():
        experiments = [f"fair_rates:{name}" for name in names]
        if not evidence.seeds_of(*experiments):
            return pd.DataFrame()
        best = evidence.rows("trainings", *experiments, by_run=True, stage="03_sft_warmup")
        answers = evidence.rows("answers", *experiments, split="perturbed validation").astype({"correct": float})
        perturbed = answers.groupby(keys)["correct"].mean().rename("perturbed")
        both = best[[*keys, "best"]].rename(columns={"best": "agreement"}).join(perturbed, on=keys)
        means = both.groupby(keys[:2], as_index=False, sort=False)[["agreement", "perturbed"]].mean()
        parts.append(means.rename(columns={"level": "rate"}).assign(training=training))
    return pd.concat(parts, ignore_index=True)[["training", "cell", "rate", "agreement", "perturbed"]]


def trial_table(evidence: Evidence) -> pd.DataFrame:
    """`trials` in %, a row a training, cell and rate, and their means over cells."""
    found = trials(evidence)
    if found.empty:
        return found
    means = found.groupby(["training", "rate"], as_index=False)[["agreement", "perturbed"]].mean()
    every = pd.concat([found, means.assign(cell="mean of the cells")], ignore_index=True)
    every = every.assign(agreement_pct=100 * every["agreement"], perturbed_pct=100 * every["perturbed"])
    return tables.sorted_by(every.drop(columns=["agreement", "perturbed"]), ["training"])


def chosen(found: pd.DataFrame, settings: Mapping) -> pd.DataFrame:
    """The rate of each training that each rule takes: columns rule, sft, warm-up; ties go to the lower rate."""
    rows = [{"rule": RELEASED} | {training: paper.lookup(settings, name) for training, name in SETTINGS.items()}]
    for rule, criterion in RULES.items():
        values = found.assign(value=found[criterion].mean(axis="columns"))
        means = values.groupby(["training", "rate"])["value"].mean()
        rows.append({"rule": rule} | {training: means[training].idxmax() for training in TRAININGS})
    return pd.DataFrame(rows)


def table(evidence: Evidence) -> pd.DataFrame:
    """C1 under each rule: its rates, the mean difference with its 95 % interval, cells by their sign, and the verdict.

    Differences are in percentage points; numbers are empty where these rates were not trained on the released seeds.
    """
    found = trials(evidence)
    if found.empty:
        return found
    rules = chosen(found, evidence.settings).rename(columns={"sft": "sft_rate", "warm-up": "warm_up_rate"})
    sft, warm_up = rules.loc[0, ["sft_rate", "warm_up_rate"]]
    known, judged = {(sft, warm_up): OWN, (warm_up, warm_up): OURS}, differences(evidence)
    rows = []
    for rule in rules.to_dict("records"):
        claim = judged.get(known.get((rule["sft_rate"], rule["warm_up_rate"]), ""))
        if claim is None:
            rows.append(rule | {"verdict": "these rates were not trained on all seeds"})
            continue
        signs = claims.claims_table([claim]).iloc[0]
        numbers = {"difference_pp": claim.pooled.estimate, "low_pp": claim.pooled.low, "high_pp": claim.pooled.high}
        numbers |= {"cells": signs["cells"], "positive": signs["cells_holding"]}
        numbers |= {"significantly_positive": signs["cells_above_zero"]}
        numbers |= {"significantly_negative": signs["cells_below_zero"], "verdict": claim.verdict}
        rows.append(rule | numbers)
    return pd.DataFrame(rows)
