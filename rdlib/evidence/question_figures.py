"""Figures of the reviewers' questions and of what the reward model can give: from the table shown to the figure."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rdlib.evidence import looks
from rdlib.evidence.dots import draw_dots
from rdlib.evidence.looks import Look
from rdlib.evidence.question_tables import arm_label

STRATEGIES = {
    "reward": Look("highest reward (best of n)", looks.BLUE, "D", "-"),
    "majority": Look("majority vote of n", looks.ORANGE, "s", "--"),
    "any": Look("any of n is right (pass@n)", looks.GREY, "o", ":"),
}
POLICIES = {
    "before": Look("before PPO", looks.SKY, "^", "--"),
    "after": Look("after PPO", looks.BLUE, "D", "-"),
}
JUDGES = {
    "accuracy": Look("correct by gold", looks.BLUE, "D", "-"),
    "agreement": Look("agrees with the vote", looks.ORANGE, "s", "--"),
}
SEED_LINES = ["-", "--", ":", "-.", (0, (5, 1, 1, 1))]


def arms(table: pd.DataFrame) -> Figure:
    """Accuracy of a question's arms with intervals, a panel a benchmark; each arm in its method's look."""
    rows = len(table) / max(1, table["benchmark"].nunique())
    figure = looks.blank(7.4, 1.2 + 0.24 * rows)
    names = [arm_label(row.arm, row.level) for row in table.itertuples()]
    table = table.assign(row=names, panel=[looks.benchmark_label(name) for name in table["benchmark"]])
    draw_dots(
        figure,
        table,
        "study_pct",
        "arm",
        looks.ARMS,
        interval=("study_low_pct", "study_high_pct"),
        seeds="study_seeds",
        dodged=False,
    )
    for ax in figure.axes:
        ax.set_xlabel("accuracy (%)")
    return figure


def label_noise(table: pd.DataFrame) -> Figure:
    """Accuracy against the share of flipped pseudo-labels, a panel a benchmark."""
    figure, axes = looks.grid(1, 2, width=7.2, height=2.6)
    known = {name: looks.ARMS[name] for name in ("Ours", "Ours w/o R")}
    for ax, benchmark in zip(axes[0], dict.fromkeys(table["benchmark"]), strict=False):
        for arm, look in known.items():
            part = table[(table["benchmark"] == benchmark) & (table["arm"] == arm)].sort_values("level")
            errors = looks.error_ends(part, "study_pct", "study_low_pct", "study_high_pct")
            x = 100 * part["level"] + (0.4 if arm == "Ours" else -0.4)
            style = {"color": look.color, "marker": look.marker, "linestyle": look.line, "capsize": 2}
            ax.errorbar(x, part["study_pct"], errors, **style)
            looks.seed_dots(ax, x + 0.3, part["study_seeds"], look.color)
        ax.set(title=looks.benchmark_label(benchmark), xlabel="pseudo-labels flipped (%)", ylabel="accuracy (%)")
    looks.legend_below(figure, looks.handles(known.values()))
    return figure


def thresholds(table: pd.DataFrame) -> Figure:
    """What the vote's threshold trades: label accuracy against coverage, and the failure ratio; a line a teacher."""
    import seaborn as sns

    figure, axes = looks.grid(1, 2, width=7.2, height=2.7)
    names = table["dataset"].map(looks.benchmark_label) + ", " + table["teacher"] + " teacher"
    shares = ["coverage", "label_accuracy", "failure_ratio"]
    shown = (100 * table.groupby([names.rename("line"), "threshold"])[shares].mean()).reset_index()
    count = shown["line"].nunique()
    style = {"data": shown, "hue": "line", "style": "line", "sort": False, "errorbar": None, "markeredgewidth": 0}
    style |= {"markers": ["^", "s", "D", "v"][:count], "legend": False}
    style |= {"palette": [looks.GREEN, looks.ORANGE, looks.BLUE, looks.PURPLE][:count]}
    sns.lineplot(x="coverage", y="label_accuracy", ax=axes[0, 0], **style)
    sns.lineplot(x="threshold", y="failure_ratio", ax=axes[0, 1], **style | {"legend": "brief"})
    axes[0, 0].set(xlabel="questions with a pseudo-label (%)", ylabel="pseudo-labels equal to gold (%)")
    axes[0, 1].set(xlabel="threshold of the vote", ylabel="failure ratio (%)")
    handles = axes[0, 1].get_legend_handles_labels()[0]
    axes[0, 1].get_legend().remove()
    looks.legend_below(figure, handles, columns=2)
    return figure


def pareto(table: pd.DataFrame) -> Figure:
    """Accuracy against the operations that making an arm takes, a panel a benchmark; more samples: an open marker."""
    figure, axes = looks.grid(1, 2, width=7.4, height=3.2)
    shown = []
    for ax, benchmark in zip(axes[0], dict.fromkeys(table["benchmark"]), strict=False):
        part = table[table["benchmark"] == benchmark]
        errors = looks.error_ends(part, "study_pct", "study_low_pct", "study_high_pct")
        for i, row in enumerate(part.itertuples()):
            look, more = looks.look(looks.ARMS, row.arm), not np.isnan(row.level)
            style = {"color": look.color, "marker": look.marker, "mfc": "white" if more else look.color}
            style |= {"linestyle": "none", "elinewidth": 0.8, "markersize": 6, "label": arm_label(row.arm, row.level)}
            shown.append(ax.errorbar(row.gflop, row.study_pct, errors[:, i : i + 1], **style))
        ax.set(title=looks.benchmark_label(benchmark), xlabel="operations to make it (10⁹)", ylabel="accuracy (%)")
    looks.legend_below(figure, shown[: len(shown) // max(1, table["benchmark"].nunique())], columns=3)
    return figure


# ---- what the reward model can give


def best_of_n(table: pd.DataFrame) -> Figure:
    """Validation accuracy of three ways to use n samples of the warmed-up student."""
    figure, axes = looks.grid(1, 1, width=4.6, height=2.8)
    ax = axes[0, 0]
    for strategy, look in STRATEGIES.items():
        part = table[table["strategy"] == strategy]
        ax.plot(part["samples"], part["study_pct"], color=look.color, marker=look.marker, linestyle=look.line)
        ax.fill_between(part["samples"], part["study_low_pct"], part["study_high_pct"], color=look.color, alpha=0.12)
    ax.set(xlabel="samples a question, n", ylabel="validation accuracy (%)")
    looks.legend_below(figure, looks.handles(STRATEGIES.values()), columns=1)
    return figure


def reliability(table: pd.DataFrame) -> Figure:
    """Reliability of sigmoid(score) against the diagonal of a calibrated one."""
    import seaborn as sns

    figure, axes = looks.grid(1, 1, width=3.6, height=3.1)
    ax = axes[0, 0]
    ax.plot([0, 1], [0, 1], color=looks.GREY, linewidth=1, linestyle=":")
    style = {"hue": "policy", "style": "policy", "hue_order": list(POLICIES), "style_order": list(POLICIES)}
    style |= {"palette": [k.color for k in POLICIES.values()], "markers": [k.marker for k in POLICIES.values()]}
    style |= {"dashes": [(3, 1.5), ""], "errorbar": None, "legend": False, "markeredgewidth": 0}
    sns.lineplot(table, x="predicted", y="observed", ax=ax, **style)
    ax.set(xlabel="sigmoid of the score", ylabel="share of correct responses", xlim=(0, 1), ylim=(0, 1))
    looks.legend_below(figure, looks.handles(POLICIES.values()))
    return figure


def rewards(table: pd.DataFrame) -> Figure:
    """Distribution of scores before and after PPO."""
    figure, axes = looks.grid(1, 1, width=4.4, height=2.5)
    for policy, look in POLICIES.items():
        part = table[table["policy"] == policy]
        edges = [*part["bin_low"], part["bin_high"].iloc[-1]]
        axes[0, 0].stairs(
            part["density"], edges, color=look.color, linestyle=look.line, linewidth=1.5, label=look.label
        )
    axes[0, 0].set(xlabel="reward model score", ylabel="density")
    looks.legend_below(figure, axes[0, 0].get_legend_handles_labels()[0])
    return figure


def over_optimisation(table: pd.DataFrame) -> Figure:
    """Reward, and true accuracy and agreement, against the KL to the policy before PPO; a line style a seed."""
    figure, axes = looks.grid(1, 2, width=7.2, height=2.6)
    seeds = {}
    for line, (seed, part) in zip(SEED_LINES, table.groupby("seed"), strict=False):
        seeds[seed] = Look(f"seed {seed}", looks.BLACK, "", line)
        _along_ppo(axes[0], part.sort_values("update"), line)
    axes[0, 0].set(xlabel="KL (nats a response)", ylabel="reward, Eq. 7")
    axes[0, 1].set(xlabel="KL (nats a response)", ylabel="validation questions (%)")
    judges = [Look(look.label, look.color, look.marker) for look in JUDGES.values()]
    handles = [*looks.handles(seeds.values()), *looks.handles(judges, lines=False)]
    looks.legend_below(figure, handles)
    return figure


def _along_ppo(axes: list[Axes], part: pd.DataFrame, line) -> None:
    first, second = axes
    known = part.dropna(subset="kl")
    first.plot(known["kl"], known["reward"], color=looks.BLACK, marker="o", linestyle=line)
    for column, look in JUDGES.items():
        style = {"color": look.color, "marker": look.marker, "linestyle": line}
        second.plot(part["kl"].fillna(0.0), 100 * part[column], **style)
