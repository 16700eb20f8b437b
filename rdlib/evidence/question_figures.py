"""Figures of the reviewers' questions, of the reward model and of the follow-ups: from the table to the figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from rdlib.evidence import looks, plots, tables
from rdlib.evidence.accuracy import arm_label
from rdlib.evidence.followups import BASE, SFT, SFT_AS_WARM_UP
from rdlib.evidence.looks import BLACK, BLUE, GREEN, GREY, ORANGE, SKY, Look
from rdlib.evidence.plots import draw_dots, line

DASH_DOT_DOT = (0, (5, 1, 1, 1))
STRATEGIES = {
    "reward": Look("highest reward (best of n)", BLUE, "D", "-"),
    "distinct": Look("any of the distinct texts (a reward that knows nothing)", BLACK, "v", DASH_DOT_DOT),
    "majority": Look("majority vote of n", GREEN, "P", "--"),
    "any": Look("any of n is right (pass@n)", GREY, "o", ":"),
}
CHOICES = {
    "any": Look("any of k is right (pass@k)", GREY, "o", "-"),
    "majority": Look("majority vote of k (maj@k)", GREEN, "P", "-"),
    "reward": Look("highest reward of k", BLUE, "D", "-"),
}
LINES = {"before": "--", "after": "-"}  # of the policies where colours are ways to choose; open markers before PPO
CHANGE = ("change_pp", "change_low_pp", "change_high_pp")
BY_GOLD = Look("right by gold", BLACK, "D", ":")
CONTROLS_ALONG = {  # the values in a row of panels, and its label
    "agreement": "rollouts agreeing with\nthe teacher's vote (%)",
    "entropy": "entropy\n(nats a token)",
    "validation_agreement": "greedy answers agreeing,\nvalidation (%)",
    "accuracy": "greedy answers right,\nvalidation (%)",
}
ALONG_PPO = {  # the values in a row of panels, and its label
    ("entropy",): "entropy\n(nats a token)",
    ("response_length",): "response\nlength (tokens)",
    ("extractable",): "rollouts with\nan answer (%)",
    ("agreement",): "rollouts agreeing\nwith the vote (%)",
    ("validation_agreement", "accuracy"): "greedy answers,\nvalidation (%)",
}
POLICIES = {"before": Look("before PPO", SKY, "^", "--"), "after": Look("after PPO", BLUE, "D", "-")}
JUDGES = {
    "accuracy": Look("correct by gold", BLUE, "D", "-"),
    "agreement": Look("agrees with the vote", GREEN, "P", "--"),
}
PANEL = ["cell", "benchmark"]
STUDY = ("study_pct", "study_low_pct", "study_high_pct")
RIGHT = ("right_low_pct", "right_high_pct")
SAMPLES = {"xlabel": "samples a question, n", "ylabel": "validation accuracy (%)"}


def _title(cell: str, benchmark: str | None = None, lines: int = 2) -> str:
    """The title of the panel of a cell, or of a benchmark in it."""
    dataset, teacher, student = cell.split("/")
    return looks.cell_label(benchmark or dataset, teacher, student, lines)


def _by_panel(
    table: pd.DataFrame, by: list[str], draw: Callable[[Axes, pd.DataFrame], None], labels: Mapping, **size: float
) -> Figure:
    """A panel a group of rows, drawn by `draw`; `labels` are those of the axes, `size` that of `looks.panels`."""
    groups = list(table.groupby(by, sort=False))
    figure, axes = looks.panels(len(groups), **size)
    for ax, (key, part) in zip(axes, groups, strict=True):
        draw(ax, part)
        ax.set(title=_title(*key), **labels)
    return figure


# ---- arms


def arms(table: pd.DataFrame) -> Figure:
    """Accuracy of a question's arms with intervals, a panel a cell and benchmark; each arm in its method's look."""
    rows, columns = looks.shape(len(table[PANEL].drop_duplicates()))
    titles = [_title(row.cell, row.benchmark, lines=3 if columns > 2 else 2) for row in table.itertuples()]
    table = table.assign(row=[arm_label(row.arm, row.level) for row in table.itertuples()], panel=titles)
    figure = looks.blank(7.4, (1.2 + 0.24 * table["row"].nunique()) * rows)
    options = {"interval": STUDY[1:], "seeds": "study_seeds", "columns": columns, "dodged": False}
    draw_dots(figure, table, "study_pct", "arm", looks.ARMS, **options)
    for ax in figure.axes:
        ax.set_xlabel("accuracy (%)", visible=True)
    return figure


def label_noise(table: pd.DataFrame) -> Figure:
    """Accuracy against the share of flipped pseudo-labels, a panel a cell and benchmark."""
    known = {name: looks.ARMS[name] for name in ("Ours", "Ours w/o R")}

    def draw(ax: Axes, of_panel: pd.DataFrame) -> None:
        """One panel."""
        for arm, look in known.items():
            part = of_panel[of_panel["arm"] == arm].sort_values("level")
            x = 100 * part["level"] + (0.4 if arm == "Ours" else -0.4)
            plots.points(ax, x, part, STUDY, look, capsize=2)
            looks.seed_dots(ax, x + 0.3, part["study_seeds"], look.color)

    labels = {"xlabel": "pseudo-labels flipped (%)", "ylabel": "accuracy (%)"}
    figure = _by_panel(table, PANEL, draw, labels, alone=4.2)
    looks.legend_below(figure, looks.handles(known.values()))
    return figure


def thresholds(table: pd.DataFrame) -> Figure:
    """What the vote's threshold trades: label accuracy against coverage, and the failure ratio.

    A line a teacher and dataset, in the teacher's colour; the first dataset's markers are filled.
    """
    figure, axes = looks.grid(1, 2, width=7.2, height=2.7)
    shares = ["coverage", "label_accuracy", "failure_ratio"]
    shown = (100 * table.groupby(["dataset", "teacher", "threshold"])[shares].mean()).reset_index()
    for (dataset, teacher), part in shown.groupby(["dataset", "teacher"]):
        look = looks.look(looks.TEACHERS, teacher)
        style = {"markerfacecolor": look.color if dataset == table["dataset"].iloc[0] else "white"}
        style |= {"label": f"{looks.benchmark_label(dataset)}, {look.label}"}
        line(axes[0, 0], part["coverage"], part["label_accuracy"], look, **style)
        line(axes[0, 1], part["threshold"], part["failure_ratio"], look, **style)
    axes[0, 0].set(xlabel="questions with a pseudo-label (%)", ylabel="pseudo-labels equal to gold (%)")
    axes[0, 1].set(xlabel="threshold of the vote", ylabel="failure ratio (%)")
    looks.legend_below(figure, axes[0, 1].get_legend_handles_labels()[0], columns=2)
    return figure


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
    figure = _by_panel(table, PANEL, draw, labels, width=7.4, height=3.2, alone=4.6)
    looks.legend_below(figure, list(shown.values()), columns=3)
    return figure


# ---- what the reward model can give


def best_of_n(table: pd.DataFrame) -> Figure:
    """Validation accuracy of the ways to use n samples of the warmed-up student, a panel a cell."""
    shown = {strategy: look for strategy, look in STRATEGIES.items() if strategy in set(table["strategy"])}

    def draw(ax: Axes, of_cell: pd.DataFrame) -> None:
        """One panel."""
        for strategy, look in shown.items():
            part = of_cell[of_cell["strategy"] == strategy]
            line(ax, part["samples"], part["study_pct"], look)
            ends = (part["study_low_pct"], part["study_high_pct"])
            ax.fill_between(part["samples"], *ends, color=look.color, alpha=plots.BAND)

    figure = _by_panel(table, ["cell"], draw, SAMPLES, height=2.8, alone=4.6)
    looks.legend_below(figure, looks.handles(shown.values()), columns=1)
    return figure


def pass_at_k(table: pd.DataFrame) -> Figure:
    """Accuracy of what is chosen among k samples before and after PPO, and its paired change; a row a cell."""
    cells = list(table.groupby("cell", sort=False))
    figure, axes = looks.grid(len(cells), 2, width=7.2, height=2.6)
    for (level, change), (cell, of_cell) in zip(axes, cells, strict=True):
        for place, (strategy, look) in enumerate(CHOICES.items()):
            part = of_cell[of_cell["strategy"] == strategy]
            for policy, dashes in LINES.items():
                face = look.color if policy == "after" else "white"
                line(level, part["k"], part[f"{policy}_pct"], replace(look, line=dashes), markerfacecolor=face)
                ends = (part[f"{policy}_low_pct"], part[f"{policy}_high_pct"])
                level.fill_between(part["k"], *ends, color=look.color, alpha=plots.BAND / 2, linewidth=0)
            beside = part["k"] * 1.06 ** (place - 1)  # so that intervals do not lie on each other
            plots.points(change, beside, part, CHANGE, look, linewidth=1.1, capsize=2)
        change.axhline(0, color=BLACK, linewidth=1)
        judge = "correct" if (of_cell["judge"] == "gold").all() else "agrees with the vote"
        _samples_axis(level, of_cell["k"], _title(cell), f"{judge}, validation (%)")
        _samples_axis(change, of_cell["k"], _title(cell), "after minus before PPO (pp)")
        change.sharey(axes[0, 1])
    policies = looks.handles(Look(POLICIES[name].label, BLACK, "o", dashes) for name, dashes in LINES.items())
    policies[0].set_markerfacecolor("white")
    below = [*policies, *looks.interval_handles([])]  # matplotlib fills columns of a legend first
    pairs = zip(looks.handles(CHOICES.values()), below, strict=True)
    looks.legend_below(figure, [handle for pair in pairs for handle in pair], columns=len(below))
    return figure


def _samples_axis(ax: Axes, counts: pd.Series, title: str, label: str) -> None:
    """A logarithmic axis of k with its own numbers."""
    ax.set_xscale("log", base=2)
    ticks = sorted(set(counts))
    ax.set_xticks(ticks, [str(k) for k in ticks])
    ax.minorticks_off()
    ax.set(title=title, xlabel="samples a question, k", ylabel=label)


def ppo_diversity(table: pd.DataFrame) -> Figure:
    """Along PPO: a row a measure, a column a dataset and student, a line a teacher; a dataset has one scale."""
    columns = table[["dataset", "student"]].drop_duplicates().sort_values("student", key=_small_first, kind="stable")
    columns = tables.sorted_by(columns, ["dataset"]).to_numpy().tolist()
    rows = [names for names in ALONG_PPO if set(names) & set(table["value"])]
    figure, axes = looks.grid(len(rows), len(columns), width=max(3.6, 1.95 * len(columns)), height=1.3, sharex="col")
    for of_row, names in zip(axes, rows, strict=True):
        first: dict[str, Axes] = {}
        for ax, (dataset, student) in zip(of_row, columns, strict=True):
            _along_updates(ax, tables.select(table, dataset=dataset, student=student), names)
            ax.sharey(first.setdefault(dataset, ax))
        of_row[0].set_ylabel(ALONG_PPO[names])
    for ax, (dataset, student) in zip(axes[0], columns, strict=True):
        ax.set_title(f"{looks.benchmark_label(dataset)}\n{student} student")
    for ax in axes[-1]:
        ax.set_xlabel("PPO update")
    teachers = [looks.look(looks.TEACHERS, name) for name in dict.fromkeys(table["teacher"])]
    gold = [BY_GOLD] if "accuracy" in set(table["value"]) else []
    looks.legend_below(figure, [*looks.handles([*teachers, *gold]), *plots.pale_handle(table)], columns=4)
    return figure


def _small_first(students: pd.Series) -> pd.Series:
    return students.map({name: i for i, name in enumerate(tables.in_order(students, looks.STUDENTS))})


def _along_updates(ax: Axes, table: pd.DataFrame, names: tuple[str, ...]) -> None:
    """Curves of some values in one panel."""
    for (teacher, value), curve in table[table["value"].isin(names)].groupby(["teacher", "value"], sort=False):
        look = BY_GOLD if value == "accuracy" else looks.look(looks.TEACHERS, teacher)
        style = {"color": look.color, "linestyle": look.line, "marker": look.marker, "markersize": 3}
        plots.curve_over_seeds(ax, curve["update"], curve, ("mean", "low", "high"), 4, **style)


def ranking(table: pd.DataFrame) -> Figure:
    """Accuracy at each rank by reward, and below it how many samples share the text; a column a cell."""
    cells = list(table.groupby("cell", sort=False))
    figure, axes = looks.grid(2, len(cells), width=3.6 * len(cells), height=2.1, sharex="col", sharey="row")
    ranked, copied = Look("sample at this rank by reward", BLUE, "D", "-"), Look("samples of its text", SKY, "^", "-")
    single = Look("any one sample", BLACK, "", "--")
    for (right, copies), (cell, part) in zip(axes.T, cells, strict=True):
        line(right, part["rank"], part["study_pct"], ranked)
        right.fill_between(part["rank"], *(part[end] for end in STUDY[1:]), color=BLUE, alpha=plots.BAND, linewidth=0)
        right.axhline(part["single_pct"].iloc[0], color=BLACK, linestyle="--", linewidth=1.2)
        right.set_title(_title(cell))
        line(copies, part["rank"], part["copies"], copied)
        copies.set_xlabel("rank by reward in a question (1: highest)")
    axes[0, 0].set_ylabel("right (%)")
    axes[1, 0].set(ylabel="samples with\nthe same text", ylim=(0, None))
    looks.legend_below(figure, [*looks.handles([ranked, single, copied]), *looks.interval_handles([])], columns=2)
    return figure


def controls_along(table: pd.DataFrame) -> Figure:
    """Along PPO by reward: a row a measure, a column a cell, a line an arm."""
    rows = [name for name in CONTROLS_ALONG if name in set(table["value"])]
    cells, arms = table["cell"].unique(), table["arm"].unique()
    figure, axes = looks.grid(len(rows), len(cells), width=max(6.4, 3.7 * len(cells)), height=1.7, sharex="col")
    for of_row, name in zip(axes, rows, strict=True):
        for ax, cell in zip(of_row, cells, strict=True):
            for arm, curve in tables.select(table, value=name, cell=cell).groupby("arm", sort=False):
                look = looks.look(looks.ARMS, arm)
                style = {"color": look.color, "linestyle": look.line, "marker": look.marker, "markersize": 4}
                plots.curve_over_seeds(ax, curve["update"], curve, ("mean", "low", "high"), 5, **style)
        of_row[0].set_ylabel(CONTROLS_ALONG[name])
    for ax, cell in zip(axes[0], cells, strict=True):
        ax.set_title(_title(cell))
    for ax in axes[-1]:
        ax.set_xlabel("PPO update")
    known = looks.handles(looks.look(looks.ARMS, arm) for arm in arms)
    looks.legend_below(figure, [*known, *plots.pale_handle(table)], columns=3)
    return figure


def reliability(table: pd.DataFrame) -> Figure:
    """Reliability of sigmoid(score) against the diagonal of a calibrated one, a panel a cell."""
    import seaborn as sns

    style = {"hue": "policy", "style": "policy", "hue_order": list(POLICIES), "style_order": list(POLICIES)}
    style |= {"palette": [k.color for k in POLICIES.values()], "markers": [k.marker for k in POLICIES.values()]}
    style |= {"dashes": [(3, 1.5), ""], "errorbar": None, "legend": False, "markeredgewidth": 0}

    def draw(ax: Axes, part: pd.DataFrame) -> None:
        """One panel."""
        ax.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
        sns.lineplot(part, x="predicted", y="observed", ax=ax, **style)

    labels = {"xlabel": "sigmoid of the score", "ylabel": "share of correct responses"}
    figure = _by_panel(table, ["cell"], draw, labels | {"xlim": (0, 1), "ylim": (0, 1)}, height=3.1, alone=3.6)
    looks.legend_below(figure, looks.handles(POLICIES.values()))
    return figure


def rewards(table: pd.DataFrame) -> Figure:
    """Distribution of scores before and after PPO, a panel a cell."""

    def draw(ax: Axes, of_cell: pd.DataFrame) -> None:
        """One panel."""
        for policy, look in POLICIES.items():
            plots.steps_of(ax, of_cell[of_cell["policy"] == policy], look, filled=False)

    labels = {"xlabel": "reward model score", "ylabel": "density"}
    figure = _by_panel(table, ["cell"], draw, labels, height=2.5, alone=4.4)
    looks.legend_below(figure, figure.axes[0].get_legend_handles_labels()[0])
    return figure


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
            ax.set(title=_title(cell), xlabel="KL (nats a response)", ylabel=label)
            ax.xaxis.set_major_locator(MaxNLocator(5))
    several = table["seed"].nunique() > 1
    seeds = [Line2D([], [], color=GREY, linewidth=0.8, label="pale: a seed")] if several else []
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
    line(ax, mean["kl"], mean[column], look)


# ---- follow-ups

FOLLOWED_REWARDS = {"reward model": BLUE, "vote": GREEN}
WIDTHS = (1.6, 0.8)  # of the lines of the first seed, and of the others
FOLLOWED_QUESTIONS = {"all questions": "-", "without Q_fail": (0, (4, 1.5))}
RANKERS = {
    name: Look(name, *rest)
    for name, *rest in (
        (BASE, BLUE, "D", "-"),
        ("three times the responses of a kind", looks.INDIGO, "s", "--"),
        ("larger reward model", looks.TEAL, "^", (0, (6, 2))),
        ("mean of four reward models", looks.WINE, "v", ":"),
        ("each text once", looks.INDIGO, "s", "--"),
        ("pairs alone", looks.TEAL, "^", (0, (6, 2))),
        ("each text once, pairs alone", looks.WINE, "v", ":"),
    )
}
OTHERS = {
    "majority": Look("majority vote of n", GREEN, "P", (0, (1, 1))),
    "distinct": Look("any of the distinct texts", BLACK, "x", DASH_DOT_DOT),
}
POSSIBLE_JUDGES = {
    "reward model": Look("the reward model", BLUE, "D"),
    "best possible judge": Look("the best possible judge", ORANGE, "s"),
}
SFT_LOOK, WARM_UP_LOOK = looks.METHODS["sft"], looks.METHODS["ours_wo_r"]
TEXTS_AND_RATES = {  # SFT and the warm-up as everywhere, and what lies between them
    SFT: Look(f"{SFT} (SFT)", SFT_LOOK.color, SFT_LOOK.marker),
    "all texts | rate of the warm-up": Look("all texts | rate of the warm-up", ORANGE, "o"),
    "agreeing texts | rate of SFT": Look("agreeing texts | rate of SFT", SKY, "v"),
    SFT_AS_WARM_UP: Look(f"{SFT_AS_WARM_UP} (Ours w/o R)", WARM_UP_LOOK.color, WARM_UP_LOOK.marker),
}
PAPERS = (0.70, 0.94)  # Pos/Pos AUC in the paper's Table 3


def followup_ppo(table: pd.DataFrame) -> Figure:
    """Validation agreement along PPO, a panel a warm-up, a line a seed; the second seed's are thin."""
    figure, axes = looks.grid(1, 2, width=7.2, height=2.8, sharey=True)
    seeds, (cell,) = sorted(set(table["seed"])), set(table["cell"])
    widths = {seed: WIDTHS[min(i, len(WIDTHS) - 1)] for i, seed in enumerate(seeds)}
    for ax, warm_up in zip(axes[0], ("short warm-up", "long warm-up"), strict=True):
        part = table[table["warm_up"] == warm_up]
        for (reward, questions, seed), run in part.groupby(["reward", "questions", "seed"], sort=False):
            style = {"color": FOLLOWED_REWARDS[reward], "linestyle": FOLLOWED_QUESTIONS[questions]}
            ax.plot(run["update"], run["agreement_pct"], linewidth=widths[seed], **style)
        ax.set(title=f"{_title(cell, lines=1)}\n{warm_up}", xlabel="PPO update")
    axes[0, 0].set_ylabel("validation agreement (%)")
    shown = [Look(name, color, "") for name, color in FOLLOWED_REWARDS.items()]
    shown += [Look(name, BLACK, "", dashes) for name, dashes in FOLLOWED_QUESTIONS.items()]
    handles = looks.handles(shown)
    handles += [Line2D([], [], color=BLACK, linewidth=width, label=f"seed {seed}") for seed, width in widths.items()]
    looks.legend_below(figure, handles, columns=3)
    return figure


def followup_ranking(table: pd.DataFrame) -> Figure:
    """Choosing the highest reward among n samples, a panel a cell, a line a reward model."""
    cells, trials = list(dict.fromkeys(table["cell"])), set(table["trial"])
    rankers = {name: look for name, look in RANKERS.items() if name in trials}
    figure, axes = looks.grid(1, len(cells), width=3.6 * len(cells), height=2.9)
    for ax, cell in zip(axes[0], cells, strict=True):
        for trial, strategy, look in [(name, "reward", look) for name, look in rankers.items()] + [
            (BASE, strategy, look) for strategy, look in OTHERS.items()
        ]:
            part = tables.select(table, cell=cell, trial=trial, strategy=strategy).sort_values("n")
            line(ax, part["n"], part["right_pct"], look)
            if look is RANKERS[BASE]:
                ax.fill_between(part["n"], *(part[end] for end in RIGHT), color=look.color, alpha=plots.BAND)
        ax.set(title=_title(cell), **SAMPLES)
    looks.legend_below(figure, looks.handles([*rankers.values(), *OTHERS.values()]), columns=3)
    return figure


def followup_style(table: pd.DataFrame) -> Figure:
    """Pos/Pos by the reward model and by the best possible judge, a panel a cell; shaded: the paper's range."""
    figure = looks.blank(7.6, 1.2 + 0.34 * table["row"].nunique())
    draw_dots(figure, table, "auc", "judge", POSSIBLE_JUDGES, interval=("low", "high"))
    for ax in figure.axes:
        ax.axvspan(*PAPERS, color=GREY, alpha=0.15, linewidth=0)
        ax.axvline(0.5, color=GREY, linewidth=1, linestyle=":")
        ax.set_xlabel("Pos/Pos AUC")
    looks.legend_below(figure, looks.handles(POSSIBLE_JUDGES.values(), lines=False))
    return figure


def followup_distillation(table: pd.DataFrame) -> Figure:
    """Accuracy of the methods, a panel a cell and heat; each method in its look."""
    figure = looks.blank(7.6, 0.9 + 0.95 * -(-table["panel"].nunique() // 2) + 0.5)
    options = {"interval": RIGHT, "columns": 2, "dodged": False}
    draw_dots(figure, table.assign(row=table["method"]), "right_pct", "method", looks.ARMS, **options)
    for ax in figure.axes:
        ax.set_xlabel("validation accuracy (%)")
    return figure


def followup_sft_rate(table: pd.DataFrame) -> Figure:
    """Accuracy by texts and learning rate, a panel a benchmark."""
    figure = looks.blank(7.6, 1.3 + 0.7 * table["row"].nunique())
    table = table.assign(panel=table["panel"].map(looks.benchmark_label))
    draw_dots(figure, table, "right_pct", "trial", TEXTS_AND_RATES, interval=RIGHT)
    for ax in figure.axes:
        ax.set_xlabel("accuracy (%)")
    looks.legend_below(figure, looks.handles(TEXTS_AND_RATES.values(), lines=False), columns=2)
    return figure
