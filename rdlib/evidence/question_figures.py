"""Figures of the reviewers' questions and of what the reward model can give: from the table shown to the figure."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from rdlib.evidence import looks, plots
from rdlib.evidence.dots import draw_dots
from rdlib.evidence.looks import Look
from rdlib.evidence.reviewers import arm_label

STRATEGIES = {
    "reward": Look("highest reward (best of n)", looks.BLUE, "D", "-"),
    "distinct": Look("any of the distinct texts (a reward that knows nothing)", looks.BLACK, "v", (0, (5, 1, 1, 1))),
    "majority": Look("majority vote of n", looks.GREEN, "P", "--"),
    "any": Look("any of n is right (pass@n)", looks.GREY, "o", ":"),
}
POLICIES = {
    "before": Look("before PPO", looks.SKY, "^", "--"),
    "after": Look("after PPO", looks.BLUE, "D", "-"),
}
JUDGES = {
    "accuracy": Look("correct by gold", looks.BLUE, "D", "-"),
    "agreement": Look("agrees with the vote", looks.GREEN, "P", "--"),
}
PANEL = ["cell", "benchmark"]


def _panel_label(cell: str, benchmark: str | None = None, lines: int = 2) -> str:
    """The title of the panel of a cell, or of a benchmark in it."""
    dataset, teacher, student = cell.split("/")
    return looks.cell_label(benchmark or dataset, teacher, student, lines)


def arms(table: pd.DataFrame) -> Figure:
    """Accuracy of a question's arms with intervals, a panel a cell and benchmark; each arm in its method's look."""
    panels = len(table[PANEL].drop_duplicates())
    rows, columns = looks.shape(panels)
    titles = [_panel_label(row.cell, row.benchmark, lines=3 if columns > 2 else 2) for row in table.itertuples()]
    table = table.assign(row=[arm_label(row.arm, row.level) for row in table.itertuples()], panel=titles)
    figure = looks.blank(7.4, (1.2 + 0.24 * table["row"].nunique()) * rows)
    draw_dots(
        figure,
        table,
        "study_pct",
        "arm",
        looks.ARMS,
        interval=("study_low_pct", "study_high_pct"),
        seeds="study_seeds",
        columns=columns,
        dodged=False,
    )
    for ax in figure.axes:
        ax.set_xlabel("accuracy (%)", visible=True)
    return figure


def label_noise(table: pd.DataFrame) -> Figure:
    """Accuracy against the share of flipped pseudo-labels, a panel a cell and benchmark."""
    found = list(table.groupby(PANEL, sort=False))
    figure, axes = looks.panels(len(found), alone=4.2)
    known = {name: looks.ARMS[name] for name in ("Ours", "Ours w/o R")}
    for ax, (key, of_panel) in zip(axes, found, strict=True):
        for arm, look in known.items():
            part = of_panel[of_panel["arm"] == arm].sort_values("level")
            errors = looks.error_ends(part, "study_pct", "study_low_pct", "study_high_pct")
            x = 100 * part["level"] + (0.4 if arm == "Ours" else -0.4)
            style = {"color": look.color, "marker": look.marker, "linestyle": look.line, "capsize": 2}
            ax.errorbar(x, part["study_pct"], errors, **style)
            looks.seed_dots(ax, x + 0.3, part["study_seeds"], look.color)
        ax.set(title=_panel_label(*key), xlabel="pseudo-labels flipped (%)", ylabel="accuracy (%)")
    looks.legend_below(figure, looks.handles(known.values()))
    return figure


def thresholds(table: pd.DataFrame) -> Figure:
    """What the vote's threshold trades: label accuracy against coverage, and the failure ratio.

    A line a teacher and dataset, in the teacher's colour; the first dataset's markers are filled.
    """
    figure, axes = looks.grid(1, 2, width=7.2, height=2.7)
    shares = ["coverage", "label_accuracy", "failure_ratio"]
    shown = (100 * table.groupby(["dataset", "teacher", "threshold"])[shares].mean()).reset_index()
    datasets = list(dict.fromkeys(table["dataset"]))
    for (dataset, teacher), line in shown.groupby(["dataset", "teacher"]):
        look = looks.look(looks.TEACHERS, teacher)
        style = {"color": look.color, "marker": look.marker, "linestyle": look.line}
        style |= {"markerfacecolor": look.color if dataset == datasets[0] else "white"}
        style |= {"label": f"{looks.benchmark_label(dataset)}, {look.label}"}
        axes[0, 0].plot(line["coverage"], line["label_accuracy"], **style)
        axes[0, 1].plot(line["threshold"], line["failure_ratio"], **style)
    axes[0, 0].set(xlabel="questions with a pseudo-label (%)", ylabel="pseudo-labels equal to gold (%)")
    axes[0, 1].set(xlabel="threshold of the vote", ylabel="failure ratio (%)")
    looks.legend_below(figure, axes[0, 1].get_legend_handles_labels()[0], columns=2)
    return figure


def pareto(table: pd.DataFrame) -> Figure:
    """Accuracy against the operations that making an arm takes, a panel a cell and benchmark.

    An open marker has more samples.
    """
    found = list(table.groupby(PANEL, sort=False))
    figure, axes = looks.panels(len(found), width=7.4, height=3.2, alone=4.6)
    shown = {}
    for ax, (key, part) in zip(axes, found, strict=True):
        errors = looks.error_ends(part, "study_pct", "study_low_pct", "study_high_pct")
        for i, row in enumerate(part.itertuples()):
            look, more = looks.look(looks.ARMS, row.arm), not np.isnan(row.level)
            style = {"color": look.color, "marker": look.marker, "mfc": "white" if more else look.color}
            label = arm_label(row.arm, row.level)
            style |= {"linestyle": "none", "elinewidth": 0.8, "markersize": 6, "label": label}
            shown[label] = ax.errorbar(row.gflop, row.study_pct, errors[:, i : i + 1], **style)
        ax.set(title=_panel_label(*key), xlabel="operations to make it (10⁹)", ylabel="accuracy (%)")
    looks.legend_below(figure, list(shown.values()), columns=3)
    return figure


# ---- what the reward model can give


def best_of_n(table: pd.DataFrame) -> Figure:
    """Validation accuracy of the ways to use n samples of the warmed-up student, a panel a cell."""
    cells = list(table.groupby("cell", sort=False))
    shown = {strategy: look for strategy, look in STRATEGIES.items() if strategy in set(table["strategy"])}
    figure, axes = looks.panels(len(cells), height=2.8, alone=4.6)
    for ax, (cell, of_cell) in zip(axes, cells, strict=True):
        for strategy, look in shown.items():
            part = of_cell[of_cell["strategy"] == strategy]
            ax.plot(part["samples"], part["study_pct"], color=look.color, marker=look.marker, linestyle=look.line)
            ends = (part["study_low_pct"], part["study_high_pct"])
            ax.fill_between(part["samples"], *ends, color=look.color, alpha=0.12)
        ax.set(title=_panel_label(cell), xlabel="samples a question, n", ylabel="validation accuracy (%)")
    looks.legend_below(figure, looks.handles(shown.values()), columns=1)
    return figure


def reliability(table: pd.DataFrame) -> Figure:
    """Reliability of sigmoid(score) against the diagonal of a calibrated one, a panel a cell."""
    import seaborn as sns

    cells = list(table.groupby("cell", sort=False))
    figure, axes = looks.panels(len(cells), height=3.1, alone=3.6)
    style = {"hue": "policy", "style": "policy", "hue_order": list(POLICIES), "style_order": list(POLICIES)}
    style |= {"palette": [k.color for k in POLICIES.values()], "markers": [k.marker for k in POLICIES.values()]}
    style |= {"dashes": [(3, 1.5), ""], "errorbar": None, "legend": False, "markeredgewidth": 0}
    for ax, (cell, part) in zip(axes, cells, strict=True):
        ax.plot([0, 1], [0, 1], color=looks.GREY, linewidth=1, linestyle=":")
        sns.lineplot(part, x="predicted", y="observed", ax=ax, **style)
        ends = {"xlim": (0, 1), "ylim": (0, 1)}
        ax.set(title=_panel_label(cell), xlabel="sigmoid of the score", ylabel="share of correct responses", **ends)
    looks.legend_below(figure, looks.handles(POLICIES.values()))
    return figure


def rewards(table: pd.DataFrame) -> Figure:
    """Distribution of scores before and after PPO, a panel a cell."""
    cells = list(table.groupby("cell", sort=False))
    figure, axes = looks.panels(len(cells), height=2.5, alone=4.4)
    for ax, (cell, of_cell) in zip(axes, cells, strict=True):
        for policy, look in POLICIES.items():
            part = of_cell[of_cell["policy"] == policy]
            edges = [*part["bin_low"], part["bin_high"].iloc[-1]]
            style = {"color": look.color, "linestyle": look.line, "linewidth": 1.5, "label": look.label}
            ax.stairs(part["density"], edges, **style)
        ax.set(title=_panel_label(cell), xlabel="reward model score", ylabel="density")
    looks.legend_below(figure, axes[0].get_legend_handles_labels()[0])
    return figure


def over_optimisation(table: pd.DataFrame) -> Figure:
    """Reward, and the change of true accuracy and agreement, against the KL to the policy before PPO; a row a cell.

    Pale lines are seeds; with several, markers are their mean at the updates that all of them have.
    """
    cells = list(table.groupby("cell", sort=False))
    figure, axes = looks.grid(max(1, len(cells)), 2, width=7.2, height=2.6)
    labels = ("reward, Eq. 7", "validation questions,\nminus before PPO (pp)")
    for (first, second), (cell, of_cell) in zip(axes, cells, strict=True):
        _along_kl(first, of_cell.dropna(subset="kl"), "reward", Look("", looks.BLACK))
        start = of_cell[of_cell["update"] == of_cell["update"].min()].set_index("seed")
        for column, look in JUDGES.items():
            change = 100 * (of_cell[column] - of_cell["seed"].map(start[column]))
            _along_kl(second, of_cell.assign(change=change).fillna({"kl": 0.0}), "change", look)
        for ax, label in zip((first, second), labels, strict=True):
            ax.set(title=_panel_label(cell), xlabel="KL (nats a response)", ylabel=label)
            ax.xaxis.set_major_locator(MaxNLocator(5))
    several = table["seed"].nunique() > 1
    seeds = [Line2D([], [], color=looks.GREY, linewidth=0.8, label="pale: a seed")] if several else []
    looks.legend_below(figure, [*looks.handles(JUDGES.values()), *seeds])
    return figure


def _along_kl(ax: Axes, table: pd.DataFrame, column: str, look: Look) -> None:
    """A column along PPO: a pale line a seed, and the mean of all seeds as far as none has stopped."""
    table = table.sort_values("update")
    of_update = table.groupby("update")[["kl", column]]
    mean = of_update.mean()[of_update.size() == table["seed"].nunique()]
    if table["seed"].nunique() > 1:
        for _, part in table.groupby("seed"):
            ax.plot(part["kl"], part[column], color=look.color, linewidth=0.8, alpha=plots.PALE)
    ax.plot(mean["kl"], mean[column], color=look.color, marker=look.marker, linestyle=look.line)
