"""Why does a random choice among samples beat the reward model's? Its ranking of a question's samples, in parts.

`judged` is the table of stage 13_judged_responses with cell and seed, as in `rdlib.evidence.diagnostics`. Only samples
before PPO are ranked, since the reward model was trained on such samples. Where no question has a gold answer, the
teacher's vote judges.

A text that most samples share is mostly right, but it has one score however many share it. Rare texts are many, so
the highest of their scores is high by chance.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from rdlib.evidence import aucs, diagnostics, stats, tables
from rdlib.evidence.sharpening import with_judge
from rdlib.method import metrics

LAMBDA = "reward_model.lam"
TEXT = ["cell", "seed", "id", "text"]
QUESTION = ["cell", "seed", "id"]


def samples(judged: pd.DataFrame) -> pd.DataFrame:
    """The samples before PPO with `right`, `copies` (samples with the same text) and `rank` (1: the highest score).

    Equal scores rank by the number of the sample.
    """
    before = with_judge(judged[judged["policy"] == "before"])
    before = before.sort_values([*QUESTION, "score", "sample"], ascending=[True] * 3 + [False, True], ignore_index=True)
    by_question = before.groupby(QUESTION, sort=False)
    copies = before.groupby(TEXT, sort=False)["sample"].transform("size")
    return before.assign(copies=copies, rank=by_question.cumcount() + 1)


def by_rank(judged: pd.DataFrame) -> pd.DataFrame:
    """A row a cell and rank: accuracy with its interval over questions and seeds, and the mean number of `copies`.

    Columns cell, rank, study_pct, study_low_pct, study_high_pct, copies, single_pct (accuracy of any one sample).
    """
    rows = []
    ranked = samples(judged)
    for cell, of_cell in ranked.groupby("cell", sort=False):
        single = 100 * of_cell["right"].mean()
        for rank, part in of_cell.groupby("rank"):
            interval = stats.mean_draws(part.rename(columns={"right": "value"}), "validation").interval()
            row = {"cell": cell, "rank": rank} | tables.percent(interval)
            rows.append(row | {"copies": part["copies"].mean(), "single_pct": single, "n": interval.n})
    return pd.DataFrame(rows)


# ---- what is chosen


def _chosen(ranked: pd.DataFrame, by: pd.Series) -> pd.Series:
    """`right` of each question's sample that is highest by `by`; ties go to the better rank."""
    first = ranked.assign(by=by).sort_values(["by", "rank"], ascending=[False, True]).groupby(QUESTION)["right"].first()
    return first.rename("value")


def choices(ranked: pd.DataFrame) -> dict[str, pd.Series]:
    """Whether what each way chooses of a question's samples is right, or the chance that it is; by question."""
    texts = ranked.drop_duplicates(TEXT)
    votes = ranked.groupby([*QUESTION, "answer"])["sample"].transform("size").fillna(0)
    return {
        "highest reward": _chosen(ranked, ranked["score"]),
        "highest reward of texts given twice or more": _chosen(
            ranked, ranked["score"].where(ranked["copies"] > 1, -np.inf)
        ),
        "highest reward + log of copies": _chosen(ranked, ranked["score"] + np.log(ranked["copies"])),
        "most frequent text": _chosen(ranked, ranked["copies"]),
        "most frequent answer": _chosen(ranked, votes),
        "any sample": ranked.groupby(QUESTION)["right"].mean().rename("value"),
        "any distinct text": texts.groupby(QUESTION)["right"].mean().rename("value"),
    }


# ---- how well it ranks


def within(ranked: pd.DataFrame, score: str = "score") -> pd.Series:
    """AUC of the right against the wrong samples of each question that has both."""
    found = {
        key: metrics.auc(part[score][part["right"] == 1], part[score][part["right"] == 0])
        for key, part in ranked.groupby(QUESTION)
        if part["right"].nunique() > 1
    }
    return pd.Series(found, name="value", dtype=float).rename_axis(QUESTION)


def orders(ranked: pd.DataFrame) -> dict[str, pd.Series]:
    """AUCs within a question, by question: of samples, of distinct texts, and of the number of copies instead."""
    return {
        "AUC within a question": within(ranked),
        "AUC within a question, distinct texts": within(ranked.drop_duplicates(TEXT)),
        "AUC within a question of the number of copies": within(ranked, "copies"),
    }


def across(ranked: pd.DataFrame) -> dict[str, float]:
    """Numbers of a whole cell, means over seeds: AUC over all samples, and how scores go with other things.

    Spearman's correlations are within questions (`diagnostics.length_correlation`); the share of the scores' variance
    between questions says nothing about which sample of a question is right.
    """
    seeds = [part for _, part in ranked.groupby("seed")]
    auc = [metrics.auc(part["score"][part["right"] == 1], part["score"][part["right"] == 0]) for part in seeds]
    between = [part.groupby("id")["score"].transform("mean").var() / part["score"].var() for part in seeds]
    copied = [part.assign(tokens=part["copies"]) for part in seeds]
    return {
        "AUC over all samples": float(np.mean(auc)),
        "share of variance between questions": float(np.mean(between)),
        "correlation with length": float(np.mean([diagnostics.length_correlation(p)["within"] for p in seeds])),
        "correlation with copies": float(np.mean([diagnostics.length_correlation(p)["within"] for p in copied])),
    }


def table(judged: pd.DataFrame) -> pd.DataFrame:
    """A row a cell and measure: value, low, high (95 %, over questions and seeds; empty for a number of the cell), n.

    Choices are in %, AUCs, shares and correlations are numbers.
    """
    rows = []
    for cell, ranked in samples(judged).groupby("cell", sort=False):
        for scale, unit, found in ((100, "%", choices(ranked)), (1, "", orders(ranked))):
            for measure, values in found.items():
                interval = stats.mean_draws(values.reset_index(), "validation").interval()
                numbers = {"value": interval.estimate, "low": interval.low, "high": interval.high}
                scaled = {name: scale * number for name, number in numbers.items()}
                rows.append({"cell": cell, "measure": measure, "unit": unit} | scaled | {"n": interval.n})
        rows += [{"cell": cell, "measure": name, "unit": "", "value": value} for name, value in across(ranked).items()]
    return pd.DataFrame(rows).astype({"n": "Int64"})


def by_lambda(scores: pd.DataFrame, default: float) -> pd.DataFrame:
    """Pos/Neg AUC of student responses over all queries and within a query, for each lambda: does learning from pairs
    alone (0) rank a question's responses better than learning from labels alone (1)?

    A row a cell and lambda: columns dataset, teacher, student, lam, seeds, and of `overall` and `within` the mean, low
    and high over seeds (none with one seed).
    """
    kinds = {"student_positive": 1, "student_negative": 0}
    runs = aucs.ablation_runs(scores, LAMBDA, default)
    runs = runs[runs["kind"].isin(kinds)].assign(right=runs["kind"].map(kinds), cell="")
    rows = []
    for key, part in runs.groupby([*tables.CELL, LAMBDA], sort=True):
        seeds = [of_seed for _, of_seed in part.groupby("seed")]
        found = {
            "overall": [metrics.auc(s["score"][s["right"] == 1], s["score"][s["right"] == 0]) for s in seeds],
            "within": [float(within(s).mean()) for s in seeds],
        }
        row = dict(zip([*tables.CELL, "lam"], key, strict=True)) | {"seeds": len(seeds)}
        for name, values in found.items():
            interval = stats.seed_interval(values)
            row |= {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
        rows.append(row)
    return pd.DataFrame(rows)
