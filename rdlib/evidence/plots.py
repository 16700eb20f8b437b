"""Drawings that notebooks and the report's figures share: each draws a ready table on axes, and computes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rdlib.evidence.looks import (
    BLACK,
    BLUE,
    COMPARISONS,
    GREY,
    KINDS,
    LAMBDA_LOOKS,
    SKY,
    TEACHERS,
    VERMILION,
    Look,
    benchmark_label,
    error_ends,
    grid,
    look,
    note_if_empty,
    seed_dots,
)
from rdlib.method import metrics

# --- Figures 3 and 4: the teacher as judge ------------------------------------------------------------------


def draw_failure_ratios(ax: Axes, table: pd.DataFrame) -> None:
    """Figure 3: share of questions without a pseudo-label, by dataset and teacher, as `failure_ratios` has it."""
    if note_if_empty(ax, table):
        return
    _teacher_bars(ax, table)
    ax.set(ylabel="questions without a pseudo-label (%)", ylim=(0, None))
    ax.margins(y=0.25)
    ax.legend(loc="upper left")


def draw_judged_correctness(axes: Iterable[Axes], table: pd.DataFrame) -> None:
    """Figure 4: share judged as the gold answer judges, of pseudo-labels and of responses, one axes each."""
    titles = {"pseudo-labels": "pseudo-labels equal to gold", "responses": "responses judged as gold judges"}
    for ax, (unit, title) in zip(axes, titles.items(), strict=True):
        part = table[table.unit == unit] if len(table) else table
        ax.set_title(title)
        if not note_if_empty(ax, part):
            _teacher_bars(ax, part)
            ax.set(ylim=(0, 100), ylabel="judged correctly (%)")


def _teacher_bars(ax: Axes, table: pd.DataFrame) -> None:
    datasets, teachers = list(dict.fromkeys(table.dataset)), list(dict.fromkeys(table.teacher))
    width = 0.7 / len(teachers)
    for i, teacher in enumerate(teachers):
        part, looks = table[table.teacher == teacher], look(TEACHERS, teacher)
        xs = np.array([datasets.index(name) for name in part.dataset]) + (i - (len(teachers) - 1) / 2) * width
        ax.bar(
            xs,
            part.study_pct,
            width * 0.92,
            color=looks.color,
            hatch=looks.hatch,
            edgecolor=BLACK,
            linewidth=0.8,
            label=looks.label,
        )
        errors = error_ends(part, "study_pct", "study_low_pct", "study_high_pct")
        ax.errorbar(xs, part.study_pct, errors, fmt="none", ecolor=BLACK, elinewidth=1, capsize=3)
        seed_dots(ax, xs + 0.12 * width, part.study_seeds, BLACK)
    ax.set_xticks(range(len(datasets)), [benchmark_label(name) for name in datasets])
    ax.set_xlim(-0.5, len(datasets) - 0.5)
    ax.grid(visible=False, axis="x")


# --- Figures 5 and 6: the reward model's AUC ----------------------------------------------------------------


def draw_lambda_curves(axes: Iterable[Axes], table: pd.DataFrame) -> None:
    """Figure 5 of one cell: AUC along training for each lambda, Pos/Neg and Pos/Pos; the checkpoint kept, at right."""
    lams = sorted(table.lam.unique())
    for ax, comparison in zip(axes, COMPARISONS, strict=True):
        ax.set_title(COMPARISONS[comparison].label)
        part = table[table.comparison == comparison]
        if note_if_empty(ax, part):
            continue
        last = part.step.max()
        for i, lam in enumerate(lams):
            color, marker, line = LAMBDA_LOOKS[i % len(LAMBDA_LOOKS)]
            curve = part[(part.lam == lam) & (part.point == "curve")]
            style = {"color": color, "marker": marker, "linestyle": line, "label": f"{lam:g}"}
            curve_over_seeds(ax, curve.step, curve, ("auc", "auc_low", "auc_high"), len(curve), **style)
            kept = part[(part.lam == lam) & (part.point == "selected")]
            at = last * (1.07 + 0.035 * i)
            ax.errorbar(
                [at] * len(kept),
                kept.auc,
                error_ends(kept, "auc", "auc_low", "auc_high"),
                color=color,
                marker=marker,
                markerfacecolor="white",
                linestyle="none",
                capsize=2,
            )
            seed_dots(ax, [at + 0.01 * last] * len(kept), kept.auc_seeds, color)
        ax.axvline(last * 1.035, color=GREY, linewidth=0.8)
        ax.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
        ax.set_xticks([tick for tick in ax.get_xticks() if 0 <= tick <= last])
        ax.set(xlabel="optimizer step of the reward model", ylabel="validation AUC")


PALE = 0.35


def curve_over_seeds(
    ax: Axes, steps: pd.Series, curve: pd.DataFrame, names: Sequence[str], marks: int, **style: Any
) -> None:
    """A mean over seeds, with the band of its interval as far as no seed has ended, and pale from there on.

    `names` are the columns of the mean and of the interval's ends. In the pale part seeds that have ended are held at
    their last value (`rdlib.evidence.curve_tables.over_seeds`). About `marks` points of either part have markers.
    """
    whole = (curve.seeds == curve.seeds.max()).to_numpy()
    mean, low, high = (curve[name] for name in names)
    ax.plot(steps[whole], mean[whole], markevery=max(1, whole.sum() // marks), **style)
    ax.fill_between(steps[whole], low[whole], high[whole], color=style["color"], alpha=0.12, linewidth=0)
    if not whole.all():
        rest = ~whole
        rest[whole.nonzero()[0].max()] = True  # from the last whole point on
        every = max(1, rest.sum() // marks)
        ax.plot(steps[rest], mean[rest], markevery=every, **style | {"alpha": PALE, "label": None})


def lambda_handles(table: pd.DataFrame) -> list[Line2D]:
    """Legend handles of Figure 5."""
    handles = []
    for i, lam in enumerate(sorted(table.lam.unique())):
        color, marker, line = LAMBDA_LOOKS[i % len(LAMBDA_LOOKS)]
        handles.append(Line2D([], [], color=color, marker=marker, linestyle=line, label=f"$\\lambda$ = {lam:g}"))
    kept = Line2D([], [], color=BLACK, marker="o", markerfacecolor="white", linestyle="none")
    kept.set_label("checkpoint kept, 95 % interval")
    return [*handles, kept, *pale_handle(table)] if handles else []


def draw_ratio_points(ax: Axes, table: pd.DataFrame) -> None:
    """Figure 6 of one cell: validation AUC against the teacher's share of the positives, intervals over queries."""
    if note_if_empty(ax, table):
        return
    for i, (comparison, looks) in enumerate(COMPARISONS.items()):
        part = table[table.comparison == comparison].sort_values("teacher_share")
        seed_dots(ax, part.teacher_share + 0.003 * (2 * i - 1) + 0.004, part.auc_seeds, looks.color)
        ax.errorbar(
            part.teacher_share + 0.003 * (2 * i - 1),
            part.auc,
            error_ends(part, "auc", "auc_low", "auc_high"),
            color=looks.color,
            marker=looks.marker,
            linestyle=looks.line,
            capsize=3,
            label=looks.label,
        )
    shares = table.drop_duplicates("teacher_share").sort_values("teacher_share")
    ax.set_xticks(shares.teacher_share, list(shares.teacher_to_student))
    ax.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    ax.set(xlabel="teacher : student positives", ylabel="validation AUC")


def pale_handle(table: pd.DataFrame) -> list[Line2D]:
    """A legend handle where seeds stop at different steps."""
    if table.seeds.dropna().nunique() <= 1:
        return []
    return [Line2D([], [], color=BLACK, alpha=PALE, label="pale: ended seeds held")]


# --- distributions and ROC ----------------------------------------------------------------------------------


def draw_histogram(ax: Axes, table: pd.DataFrame) -> None:
    """Histograms of reward model scores by kind; columns kind, bin_low, bin_high, density."""
    if note_if_empty(ax, table):
        return
    for kind, looks in KINDS.items():
        part = table[table.kind == kind]
        if len(part):
            edges = [*part.bin_low, part.bin_high.iloc[-1]]
            ax.stairs(part.density, edges, color=looks.color, linestyle=looks.line, linewidth=1.5, label=looks.label)
            ax.stairs(part.density, edges, color=looks.color, alpha=0.12, fill=True)
    ax.set(xlabel="reward model score", ylabel="density")


def draw_roc(ax: Axes, table: pd.DataFrame) -> None:
    """ROC curves; columns comparison, fpr, tpr."""
    if note_if_empty(ax, table):
        return
    for comparison, looks in COMPARISONS.items():
        part = table[table.comparison == comparison]
        ax.plot(part.fpr, part.tpr, color=looks.color, linestyle=looks.line, label=looks.label)
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    ax.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01), aspect="equal")


# --- helpers of notebooks: one run --------------------------------------------------------------------------


def plot_sft_history(ax: Axes, history: pd.DataFrame) -> Axes:
    """An SFT run's losses (left axis) and validation agreement with the pseudo-labels (right axis, returned)."""
    right = ax.twinx()
    series = (
        (ax, "loss", "training loss", Look("", GREY, "", "-")),
        (ax, "eval_loss", "validation loss", Look("", BLACK, "o", "--")),
        (right, "agreement", "validation agreement (right)", Look("", BLUE, "D", "-")),
    )
    handles = []
    for side, column, label, looks in series:
        if column not in history:
            continue
        part = history[history[column].notna()]
        handles += side.plot(
            part.step, part[column], color=looks.color, marker=looks.marker, linestyle=looks.line, label=label
        )
    ax.set(xlabel="optimizer step", ylabel="loss (nats per token)")
    right.set(ylabel="agreement with pseudo-labels", ylim=(0, 1))
    right.spines["right"].set_visible(True)
    right.grid(visible=False)
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    return right


def plot_reward_model_history(ax: Axes, history: pd.DataFrame) -> None:
    """Validation Pos/Neg and Pos/Pos AUC of one reward model along its training."""
    for comparison, looks in COMPARISONS.items():
        part = history[history[f"{comparison}_auc"].notna()]
        ax.plot(
            part.step,
            part[f"{comparison}_auc"],
            color=looks.color,
            marker=looks.marker,
            linestyle=looks.line,
            label=looks.label,
        )
    ax.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    ax.set(xlabel="optimizer step of the reward model", ylabel="validation AUC")
    ax.legend(loc="best")


def plot_reward_distributions(ax: Axes, scores: pd.DataFrame) -> None:
    """Scores of one reward model by kind of response; columns kind, score."""
    draw_histogram(ax, metrics.score_histogram(scores))
    ax.legend(loc="best")


def plot_roc(ax: Axes, scores: pd.DataFrame) -> None:
    """ROC curves of one reward model; columns kind, score."""
    curves = [metrics.roc_points(scores, name).assign(comparison=name) for name in COMPARISONS]
    draw_roc(ax, pd.concat(curves, ignore_index=True))
    ax.legend(loc="lower right")


PPO_PANELS = {
    "reward (Eq. 7)": ["reward", "rm_score"],
    "KL to reference (nats per response)": ["kl"],
    "agreement with pseudo-labels": ["agreement", "validation_agreement"],
    "entropy (nats per token)": ["entropy"],
    "response length (tokens)": ["response_length"],
    "share": ["clip_fraction", "extractable"],
}


def plot_ppo_history(history: pd.DataFrame, axes: np.ndarray | None = None) -> Figure:
    """Six panels of one PPO run's metrics along its updates, on 2 x 3 axes (made when not given)."""
    axes = grid(2, 3, width=9)[1] if axes is None else axes
    looks = [(BLUE, "-", ""), (VERMILION, "--", "o")]
    for ax, (label, columns) in zip(axes.flat, PPO_PANELS.items(), strict=True):
        for column, (color, line, marker) in zip(columns, looks, strict=False):
            part = history[history[column].notna()] if column in history else history[:0]
            ax.plot(
                part["update"],
                part[column] if len(part) else [],
                color=color,
                linestyle=line,
                marker=marker,
                markersize=3,
                label=column.replace("_", " "),
            )
        ax.set(xlabel="PPO update", ylabel=label)
        if len(columns) > 1:
            ax.legend(loc="best")
    return axes.flat[0].figure


def plot_votes(ax: Axes, labels: pd.DataFrame) -> None:
    """Histogram of the vote's share for the most frequent answer; queries without a pseudo-label hatched."""
    failed = labels.pseudo_label.isna()
    bins = np.arange(-0.025, 1.05, 0.05)  # shares are multiples of 0.05, each in the middle of a bar
    ax.hist(
        [labels.share[~failed], labels.share[failed]],
        bins=bins,
        stacked=True,
        color=[SKY, VERMILION],
        edgecolor=BLACK,
        linewidth=0.6,
        label=["pseudo-labelled", "failed (Q_fail)"],
    )
    for container in ax.containers[1:]:
        for bar in container:
            bar.set_hatch("////")
    ax.set(
        xlabel="share of high-confidence responses with the most frequent answer",
        ylabel="questions",
        xlim=(-0.03, 1.03),
    )
    ax.legend(loc="upper left")
