"""Does PPO make a policy better, or only surer? Diversity of its samples before and after, question by question.

    values = by_question(judged, [1, 4, 16, 30])    # a row (id, measure, k, value)
    changes(judged, [1, 4, 16, 30])                 # a row (cell, measure, k): before, after, paired difference

A policy is sharpened where accuracy of single samples (pass@1) and of the majority (maj@k) rise while pass@k falls for
large k: right answers that it gave rarely are gone. `judged` is the table of stage 13_judged_responses, as in
`rdlib.evidence.diagnostics`. pass@k is the unbiased estimator of Chen et al. (2021), eq. 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rdlib.errors import UserError
from rdlib.evidence import diagnostics, stats

CHOICES = {"any": "pass@k", "majority": "maj@k", "reward": "best of k by reward"}
DIVERSITY = {"vote entropy": "nats", "majority's share": "", "distinct answers": "", "distinct texts": ""}


def by_question(judged: pd.DataFrame, counts: Sequence[int]) -> pd.DataFrame:
    """Every measure of each question of one policy and seed: id, measure, k (0 where none applies) and value.

    UserError where a question has fewer samples than the largest of `counts`.
    """
    least = judged.groupby("id").size()
    if least.min() < max(counts):
        raise UserError(
            f"pass@{max(counts)} needs {max(counts)} samples a question, and {least.idxmin()} has {least.min()}: take "
            f"a smaller k, or sample more (student_sampling.samples)."
        )
    chosen = diagnostics.best_of_n(judged, list(counts)).rename(columns={"n": "k", "strategy": "measure"})
    chosen = chosen[chosen["measure"].isin(CHOICES)].replace({"measure": CHOICES})
    return pd.concat([chosen[["id", "measure", "k", "value"]], diversity(judged)], ignore_index=True)


def diversity(judged: pd.DataFrame) -> pd.DataFrame:
    """How much the samples of a question differ: id, measure, k (0) and value.

    The vote entropy is that of the answers, in nats, of those samples that have one; the majority's share is of all.
    """
    sizes = judged.groupby("id").size()
    votes = judged.dropna(subset="answer").groupby(["id", "answer"]).size()
    shares = votes / votes.groupby("id").transform("sum")
    found = {
        "vote entropy": -(shares * np.log(shares)).groupby("id").sum(),
        "majority's share": votes.groupby("id").max() / sizes,
        "distinct answers": votes.groupby("id").size(),
        "distinct texts": judged.groupby("id")["text"].nunique(),
    }
    table = pd.DataFrame(found, index=sizes.index).fillna(0.0).rename_axis("id").reset_index()
    return table.melt("id", var_name="measure", value_name="value").assign(k=0)[["id", "measure", "k", "value"]]


def changes(judged: pd.DataFrame, counts: Sequence[int]) -> pd.DataFrame:
    """A row a cell, measure and k: the mean `before` and `after`, and their paired difference, each with its 95 % CI.

    Columns `before`, `after` and `change`, each with `_low` and `_high`, and `sd` of the change over seeds; `n` counts
    questions. Intervals are over questions and seeds; shares are of 1.
    """
    keys = ["cell", "policy", "seed"]
    parts = {key: by_question(part, counts) for key, part in judged.groupby(keys, sort=False)}
    values = pd.concat(parts, names=keys).reset_index(keys)
    wide = values.pivot(index=["cell", "measure", "k", "seed", "id"], columns="policy", values="value").reset_index()
    rows = [_row(key, part) for key, part in wide.groupby(["cell", "measure", "k"], sort=False)]
    order = {name: place for place, name in enumerate([*CHOICES.values(), *DIVERSITY])}
    table = pd.DataFrame(rows)
    cells = {cell: place for place, cell in enumerate(judged["cell"].unique())}
    return table.sort_values(
        ["cell", "measure", "k"], key=lambda column: column.map(cells | order).fillna(column), ignore_index=True
    )


def _row(key: tuple, part: pd.DataFrame) -> dict:
    """One row of `changes`: `part` has a row a seed and question."""
    columns = {"before": part["before"], "after": part["after"], "change": part["after"] - part["before"]}
    row = dict(zip(("cell", "measure", "k"), key, strict=True))
    for name, value in columns.items():
        interval = stats.mean_draws(part[["seed", "id"]].assign(value=value), "validation").interval()
        row |= {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high, "n": interval.n}
    by_seed = columns["change"].groupby(part["seed"]).mean()
    return row | {"sd": by_seed.std(ddof=1)}
