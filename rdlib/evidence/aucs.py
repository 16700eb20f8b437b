"""AUCs of the reward models with intervals over queries: Table 3, Figures 5 and 6, ROC curves and histograms."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pandas as pd

from rdlib.evidence import curves, paper, stats, tables
from rdlib.method import metrics

CELL = tables.CELL


def auc_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Table 3: validation AUC of each reward model with its interval over queries; the paper's beside it."""
    rows = []
    for cell, group in tables.cells_of(tables.select(scores, variant=""), [*CELL, "method"]):
        row = dict(zip([*CELL, "method"], cell, strict=True)) | {"queries": group["id"].nunique()}
        for comparison in metrics.COMPARISONS:
            interval = stats.auc_draws(group, comparison, cell[0]).interval()
            row[f"study_{comparison}_auc"] = interval.estimate
            row |= {f"study_{comparison}_low": interval.low, f"study_{comparison}_high": interval.high}
            row[f"study_{comparison}_seeds"] = tables.auc_by_seed(group, comparison)
        for comparison in metrics.COMPARISONS:
            known = cell[3] == "ours"
            row[f"paper_{comparison}_auc"] = paper.reward_model_auc(*cell[:3], comparison) if known else None
        rows.append(row)
    return pd.DataFrame(rows)


# ---- ablations of the reward model


def ablation_runs(table: pd.DataFrame, key: str, default: float) -> pd.DataFrame:
    """Runs of Ours in cells where one numeric setting was varied, its value as column `key`."""
    ours = table[table["method"] == "ours"]
    ours = ours.assign(**{key: tables.setting(ours, key, default)}).dropna(subset=key).astype({key: float})
    varied = ours[ours["variant"] != ""][CELL].drop_duplicates()
    return ours.merge(varied, on=CELL)


def ablation_draws(runs: pd.DataFrame, key: str, comparison: str) -> dict[float, stats.Draws]:
    """Bootstrap of the AUC for each value of a setting, all on the same resampled queries of one cell."""
    ids = sorted(set(runs["id"]))
    return {
        value: stats.auc_draws(group, comparison, str(runs["dataset"].iloc[0]), ids=ids)
        for value, group in runs.groupby(key, sort=True)
    }


def ablation_aucs(runs: pd.DataFrame, key: str) -> pd.DataFrame:
    """Both AUCs with intervals over queries for each value of a setting: comparison, auc, auc_low, auc_high, ..."""
    rows = []
    for comparison, (cell, group) in itertools.product(metrics.COMPARISONS, tables.cells_of(runs, CELL)):
        for value, draws in ablation_draws(group, key, comparison).items():
            row = dict(zip(CELL, cell, strict=True)) | {"comparison": comparison, key: value}
            row |= {"seeds": group["seed"].nunique()} | draws.interval().columns("auc")
            rows.append(row | {"auc_seeds": tables.auc_by_seed(group[group[key] == value], comparison)})
    columns = [*CELL, "comparison", key, "seeds", "auc", "auc_low", "auc_high", "auc_seeds"]
    return pd.DataFrame(rows, columns=columns).astype({key: float, "auc": float, "auc_low": float, "auc_high": float})


def lambda_curves(history: pd.DataFrame, scores: pd.DataFrame, default: float) -> pd.DataFrame:
    """Figure 5: validation AUC along training for each lambda; rows `selected` are the checkpoint that is kept.

    A row of a curve has an interval over seeds (none with one seed), a selected row one over queries; its step is the
    mean over seeds of the steps at which their checkpoints were kept.
    """
    key = "reward_model.lam"
    runs, by = ablation_runs(history, key, default), [*CELL, key]
    best = runs.loc[runs.groupby([*by, "seed"])["pos_neg_auc"].idxmax()]  # by which a checkpoint is chosen
    at = best.groupby(by)["step"].mean().round().astype(int).reset_index()
    names = {"mean": "auc", "low": "auc_low", "high": "auc_high"}
    parts = [
        curves.over_seeds(runs, by, "step", f"{one}_auc").rename(columns=names).assign(comparison=one, point="curve")
        for one in metrics.COMPARISONS
    ]
    kept = ablation_aucs(ablation_runs(scores, key, default), key).assign(point="selected")
    table = pd.concat([*parts, kept.merge(at, on=by, how="left")], ignore_index=True).rename(columns={key: "lam"})
    columns = [*CELL, "comparison", "point", "lam", "step", "seeds", "auc", "auc_low", "auc_high", "auc_seeds"]
    return table.sort_values(columns[:7], ignore_index=True)[columns]


def ratio_points(scores: pd.DataFrame, default: float) -> pd.DataFrame:
    """Figure 6: validation AUC against the teacher's share of the positives, with intervals over queries."""
    key = "reward_model.teacher_share"
    table = ablation_aucs(ablation_runs(scores, key, default), key).rename(columns={key: "teacher_share"})
    ratios = [ratio(share) for share in table["teacher_share"]]
    table.insert(table.columns.get_loc("seeds"), "teacher_to_student", ratios)
    return table


def ratio(share: float) -> str:
    """The teacher's share of the positives as teacher : student, `3:1` for 0.75."""
    part = Fraction(share).limit_denominator(20)
    return f"{part.numerator}:{part.denominator - part.numerator}"


# ---- distributions


def roc_table(scores: pd.DataFrame) -> pd.DataFrame:
    """ROC curves of each cell's reward model (seeds pooled): columns cell, comparison, fpr, tpr."""
    parts = [
        metrics.roc_points(group, comparison).assign(**dict(zip(CELL, cell, strict=True)), comparison=comparison)
        for cell, group in tables.cells_of(tables.select(scores, variant="", method="ours"), CELL)
        for comparison in metrics.COMPARISONS
    ]
    columns = [*CELL, "comparison", "fpr", "tpr"]
    return tables.stacked(parts, pd.DataFrame(columns=columns))[columns]


def histogram_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Histograms of the reward model's scores by kind for each cell (seeds pooled)."""
    parts = [
        metrics.score_histogram(group).assign(**dict(zip(CELL, cell, strict=True)))
        for cell, group in tables.cells_of(tables.select(scores, variant="", method="ours"), CELL)
    ]
    columns = [*CELL, "kind", "bin_low", "bin_high", "density"]
    return tables.stacked(parts, pd.DataFrame(columns=columns))[columns]
