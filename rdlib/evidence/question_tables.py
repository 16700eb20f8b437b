"""Tables that answer the reviewers' questions and say what the reward model can give, from result tables alone."""

from __future__ import annotations

import numpy as np
import pandas as pd

from rdlib.evidence import diagnostics, ledger, reviewers, stats

BEST_OF = [1, 2, 3, 5, 8, 12, 20, 30]
COMPARED = ("R1", "R2")
NO_LEVEL = -1.0
LEVELS = {"R2": "teacher_samples_times", "R4": "flipped_share"}
POLICIES = ("before", "after")  # PPO


def best_of_n_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of choosing among n samples before PPO, a row (strategy, n) with its interval over questions."""
    values = pd.concat(
        [
            diagnostics.best_of_n(group, BEST_OF).assign(seed=seed)
            for seed, group in judged[judged["policy"] == "before"].groupby("seed")
        ]
    )
    rows = []
    for (strategy, n), part in values.groupby(["strategy", "n"], sort=True):
        interval = stats.mean_draws(part, "validation").interval()
        rows.append(
            {"strategy": strategy, "samples": n}
            | {"study_pct": 100 * interval.estimate, "study_low_pct": 100 * interval.low}
            | {"study_high_pct": 100 * interval.high, "n": interval.n}
        )
    return pd.DataFrame(rows)


def reliability_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Reliability curve of sigmoid(score), before and after PPO; `ece` is the same on all rows of a policy."""
    parts = []
    for policy in POLICIES:
        table = diagnostics.reliability(judged[judged["policy"] == policy])
        error = diagnostics.expected_calibration_error(table)
        parts.append(table.assign(policy=policy, ece=error))
    return pd.concat(parts, ignore_index=True)


def reward_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Histogram of the reward model's score before and after PPO: policy, bin_low, bin_high, density."""
    edges = np.histogram_bin_edges(judged["score"], bins=30)
    parts = []
    for policy in POLICIES:
        density, _ = np.histogram(judged.loc[judged["policy"] == policy, "score"], bins=edges, density=True)
        parts.append(pd.DataFrame({"policy": policy, "bin_low": edges[:-1], "bin_high": edges[1:], "density": density}))
    return pd.concat(parts, ignore_index=True)


def length_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Is it paid for length? Spearman's correlations of score and length, and mean length, by policy."""
    rows = []
    for policy in POLICIES:
        part = judged[judged["policy"] == policy]
        found = diagnostics.length_correlation(part.assign(id=part["seed"].astype(str) + part["id"]))
        rows.append(
            {
                "policy": policy,
                "spearman_all": found["overall"],
                "spearman_within_question": found["within"],
                "mean_tokens": part["tokens"].mean(),
                "mean_score": part["score"].mean(),
                "correct_pct": 100 * part["correct"].mean(),
                "responses": len(part),
            }
        )
    return pd.DataFrame(rows)


def ledger_table(costs: pd.DataFrame) -> pd.DataFrame:
    """R6: tokens, operations and seconds of every stage behind the arms of R1 and R2; means over seeds."""
    table = ledger.ledger(costs[costs["question"].isin(COMPARED)])
    table = table.groupby(["stage", "teacher", "student", "method", "variant"], sort=True)
    table = table[["parameters", "tokens_generated", "tokens_trained", "flops", "seconds"]].mean().reset_index()
    whole = ["parameters", "tokens_generated", "tokens_trained"]
    return table.assign(gflop=table["flops"] / 1e9).drop(columns="flops").round(1).astype(dict.fromkeys(whole, int))


def pareto_table(answers: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of the arms of R1 and R2 against the operations that making one takes, inputs included.

    Evaluation is left out; an arm of both questions appears once.
    """
    accuracy = reviewers.accuracy_table(answers[answers["question"].isin(COMPARED)])
    spent = ledger.ledger(costs[costs["stage"] != "07_evaluate"]).fillna({"level": NO_LEVEL})
    spent = spent.groupby(["question", "arm", "level"])["flops"].sum() / costs["seed"].nunique()
    keys = accuracy.fillna({"level": NO_LEVEL}).set_index(["question", "arm", "level"]).index
    accuracy = accuracy.assign(gflop=spent.reindex(keys).to_numpy() / 1e9)
    return accuracy.assign(level=accuracy["level"].replace(1.0, np.nan)).drop_duplicates(["benchmark", "arm", "level"])


def seed_table(correctness: pd.DataFrame) -> pd.DataFrame:
    """R7: accuracy of every method by seed, and the standard deviation over seeds, in percentage points."""
    main = correctness[(correctness["variant"] == "") & (correctness["method"] != "")]
    keys = ["benchmark", "teacher", "student", "method"]
    table = 100 * main.groupby([*keys, "seed"])["correct"].mean().unstack("seed")
    table.columns = [f"seed{seed}_pct" for seed in table.columns]
    spread = table.std(axis=1, ddof=1)
    return table.assign(sd_pp=spread).reset_index()


def cost_answer(table: pd.DataFrame) -> str:
    """What Ours costs beside the other arms, as a multiple of the cheapest."""
    arms = table.drop_duplicates(["arm", "level"]).sort_values("gflop", kind="stable")
    least = arms["gflop"].iloc[0]
    times = [f"{arm_label(row.arm, row.level)} {row.gflop / least:.1f}" for row in arms.itertuples()]
    return "operations to make each, as multiples of the cheapest: " + ", ".join(times) + "."


def arm_label(arm: str, level: float) -> str:
    """An arm's name with its level, where it has one."""
    return arm if np.isnan(level) else f"{arm} ({level:g} x teacher samples)"
