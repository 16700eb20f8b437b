"""Figures of the reviewers' questions, of the reward model and of the follow-ups: from the table to the figure."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rdlib.evidence import looks, plots, tables
from rdlib.evidence.accuracy import arm_label
from rdlib.evidence.followups import BASE
from rdlib.evidence.looks import BLACK, BLUE, GREY, SKY, Look

STRATEGIES, CHOICES, POLICIES, JUDGES = (looks.GROUPS[name] for name in ("strategies", "choices", "policies", "judges"))
RANKERS, OTHERS = looks.GROUPS["rankers"], looks.GROUPS["choices without a reward"]
LINES = {"before": "--", "after": "-"}  # of the policies where colours are ways to choose; open markers before PPO
QUESTIONS = {"all questions": "-", "without Q_fail": (0, (4, 1.5))}  # lines of the PPO that is followed up
WIDTHS = (1.6, 0.8)  # of the lines of the first seed, and of the others
PAPERS = (0.70, 0.94)  # Pos/Pos AUC in the paper's Table 3
BY_GOLD = Look("right by gold", BLACK, "D", ":")
PANEL = ["cell", "benchmark"]
STUDY, RIGHT = ((f"{name}_pct", f"{name}_low_pct", f"{name}_high_pct") for name in ("study", "right"))
CHANGE = ("change_pp", "change_low_pp", "change_high_pp")
SAMPLES = {"xlabel": "samples a question, n", "ylabel": "validation accuracy (%)"}
OUTLINED = {"alpha": plots.BAND}  # an area with its border


# ---- arms


def arms(table: pd.DataFrame) -> Figure:
    """Accuracy of a question's arms with intervals, a panel a cell and benchmark; each arm in its method's look."""
    rows, columns = looks.shape(len(table[PANEL].drop_duplicates()))
    titles = [looks.title(row.cell, row.benchmark, lines=3 if columns > 2 else 2) for row in table.itertuples()]
    table = table.assign(row=[arm_label(row.arm, row.level) for row in table.itertuples()], panel=titles)
    size = (7.4, (1.2 + 0.24 * table["row"].nunique()) * rows)
    options = {"interval": STUDY[1:], "seeds": "study_seeds", "columns": columns, "dodged": False}
    figure = plots.dots(table, "study_pct", "arm", looks.ARMS, size, "accuracy (%)", **options)
    for ax in figure.axes:
        ax.xaxis.label.set_visible(True)
    return figure


def label_noise(table: pd.DataFrame) -> Figure:
    """Accuracy against the share of flipped pseudo-labels, a panel a cell and benchmark."""
    known = {name: looks.ARMS[name] for name in ("Ours", "Ours w/o R")}

    def draw(ax: Axes, of_panel: pd.DataFrame) -> None:
        """One panel."""
        for beside, (look, part) in zip((0.4, -0.4), plots.each(of_panel, "arm", known), strict=True):
            part = part.sort_values("level")
            x = 100 * part["level"] + beside
            plots.points(ax, x, part, STUDY, look, capsize=2)
            looks.seed_dots(ax, x + 0.3, part["study_seeds"], look.color)

    labels = {"xlabel": "pseudo-labels flipped (%)", "ylabel": "accuracy (%)"}
    figure = plots.by_panel(table, PANEL, draw, labels, alone=4.2)
    return looks.legend_below(figure, looks.handles(known.values()))


def thresholds(table: pd.DataFrame) -> Figure:
    """What the vote's threshold trades: label accuracy against coverage, and the failure ratio.

    A line a teacher and dataset, in the teacher's colour; the first dataset's markers are filled. An area is the
    interval of one seed's questions, its ends averaged over seeds.
    """
    figure, axes = looks.grid(1, 2, width=7.2, height=2.7)
    left, right = axes[0]
    table = table.assign(failure_low=1 - table["coverage_high"], failure_high=1 - table["coverage_low"])
    accuracy = ["label_accuracy", "label_accuracy_low", "label_accuracy_high"]
    failure = ["failure_ratio", "failure_low", "failure_high"]
    means = table.groupby(["dataset", "teacher", "threshold"])[["coverage", *accuracy, *failure]].mean()
    shown = (100 * means).reset_index()
    for (dataset, teacher), part in shown.groupby(["dataset", "teacher"]):
        look = looks.look(looks.TEACHERS, teacher)
        style = {"markerfacecolor": look.color if dataset == table["dataset"].iloc[0] else "white"}
        style |= {"label": f"{looks.benchmark_label(dataset)}, {look.label}"}
        plots.line(left, part["coverage"], part, accuracy, look, **style)
        plots.line(right, part["threshold"], part, failure, look, **style)
    left.set(xlabel="questions with a pseudo-label (%)", ylabel="pseudo-labels equal to gold (%)")
    right.set(xlabel="threshold of the vote", ylabel="failure ratio (%)")
    return looks.legend_below(figure, right.get_legend_handles_labels()[0], columns=2)


def pareto(table: pd.DataFrame) -> Figure:
    """Accuracy against the operations that making an arm takes, a panel a cell and benchmark.

    An open marker has more samples.
    """
    shown = {}

    def draw(ax: Axes, part: pd.DataFrame) -> None:
        """One panel."""
        errors = looks.error_ends(part, *STUDY)
        for i, row in enumerate(part.itertuples()):
            look, more, label = looks.look(looks.ARMS, row.arm), not np.isnan(row.level), arm_label(row.arm, row.level)
            style = {"color": look.color, "marker": look.marker, "mfc": "white" if more else look.color}
            style |= {"linestyle": "none", "elinewidth": 0.8, "markersize": 6, "label": label}
            shown[label] = ax.errorbar(row.gflop, row.study_pct, errors[:, i : i + 1], **style)

    labels = {"xlabel": "operations to make it (10⁹)", "ylabel": "accuracy (%)"}
    figure = plots.by_panel(table, PANEL, draw, labels, width=7.4, height=3.2, alone=4.6)
    return looks.legend_below(figure, list(shown.values()), columns=3)


# ---- what the reward model can give


def best_of_n(table: pd.DataFrame) -> Figure:
    """Validation accuracy of the ways to use n samples of the warmed-up student, a panel a cell."""
    shown = {strategy: look for strategy, look in STRATEGIES.items() if strategy in set(table["strategy"])}

    def draw(ax: Axes, of_cell: pd.DataFrame) -> None:
        """One panel."""
        for look, part in plots.each(of_cell, "strategy", shown):
            plots.line(ax, part["samples"], part, STUDY, look, area=OUTLINED)

    figure = plots.by_panel(table, ["cell"], draw, SAMPLES, height=2.8, alone=4.6)
    return looks.legend_below(figure, looks.handles(shown.values()), columns=1)


def pass_at_k(table: pd.DataFrame) -> Figure:
    """Accuracy of what is chosen among k samples before and after PPO, and its paired change; a row a cell."""
    cells = list(table.groupby("cell", sort=False))
    figure, axes = looks.grid(len(cells), 2, width=7.2, height=2.6)
    area = {"alpha": plots.BAND / 2, "linewidth": 0}
    for (level, change), (cell, of_cell) in zip(axes, cells, strict=True):
        for place, (look, part) in enumerate(plots.each(of_cell, "strategy", CHOICES)):
            for policy, dashes in LINES.items():
                names = [f"{policy}_{end}pct" for end in ("", "low_", "high_")]
                face = look.color if policy == "after" else "white"
                plots.line(level, part["k"], part, names, replace(look, line=dashes), area, markerfacecolor=face)
            beside = part["k"] * 1.06 ** (place - 1)  # so that intervals do not lie on each other
            plots.points(change, beside, part, CHANGE, look, linewidth=1.1, capsize=2)
        change.axhline(0, color=BLACK, linewidth=1)
        judge = "correct" if (of_cell["judge"] == "gold").all() else "agrees with the vote"
        for ax, label in ((level, f"{judge}, validation (%)"), (change, "after minus before PPO (pp)")):
            _samples_axis(ax, sorted(of_cell["k"].unique()))
            ax.set(title=looks.title(cell), xlabel="samples a question, k", ylabel=label)
        change.sharey(axes[0, 1])
    before, after = (Look(POLICIES[name].label, BLACK, "o", dashes) for name, dashes in LINES.items())
    below = [*looks.handles([before], markerfacecolor="white"), *looks.handles([after]), *looks.interval_handles()]
    pairs = zip(looks.handles(CHOICES.values()), below, strict=True)  # matplotlib fills columns of a legend first
    return looks.legend_below(figure, [handle for pair in pairs for handle in pair], columns=len(below))


def _samples_axis(ax: Axes, counts: list[int]) -> None:
    """A logarithmic axis of k with its own numbers."""
    ax.set_xscale("log", base=2)
    ax.set_xticks(counts, [str(k) for k in counts])
    ax.minorticks_off()


def ppo_diversity(table: pd.DataFrame) -> Figure:
    """Along PPO: a row a measure, a column a dataset and student, a line a teacher; a dataset has one scale."""
    columns = tables.sorted_by(table[["dataset", "student"]].drop_duplicates(), ["dataset", "student"])
    titles = [f"{looks.benchmark_label(one.dataset)}\n{one.student} student" for one in columns.itertuples()]

    def style(teacher: str, value: str) -> dict:
        """How a curve is drawn."""
        return (BY_GOLD if value == "accuracy" else looks.look(looks.TEACHERS, teacher)).style | {"markersize": 3}

    size = {"width": max(3.6, 1.95 * len(columns)), "height": 1.3}
    drawn = {"by": ["teacher", "value"], "style": style}
    figure = _along_updates(table, looks.LABELS["ppo"], columns.to_dict("records"), titles, drawn, **size)
    teachers = [looks.look(looks.TEACHERS, name) for name in table["teacher"].unique()]
    gold = [BY_GOLD] if "accuracy" in set(table["value"]) else []
    return looks.legend_below(figure, [*looks.handles([*teachers, *gold]), *plots.pale_handle(table)], columns=4)


def controls_along(table: pd.DataFrame) -> Figure:
    """Along PPO by reward: a row a measure, a column a cell, a line an arm."""
    columns = [{"cell": cell} for cell in table["cell"].unique()]
    titles = [looks.title(one["cell"]) for one in columns]
    drawn = {"by": ["arm"], "style": lambda arm: looks.look(looks.ARMS, arm).style | {"markersize": 4}, "marks": 5}
    size = {"width": max(6.4, 3.7 * len(columns)), "height": 1.7}
    figure = _along_updates(table, looks.LABELS["controls"], columns, titles, drawn, **size)
    known = looks.handles(looks.look(looks.ARMS, arm) for arm in table["arm"].unique())
    return looks.legend_below(figure, [*known, *plots.pale_handle(table)], columns=3)


def _along_updates(
    table: pd.DataFrame, labels: dict, columns: list[dict], titles: list[str], drawn: dict, **size: float
) -> Figure:
    """Curves over PPO's updates, `drawn` by `plots.curves`: a row a label of values, a panel a column in it.

    Panels of one dataset in a row have one scale, where columns are of datasets.
    """
    table = table.assign(label=table["value"].map(labels))
    rows = [{"label": label} for label in dict.fromkeys(labels.values()) if label in set(table["label"])]
    figure, axes = looks.grid(len(rows), len(columns), sharex="col", **size)
    first: dict[tuple, Axes] = {}
    for ax, of, part in plots.faceted(axes, table, rows, columns):
        plots.curves(ax, part, "update", **drawn)
        ax.sharey(first.setdefault((of["label"], of.get("dataset", ax)), ax))
    for ax, row in zip(axes[:, 0], rows, strict=True):
        ax.set_ylabel(row["label"])
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    plt.setp(axes[-1], xlabel="PPO update")
    return figure


def ranking(table: pd.DataFrame) -> Figure:
    """Accuracy at each rank by reward, and below it how many samples share the text; a column a cell."""
    cells = list(table.groupby("cell", sort=False))
    figure, axes = looks.grid(2, len(cells), width=3.6 * len(cells), height=2.1, sharex="col", sharey="row")
    ranked, copied = Look("sample at this rank by reward", BLUE, "D", "-"), Look("samples of its text", SKY, "^", "-")
    single = Look("any one sample", BLACK, "", "--")
    for (right, copies), (cell, part) in zip(axes.T, cells, strict=True):
        plots.line(right, part["rank"], part, STUDY, ranked)
        right.axhline(part["single_pct"].iloc[0], color=BLACK, linestyle="--", linewidth=1.2)
        right.set_title(looks.title(cell))
        plots.line(copies, part["rank"], part, ["copies"], copied)
        copies.set_xlabel("rank by reward in a question (1: highest)")
    axes[0, 0].set_ylabel("right (%)")
    axes[1, 0].set(ylabel="samples with\nthe same text", ylim=(0, None))
    return looks.legend_below(figure, [*looks.handles([ranked, single, copied]), *looks.interval_handles()], columns=2)


def reliability(table: pd.DataFrame) -> Figure:
    """Reliability of sigmoid(score) against the diagonal of a calibrated one, a panel a cell."""
    edge = {"markeredgewidth": 0, "markeredgecolor": "white"}

    def draw(ax: Axes, of_cell: pd.DataFrame) -> None:
        """One panel."""
        ax.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
        for dashes, (look, part) in zip(((0, (3, 1.5)), "-"), plots.each(of_cell, "policy", POLICIES), strict=True):
            plots.line(ax, part["predicted"], part, ["observed"], replace(look, line=dashes), **edge)

    labels = {"xlabel": "sigmoid of the score", "ylabel": "share of correct responses", "xlim": (0, 1), "ylim": (0, 1)}
    figure = plots.by_panel(table, ["cell"], draw, labels, height=3.1, alone=3.6)
    return looks.legend_below(figure, looks.handles(POLICIES.values()))


def rewards(table: pd.DataFrame) -> Figure:
    """Distribution of scores before and after PPO, a panel a cell."""

    def draw(ax: Axes, of_cell: pd.DataFrame) -> None:
        """One panel."""
        for look, part in plots.each(of_cell, "policy", POLICIES):
            plots.steps_of(ax, part, look, filled=False)

    labels = {"xlabel": "reward model score", "ylabel": "density"}
    figure = plots.by_panel(table, ["cell"], draw, labels, height=2.5, alone=4.4)
    return looks.legend_below(figure, figure.axes[0].get_legend_handles_labels()[0])


def over_optimisation(table: pd.DataFrame) -> Figure:
    """Reward, and the change of true accuracy and agreement, against the KL to the policy before PPO; a row a cell.

    Pale lines are seeds; with several, markers are their mean at the updates that all of them have.
    """
    cells = list(table.groupby("cell", sort=False))
    figure, axes = looks.grid(len(cells), 2, width=7.2, height=2.6)
    labels = ("reward, Eq. 7", "validation questions,\nminus before PPO (pp)")
    for (first, second), (cell, of_cell) in zip(axes, cells, strict=True):
        _along_kl(first, of_cell.dropna(subset="kl"), "reward", Look("", BLACK))
        start = of_cell[of_cell["update"] == of_cell["update"].min()].set_index("seed")
        for column, look in JUDGES.items():
            change = 100 * (of_cell[column] - of_cell["seed"].map(start[column]))
            _along_kl(second, of_cell.assign(change=change).fillna({"kl": 0.0}), "change", look)
        for ax, label in zip((first, second), labels, strict=True):
            ax.set(title=looks.title(cell), xlabel="KL (nats a response)", ylabel=label)
            ax.xaxis.set_major_locator(MaxNLocator(5))
    seeds = [Look("pale: a seed", GREY, "")] if table["seed"].nunique() > 1 else []
    return looks.legend_below(figure, [*looks.handles(JUDGES.values()), *looks.handles(seeds, linewidth=0.8)])


def _along_kl(ax: Axes, table: pd.DataFrame, column: str, look: Look) -> None:
    """A column along PPO: a pale line a seed, and the mean of all seeds as far as none has stopped."""
    table = table.sort_values("update")
    of_update = table.groupby("update")[["kl", column]]
    mean = of_update.mean()[of_update.size() == table["seed"].nunique()]
    if table["seed"].nunique() > 1:
        for _, part in table.groupby("seed"):
            ax.plot(part["kl"], part[column], color=look.color, linewidth=0.8, alpha=plots.PALE)
    plots.line(ax, mean["kl"], mean, [column], look)


# ---- follow-ups


def followup_ppo(table: pd.DataFrame) -> Figure:
    """Validation agreement along PPO, a panel a warm-up, a line a seed; the second seed's are thin."""
    figure, axes = looks.grid(1, 2, width=7.2, height=2.8, sharey=True)
    (cell,), columns = set(table["cell"]), [{"warm_up": name} for name in ("short warm-up", "long warm-up")]
    widths = {seed: WIDTHS[min(i, len(WIDTHS) - 1)] for i, seed in enumerate(sorted(set(table["seed"])))}
    for ax, of, part in plots.faceted(axes, table, [{}], columns):
        for (reward, questions, seed), run in part.groupby(["reward", "questions", "seed"], sort=False):
            look = replace(looks.GROUPS["rewards"][reward], line=QUESTIONS[questions])
            plots.line(ax, run["update"], run, ["agreement_pct"], look, linewidth=widths[seed])
        ax.set(title=f"{looks.title(cell, lines=1)}\n{of['warm_up']}", xlabel="PPO update")
    axes[0, 0].set_ylabel("validation agreement (%)")
    shown = [
        *looks.GROUPS["rewards"].values(),
        *(Look(name, BLACK, "", dashes) for name, dashes in QUESTIONS.items()),
    ]
    handles = looks.handles(shown)
    for seed, width in widths.items():
        handles += looks.handles([Look(f"seed {seed}", BLACK, "")], linewidth=width)
    return looks.legend_below(figure, handles, columns=3)


def followup_ranking(table: pd.DataFrame) -> Figure:
    """Choosing the highest reward among n samples, a panel a cell, a line a reward model."""
    columns = [{"cell": cell} for cell in table["cell"].unique()]
    figure, axes = looks.grid(1, len(columns), width=3.6 * len(columns), height=2.9)
    rankers = {name: look for name, look in RANKERS.items() if name in set(table["trial"])}
    drawn = [(name, "reward", look) for name, look in rankers.items()]
    drawn += [(BASE, strategy, look) for strategy, look in OTHERS.items()]
    for ax, of, of_cell in plots.faceted(axes, table, [{}], columns):
        for trial, strategy, look in drawn:
            part = tables.select(of_cell, trial=trial, strategy=strategy).sort_values("n")
            names = RIGHT if look is RANKERS[BASE] else RIGHT[:1]
            plots.line(ax, part["n"], part, names, look, area=OUTLINED)
        ax.set(title=looks.title(of["cell"]), **SAMPLES)
    return looks.legend_below(figure, looks.handles([*rankers.values(), *OTHERS.values()]), columns=3)


def followup_style(table: pd.DataFrame) -> Figure:
    """Pos/Pos by the reward model and by the best possible judge, a panel a cell; shaded: the paper's range."""
    known = looks.GROUPS["possible judges"]
    size, interval = (7.6, 1.2 + 0.34 * table["row"].nunique()), ("low", "high")
    figure = plots.dots(table, "auc", "judge", known, size, "Pos/Pos AUC", interval=interval)
    for ax in figure.axes:
        ax.axvspan(*PAPERS, color=GREY, alpha=0.15, linewidth=0)
        ax.axvline(0.5, color=GREY, linewidth=1, linestyle=":")
    return looks.legend_below(figure, looks.dot_handles(known, known))


def followup_distillation(table: pd.DataFrame) -> Figure:
    """Accuracy of the methods, a panel a cell and heat; each method in its look."""
    size = (7.6, 0.9 + 0.95 * -(-table["panel"].nunique() // 2) + 0.5)
    options = {"interval": RIGHT[1:], "columns": 2, "dodged": False}
    table = table.assign(row=table["method"])
    return plots.dots(table, "right_pct", "method", looks.ARMS, size, "validation accuracy (%)", **options)


def followup_sft_rate(table: pd.DataFrame) -> Figure:
    """Accuracy by texts and learning rate, a panel a benchmark."""
    known, table = looks.GROUPS["texts and rates"], table.assign(panel=table["panel"].map(looks.benchmark_label))
    size = (7.6, 1.3 + 0.7 * table["row"].nunique())
    figure = plots.dots(table, "right_pct", "trial", known, size, "accuracy (%)", interval=RIGHT[1:])
    return looks.legend_below(figure, looks.dot_handles(known, known), columns=2)
