"""Tables of the vote's counts (Figures 3 and 4, R4's threshold) and of curves along training, over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd

from rdlib.evidence import paper, stats, tables
from rdlib.method import voting

# ---- the vote


def vote_counts(pseudo_labels: pd.DataFrame) -> Iterator[tuple[str, str, pd.Series, pd.DataFrame]]:
    """(dataset, teacher, counts, counts by seed): seeds share their questions, so counts are means over seeds."""
    asked = pseudo_labels[pseudo_labels["split"].isin(["train", "validation"])]
    for (dataset, teacher), group in tables.cells_of(asked, ["dataset", "teacher"]):
        seeds = group.drop(columns=["dataset", "teacher", "split"]).groupby("seed").sum(numeric_only=True)
        yield dataset, teacher, seeds.sum() / len(seeds), seeds


def failure_ratios(pseudo_labels: pd.DataFrame) -> pd.DataFrame:
    """Figure 3: |Q_fail| / |Q| over the training and validation questions, with Wilson's interval."""
    rows = [
        {"dataset": dataset, "teacher": teacher}
        | stats.wilson(counts.failed, counts.questions).columns("study", "pct")
        | {"n": int(counts.questions), "study_seeds": tables.by_seed(100 * seeds.failed / seeds.questions, 2)}
        | {"paper_words": paper.FAILURE_WORDS.get((dataset, teacher), "")}
        for dataset, teacher, counts, seeds in vote_counts(pseudo_labels)
    ]
    return pd.DataFrame(rows)


def judged_correctness(pseudo_labels: pd.DataFrame) -> pd.DataFrame:
    """Figure 4: share judged correctly against the gold answer, of pseudo-labels and of responses.

    Responses to one question are judged together, so both intervals count questions (Wilson with n = labelled).
    """
    rows = []
    units = (("pseudo-labels", "label_correct", "labelled"), ("responses", "judged_right", "responses"))
    for dataset, teacher, counts, seeds in vote_counts(pseudo_labels):
        for unit, right, total in units:
            share = counts[right] / counts[total] if counts[total] else np.nan
            row = {"dataset": dataset, "teacher": teacher, "unit": unit}
            row |= stats.wilson(share * counts.labelled, counts.labelled).columns("study", "pct")
            by_seed = tables.by_seed(100 * seeds[right] / seeds[total], 2)
            rows.append(row | {"n": int(counts.labelled), "study_seeds": by_seed})
    return pd.DataFrame(rows)


def threshold_sweep(
    responses: pd.DataFrame,
    gold: pd.Series,
    thresholds: Sequence[float],
    aliases: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> pd.DataFrame:
    """R4: a row a threshold of the vote, with failure_ratio, coverage and label accuracy, and Wilson's intervals.

    `responses`: the teacher's; `gold`: answers by id, of the questions that are judged; `aliases`: by
    `questions.read_aliases`.
    """
    asked = responses[responses["id"].isin(gold.index)]
    rows = []
    for threshold in thresholds:
        labels = voting.pseudo_labels(asked, threshold)
        known = labels.dropna(subset="pseudo_label")
        right = int(voting.is_gold(known["pseudo_label"], known["id"], gold, aliases).sum())
        row = {"threshold": threshold, "failure_ratio": 1 - len(known) / len(labels), "n": len(labels)}
        shares = {"coverage": (len(known), len(labels)), "label_accuracy": (right, len(known))}
        for name, (successes, n) in shares.items():
            row |= stats.wilson(successes, n).columns(name)
        rows.append(row)
    return pd.DataFrame(rows)


# ---- along training


def over_seeds(history: pd.DataFrame, by: list[str], step: str, value: str) -> pd.DataFrame:
    """Mean of a value over seeds at each step, with t intervals: columns `by`, step, seeds, mean, low, high.

    Evaluations of different seeds are paired by their order: their data differ in size, so they evaluate at other
    steps. The step given is the mean of theirs. A seed that has ended keeps its last value, so that the mean is of the
    same seeds all along and does not jump; `seeds` are those still in training, and only all of them give an interval.
    """
    runs = [*by, "seed"]
    known = history.dropna(subset=value).sort_values([*runs, step])
    known = known.assign(order=known.groupby(runs).cumcount()).set_index([*by, "order", "seed"])
    values, steps = known[value].unstack("seed"), known[step].unstack("seed")
    held, training = values.groupby(level=by).ffill(), values.notna().sum(axis=1)
    half = pd.Series(stats.half_width(held.std(axis=1).to_numpy(), training.to_numpy()), held.index)
    half = half.where(training == training.groupby(level=by).transform("max"))
    mean = held.mean(axis=1)
    table = {step: steps.mean(axis=1).round().astype(int), "seeds": training, "mean": mean}
    return pd.DataFrame(table | {"low": mean - half, "high": mean + half}).reset_index().drop(columns="order")


def smoothed(history: pd.DataFrame, column: str, window: int = 20) -> pd.DataFrame:
    """The history with `column` as its mean over the last `window` steps of its run.

    The loss of a single step says more about its batch than about the model.
    """
    runs = [*tables.CELL, "method", "seed"]
    history = history.sort_values([*runs, "step"], ignore_index=True)
    means = history.groupby(runs)[column].transform(lambda values: values.rolling(window, min_periods=1).mean())
    return history.assign(**{column: means})


def learning_curves(
    history: pd.DataFrame, values: Sequence[str], step: str = "step", smooth: str | None = None
) -> pd.DataFrame:
    """Training curves of every cell and method without an ablation: `over_seeds` of each value, named in `value`."""
    history = tables.select(history, variant="") if "variant" in history else history
    history = smoothed(history, smooth) if smooth else history
    parts = [over_seeds(history, [*tables.CELL, "method"], step, value).assign(value=value) for value in values]
    table = pd.concat(parts, ignore_index=True)
    return table[["value", *(column for column in table if column != "value")]]
