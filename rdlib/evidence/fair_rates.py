"""C1 under other rules for the learning rates of SFT and of the warm-up: trials in all eight cells.

The release chose both rates in two cells by agreement with the vote on validation questions. A rule here takes, of the
four rates that were tried on a seed that is not released, the one with the highest mean of a criterion over its cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from rdlib.evidence import convergence, paper, tables
from rdlib.evidence.verdicts import Claim

if TYPE_CHECKING:
    from rdlib.evidence.result_tables import Evidence

TRAININGS = {"sft": ("sft_gsm", "sft_mmlu"), "warm-up": ("warmup_gsm", "warmup_mmlu")}
SETTINGS = {"sft": "sft.learning_rate", "warm-up": "sft.learning_rate_of_warmup"}
RELEASED = "the release's: agreement, in its two cells"
RULES = {  # the criterion of a cell's training, of its agreement and its accuracy on perturbed validation questions
    "agreement, in all eight cells": lambda row: row["agreement"],
    "mean of agreement and perturbed accuracy": lambda row: row[["agreement", "perturbed"]].mean(),
}


def trials(evidence: Evidence) -> pd.DataFrame:
    """A row a training, cell and rate: agreement of its best checkpoint, accuracy on perturbed questions.

    Both are shares of 1, means over seeds; only micro-gsm has perturbed questions. Empty where no trial has been run.
    """
    parts = []
    for training, names in TRAININGS.items():
        experiments = [f"fair_rates:{name}" for name in names]
        if not evidence.seeds_of(*experiments):
            return pd.DataFrame()
        keys = ["cell", "level", "seed"]
        best = evidence.rows("trainings", *experiments, by_run=True, stage="03_sft_warmup")
        answers = evidence.rows("answers", *experiments, split="perturbed validation").astype({"correct": float})
        perturbed = answers.groupby(keys)["correct"].mean().rename("perturbed")
        both = best[[*keys, "best"]].rename(columns={"best": "agreement"}).join(perturbed, on=keys)
        means = both.groupby(keys[:2], as_index=False, sort=False)[["agreement", "perturbed"]].mean()
        parts.append(means.rename(columns={"level": "rate"}).assign(training=training))
    return pd.concat(parts, ignore_index=True)[["training", "cell", "rate", "agreement", "perturbed"]]


def chosen(found: pd.DataFrame, settings: Mapping) -> pd.DataFrame:
    """The rate of each training that each rule takes: columns rule, sft, warm-up; ties go to the lower rate."""
    released = {training: paper.lookup(settings, name) for training, name in SETTINGS.items()}
    rows = [{"rule": RELEASED} | released]
    for rule, criterion in RULES.items():
        value = found.assign(value=found.apply(criterion, axis=1))
        means = value.groupby(["training", "rate"])["value"].mean()
        rows.append({"rule": rule} | {training: means[training].idxmax() for training in TRAININGS})
    return pd.DataFrame(rows)


def table(evidence: Evidence) -> pd.DataFrame:
    """C1 under each rule: its rates, the mean difference with its 95 % interval, cells by their sign, and the verdict.

    Differences are in percentage points; numbers are empty where these rates were not trained on the released seeds.
    """
    found = trials(evidence)
    if found.empty:
        return found
    differences, settings = convergence.differences(evidence), evidence.settings
    own = {training: paper.lookup(settings, name) for training, name in SETTINGS.items()}
    known = {(own["sft"], own["warm-up"]): convergence.OWN, (own["warm-up"], own["warm-up"]): convergence.OURS}
    rows = []
    for rule in chosen(found, settings).to_dict("records"):
        row = {"rule": rule["rule"], "sft_rate": rule["sft"], "warm_up_rate": rule["warm-up"]}
        claim = differences.get(known.get((rule["sft"], rule["warm-up"]), ""))
        rows.append(row | (_judged(claim) if claim else {"verdict": "these rates were not trained on all seeds"}))
    return pd.DataFrame(rows)


def _judged(claim: Claim) -> dict:
    cells = [cell.difference for cell in claim.cells]
    return {
        "difference_pp": claim.pooled.estimate,
        "low_pp": claim.pooled.low,
        "high_pp": claim.pooled.high,
        "cells": len(cells),
        "positive": sum(one.estimate > 0 for one in cells),
        "significantly_positive": sum(one.low > 0 for one in cells),
        "significantly_negative": sum(one.high < 0 for one in cells),
        "verdict": claim.verdict,
    }


def trial_table(evidence: Evidence) -> pd.DataFrame:
    """`trials` in %, a row a training, cell and rate, and their means over cells."""
    found = trials(evidence)
    if found.empty:
        return found
    means = found.groupby(["training", "rate"], as_index=False)[["agreement", "perturbed"]].mean()
    every = pd.concat([found, means.assign(cell="mean of the cells")], ignore_index=True)
    every = every.assign(agreement_pct=100 * every["agreement"], perturbed_pct=100 * every["perturbed"])
    shown = every[["training", "cell", "rate", "agreement_pct", "perturbed_pct"]]
    return tables.sorted_by(shown, ["training"])
