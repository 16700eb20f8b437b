"""The report's figures: each function takes the table that it shows and returns the figure."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure

from rdlib.evidence import paper, pipeline_figure, plots, tables

SFT_PANELS = {
    "loss": "training loss\n(nats, mean of 20 steps)",
    "eval_loss": "validation loss (nats)",
    "agreement": "validation agreement",
}
PPO_PANELS = {
    "reward": "reward, Eq. 7",
    "kl": "KL (nats a response)",
    "validation_agreement": "validation agreement",
}
REWARD_PANELS = {"pos_neg_auc": "Pos/Neg AUC (validation)", "pos_pos_auc": "Pos/Pos AUC (validation)"}


def pipeline(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(1, 1, width=7.2, height=2.6)
    pipeline_figure.draw_pipeline(axes[0, 0], table.itertuples(index=False, name=None))
    return figure


def failure_ratios(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(1, 1, width=4.0, height=2.6)
    plots.draw_failure_ratios(axes[0, 0], table)
    return figure


def judged_correctness(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(1, 2, width=7.0, height=2.6)
    plots.draw_judged_correctness(axes[0], table)
    handles, _ = axes[0, 0].get_legend_handles_labels()
    plots.legend_below(figure, handles)
    return figure


def lambda_curves(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(1, 2, width=7.2, height=2.9)
    plots.draw_lambda_curves(axes[0], table)
    plots.legend_below(figure, plots.lambda_handles(table), columns=3)
    return figure


def data_ratio(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(1, 1, width=4.6, height=2.8)
    plots.draw_ratio_points(axes[0, 0], table)
    return figure


def main_results(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(2, max(1, table.benchmark.nunique()), width=7.6, height=2.9)
    plots.draw_main_results(axes, table)
    plots.legend_below(figure, plots.method_handles(tables.in_order(table.method, paper.METHODS)))
    return figure


def claims_of_methods(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(2, 4, width=9.0, height=2.9, sharey=True)
    plots.draw_claim_differences(axes[0], table, "study")
    plots.draw_claim_differences(axes[1], table, "paper")
    figure.supylabel("benchmark / teacher / student", fontsize=8.5)
    return figure


def claims_of_ablations(table: pd.DataFrame) -> Figure:
    figure, axes = plots.grid(2, 3, width=9.0, height=2.0)
    plots.draw_claim_differences(axes.flat, table, "study")
    return figure


def sft_curves(table: pd.DataFrame) -> Figure:
    return _curves(table, "step", SFT_PANELS, "optimiser step")


def reward_model_curves(table: pd.DataFrame) -> Figure:
    return _curves(table, "step", REWARD_PANELS, "optimiser step")


def ppo_curves(table: pd.DataFrame) -> Figure:
    return _curves(table, "update", PPO_PANELS, "PPO update")


def _curves(table: pd.DataFrame, step: str, panels: dict[str, str], x: str) -> Figure:
    figure, axes = plots.grid(max(1, table.dataset.nunique()), len(panels), width=2.6 * len(panels), height=2.2)
    plots.draw_learning_curves(axes, table, step, panels, x)
    plots.legend_below(figure, plots.cell_handles(table), columns=3)
    return figure


def histograms(table: pd.DataFrame) -> Figure:
    return _panels(table, plots.draw_histogram, plots.kind_handles(), sharey=False)


def roc(table: pd.DataFrame) -> Figure:
    return _panels(table, plots.draw_roc, plots.comparison_handles())


def _panels(table: pd.DataFrame, draw: Callable, handles: list, sharey: bool = True) -> Figure:
    cells = list(dict.fromkeys(table[tables.CELL].itertuples(index=False, name=None)))
    columns = min(4, max(1, len(cells)))
    figure, axes = plots.grid(
        max(1, -(-len(cells) // columns)), columns, width=8.4, height=2.45, sharex=True, sharey=sharey
    )
    for ax, cell in zip(axes.flat, cells, strict=False):
        draw(ax, tables.select(table, **dict(zip(tables.CELL, cell, strict=True))))
        ax.set_title(plots.cell_title(*cell))
    for ax in list(axes.flat)[len(cells) :]:
        ax.axis("off")
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    for ax in axes[:-1].flat:
        ax.set_xlabel("")
    plots.legend_below(figure, handles)
    return figure
