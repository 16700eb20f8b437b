"""What PPO can get from its reward model: how it ranks a question's samples, its calibration, and PPO along its KL.

`judged` is the table of stage 13_judged_responses: a row a sampled response to a validation question, with policy
("before", "after" PPO), id, sample, tokens, text (a number, the same for equal texts of a question), score (r_phi),
answer, agrees (with the pseudo-label) and correct (by the gold answer). Tables of several cells have cell and seed too.

Why does a random choice among samples beat the reward model's? A text that most samples share is mostly right, but it
has one score however many share it. Rare texts are many, so the highest of their scores is high by chance. Only samples
before PPO are ranked, since the reward model was trained on such samples. Where no question has a gold answer, the
teacher's vote judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import comb
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rdlib.evidence import aucs, stats, tables
from rdlib.evidence.sharpening import POLICIES, with_judge
from rdlib.method import metrics

if TYPE_CHECKING:
    from rdlib.evidence.result_tables import Evidence

COUNTS = [1, 2, 3, 5, 8, 12, 20, 30]  # samples a question of the table of best of n
SUBSETS = 200
QUESTION = ["cell", "seed", "id"]
TEXT = [*QUESTION, "text"]
ALONG = ["update", "kl", "reward", "agreement", "accuracy"]


# ---- choosing among n samples


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
        everyone = np.tile(np.arange(total), (SUBSETS, 1))
        orders = np.random.default_rng([seed, number]).permuted(everyone, axis=1)  # a subset of n: the first n of a row
        for n in (n for n in counts if n <= total):
            first = [comb(total - 1 - i, n - 1) for i in range(total)]  # subsets of which the sample of a rank is best
            chosen = orders[:1] if n == total else orders[:, :n]
            found = {"reward": np.dot(ranked, first) / comb(total, n)}
            found["any"] = 1.0 - comb(total - int(correct.sum()), n) / comb(total, n)
            found["majority"] = _votes(chosen, answers, correct).mean()
            if "text" in group:
                found["distinct"] = _distinct(chosen, group["text"].to_numpy(), correct).mean()
            rows += [(key, n, strategy, float(value)) for strategy, value in found.items()]
    return pd.DataFrame(rows, columns=["id", "n", "strategy", "value"])


def _votes(chosen: np.ndarray, answers: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Correctness [subsets] of the most frequent answer of the samples `chosen` [subsets, n].

    `answers` [samples] are numbers from 0, and -1 for none. Ties share, no answer at all is wrong.
    """
    numbers, firsts = np.unique(answers[answers >= 0], return_index=True)
    if not len(numbers):
        return np.zeros(len(chosen))
    counts = (answers[:, None] == numbers)[chosen].sum(axis=1)  # [subsets, answers]
    first = (counts == counts.max(axis=1, keepdims=True)) & (counts > 0)
    return (first * correct[answers >= 0][firsts]).sum(axis=1) / np.maximum(first.sum(axis=1), 1)


def _distinct(chosen: np.ndarray, texts: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Share [subsets] of right ones among the distinct texts of the samples `chosen` [subsets, n]."""
    numbers, firsts = np.unique(texts, return_index=True)
    present = (texts[:, None] == numbers)[chosen].any(axis=1)  # [subsets, texts]
    return present @ correct[firsts] / present.sum(axis=1)


def best_of_n_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of choosing among n samples before PPO, a row (cell, strategy, n) with its interval over questions.

    Empty without gold answers.
    """
    before = judged[judged["policy"] == "before"].dropna(subset="correct")
    if before.empty:
        return pd.DataFrame()
    runs = before.groupby(["cell", "seed"], sort=False)
    values = pd.concat(best_of_n(group, COUNTS).assign(cell=cell, seed=seed) for (cell, seed), group in runs)
    values = tables.as_found(values.rename(columns={"n": "samples"}), "cell")
    return tables.rows_of(values, ["cell", "strategy", "samples"], _right, sort=True)


def _right(part: pd.DataFrame, column: str = "value") -> dict:
    """The mean of a column with its interval, in per cent."""
    interval = tables.mean(part, column)
    return interval.columns("study", "pct") | {"n": interval.n}


# ---- ranking all samples


def samples(judged: pd.DataFrame) -> pd.DataFrame:
    """The samples before PPO with `right`, `copies` (samples with the same text) and `rank` (1: the highest score).

    Equal scores rank by the number of the sample.
    """
    before = with_judge(judged[judged["policy"] == "before"])
    before = before.sort_values([*QUESTION, "score", "sample"], ascending=[True] * 3 + [False, True], ignore_index=True)
    copies = before.groupby(TEXT, sort=False)["sample"].transform("size")
    return before.assign(copies=copies, rank=before.groupby(QUESTION, sort=False).cumcount() + 1)


def by_rank(judged: pd.DataFrame) -> pd.DataFrame:
    """A row a cell and rank: accuracy with its interval over questions and seeds, and the mean number of `copies`.

    Columns cell, rank, study_pct, study_low_pct, study_high_pct, copies, single_pct (accuracy of any one sample).
    """
    ranked = samples(judged)
    numbers = ranked.groupby(["cell", "rank"])["copies"].mean()
    single = 100 * ranked.groupby("cell")["right"].mean()
    table = tables.rows_of(ranked, ["cell", "rank"], lambda part: _right(part, "right"))
    table = table.assign(
        copies=table.set_index(["cell", "rank"]).index.map(numbers), single_pct=table["cell"].map(single)
    )
    return table[[*(name for name in table if name != "n"), "n"]]


def choices(ranked: pd.DataFrame) -> dict[str, pd.Series]:
    """Whether what each way chooses of a question's samples is right, or the chance that it is; by question."""
    votes = ranked.groupby([*QUESTION, "answer"])["sample"].transform("size").fillna(0)
    by = {
        "highest reward": ranked["score"],
        "highest reward of texts given twice or more": ranked["score"].where(ranked["copies"] > 1, -np.inf),
        "highest reward + log of copies": ranked["score"] + np.log(ranked["copies"]),
        "most frequent text": ranked["copies"],
        "most frequent answer": votes,
    }
    best = [ranked.assign(by=one).sort_values(["by", "rank"], ascending=[False, True]) for one in by.values()]
    found = {name: one.groupby(QUESTION)["right"].first() for name, one in zip(by, best, strict=True)}
    found["any sample"] = ranked.groupby(QUESTION)["right"].mean()
    return found | {"any distinct text": ranked.drop_duplicates(TEXT).groupby(QUESTION)["right"].mean()}


def auc_by_question(
    judged: pd.DataFrame, by: Sequence[str] = ("id",), score: str = "score", right: str = "correct"
) -> pd.DataFrame:
    """AUC of the right against the wrong samples of each question that has both; a row (id, value).

    Choosing among the samples of a question needs this one: an AUC over all responses also rewards scores that only
    separate easy questions from hard ones.
    """
    rows = [
        (*key, metrics.auc(part[score][part[right]], part[score][~part[right]]))
        for key, part in judged.dropna(subset=right).astype({right: bool}).groupby(list(by))
    ]
    return pd.DataFrame(rows, columns=[*by, "value"]).dropna(ignore_index=True)


def orders(ranked: pd.DataFrame) -> dict[str, pd.Series]:
    """AUCs within a question, by question: of samples, of distinct texts, and of the number of copies instead."""
    found = {
        "AUC within a question": (ranked, "score"),
        "AUC within a question, distinct texts": (ranked.drop_duplicates(TEXT), "score"),
        "AUC within a question of the number of copies": (ranked, "copies"),
    }
    return {
        name: auc_by_question(some, QUESTION, by, "right").set_index(QUESTION)["value"]
        for name, (some, by) in found.items()
    }


def across(ranked: pd.DataFrame) -> dict[str, float]:
    """Numbers of a whole cell, means over seeds: AUC over all samples, and how scores go with other things.

    Spearman's correlations are within questions (`length_correlation`); the share of the scores' variance between
    questions says nothing about which sample of a question is right.
    """
    seeds = [part for _, part in ranked.groupby("seed")]
    auc = [metrics.auc(part["score"][part["right"] == 1], part["score"][part["right"] == 0]) for part in seeds]
    between = [part.groupby("id")["score"].transform("mean").var() / part["score"].var() for part in seeds]
    return {
        "AUC over all samples": float(np.mean(auc)),
        "share of variance between questions": float(np.mean(between)),
        "correlation with length": float(np.mean([length_correlation(part)["within"] for part in seeds])),
        "correlation with copies": float(np.mean([length_correlation(part, "copies")["within"] for part in seeds])),
    }


def ranking_table(judged: pd.DataFrame) -> pd.DataFrame:
    """A row a cell and measure: value, low, high (95 %, over questions and seeds; empty for a number of the cell), n.

    Choices are in %, AUCs, shares and correlations are numbers.
    """
    rows = []
    for cell, ranked in samples(judged).groupby("cell", sort=False):
        for scale, unit, found in ((100, "%", choices(ranked)), (1, "", orders(ranked))):
            for measure, values in found.items():
                one = tables.mean(values.rename("value").reset_index())
                numbers = {"value": scale * one.estimate, "low": scale * one.low, "high": scale * one.high, "n": one.n}
                rows.append({"cell": cell, "measure": measure, "unit": unit} | numbers)
        rows += [{"cell": cell, "measure": name, "unit": "", "value": value} for name, value in across(ranked).items()]
    return pd.DataFrame(rows).astype({"n": "Int64"})


def by_lambda(scores: pd.DataFrame, default: float) -> pd.DataFrame:
    """Pos/Neg AUC of student responses over all queries and within a query, for each lambda: does learning from pairs
    alone (0) rank a question's responses better than learning from labels alone (1)?

    A row a cell and lambda: columns dataset, teacher, student, lam, seeds, and of `overall` and `within` the mean, low
    and high over seeds (none with one seed).
    """
    runs, kinds = (
        aucs.ablation_runs(scores, "reward_model.lam", default),
        {"student_positive": 1, "student_negative": 0},
    )
    runs = runs[runs["kind"].isin(kinds)].rename(columns={"reward_model.lam": "lam"})
    return tables.rows_of(
        runs.assign(right=runs["kind"].map(kinds)), [*tables.CELL, "lam"], _over_and_within, sort=True
    )


def _over_and_within(part: pd.DataFrame) -> dict:
    """Both AUCs of the reward models of some seeds."""
    seeds = [of_seed for _, of_seed in part.groupby("seed")]
    overall = [metrics.comparison_auc(one, "pos_neg") for one in seeds]
    within = [auc_by_question(one, right="right")["value"].mean() for one in seeds]
    found = stats.seed_interval(overall).columns("overall") | stats.seed_interval(within).columns("within")
    return {"seeds": len(seeds)} | found


# ---- calibration, length and the rewards


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


def length_correlation(judged: pd.DataFrame, length: str = "tokens") -> dict[str, float]:
    """Spearman's correlation of score and length (tokens): over all responses, and within questions (their mean).

    A question whose responses are all of one length, or of one score, says nothing and is left out.
    """
    overall = judged["score"].corr(judged[length], method="spearman")
    ranks = judged.groupby("id")[["score", length]].rank()
    centred = ranks - ranks.groupby(judged["id"]).transform("mean")
    products = centred.pow(2).assign(both=centred["score"] * centred[length])
    sums = products.groupby(judged["id"]).sum()
    within = (sums["both"] / np.sqrt(sums["score"] * sums[length])).dropna()  # 0 / 0 where all are alike
    return {"overall": float(overall), "within": float(within.mean())}


def _by_policy(judged: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """(cell and policy, its responses), before PPO and after; cells in the order of the table."""
    for cell, of_cell in judged.groupby("cell", sort=False):
        for policy in POLICIES:
            yield {"cell": cell, "policy": policy}, of_cell[of_cell["policy"] == policy]


def reliability_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Reliability curve of sigmoid(score) in each cell, before and after PPO.

    `ece` is the same on all rows of a cell's policy. Empty without gold answers.
    """
    parts = []
    for names, part in _by_policy(judged.dropna(subset="correct")):
        table = reliability(part)
        parts.append(table.assign(policy=names["policy"], ece=expected_calibration_error(table)))
        parts[-1].insert(0, "cell", names["cell"])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


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


# ---- along PPO


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
