"""What PPO can get from its reward model, as pure functions of tables.

`judged` below is the table of stage 13_judged_responses: a row a sampled response to a validation question, with
policy ("before", "after" PPO), id, sample, tokens, text (a number, the same for equal texts of a question), score
(r_phi), answer, agrees (with the pseudo-label) and correct (by the gold answer).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import comb
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rdlib.evidence import stats, tables
from rdlib.method import metrics

if TYPE_CHECKING:
    from rdlib.evidence.result_tables import Evidence

COUNTS = [1, 2, 3, 5, 8, 12, 20, 30]  # samples a question of the table of best of n
POLICIES = ("before", "after")  # PPO
SUBSETS = 200


def best_of_n(judged: pd.DataFrame, counts: list[int], seed: int = 0) -> pd.DataFrame:
    """Expected correctness of each question when one of n of its samples is chosen; a row (id, n, strategy, value).

    "reward" takes the sample with the highest score, "any" is pass@n: both are exact means over all subsets of n.
    "majority" is the most frequent answer (ties share), and "distinct" any of the distinct texts, each as likely as
    the others: the result of a reward without information, which gives equal texts equal scores. Both are means over
    `SUBSETS` random subsets. "distinct" is left out where there are no texts, and an n larger than the number of
    samples.
    """
    rows = []
    for number, (key, group) in enumerate(judged.groupby("id", sort=True)):
        ranked = group.sort_values(["score", "sample"], ascending=[False, True])["correct"].to_numpy(float)
        answers, _ = pd.factorize(group["answer"])  # -1: no answer
        correct, total = group["correct"].to_numpy(float), len(group)
        texts = group["text"].to_numpy() if "text" in group else None
        everyone = np.tile(np.arange(total), (SUBSETS, 1))
        orders = np.random.default_rng([seed, number]).permuted(everyone, axis=1)  # a subset of n: the first n of a row
        for n in (n for n in counts if n <= total):
            rows.append((key, n, "reward", _highest_of(ranked, n)))
            rows.append((key, n, "any", _any_of(int(correct.sum()), total, n)))
            chosen = orders[:1] if n == total else orders[:, :n]
            rows.append((key, n, "majority", float(_votes(chosen, answers, correct).mean())))
            if texts is not None:
                rows.append((key, n, "distinct", float(_distinct(chosen, texts, correct).mean())))
    return pd.DataFrame(rows, columns=["id", "n", "strategy", "value"])


def _highest_of(ranked: np.ndarray, n: int) -> float:
    """Mean over subsets of n of what stands first in the subset; `ranked` [N] is in order of preference."""
    total = len(ranked)
    chances = [comb(total - 1 - i, n - 1) for i in range(total)]
    return float(np.dot(ranked, chances) / comb(total, n))


def _any_of(right: int, total: int, n: int) -> float:
    """pass@n: chance that a subset of n of `total` samples holds one of the `right` ones."""
    return 1.0 - comb(total - right, n) / comb(total, n)


def _votes(chosen: np.ndarray, answers: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Correctness [subsets] of the most frequent answer of the samples `chosen` [subsets, n].

    `answers` [samples] are numbers from 0, and -1 for none. Ties share, no answer at all is wrong.
    """
    numbers, firsts = np.unique(answers[answers >= 0], return_index=True)
    if not len(numbers):
        return np.zeros(len(chosen))
    votes_for = answers[:, None] == numbers  # [samples, answers]
    right = correct[answers >= 0][firsts]
    counts = votes_for[chosen].sum(axis=1)
    first = (counts == counts.max(axis=1, keepdims=True)) & (counts > 0)
    return (first * right).sum(axis=1) / np.maximum(first.sum(axis=1), 1)


def _distinct(chosen: np.ndarray, texts: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Share [subsets] of right ones among the distinct texts of the samples `chosen` [subsets, n]."""
    numbers, firsts = np.unique(texts, return_index=True)
    present = (texts[:, None] == numbers)[chosen].any(axis=1)  # [subsets, texts]
    return present @ correct[firsts] / present.sum(axis=1)


def auc_by_question(judged: pd.DataFrame) -> pd.DataFrame:
    """AUC of the right against the wrong samples of each question that has both; a row (id, value).

    Choosing among the samples of a question needs this one: an AUC over all responses also rewards scores that only
    separate easy questions from hard ones.
    """
    found = {
        key: metrics.auc(group["score"][group["correct"]], group["score"][~group["correct"]])
        for key, group in judged.astype({"correct": bool}).groupby("id")
    }
    return pd.DataFrame([(key, v) for key, v in found.items() if np.isfinite(v)], columns=["id", "value"])


def reliability(judged: pd.DataFrame, bins: int = 10) -> pd.DataFrame:
    """Calibration of sigmoid(score) as the chance of being correct, in bins of (nearly) equal size.

    Columns predicted, observed (means of the bin), n.
    """
    probability = 1 / (1 + np.exp(-judged["score"].to_numpy(float)))
    order = np.argsort(probability, kind="stable")
    correct = judged["correct"].to_numpy(float)
    parts = [part for part in np.array_split(order, bins) if len(part)]
    rows = [(probability[part].mean(), correct[part].mean(), len(part)) for part in parts]
    return pd.DataFrame(rows, columns=["predicted", "observed", "n"])


def expected_calibration_error(table: pd.DataFrame) -> float:
    """Mean distance of predicted and observed over the bins of `reliability`, weighted by their sizes; in [0, 1]."""
    return float(np.average((table["predicted"] - table["observed"]).abs(), weights=table["n"]))


def length_correlation(judged: pd.DataFrame) -> dict[str, float]:
    """Spearman's correlation of score and length (tokens): over all responses, and within questions (their mean).

    A question whose responses are all of one length, or of one score, says nothing and is left out.
    """
    overall = judged["score"].corr(judged["tokens"], method="spearman")
    ranks = judged.groupby("id")[["score", "tokens"]].rank()
    centred = ranks - ranks.groupby(judged["id"]).transform("mean")
    products = centred.pow(2).assign(both=centred["score"] * centred["tokens"])
    sums = products.groupby(judged["id"]).sum()
    within = (sums["both"] / np.sqrt(sums["score"] * sums["tokens"])).dropna()  # 0 / 0 where all are alike
    return {"overall": float(overall), "within": float(within.mean())}


ALONG = ["update", "kl", "reward", "agreement", "accuracy"]


def over_optimisation(history: pd.DataFrame) -> pd.DataFrame:
    """Along PPO: KL and reward of the rollouts against the agreement and the true accuracy on validation questions.

    `history`: PPO's curve, with the `accuracy` at each evaluation. A row an evaluation: update, kl and reward (means
    over the updates since the evaluation before; NaN before training), agreement, accuracy.
    """
    rows, last = [], -1
    for one in history.dropna(subset="validation_agreement").itertuples():
        since = history[(history["update"] > last) & (history["update"] <= one.update) & (history["update"] > 0)]
        rows.append((one.update, since["kl"].mean(), since["reward"].mean(), one.validation_agreement, one.accuracy))
        last = one.update
    return pd.DataFrame(rows, columns=ALONG)


def along_ppo(evidence: Evidence) -> pd.DataFrame:
    """`over_optimisation` of every cell and seed of the experiment RM: cell, ALONG, seed."""
    curves = evidence.rows("curves", "RM", by_run=True, stage="06_ppo")
    if curves.empty:
        return curves
    parts = [
        over_optimisation(part).assign(cell=cell, seed=seed)
        for (seed, cell), part in curves.groupby(["seed", "cell"], sort=False)
    ]
    table = pd.concat(parts, ignore_index=True)[["cell", *ALONG, "seed"]]
    means = {name: table[name].map("{:.6g}".format).astype(float) for name in ALONG[1:]}  # as they were released
    return table.assign(**means)


# ---- tables of several cells and policies; `judged` has cell, policy and seed too


def best_of_n_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of choosing among n samples before PPO, a row (cell, strategy, n) with its interval over questions.

    Empty without gold answers.
    """
    before = judged[judged["policy"] == "before"].dropna(subset="correct")
    if before.empty:
        return pd.DataFrame()
    values = pd.concat(
        best_of_n(group, COUNTS).assign(cell=cell, seed=seed)
        for (cell, seed), group in before.groupby(["cell", "seed"], sort=False)
    )
    rows = []
    for cell, of_cell in values.groupby("cell", sort=False):
        for (strategy, n), part in of_cell.groupby(["strategy", "n"], sort=True):
            interval = stats.mean_draws(part, "validation").interval()
            row = {"cell": cell, "strategy": strategy, "samples": n}
            rows.append(row | tables.percent(interval) | {"n": interval.n})
    return pd.DataFrame(rows)


def reliability_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Reliability curve of sigmoid(score) in each cell, before and after PPO.

    `ece` is the same on all rows of a cell's policy. Empty without gold answers.
    """
    parts, judged = [], judged.dropna(subset="correct")
    if judged.empty:
        return pd.DataFrame()
    for names, part in _by_policy(judged):
        table = reliability(part)
        parts.append(table.assign(policy=names["policy"], ece=expected_calibration_error(table), cell=names["cell"]))
    table = pd.concat(parts, ignore_index=True)
    return table[["cell", *(column for column in table if column != "cell")]]


def reward_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Histogram of the reward model's score before and after PPO: cell, policy, bin_low, bin_high, density.

    Each cell has its own bins: its reward model has its own scale.
    """
    scores = judged.groupby("cell", sort=False)["score"]
    edges = {cell: np.histogram_bin_edges(values, bins=30) for cell, values in scores}
    parts = []
    for names, part in _by_policy(judged):
        density, ends = np.histogram(part["score"], bins=edges[names["cell"]], density=True)
        parts.append(pd.DataFrame(names | {"bin_low": ends[:-1], "bin_high": ends[1:], "density": density}))
    return pd.concat(parts, ignore_index=True)


def length_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Does the reward prefer length? Spearman's correlations of score and length, and means, by cell and policy."""
    rows = []
    for names, part in _by_policy(judged):
        found = length_correlation(part.assign(id=part["seed"].astype(str) + part["id"]))
        row = names | {"spearman_all": found["overall"], "spearman_within_question": found["within"]}
        row |= {"mean_tokens": part["tokens"].mean(), "mean_score": part["score"].mean()}
        rows.append(row | {"correct_pct": 100 * part["correct"].mean(), "responses": len(part)})
    return pd.DataFrame(rows)


def _by_policy(judged: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """(cell and policy, its responses), before PPO and after; cells in the order of the table."""
    for cell, of_cell in judged.groupby("cell", sort=False):
        for policy in POLICIES:
            yield {"cell": cell, "policy": policy}, of_cell[of_cell["policy"] == policy]
