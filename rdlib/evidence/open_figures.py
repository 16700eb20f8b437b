"""Figures of the open ends of the science: from the table shown to the figure."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rdlib.evidence import looks
from rdlib.evidence.dots import draw_dots
from rdlib.evidence.looks import Look
from rdlib.evidence.open_sft_tables import SFT, WARM_UP
from rdlib.evidence.open_tables import BASE

REWARDS = {"reward model": looks.BLUE, "vote": looks.GREEN}
WIDTHS = (1.6, 0.8)  # of the lines of the first seed, and of the others
QUESTIONS = {"all questions": "-", "without Q_fail": (0, (4, 1.5))}
RANKERS = {
    BASE: Look(BASE, looks.BLUE, "D", "-"),
    "three times the responses of a kind": Look("three times the responses of a kind", looks.INDIGO, "s", "--"),
    "larger reward model": Look("larger reward model", looks.TEAL, "^", (0, (6, 2))),
    "mean of four reward models": Look("mean of four reward models", looks.WINE, "v", ":"),
}
OTHERS = {
    "majority": Look("majority vote of n", looks.GREEN, "P", (0, (1, 1))),
    "distinct": Look("any of the distinct texts", looks.BLACK, "x", (0, (5, 1, 1, 1))),
}
JUDGES = {
    "reward model": Look("the reward model", looks.BLUE, "D"),
    "best possible judge": Look("the best possible judge", looks.ORANGE, "s"),
}
TEXTS_AND_RATES = {  # SFT and the warm-up as everywhere, and what lies between them
    SFT: Look(f"{SFT} (SFT)", looks.METHODS["sft"].color, looks.METHODS["sft"].marker),
    "all texts | rate of the warm-up": Look("all texts | rate of the warm-up", looks.ORANGE, "o"),
    "agreeing texts | rate of SFT": Look("agreeing texts | rate of SFT", looks.SKY, "v"),
    WARM_UP: Look(f"{WARM_UP} (Ours w/o R)", looks.METHODS["ours_wo_r"].color, looks.METHODS["ours_wo_r"].marker),
}
PAPERS = (0.70, 0.94)  # Pos/Pos AUC in the paper's Table 3


def ppo(table: pd.DataFrame) -> Figure:
    """Validation agreement along PPO, a panel a warm-up, a line a seed; the second seed's are thin."""
    figure, axes = looks.grid(1, 2, width=7.2, height=2.8, sharey=True)
    seeds = sorted(set(table["seed"]))
    for ax, warm_up in zip(axes[0], ("short warm-up", "long warm-up"), strict=True):
        part = table[table["warm_up"] == warm_up]
        for (reward, questions, seed), run in part.groupby(["reward", "questions", "seed"], sort=False):
            style = {"color": looks.look({}, reward).color if reward not in REWARDS else REWARDS[reward]}
            style["linewidth"] = WIDTHS[min(seeds.index(seed), len(WIDTHS) - 1)]
            ax.plot(run["update"], run["agreement_pct"], linestyle=QUESTIONS[questions], **style)
        ax.set(title=f"{_cell(table)}\n{warm_up}", xlabel="PPO update")
    axes[0, 0].set_ylabel("validation agreement (%)")
    shown = [Look(name, color, "") for name, color in REWARDS.items()]
    shown += [Look(name, looks.BLACK, "", line) for name, line in QUESTIONS.items()]
    handles = looks.handles(shown)
    for seed, width in zip(seeds, WIDTHS, strict=False):
        handles.append(Line2D([], [], color=looks.BLACK, linewidth=width, label=f"seed {seed}"))
    looks.legend_below(figure, handles, columns=3)
    return figure


def _cell(table: pd.DataFrame) -> str:
    """The cell that a table is of, in the words of figures."""
    (cell,) = set(table["cell"])
    return looks.cell_label(*cell.split("/"), lines=1)


def ranking(table: pd.DataFrame) -> Figure:
    """Choosing the highest reward among n samples, a panel a cell, a line a reward model."""
    cells = list(dict.fromkeys(table["cell"]))
    figure, axes = looks.grid(1, len(cells), width=3.6 * len(cells), height=2.9)
    for ax, cell in zip(axes[0], cells, strict=True):
        of_cell = table[table["cell"] == cell]
        for name, look in RANKERS.items():
            part = of_cell[(of_cell["trial"] == name) & (of_cell["strategy"] == "reward")].sort_values("n")
            style = {"color": look.color, "marker": look.marker, "linestyle": look.line}
            ax.plot(part["n"], part["right_pct"], **style)
            if name == BASE:
                ax.fill_between(part["n"], part["right_low_pct"], part["right_high_pct"], color=look.color, alpha=0.12)
        for strategy, look in OTHERS.items():
            part = of_cell[(of_cell["trial"] == BASE) & (of_cell["strategy"] == strategy)].sort_values("n")
            ax.plot(part["n"], part["right_pct"], color=look.color, marker=look.marker, linestyle=look.line)
        title = looks.cell_label(*cell.split("/"))
        ax.set(title=title, xlabel="samples a question, n", ylabel="validation accuracy (%)")
    looks.legend_below(figure, looks.handles([*RANKERS.values(), *OTHERS.values()]), columns=3)
    return figure


def style(table: pd.DataFrame) -> Figure:
    """Pos/Pos by the reward model and by the best possible judge, a panel a cell; shaded: the paper's range."""
    figure = looks.blank(7.6, 1.2 + 0.34 * table["row"].nunique())
    draw_dots(figure, table, "auc", "judge", JUDGES, interval=("low", "high"))
    for ax in figure.axes:
        ax.axvspan(*PAPERS, color=looks.GREY, alpha=0.15, linewidth=0)
        ax.axvline(0.5, color=looks.GREY, linewidth=1, linestyle=":")
        ax.set_xlabel("Pos/Pos AUC")
    looks.legend_below(figure, looks.handles(JUDGES.values(), lines=False))
    return figure


def distillation(table: pd.DataFrame) -> Figure:
    """Accuracy of the methods, a panel a cell and heat; each method in its look."""
    table = table.assign(row=table["method"])
    figure = looks.blank(7.6, 0.9 + 0.95 * -(-table["panel"].nunique() // 2) + 0.5)
    intervals = ("right_low_pct", "right_high_pct")
    draw_dots(figure, table, "right_pct", "method", looks.ARMS, interval=intervals, columns=2, dodged=False)
    for ax in figure.axes:
        ax.set_xlabel("validation accuracy (%)")
    return figure


def sft_rate(table: pd.DataFrame) -> Figure:
    """Accuracy by texts and learning rate, a panel a benchmark."""
    table = table.assign(panel=table["panel"].map(looks.benchmark_label))
    figure = looks.blank(7.6, 1.3 + 0.7 * table["row"].nunique())
    draw_dots(figure, table, "right_pct", "trial", TEXTS_AND_RATES, interval=("right_low_pct", "right_high_pct"))
    for ax in figure.axes:
        ax.set_xlabel("accuracy (%)")
    looks.legend_below(figure, looks.handles(TEXTS_AND_RATES.values(), lines=False), columns=2)
    return figure
