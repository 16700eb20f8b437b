"""The tables that figures draw: the vote's counts, ablations of the reward model, curves, distributions, ROC."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pandas as pd

from rdlib.evidence import paper, stats, tables
from rdlib.method import metrics


def failure_ratios(pseudo_labels: pd.DataFrame) -> pd.DataFrame:
    """Figure 3: |Q_fail| / |Q| over the training and validation questions, with Wilson's interval."""
    rows = [
        {"dataset": dataset, "teacher": teacher}
        | tables.percent(stats.wilson(counts.failed, counts.questions))
        | {"n": int(counts.questions), "study_seeds": tables.by_seed(100 * seeds.failed / seeds.questions, 2)}
        | {"paper_words": paper.FAILURE_WORDS.get((dataset, teacher), "")}
        for dataset, teacher, counts, seeds in vote_counts(pseudo_labels)
    ]
    return pd.DataFrame(rows)


def vote_counts(pseudo_labels: pd.DataFrame):
    """(dataset, teacher, counts, counts by seed): seeds share their questions, so counts are means over seeds."""
    asked = pseudo_labels[pseudo_labels.split.isin(["train", "validation"])]
    for (dataset, teacher), group in tables.cells_of(asked, ["dataset", "teacher"]):
        seeds = group.drop(columns=["dataset", "teacher", "split"]).groupby("seed").sum()
        yield dataset, teacher, seeds.sum() / len(seeds), seeds


def judged_correctness(pseudo_labels: pd.DataFrame) -> pd.DataFrame:
    """Figure 4: share judged correctly against the gold answer, of pseudo-labels and of responses.

    Responses to one question are judged together, so both intervals count questions (Wilson with n =
    labelled).
    """
    rows = []
    units = (("pseudo-labels", "label_correct", "labelled"), ("responses", "judged_right", "responses"))
    for dataset, teacher, counts, seeds in vote_counts(pseudo_labels):
        for unit, right, total in units:
            share = counts[right] / counts[total] if counts[total] else np.nan
            interval = stats.wilson(share * counts.labelled, counts.labelled)
            row = {"dataset": dataset, "teacher": teacher, "unit": unit} | tables.percent(interval)
            rows.append(
                row | {"n": int(counts.labelled), "study_seeds": tables.by_seed(100 * seeds[right] / seeds[total], 2)}
            )
    return pd.DataFrame(rows)


def over_seeds(history: pd.DataFrame, by: list[str], step: str, value: str) -> pd.DataFrame:
    """Mean of a value over seeds at each step, with t intervals: columns `by`, step, seeds, mean, low, high.

    What seeds evaluate belongs together by its order: their data differ in size, so they evaluate at other steps. The
    step given is the mean of theirs. A seed that has ended is held at its last value, so that the mean is of the same
    seeds all along and does not jump; `seeds` are those still in training, and an interval is there for all of them
    alone.
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


def lambda_curves(history: pd.DataFrame, scores: pd.DataFrame, default: float) -> pd.DataFrame:
    """Figure 5: validation AUC along training for each lambda; rows `selected` are the checkpoint that is kept.

    A row of a curve has an interval over seeds (none with one seed), a selected row one over queries; its step is the
    mean over seeds of the steps at which their checkpoints were kept.
    """
    key = "reward_model.lam"
    runs, kept = ablation_runs(history, key, default), ablation_runs(scores, key, default)
    best = runs.loc[runs.groupby([*tables.CELL, key, "seed"]).pos_neg_auc.idxmax()]  # by which a checkpoint is chosen
    at = best.groupby([*tables.CELL, key]).step.mean().round().astype(int).reset_index()
    parts = []
    for comparison in metrics.COMPARISONS:
        curve = over_seeds(runs, [*tables.CELL, key], "step", f"{comparison}_auc")
        curve = curve.rename(columns={"mean": "auc", "low": "auc_low", "high": "auc_high"})
        parts.append(curve.assign(comparison=comparison, point="curve"))
        chosen = ablation_aucs(kept, key, comparison).assign(comparison=comparison, point="selected")
        parts.append(chosen.merge(at, on=[*tables.CELL, key], how="left"))
    table = pd.concat(parts, ignore_index=True).rename(columns={key: "lam"})
    columns = [*tables.CELL, "comparison", "point", "lam", "step", "seeds", "auc", "auc_low", "auc_high", "auc_seeds"]
    return table.sort_values(columns[:7], ignore_index=True)[columns]


def ablation_runs(table: pd.DataFrame, key: str, default: float) -> pd.DataFrame:
    """Runs of Ours in cells where one numeric setting was varied, its value as column `key`."""
    ours = table[table.method == "ours"]
    ours = ours.assign(**{key: [tables.setting_of(variant, key, default) for variant in ours.variant]})
    ours = ours[ours[key].notna()].astype({key: float})
    varied = ours[ours.variant != ""][tables.CELL].drop_duplicates()
    return ours.merge(varied, on=tables.CELL)


def ablation_aucs(runs: pd.DataFrame, key: str, comparison: str) -> pd.DataFrame:
    """AUC with its interval over queries for each value of an ablated setting: auc, auc_low, auc_high."""
    rows = []
    for cell, group in tables.cells_of(runs, tables.CELL):
        for value, draws in ablation_draws(group, key, comparison).items():
            interval = draws.interval()
            row = dict(zip(tables.CELL, cell, strict=True)) | {key: value, "seeds": group.seed.nunique()}
            row |= {"auc": interval.estimate, "auc_low": interval.low, "auc_high": interval.high}
            row["auc_seeds"] = tables.auc_by_seed(group[group[key] == value], comparison)
            rows.append(row)
    table = pd.DataFrame(rows, columns=[*tables.CELL, key, "seeds", "auc", "auc_low", "auc_high", "auc_seeds"])
    return table.astype({key: float, "auc": float, "auc_low": float, "auc_high": float})


def ablation_draws(runs: pd.DataFrame, key: str, comparison: str) -> dict[float, stats.Draws]:
    """Bootstrap of the AUC for each value of a setting, all on the same resampled queries of one cell."""
    ids = sorted(set(runs.id))
    return {
        value: stats.auc_draws(group, comparison, str(runs.dataset.iloc[0]), ids=ids)
        for value, group in runs.groupby(key, sort=True)
    }


def ratio_points(scores: pd.DataFrame, default: float) -> pd.DataFrame:
    """Figure 6: validation AUC against the teacher's share of the positives, with intervals over queries."""
    key = "reward_model.teacher_share"
    runs = ablation_runs(scores, key, default)
    parts = [ablation_aucs(runs, key, c).assign(comparison=c) for c in metrics.COMPARISONS]
    table = pd.concat(parts, ignore_index=True).rename(columns={key: "teacher_share"})
    table["teacher_to_student"] = [ratio(share) for share in table.teacher_share]
    columns = [
        *tables.CELL,
        "comparison",
        "teacher_share",
        "teacher_to_student",
        "seeds",
        "auc",
        "auc_low",
        "auc_high",
        "auc_seeds",
    ]
    return table[columns]


def ratio(share: float) -> str:
    """The teacher's share of the positives as teacher : student, `3:1` for 0.75."""
    part = Fraction(share).limit_denominator(20)
    return f"{part.numerator}:{part.denominator - part.numerator}"


def roc_table(scores: pd.DataFrame) -> pd.DataFrame:
    """ROC curves of each cell's reward model (seeds pooled): columns cell, comparison, fpr, tpr."""
    parts = []
    for cell, group in tables.cells_of(tables.select(scores, variant="", method="ours"), tables.CELL):
        for comparison in metrics.COMPARISONS:
            points = metrics.roc_points(group, comparison)
            parts.append(points.assign(**dict(zip(tables.CELL, cell, strict=True)), comparison=comparison))
    columns = [*tables.CELL, "comparison", "fpr", "tpr"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def histogram_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Histograms of the reward model's scores by kind for each cell (seeds pooled)."""
    parts = []
    for cell, group in tables.cells_of(tables.select(scores, variant="", method="ours"), tables.CELL):
        parts.append(metrics.score_histogram(group).assign(**dict(zip(tables.CELL, cell, strict=True))))
    columns = [*tables.CELL, "kind", "bin_low", "bin_high", "density"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def smoothed(history: pd.DataFrame, column: str, window: int = 20) -> pd.DataFrame:
    """The history with `column` as its mean over the last `window` steps of its run.

    The loss of a single step says more about its batch than about the model.
    """
    runs = [*tables.CELL, "method", "seed"]
    history = history.sort_values([*runs, "step"], ignore_index=True)
    means = history.groupby(runs)[column].transform(lambda values: values.rolling(window, min_periods=1).mean())
    return history.assign(**{column: means})


def learning_curves(history: pd.DataFrame, step: str, values: list[str]) -> pd.DataFrame:
    """Training curves of every cell and method without an ablation: `over_seeds` of each value, named in `value`."""
    history = tables.select(history, variant="") if "variant" in history else history
    parts = [over_seeds(history, [*tables.CELL, "method"], step, value).assign(value=value) for value in values]
    table = pd.concat(parts, ignore_index=True)
    return table[["value", *(column for column in table if column != "value")]]
