"""Controls of PPO's reward: is it better than one that knows less, and what is the teacher's vote worth?

The arms of the experiment `controls` differ in PPO's reward alone: warm-up, queries and steps are the same. All choose
their checkpoint by agreement with the teacher's vote. So they are also compared before that choice, along PPO, and by
their samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from rdlib.evidence import accuracy, curves, sharpening, stats, tables

CURVES = ("agreement", "entropy", "validation_agreement", "accuracy")  # along PPO
MEASURES = ("pass@1", "maj@{most}", "pass@{most}", "vote entropy", "distinct answers", "distinct texts")


def arms(answers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each arm with its interval, and Ours minus the arm, as `accuracy.of_arms`.

    `answers` are the graded test answers of one experiment: cell, benchmark, arm, level, reference, seed, id, correct.
    """
    return accuracy.of_arms(answers.rename(columns={"experiment": "question"}))


def contrasts(answers: pd.DataFrame, pairs: Sequence[Sequence[str]]) -> pd.DataFrame:
    """What one reward is worth over another: the first arm of each pair minus the second, paired by question.

    A row a cell, benchmark and pair: difference_pp with its 95 % interval over questions and seeds, n, difference by
    seed, and `significant`: up, down or empty. A pair without one of its arms is left out.
    """
    rows = []
    for (cell, benchmark), part in answers.groupby(["cell", "benchmark"], sort=False):
        by_arm = dict(iter(part.groupby("arm")))
        for first, second in (pair for pair in pairs if set(pair) <= by_arm.keys()):
            table = stats.paired_table(by_arm[first], by_arm[second])
            found = stats.mean_draws(table, benchmark).interval()
            row = {"cell": cell, "benchmark": benchmark, "first": first, "second": second}
            row |= tables.points(found, "difference") | {"n": found.n}
            row["seeds"] = tables.by_seed(100 * table.groupby("seed")["value"].mean(), 2)
            rows.append(row | {"significant": sharpening.direction(found.low, found.high)})
    return pd.DataFrame(rows)


def sharpened(samples: pd.DataFrame, start: str) -> pd.DataFrame:
    """What each arm changed in the samples of the arm `start`: a row a cell, arm and measure of `sharpening.table`.

    `samples`: sampled validation responses of one experiment, with cell, arm and seed (stage 13_sampled_responses).
    """
    before, parts = samples[samples["arm"] == start].assign(policy="before"), []
    for arm, after in samples[samples["arm"] != start].groupby("arm", sort=False) if len(before) else ():
        cells = before["cell"].isin(after["cell"])
        changed = sharpening.table(sharpening.changes(pd.concat([before[cells], after.assign(policy="after")])))
        most = changed["samples"].max()
        kept = changed["measure"].isin([name.format(most=most) for name in MEASURES])
        parts.append(changed[kept].assign(arm=arm))
    if not parts:
        return pd.DataFrame()
    table = pd.concat(parts, ignore_index=True)
    return table[["cell", "arm", *(name for name in table if name not in ("cell", "arm"))]]


def along(history: pd.DataFrame) -> pd.DataFrame:
    """Each arm along PPO, mean over seeds: cell, arm, value (of CURVES), update, seeds, mean, low and high.

    Rollouts' agreement with the teacher's vote and entropy (nats a token) are means of some updates; of greedy answers
    to validation questions the agreement, and the accuracy where there is gold. Shares are in %.
    """
    for name in CURVES[:2]:
        smooth = [curves.smoothed(part, name, sharpening.WINDOW) for _, part in history.groupby("arm", sort=False)]
        history = pd.concat(smooth, ignore_index=True)
    shares = {name: 100 * history[name].astype(float) for name in CURVES if name != "entropy"}
    history = history.assign(**shares)
    parts = [
        curves.over_seeds(history, ["cell", "arm"], "update", name).assign(value=name)
        for name in CURVES
        if history[name].notna().any()
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
