"""The report's figures of the study: each function takes the table it shows and returns the figure."""

from __future__ import annotations

import itertools
import textwrap
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve
from matplotlib.ticker import MaxNLocator

from rdlib.evidence import convergence, looks, paper, plots, tables
from rdlib.evidence.looks import BLACK, Look

SOURCES, RATES = looks.GROUPS["sources"], looks.GROUPS["rates"]
TINTS = {"teacher": "#d5efe6", "pseudo": "#d5efe6", "reward": "#fbe7c2", "ppo": "#fbe7c2"}  # of stages, by a word
TINTS |= {"sft": "#d6e9f5", "student": "#d6e9f5", "": "#eeeeee"}
BOX = (0.68, 0.56)  # width and height of a stage in Figure 2; stages are 1 apart from left to right
APART = 0.16  # of a method's place, from its middle to either mode


def failure_ratios(table: pd.DataFrame) -> Figure:
    """Figure 3: questions without a pseudo-label."""
    figure, axes = looks.grid(1, 1, width=4.0, height=2.6)
    plots.draw_failure_ratios(axes[0, 0], table)
    return figure


def judged_correctness(table: pd.DataFrame) -> Figure:
    """Figure 4: how often the vote judges as gold does."""
    figure, axes = looks.grid(1, 2, width=7.0, height=2.6)
    plots.draw_judged_correctness(axes[0], table)
    return looks.legend_below(figure, axes[0, 0].get_legend_handles_labels()[0])


def lambda_curves(table: pd.DataFrame) -> Figure:
    """Figure 5: AUC along training for each lambda, a row a cell."""
    cells = tables.cells_of(table, tables.CELL)
    figure, axes = looks.grid(len(cells), 2, width=7.2, height=2.9)
    for row, (cell, part) in zip(axes, cells, strict=True):
        plots.draw_lambda_curves(row, part)
        for ax in row:
            ax.set_title(f"{looks.cell_label(*cell, lines=1)}\n{ax.get_title()}")
    return looks.legend_below(figure, plots.lambda_handles(table), columns=3)


def data_ratio(table: pd.DataFrame) -> Figure:
    """Figure 6: AUC against the teacher's share of the positives, a panel a cell."""
    figure = plots.by_panel(table, tables.CELL, plots.draw_ratio_points, title=looks.cell_label, height=2.8, alone=4.6)
    return looks.legend_below(figure, figure.axes[0].get_legend_handles_labels()[0], columns=1)


# ---- dots: Table 2, the claims, the rates of SFT


def main_results(table: pd.DataFrame) -> Figure:
    """Table 2 as dots: this study with intervals above, the paper's values below; a column a benchmark.

    Of questions that the paper does not have only what is above.
    """
    known = bool(table["paper_pct"].notna().any())
    figure = looks.blank(7.6, 6.6 if known else 3.6)
    above, *below = figure.subfigures(2 if known else 1, 1, squeeze=False).flat
    names = zip(table["teacher"], table["student"], strict=True)
    here = table.assign(
        row=table["teacher"] + " teacher\n" + table["student"] + " student",
        panel=[f"this study: {looks.benchmark_label(name)}" for name in table["benchmark"]],
    )
    theirs = table.assign(
        row=["\n".join(_name_in_the_paper(name) for name in pair) for pair in names],
        panel=[f"paper: {paper.LABELS.get(paper.BENCHMARKS.get(name, ''), name)}" for name in table["benchmark"]],
    )
    interval = ("study_low_pct", "study_high_pct")
    plots.draw_dots(above, here, "study_pct", "method", looks.METHODS, interval=interval, seeds="study_seeds")
    for part in below:
        plots.draw_dots(part, theirs, "paper_pct", "method", looks.METHODS)
    for part in (above, *below):
        plt.setp(part.axes, xlabel="accuracy (%)")
    handles = looks.dot_handles(looks.METHODS, tables.in_order(table["method"], paper.METHODS))
    return looks.legend_below(figure, [*handles, *looks.interval_handles(table["study_seeds"])], columns=4)


def _name_in_the_paper(name: str) -> str:
    found = paper.TEACHERS.get(name) or paper.STUDENTS.get(name, name)
    return paper.LABELS.get(found, found)


def claims_of_methods(table: pd.DataFrame) -> Figure:
    """C1 to C4, a panel each: the differences here with intervals, and the paper's."""
    known = bool(table["paper_difference"].notna().any())
    figure = _claims(table, width=9.0, columns=4, sources=["study", "paper"] if known else ["study"])
    if figure.get_figheight() > 2:  # room for the label
        figure.supylabel("benchmark / teacher / student", fontsize=8.5)
    return figure


def claims_of_ablations(table: pd.DataFrame) -> Figure:
    """C5 to C9, a panel each: the differences here with intervals."""
    figure = _claims(table, width=9.4, columns=3, sources=["study"])
    figure.get_layout_engine().set(w_pad=0.1)
    return figure


def _claims(table: pd.DataFrame, width: float, columns: int, sources: list[str]) -> Figure:
    """A panel a claim, a row a cell, a dot a source."""
    table = table.assign(panel=_titles(table))
    sizes = table["panel"].value_counts(sort=False)
    rows, tallest = -(-len(sizes) // columns), sizes.max()
    size = (width, rows * (1.2 + (0.17 + 0.06 * len(sources)) * tallest))
    options = {"interval": ("study_low", "study_high"), "seeds": "study_seeds"}
    options |= {"columns": columns, "shared": rows == 1, "dodged": len(sources) > 1}
    figure = plots.dots(_by_source(table, sources), "value", "source", SOURCES, size, "AUC", **options)
    units = table.drop_duplicates("panel")["unit"]
    for ax, unit, number in zip(figure.axes, units, sizes, strict=True):
        if rows > 1:  # as much room for a cell in every panel, so that single seeds lie close to their mean
            ax.set_ylim((number - 1 + tallest) / 2, (number - 1 - tallest) / 2)
        ax.axvline(0, color=BLACK, linewidth=0.8)
        ax.xaxis.label.set_visible(True)
        if unit == "pp":
            ax.set_xlabel("percentage points")
        else:  # three decimals take room
            ax.xaxis.set_major_locator(MaxNLocator(2))
    return looks.legend_below(figure, looks.dot_handles(SOURCES, sources) if len(sources) > 1 else [])


def _titles(table: pd.DataFrame) -> list[str]:
    """A claim's difference, its verdict, and the level of its intervals where it is not 95 %."""
    return [
        textwrap.fill(f"{row.claim}: {row.difference}", 22, break_long_words=False)
        + f"\n{row.verdict}"
        + ("" if row.level_pct == 95 else f"\n{row.level_pct:g} % intervals")
        for row in table.itertuples()
    ]


def _by_source(table: pd.DataFrame, sources: list[str]) -> pd.DataFrame:
    """A row a source: the paper's values have no intervals and no seeds."""
    parts = [table.assign(source=source, value=table[f"{source}_difference"], row=table["cell"]) for source in sources]
    long = pd.concat(parts, ignore_index=True).dropna(subset="value")
    here = long["source"] == "study"
    ends = {name: long[name].where(here, long["value"]) for name in ("study_low", "study_high")}
    return long.assign(**ends, study_seeds=long["study_seeds"].where(here))


def rates(table: pd.DataFrame) -> Figure:
    """Ours minus SFT of either rate, two dots a cell."""
    shown = table[table["comparison"].isin(RATES)].assign(row=lambda t: t["cell"], panel="")
    size, label = (6.4, 1.2 + 0.36 * shown["row"].nunique()), "accuracy of Ours minus SFT (pp)"
    options = {"interval": ("low_pp", "high_pp"), "seeds": "study_seeds"}
    figure = plots.dots(shown, "difference_pp", "comparison", RATES, size, label, **options)
    figure.axes[0].axvline(0, color=BLACK, linewidth=0.8)
    handles = [*looks.dot_handles(RATES, RATES), *looks.interval_handles(shown["study_seeds"])]
    return looks.legend_below(figure, handles, columns=2)


# ---- accuracy by group of questions


def by_group(table: pd.DataFrame) -> Figure:
    """Heat maps of accuracy: a panel a cell of Table 2, a row a group of questions, a column a method."""
    import seaborn as sns

    group, cells = table.columns[0], tables.cells(table)
    figure, axes = looks.grid(2, -(-len(cells) // 2), width=7.4, height=0.9 + 0.2 * table[group].nunique(), sharey=True)
    for ax, (teacher, student) in zip(looks.used(axes, len(cells)), cells, strict=True):
        part = table[table["teacher"].isin(["", teacher]) & table["student"].isin(["", student])]
        shown = part.pivot(index=group, columns="method", values="study_pct")
        shown = shown[tables.in_order(part["method"], paper.METHODS)]
        shown.columns = [looks.look(looks.METHODS, method).label for method in shown.columns]
        options = {"vmin": 0, "vmax": 100, "cmap": "cividis", "annot": True, "fmt": ".0f", "cbar": False}
        sns.heatmap(shown, ax=ax, linewidths=0.5, annot_kws={"size": 7.5}, **options)
        ax.set(title=f"{teacher} teacher, {student} student", xlabel="", ylabel=group if ax in axes[:, 0] else "")
        ax.tick_params(axis="x", rotation=30)
        ax.tick_params(length=0)
        ax.grid(visible=False)
    figure.colorbar(axes[0, 0].collections[0], ax=axes, label="accuracy (%)", shrink=0.6)
    return figure


# ---- trainings


def learning_curves(table: pd.DataFrame) -> Figure:
    """A row a dataset and student, a column a value; colour and marker are the method, the line is the teacher."""
    step, teachers = "update" if "update" in table else "step", list(table["teacher"].unique())
    students = tables.in_order(table["student"], paper.STUDENTS)
    rows = [{"dataset": dataset, "student": student} for dataset in table["dataset"].unique() for student in students]
    columns = [{"value": value} for value in table["value"].unique()]
    figure, axes = looks.grid(len(rows), len(columns), width=2.5 * len(columns), height=1.75, sharex="row")

    def style(teacher: str, method: str) -> dict:
        """How a curve is drawn."""
        line = looks.look(looks.TEACHERS, teacher).line
        return _marker(looks.look(looks.METHODS, method), teacher == teachers[0]) | {
            "linestyle": line,
            "markersize": 3.5,
        }

    for ax, of, part in plots.faceted(axes, table, rows, columns):
        plots.curves(ax, part, step, ["teacher", "method"], style)
        ax.set(
            ylabel=looks.LABELS["training"][of["value"]],
            title=f"{looks.benchmark_label(of['dataset'])}, {of['student']} student",
        )
    plt.setp(axes[-1], xlabel="PPO update" if step == "update" else "optimizer step")
    return looks.legend_below(figure, [*_handles(table), *plots.pale_handle(table)], columns=3)


def kept_steps(table: pd.DataFrame) -> Figure:
    """What a training changed on the test questions against the step it kept: a row a student, a column a benchmark."""
    rows, columns = ([{name: one} for one in table[name].unique()] for name in ("student", "benchmark"))
    figure, axes = looks.grid(len(rows), len(columns), width=7.2, height=2.1, sharey="row")
    for ax, of, part in plots.faceted(axes, table, rows, columns):
        for (teacher, method), runs in part.groupby(["teacher", "method"], sort=False):
            style = _marker(looks.look(looks.METHODS, method), teacher == table["teacher"].iloc[0])
            ax.plot(runs["step"], runs["change_pp"], linestyle="none", **style)
        ax.axhline(0, color=BLACK, linewidth=1)
        ax.set(title=f"{looks.benchmark_label(of['benchmark'])}, {of['student']} student")
    plt.setp(axes[:, 0], ylabel="accuracy minus that\nbefore training (pp)")
    plt.setp(axes[-1], xlabel="optimizer step kept")
    return looks.legend_below(figure, _handles(table, linestyle="none"))


def _marker(look: Look, filled: bool) -> dict[str, str]:
    """How a method's points are drawn: filled for the first teacher, hollow for others."""
    return {"color": look.color, "marker": look.marker, "markerfacecolor": look.color if filled else "white"}


def _handles(table: pd.DataFrame, **options: str) -> list[Line2D]:
    """Legend handles: colours and markers of methods, faces and, unless `options` have another, lines of teachers."""
    handles = looks.dot_handles(looks.METHODS, table["method"].unique())
    for i, name in enumerate(table["teacher"].unique()):
        look = replace(looks.look(looks.TEACHERS, name), color=BLACK, marker="o")
        handles += looks.handles([look], **_marker(look, i == 0) | options)
    return handles


# ---- distributions and ROC of all cells


def histograms(table: pd.DataFrame) -> Figure:
    """Scores of the reward models by kind of response, a panel a cell."""
    return _panels(table, plots.draw_histogram, looks.line_handles(looks.KINDS), shared=False)


def roc(table: pd.DataFrame) -> Figure:
    """ROC curves of the reward models, a panel a cell."""
    return _panels(table, plots.draw_roc, looks.line_handles(looks.COMPARISONS))


def _panels(table: pd.DataFrame, draw: Callable, handles: list, shared: bool = True) -> Figure:
    """A panel a cell; `shared`: the axes."""
    cells = list(table.groupby(tables.CELL, sort=False))
    columns = min(4, len(cells))
    figure, axes = looks.grid(-(-len(cells) // columns), columns, width=8.0, height=2.45, sharex=shared, sharey=shared)
    for ax, (cell, part) in zip(looks.used(axes, len(cells)), cells, strict=True):
        draw(ax, part)
        ax.set_title(looks.cell_label(*cell, lines=3), fontsize=8.5)
    plt.setp(axes[:, 1:], ylabel="")
    plt.setp(axes[:-1], xlabel="")
    return looks.legend_below(figure, handles)


# ---- two numerical modes


def rounding(table: pd.DataFrame) -> Figure:
    """A panel a benchmark and cell: each seed's accuracy in both modes, joined, beside mean and deviation of seeds."""
    several = len(table[["teacher", "student"]].drop_duplicates()) > 1

    def title(benchmark: str, teacher: str, student: str) -> str:
        """The cell only where there are several."""
        return looks.benchmark_label(benchmark) + (f", {teacher} to {student}" if several else "")

    by, labels = convergence.CELL[:3], {"ylabel": "accuracy (%)"}
    figure = plots.by_panel(table, by, _two_modes, labels, title=title, width=7.4, height=2.7)
    modes = [Look("portable mode", BLACK, "o", "none"), Look("torch's own numerics", BLACK, "o", "none")]
    handles = [*looks.handles(modes[:1]), *looks.handles(modes[1:], markerfacecolor="white")]
    handles += looks.handles([Look("the same seed", BLACK, "")], linewidth=0.8)
    handles += looks.handles([Look("mean, standard deviation between seeds", BLACK, "|", "none")], markersize=9)
    return looks.legend_below(figure, handles)


def _two_modes(ax: Axes, part: pd.DataFrame) -> None:
    methods = list(part["method"].unique())
    for place, method in enumerate(methods):
        look, own = looks.look(looks.METHODS, method), part[part["method"] == method]
        ends, values = [place - APART, place + APART], own[["portable_pct", "native_pct"]].to_numpy()
        ax.plot(ends, values.T, color=look.color, linewidth=0.8)
        for x, accuracies, side, filled in zip(ends, values.T, (-1, 1), (True, False), strict=True):
            ax.plot([x] * len(own), accuracies, linestyle="none", zorder=3, **_marker(look, filled))
            deviation = accuracies.std(ddof=1) if len(own) > 1 else 0.0
            bar = {"color": BLACK, "marker": "_", "markersize": 5, "linewidth": 1, "capsize": 2}
            ax.errorbar(x + 0.16 * side, accuracies.mean(), deviation, **bar)
    names = [looks.look(looks.METHODS, method).label for method in methods]
    ax.set(xticks=range(len(methods)), xticklabels=names, xlim=(-0.55, len(methods) - 0.45))
    ax.grid(visible=False, axis="x")


# ---- Figure 2, drawn from the stages' own inputs: what it shows is what runs


def pipeline(table: pd.DataFrame) -> Figure:
    """Figure 2: the DAG of stages, left to right by depth; columns stage, read_by.

    An edge that only shortens a way through other stages is pale.
    """
    figure, axes = looks.grid(1, 1, width=7.2, height=2.6)
    edges, ax = list(table.itertuples(index=False, name=None)), axes[0, 0]
    places, routes = _layout(edges)
    needed = nx.transitive_reduction(nx.DiGraph(edges)).edges
    for edge, points in routes.items():
        ax.add_patch(_arrow(points, pale=edge not in needed))
    for name, (x, y) in places.items():
        ax.add_patch(_box(x, y, next(tint for word, tint in TINTS.items() if word in name)))
        ax.text(x, y, _stage_label(name), ha="center", va="center", fontsize=7.5, zorder=4)
    ys = [y for points in routes.values() for _, y in points]
    ax.set(xlim=(-0.45, max(x for x, _ in places.values()) + 0.45), ylim=(min(ys) - 0.35, max(ys) + 0.35))
    ax.axis("off")
    return figure


def _box(x: float, y: float, color: str) -> FancyBboxPatch:
    width, height = BOX
    style = {"boxstyle": "round,pad=0,rounding_size=0.08", "facecolor": color, "edgecolor": BLACK, "linewidth": 0.9}
    return FancyBboxPatch((x - width / 2, y - height / 2), width, height, zorder=3, **style)


def _stage_label(name: str) -> str:
    number, _, words = name.partition("_")
    return f"{number}\n" + words.replace("_", "\n")


def _arrow(points: list[tuple[float, float]], pale: bool) -> FancyArrowPatch:
    """An arrow that runs level through the columns it passes and bends only between them."""
    half = BOX[0] / 2
    vertices, codes = [(points[0][0] + half, points[0][1])], [Curve.MOVETO]
    for (xa, ya), (xb, yb) in itertools.pairwise(points):
        start, end = xa + half, xb - half
        middle = (start + end) / 2
        vertices += [(middle, ya), (middle, yb), (end, yb)]
        codes += [Curve.CURVE4] * 3
        if (xb, yb) != points[-1]:
            vertices.append((xb + half, yb))
            codes.append(Curve.LINETO)
    color, width = ("#9a9a9a", 0.8) if pale else (BLACK, 1.2)
    curve = Curve(vertices, codes)
    return FancyArrowPatch(path=curve, arrowstyle="-|>", mutation_scale=7, linewidth=width, color=color, zorder=2)


def _layout(edges: list[tuple[str, str]]) -> tuple[dict, dict]:
    """Places of the stages and routes of the edges: layers by longest path, long edges led through free lanes."""
    stages = nx.DiGraph(edges)
    depth = {name: i for i, layer in enumerate(nx.topological_generations(stages)) for name in layer}
    for source in [name for name, count in stages.in_degree if not count]:  # stands just before its first reader
        depth[source] = min(depth[reader] for reader in stages[source]) - 1
    chains = {(a, b): [a, *((a, b, d) for d in range(depth[a] + 1, depth[b])), b] for a, b in edges}
    lanes, layers = nx.Graph(), defaultdict(list)
    for chain in chains.values():
        nx.add_path(lanes, chain)
    level = {node: node[2] if isinstance(node, tuple) else depth[node] for node in lanes}
    for node in sorted(level, key=lambda node: (isinstance(node, tuple), str(node))):
        layers[level[node]].append(node)
    height = _heights(layers, lanes)
    places = {node: (depth[node], height[node]) for node in stages}
    return places, {edge: [(level[node], height[node]) for node in chain] for edge, chain in chains.items()}


def _heights(layers: dict[int, list], lanes: nx.Graph) -> dict:
    """Vertical places by a few barycentre sweeps; a lane of a long edge takes half the room of a stage."""
    height = {node: float(i) for nodes in layers.values() for i, node in enumerate(nodes)}
    for _ in range(12):
        for _, nodes in sorted(layers.items()):
            wish = {node: np.mean([height[other] for other in lanes[node]]) for node in nodes}
            nodes.sort(key=lambda node: (wish[node], isinstance(node, tuple), str(node)))
            sizes = [0.2 if isinstance(node, tuple) else BOX[1] + 0.16 for node in nodes]
            tops = np.cumsum(sizes) - np.array(sizes) / 2
            for node, top in zip(nodes, tops - sum(sizes) / 2, strict=True):
                height[node] = float(top)
    return height
