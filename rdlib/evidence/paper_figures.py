"""The report's figures of the paper's own results: each function takes the table it shows and returns the figure."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import replace

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from rdlib.evidence import looks, paper, pipeline_figure, plots, tables
from rdlib.evidence.dots import draw_dots
from rdlib.evidence.looks import BLACK, BLUE, Look

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
SOURCES = {"study": Look("this study", BLUE, "D"), "paper": Look("the paper", BLACK, "X")}


def pipeline(table: pd.DataFrame) -> Figure:
    """Figure 2: the stages and what each reads."""
    figure, axes = looks.grid(1, 1, width=7.2, height=2.6)
    pipeline_figure.draw_pipeline(axes[0, 0], table.itertuples(index=False, name=None))
    return figure


def failure_ratios(table: pd.DataFrame) -> Figure:
    """Figure 3: questions without a pseudo-label."""
    figure, axes = looks.grid(1, 1, width=4.0, height=2.6)
    plots.draw_failure_ratios(axes[0, 0], table)
    return figure


def judged_correctness(table: pd.DataFrame) -> Figure:
    """Figure 4: how often the vote judges as gold does."""
    figure, axes = looks.grid(1, 2, width=7.0, height=2.6)
    plots.draw_judged_correctness(axes[0], table)
    looks.legend_below(figure, axes[0, 0].get_legend_handles_labels()[0])
    return figure


def lambda_curves(table: pd.DataFrame) -> Figure:
    """Figure 5: AUC along training for each lambda, a row a cell."""
    cells = tables.cells_of(table, tables.CELL)
    figure, axes = looks.grid(max(1, len(cells)), 2, width=7.2, height=2.9)
    for row, (cell, part) in zip(axes, cells or [((), table)], strict=True):
        plots.draw_lambda_curves(row, part)
        for ax in row if cell else ():
            ax.set_title(f"{looks.cell_label(*cell, lines=1)}\n{ax.get_title()}")
    looks.legend_below(figure, plots.lambda_handles(table), columns=3)
    return figure


def data_ratio(table: pd.DataFrame) -> Figure:
    """Figure 6: AUC against the teacher's share of the positives, a panel a cell."""
    cells = tables.cells_of(table, tables.CELL)
    figure, axes = looks.panels(len(cells), height=2.8, alone=4.6)
    for ax, (cell, part) in zip(axes, cells or [((), table)], strict=True):
        plots.draw_ratio_points(ax, part)
        ax.set_title(looks.cell_label(*cell) if cell else "")
    looks.legend_below(figure, axes[0].get_legend_handles_labels()[0], columns=1)
    return figure


# ---- Table 2 and the claims as pictures


def main_results(table: pd.DataFrame) -> Figure:
    """Table 2 as dots: this study with intervals above, the paper's values below; a column a benchmark.

    Of questions that the paper does not have only what is above.
    """
    known = bool(table["paper_pct"].notna().any())
    figure = looks.blank(7.6, 6.6 if known else 3.6)
    above, *below = figure.subfigures(2 if known else 1, 1, squeeze=False).flat
    names = zip(table.teacher, table.student, strict=True)
    here = table.assign(
        row=table.teacher + " teacher\n" + table.student + " student",
        panel=[f"this study: {looks.benchmark_label(name)}" for name in table.benchmark],
    )
    theirs = table.assign(
        row=["\n".join(_name_in_the_paper(name) for name in pair) for pair in names],
        panel=[f"paper: {paper.LABELS.get(paper.BENCHMARKS.get(name, ''), name)}" for name in table.benchmark],
    )
    interval = ("study_low_pct", "study_high_pct")
    draw_dots(above, here, "study_pct", "method", looks.METHODS, interval=interval, seeds="study_seeds")
    for part in below:
        draw_dots(part, theirs, "paper_pct", "method", looks.METHODS)
    for ax in (ax for part in (above, *below) for ax in part.axes):
        ax.set_xlabel("accuracy (%)")
    handles = looks.method_handles(tables.in_order(table.method, paper.METHODS))
    looks.legend_below(figure, [*handles, *looks.interval_handles(table["study_seeds"])], columns=4)
    return figure


def _name_in_the_paper(name: str) -> str:
    found = paper.TEACHERS.get(name) or paper.STUDENTS.get(name, name)
    return paper.LABELS.get(found, found)


def claims_of_methods(table: pd.DataFrame) -> Figure:
    """C1 to C4, a panel each: the differences here with intervals, and the paper's."""
    known = bool(table["paper_difference"].notna().any())
    figure = _claims(table, width=9.0, columns=4, sources=("study", "paper") if known else ("study",))
    if figure.get_figheight() > 2:  # room for the label
        figure.supylabel("benchmark / teacher / student", fontsize=8.5)
    return figure


def claims_of_ablations(table: pd.DataFrame) -> Figure:
    """C5 to C9, a panel each: the differences here with intervals."""
    figure = _claims(table, width=9.4, columns=3, sources=("study",))
    figure.get_layout_engine().set(w_pad=0.1)
    return figure


def _claims(table: pd.DataFrame, width: float, columns: int, sources: tuple[str, ...]) -> Figure:
    named = zip(table.claim, table.difference, strict=True)
    titles = [textwrap.fill(f"{claim}: {what}", 22, break_long_words=False) for claim, what in named]
    levels = table["level_pct"].map(lambda level: "" if level == 95 else f"\n{level:g} % intervals")
    table = table.assign(panel=pd.Series(titles, table.index, dtype=str) + "\n" + table.verdict + levels)
    panels = list(dict.fromkeys(table.panel))
    rows = -(-len(panels) // columns)
    tallest = max((table.panel == panel).sum() for panel in panels) if panels else 1
    figure = looks.blank(width, max(1, rows) * (1.2 + (0.17 + 0.06 * len(sources)) * tallest))
    parts = [table.assign(source=source, value=table[f"{source}_difference"], row=table.cell) for source in sources]
    long = pd.concat(parts, ignore_index=True).dropna(subset="value")
    for name in ("study_low", "study_high"):
        long[name] = long[name].where(long.source == "study", long.value)
    long["study_seeds"] = long.study_seeds.where(long.source == "study")
    options = {"interval": ("study_low", "study_high"), "seeds": "study_seeds"}
    options |= {"columns": columns, "shared": rows == 1, "dodged": len(sources) > 1}
    draw_dots(figure, long, "value", "source", SOURCES, **options)
    units = dict(zip(table.panel, table.unit, strict=True))
    for ax, panel in zip(figure.axes, panels, strict=False):
        if rows > 1:  # as much room for a cell in every panel, so that single seeds lie close to their mean
            middle = ((table.panel == panel).sum() - 1) / 2
            ax.set_ylim(middle + tallest / 2, middle - tallest / 2)
        ax.axvline(0, color=BLACK, linewidth=0.8)
        ax.set_xlabel("percentage points" if units[panel] == "pp" else "AUC", visible=True)
        if units[panel] != "pp":  # three decimals take room
            ax.xaxis.set_major_locator(MaxNLocator(2))
    if len(sources) > 1:
        looks.legend_below(figure, looks.handles([SOURCES[source] for source in sources], lines=False))
    return figure


# ---- accuracy by group of questions


def by_group(table: pd.DataFrame) -> Figure:
    """Heat maps of accuracy: a panel a cell of Table 2, a row a group of questions, a column a method."""
    import seaborn as sns

    group, cells = table.columns[0], tables.cells(table)
    rows = table[group].nunique()
    figure, axes = looks.grid(2, max(1, -(-len(cells) // 2)), width=7.4, height=0.9 + 0.2 * rows, sharey=True)
    for ax, (teacher, student) in zip(axes.flat, cells, strict=False):
        part = table[table.teacher.isin(["", teacher]) & table.student.isin(["", student])]
        shown = part.pivot(index=group, columns="method", values="study_pct")
        shown = shown[tables.in_order(part.method, paper.METHODS)]
        shown.columns = [looks.look(looks.METHODS, method).label for method in shown.columns]
        options = {"vmin": 0, "vmax": 100, "cmap": "cividis", "annot": True, "fmt": ".0f", "cbar": False}
        sns.heatmap(shown, ax=ax, linewidths=0.5, annot_kws={"size": 7.5}, **options)
        ax.set(title=f"{teacher} teacher, {student} student", xlabel="", ylabel=group if ax in axes[:, 0] else "")
        ax.tick_params(axis="x", rotation=30)
        ax.tick_params(length=0)
        ax.grid(visible=False)
    for ax in list(axes.flat)[len(cells) :]:
        ax.axis("off")
    if cells:
        figure.colorbar(axes[0, 0].collections[0], ax=axes, label="accuracy (%)", shrink=0.6)
    return figure


# ---- learning curves, distributions, ROC: all cells


def sft_curves(table: pd.DataFrame) -> Figure:
    """Learning curves of SFT."""
    return _curves(table, "step", SFT_PANELS, "optimizer step")


def reward_model_curves(table: pd.DataFrame) -> Figure:
    """Learning curves of the reward models."""
    return _curves(table, "step", REWARD_PANELS, "optimizer step")


def ppo_curves(table: pd.DataFrame) -> Figure:
    """Learning curves of PPO."""
    return _curves(table, "update", PPO_PANELS, "PPO update")


def kept_steps(table: pd.DataFrame) -> Figure:
    """What a training changed on the test questions against the step it kept: a row a student, a column a benchmark."""
    benchmarks = list(dict.fromkeys(table["benchmark"]))
    students, teachers = (list(dict.fromkeys(table[name])) for name in ("student", "teacher"))
    figure, axes = looks.grid(max(1, len(students)), max(1, len(benchmarks)), width=7.2, height=2.1, sharey="row")
    for row, student in zip(axes, students, strict=False):
        for ax, benchmark in zip(row, benchmarks, strict=True):
            part = table[(table["student"] == student) & (table["benchmark"] == benchmark)]
            for (teacher, method), runs in part.groupby(["teacher", "method"], sort=False):
                look = looks.look(looks.METHODS, method)
                style = _marker(look, teacher == teachers[0]) | {"linestyle": "none"}
                ax.plot(runs["step"], runs["change_pp"], **style)
            ax.axhline(0, color=looks.BLACK, linewidth=1)
            ax.set(title=f"{looks.benchmark_label(benchmark)}, {student} student")
        row[0].set_ylabel("accuracy minus that\nbefore training (pp)")
    for ax in axes[-1]:
        ax.set_xlabel("optimizer step kept")
    handles = looks.method_handles(dict.fromkeys(table["method"]))
    for teacher in teachers:
        look = replace(looks.look(looks.TEACHERS, teacher), color=BLACK, marker="o")
        handles.append(Line2D([], [], label=look.label, linestyle="none", **_marker(look, teacher == teachers[0])))
    looks.legend_below(figure, handles)
    return figure


def _marker(look: looks.Look, filled: bool) -> dict[str, str]:
    """How a method's points are drawn: filled for the first teacher, hollow for others."""
    return {"color": look.color, "marker": look.marker, "markerfacecolor": look.color if filled else "white"}


def _curves(table: pd.DataFrame, step: str, panels: dict[str, str], x: str) -> Figure:
    """A row a dataset and student, a column a value; colour and marker are the method, the line is the teacher."""
    students, teachers = tables.in_order(table.student, looks.STUDENTS), list(dict.fromkeys(table.teacher))
    rows = [(dataset, student) for dataset in dict.fromkeys(table.dataset) for student in students]
    figure, axes = looks.grid(max(1, len(rows)), len(panels), width=2.5 * len(panels), height=1.75, sharex="row")
    for row, (dataset, student) in zip(axes, rows, strict=False):
        for ax, (value, label) in zip(row, panels.items(), strict=True):
            part = table[(table.dataset == dataset) & (table.student == student) & (table.value == value)]
            for (teacher, method), curve in part.groupby(["teacher", "method"], sort=False):
                style = _marker(looks.look(looks.METHODS, method), teacher == teachers[0])
                style |= {"linestyle": looks.look(looks.TEACHERS, teacher).line, "markersize": 3.5}
                plots.curve_over_seeds(ax, curve[step], curve, ("mean", "low", "high"), 4, **style)
            ax.set(ylabel=label, title=f"{looks.benchmark_label(dataset)}, {student} student")
    for ax in axes[-1]:
        ax.set_xlabel(x)
    looks.legend_below(figure, _cell_handles(table), columns=3)
    return figure


def _cell_handles(table: pd.DataFrame) -> list[Line2D]:
    """Legend handles of learning curves: colours and markers of methods, lines and faces of teachers."""
    handles = looks.method_handles(dict.fromkeys(table.method))
    for i, name in enumerate(dict.fromkeys(table.teacher)):
        look = replace(looks.look(looks.TEACHERS, name), color=BLACK, marker="o")
        handles.append(Line2D([], [], linestyle=look.line, label=look.label, **_marker(look, i == 0)))
    return handles + plots.pale_handle(table)


def histograms(table: pd.DataFrame) -> Figure:
    """Scores of the reward models by kind of response, a panel a cell."""
    return _panels(table, plots.draw_histogram, looks.kind_handles(), shared=False)


def roc(table: pd.DataFrame) -> Figure:
    """ROC curves of the reward models, a panel a cell."""
    return _panels(table, plots.draw_roc, looks.comparison_handles())


def _panels(table: pd.DataFrame, draw: Callable, handles: list, shared: bool = True) -> Figure:
    """A panel a cell; `shared`: the axes."""
    cells = list(dict.fromkeys(table[tables.CELL].itertuples(index=False, name=None)))
    columns = min(4, max(1, len(cells)))
    figure, axes = looks.grid(
        max(1, -(-len(cells) // columns)), columns, width=8.0, height=2.45, sharex=shared, sharey=shared
    )
    for ax, cell in zip(axes.flat, cells, strict=False):
        draw(ax, tables.select(table, **dict(zip(tables.CELL, cell, strict=True))))
        ax.set_title(looks.cell_label(*cell, lines=3), fontsize=8.5)
    for ax in list(axes.flat)[len(cells) :]:
        ax.axis("off")
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    for ax in axes[:-1].flat:
        ax.set_xlabel("")
    looks.legend_below(figure, handles)
    return figure
