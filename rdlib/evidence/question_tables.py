"""Tables that answer the reviewers' questions and say what the reward model can give, from result tables alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from rdlib.evidence import diagnostics, ledger, reviewers, stats

BEST_OF = [1, 2, 3, 5, 8, 12, 20, 30]
COMPARED = ("R1", "R2")
NO_LEVEL = -1.0
LEVELS = {"R2": "teacher_samples_times", "R4": "flipped_share"}
POLICIES = ("before", "after")  # PPO
HARDLY = 0.1  # a rank correlation that is as good as none


def best_of_n_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of choosing among n samples before PPO, a row (cell, strategy, n) with its interval over questions."""
    before = judged[judged["policy"] == "before"]
    values = pd.concat(
        [
            diagnostics.best_of_n(group, BEST_OF).assign(cell=cell, seed=seed)
            for (cell, seed), group in before.groupby(["cell", "seed"], sort=False)
        ]
    )
    rows = []
    for (cell, strategy, n), part in reviewers.by_cell(values, ["strategy", "n"]):
        interval = stats.mean_draws(part, "validation").interval()
        rows.append(
            {"cell": cell, "strategy": strategy, "samples": n}
            | {"study_pct": 100 * interval.estimate, "study_low_pct": 100 * interval.low}
            | {"study_high_pct": 100 * interval.high, "n": interval.n}
        )
    return pd.DataFrame(rows)


def reliability_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Reliability curve of sigmoid(score) in each cell, before and after PPO.

    `ece` is the same on all rows of a cell's policy.
    """
    parts = []
    for cell, policy, part in _by_policy(judged):
        table = diagnostics.reliability(part)
        error = diagnostics.expected_calibration_error(table)
        parts.append(table.assign(policy=policy, ece=error, cell=cell))
    return _cell_first(pd.concat(parts, ignore_index=True))


def _by_policy(judged: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """(cell, policy, its responses), before PPO and after; cells in the order of the table."""
    for cell, of_cell in judged.groupby("cell", sort=False):
        for policy in POLICIES:
            yield cell, policy, of_cell[of_cell["policy"] == policy]


def _cell_first(table: pd.DataFrame) -> pd.DataFrame:
    return table[["cell", *(column for column in table if column != "cell")]]


def reward_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Histogram of the reward model's score before and after PPO: cell, policy, bin_low, bin_high, density.

    Each cell has its own bins: its reward model has its own scale.
    """
    edges = {
        cell: np.histogram_bin_edges(scores, bins=30) for cell, scores in judged.groupby("cell", sort=False)["score"]
    }
    parts = []
    for cell, policy, part in _by_policy(judged):
        density, ends = np.histogram(part["score"], bins=edges[cell], density=True)
        names = {"cell": cell, "policy": policy}
        parts.append(pd.DataFrame(names | {"bin_low": ends[:-1], "bin_high": ends[1:], "density": density}))
    return pd.concat(parts, ignore_index=True)


def length_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Is it paid for length? Spearman's correlations of score and length, and mean length, by cell and policy."""
    rows = []
    for cell, policy, part in _by_policy(judged):
        found = diagnostics.length_correlation(part.assign(id=part["seed"].astype(str) + part["id"]))
        rows.append(
            {
                "cell": cell,
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


def length_answer(table: pd.DataFrame) -> str:
    """Whether responses before PPO score higher for being longer, in words; rows of `length_table`."""
    told = []
    for row in table[table["policy"] == "before"].itertuples():
        overall, within = row.spearman_all, row.spearman_within_question
        prefers = "neither longer nor shorter" if abs(within) < HARDLY else "longer" if within > 0 else "shorter"
        told.append(
            f"on {row.cell} the rank correlation of score and length is {overall:+.2f} over all responses and "
            f"{within:+.2f} among those to one question, so of these it prefers {prefers} ones"
        )
    return f"Answer: before PPO, {'; '.join(told)}."


def ledger_table(costs: pd.DataFrame) -> pd.DataFrame:
    """R6: tokens, operations and seconds of every stage behind the arms of R1 and R2 of each cell; means over seeds."""
    keys = ["stage", "teacher", "student", "method", "variant"]
    values = [
        "parameters",
        "tokens_generated",
        "tokens_read",
        "tokens_trained",
        "reader_parameters",
        "flops",
        "seconds",
    ]
    costs = ledger.ledger(costs[costs["question"].isin(COMPARED)])
    means = {cell: part.groupby(keys, sort=True)[values].mean() for cell, part in costs.groupby("cell", sort=False)}
    table = pd.concat(means, names=["cell"]).reset_index()
    whole = values[:5]
    return table.assign(gflop=table["flops"] / 1e9).drop(columns="flops").round(1).astype(dict.fromkeys(whole, int))


def pareto_table(answers: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of the arms of R1 and R2 of each cell against the operations that making one takes, inputs included.

    Evaluation is left out; an arm of both questions appears once.
    """
    accuracy = reviewers.accuracy_table(answers[answers["question"].isin(COMPARED)])
    spent = ledger.ledger(costs[costs["stage"] != "07_evaluate"]).fillna({"level": NO_LEVEL})
    names = ["cell", "question", "arm", "level"]
    spent = spent.groupby(names)["flops"].sum() / costs["seed"].nunique()
    keys = accuracy.fillna({"level": NO_LEVEL}).set_index(names).index
    accuracy = accuracy.assign(gflop=spent.reindex(keys).to_numpy() / 1e9)
    accuracy = accuracy.assign(level=accuracy["level"].replace(1.0, np.nan))
    return accuracy.drop_duplicates(["cell", "benchmark", "arm", "level"])


def seed_table(correctness: pd.DataFrame) -> pd.DataFrame:
    """R7: accuracy of every method by seed, and the standard deviation over seeds, in percentage points."""
    main = correctness[(correctness["variant"] == "") & (correctness["method"] != "")]
    keys = ["benchmark", "teacher", "student", "method"]
    table = 100 * main.groupby([*keys, "seed"])["correct"].mean().unstack("seed")
    table.columns = [f"seed{seed}_pct" for seed in table.columns]
    spread = table.std(axis=1, ddof=1)
    return table.assign(sd_pp=spread).reset_index()


def cost_answer(table: pd.DataFrame) -> str:
    """What Ours costs beside the other arms of each cell, as a multiple of the cell's cheapest."""
    parts = []
    for cell, of_cell in table.groupby("cell", sort=False):
        arms = of_cell.drop_duplicates(["arm", "level"]).sort_values("gflop", kind="stable")
        least = arms["gflop"].iloc[0]
        times = [f"{reviewers.arm_label(row.arm, row.level)} {row.gflop / least:.1f}" for row in arms.itertuples()]
        parts.append(f"in {cell}, {', '.join(times)}")
    return f"operations to make each, as multiples of the cheapest of its cell: {'; '.join(parts)}."
