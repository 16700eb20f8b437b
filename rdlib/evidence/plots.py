"""Drawings that notebooks and the report's figures share: each draws a ready table on axes, and computes nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from rdlib.evidence import looks, tables
from rdlib.evidence.looks import BLACK, BLUE, COMPARISONS, GREY, KINDS, SKY, VERMILION, Look
from rdlib.method import metrics

PALE = 0.35
BAND = 0.12  # how opaque the area of an interval is
AREA = {"alpha": BAND, "linewidth": 0}
STYLED = ("axes", "grid", "xtick", "ytick", "font", "text")  # what seaborn's objects take from matplotlib's style
STEPS = "optimizer step of the reward model"


# ---- panels, lines, points and curves


def faceted(
    axes: np.ndarray, table: pd.DataFrame, rows: Iterable[Mapping[str, Any]], columns: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[Axes, dict[str, Any], pd.DataFrame]]:
    """(axes, its values, its rows of the table) for each panel of a grid; `rows`, `columns`: values by column name."""
    for ax, (row, column) in zip(axes.flat, itertools.product(rows, columns), strict=True):
        yield ax, {**row, **column}, tables.select(table, **row, **column)


def by_panel(
    table: pd.DataFrame,
    by: list[str],
    draw: Callable[[Axes, pd.DataFrame], None],
    labels: Mapping[str, Any] = MappingProxyType({}),
    *,
    title: Callable[..., str] = looks.title,
    width: float = 7.2,
    height: float = 2.6,
    alone: float | None = None,
) -> Figure:
    """A panel a group of rows, drawn by `draw`, at most three side by side.

    `labels` are those of the axes, `title` makes a panel's of its group's values. In inches: the figure's width, or
    `alone` with one panel, and a row's height.
    """
    groups = list(table.groupby(by, sort=False))
    figure, axes = looks.grid(*looks.shape(len(groups)), alone if alone and len(groups) == 1 else width, height)
    for ax, (key, part) in zip(looks.used(axes, len(groups)), groups, strict=True):
        draw(ax, part)
        ax.set(title=title(*key), **labels)
    return figure


def each(table: pd.DataFrame, by: str, known: Mapping[str, Look]) -> Iterator[tuple[Look, pd.DataFrame]]:
    """(look, its rows) of each known name in a column."""
    return ((look, table[table[by] == name]) for name, look in known.items())


def line(
    ax: Axes, x: pd.Series, table: pd.DataFrame, names: Sequence[str], look: Look, area: Mapping = AREA, **options: Any
) -> list[Line2D]:
    """A line in a look; `names`: the columns of the value and, for an area around it, of the interval's ends."""
    value, *ends = names
    if ends:
        ax.fill_between(x, *(table[end] for end in ends), color=look.color, **area)
    return ax.plot(x, table[value], **look.style | options)


def points(ax: Axes, x: pd.Series, table: pd.DataFrame, names: Sequence[str], look: Look, **options: Any) -> None:
    """Points with intervals in a look; `names`: the columns of the value and of the interval's ends."""
    ax.errorbar(x, table[names[0]], looks.error_ends(table, *names), **look.style | options)


def curves(ax: Axes, table: pd.DataFrame, step: str, by: list[str], style: Callable[..., dict], marks: int = 4) -> None:
    """A `curve_over_seeds` for each combination of values of some columns, of which `style` gives the style."""
    for key, curve in table.groupby(by, sort=False):
        curve_over_seeds(ax, curve, step, marks, **style(*key))


def curve_over_seeds(ax: Axes, curve: pd.DataFrame, step: str, marks: int, **style: Any) -> None:
    """A `mean` over seeds, with its interval (`low`, `high`) as far as no seed has ended, and pale from there on.

    In the pale part seeds that have ended keep their last value (`rdlib.evidence.curves.over_seeds`). About `marks`
    points of either part have markers.
    """
    whole = (curve["seeds"] == curve["seeds"].max()).to_numpy()
    steps, mean, low, high = (curve[name] for name in (step, "mean", "low", "high"))
    ax.plot(steps[whole], mean[whole], markevery=max(1, whole.sum() // marks), **style)
    ax.fill_between(steps[whole], low[whole], high[whole], color=style["color"], **AREA)
    if not whole.all():
        rest = ~whole
        rest[whole.nonzero()[0].max()] = True  # from the last whole point on
        every = max(1, rest.sum() // marks)
        ax.plot(steps[rest], mean[rest], markevery=every, **style | {"alpha": PALE, "label": None})


def pale_handle(table: pd.DataFrame) -> list[Line2D]:
    """A legend handle where seeds stop at different steps."""
    several = table["seeds"].dropna().nunique() > 1
    return [Line2D([], [], color=BLACK, alpha=PALE, label="pale: ended seeds held")] if several else []


def steps_of(ax: Axes, table: pd.DataFrame, look: Look, filled: bool) -> None:
    """The steps of a histogram (bin_low, bin_high, density), with the area below where it is filled."""
    if table.empty:
        return
    edges = [*table["bin_low"], table["bin_high"].iloc[-1]]
    ax.stairs(table["density"], edges, color=look.color, linestyle=look.line, linewidth=1.5, label=look.label)
    if filled:
        ax.stairs(table["density"], edges, color=look.color, alpha=BAND, fill=True)


# ---- dots with intervals by group


def dots(
    table: pd.DataFrame,
    value: str,
    by: str,
    known: Mapping[str, Look],
    size: tuple[float, float],
    label: str,
    **options: Any,
) -> Figure:
    """A figure of `draw_dots`, which has the other arguments, with a label of the values; `size` in inches."""
    figure = looks.blank(*size)
    draw_dots(figure, table, value, by, known, **options)
    plt.setp(figure.axes, xlabel=label)
    return figure


def draw_dots(
    figure: Figure | SubFigure,
    table: pd.DataFrame,
    value: str,
    by: str,
    known: Mapping[str, Look],
    *,
    interval: tuple[str, str] | None = None,
    seeds: str | None = None,
    columns: int | None = None,
    shared: bool = True,
    dodged: bool = True,
) -> None:
    """A dot for each row of the table at `value`, dodged and looked up `by` a column; panels wrapped after `columns`.

    The table's column `row` is the place on the vertical axis, `panel` the panel. `interval` names the columns of the
    interval's ends, `seeds` that of single seeds' values as text ("75.4 74.9"), drawn as small dots. `shared`: the
    panels have the same rows; `dodged`: a row holds several dots. Seaborn's objects draw; their statistics are unused.
    """
    import seaborn.objects as so

    names = list(dict.fromkeys(table[by]))
    used = {name: looks.look(known, name) for name in names}
    place = so.Dodge(empty="keep", by=["color"]) if dodged else so.Shift()
    wrap = columns if columns and table["panel"].nunique() > columns else None
    plot = so.Plot(_with_seeds(table, [by, "row", "panel"], seeds), x=value, y="row", color=by)
    plot = plot.facet(col="panel", wrap=wrap)
    if interval is not None:
        plot = plot.add(so.Range(linewidth=1.1), place, xmin=interval[0], xmax=interval[1], orient="y", legend=False)
    plot = plot.add(so.Dot(edgewidth=0.3), place, marker=by, pointsize=by, orient="y", legend=False)
    if seeds is not None:
        below = so.Shift(y=0.3 / len(names) if dodged else 0.3)
        small = so.Dot(pointsize=1.6, alpha=0.6, edgewidth=0)
        plot = plot.add(small, place, below, x="seed_value", orient="y", legend=False)
    plot = plot.scale(
        color={name: one.color for name, one in used.items()},
        marker={name: one.marker for name, one in used.items()},
        pointsize={name: 8 if one.marker == "*" else 5 for name, one in used.items()},
    )
    theme = {name: v for name, v in mpl.rcParams.items() if name.startswith(STYLED)}
    plot.share(x=False, y=shared).label(x="", y="", title=str).theme(theme).on(figure).plot()
    for ax in figure.axes:
        ax.grid(visible=False, axis="y")
        for border in range(1, table["row"].nunique()) if dodged and len(names) > 1 else ():
            ax.axhline(border - 0.5, color="#cccccc", linewidth=0.6)


def _with_seeds(table: pd.DataFrame, keys: list[str], column: str | None) -> pd.DataFrame:
    """The table, and below it a row for each value in its texts of single seeds ("75.4 74.9"), as `seed_value`.

    One table, since seaborn joins that of a layer to the plot's by its index.
    """
    texts = table[column].astype("object").fillna("").astype(str) if column else pd.Series("", table.index)
    long = table.assign(seed_value=texts.str.split()).explode("seed_value").dropna(subset="seed_value")
    both = pd.concat([table, long[[*keys, "seed_value"]]], ignore_index=True)
    return both.astype({"seed_value": float})


# ---- Figures 3 and 4: the teacher as judge


def draw_failure_ratios(ax: Axes, table: pd.DataFrame) -> None:
    """Figure 3: share of questions without a pseudo-label, by dataset and teacher, as `failure_ratios` has it."""
    _teacher_bars(ax, table)
    ax.set(ylabel="questions without a pseudo-label (%)", ylim=(0, None))
    ax.margins(y=0.25)
    ax.legend(loc="upper left")


def draw_judged_correctness(axes: Iterable[Axes], table: pd.DataFrame) -> None:
    """Figure 4: share judged as the gold answer judges, of pseudo-labels and of responses, one axes each."""
    titles = {"pseudo-labels": "pseudo-labels equal to gold", "responses": "responses judged as gold judges"}
    for ax, (unit, title) in zip(axes, titles.items(), strict=True):
        _teacher_bars(ax, table[table["unit"] == unit])
        ax.set(title=title, ylim=(0, 100), ylabel="judged correctly (%)")


def _teacher_bars(ax: Axes, table: pd.DataFrame) -> None:
    datasets, teachers = list(dict.fromkeys(table["dataset"])), list(dict.fromkeys(table["teacher"]))
    width = 0.7 / len(teachers)
    for i, teacher in enumerate(teachers):
        part, look = table[table["teacher"] == teacher], looks.look(looks.TEACHERS, teacher)
        xs = np.array([datasets.index(name) for name in part["dataset"]]) + (i - (len(teachers) - 1) / 2) * width
        style = {"color": look.color, "hatch": look.hatch, "edgecolor": BLACK, "linewidth": 0.8, "label": look.label}
        ax.bar(xs, part["study_pct"], width * 0.92, **style)
        errors = looks.error_ends(part, "study_pct", "study_low_pct", "study_high_pct")
        ax.errorbar(xs, part["study_pct"], errors, fmt="none", ecolor=BLACK, elinewidth=1, capsize=3)
        looks.seed_dots(ax, xs + 0.12 * width, part["study_seeds"], BLACK)
    ax.set_xticks(range(len(datasets)), [looks.benchmark_label(name) for name in datasets])
    ax.set_xlim(-0.5, len(datasets) - 0.5)
    ax.grid(visible=False, axis="x")


# ---- Figures 5 and 6: the reward model's AUC

AUC = ("auc", "auc_low", "auc_high")


def draw_lambda_curves(axes: Iterable[Axes], table: pd.DataFrame) -> None:
    """Figure 5 of one cell: AUC along training for each lambda, Pos/Neg and Pos/Pos; the checkpoint kept, at right."""
    for ax, (title, part) in zip(axes, each(table, "comparison", COMPARISONS), strict=True):
        last = part["step"].max()
        for i, (lam, look) in enumerate(_lambdas(table).items()):
            curve = part[(part["lam"] == lam) & (part["point"] == "curve")]
            curve = curve.rename(columns=dict(zip(AUC, ("mean", "low", "high"), strict=True)))
            curve_over_seeds(ax, curve, "step", len(curve), label=f"{lam:g}", **look.style)
            kept = part[(part["lam"] == lam) & (part["point"] == "selected")]
            at = last * (1.07 + 0.035 * i)
            points(ax, [at] * len(kept), kept, AUC, look, markerfacecolor="white", linestyle="none", capsize=2)
            looks.seed_dots(ax, [at + 0.01 * last] * len(kept), kept["auc_seeds"], look.color)
        ax.axvline(last * 1.035, color=GREY, linewidth=0.8)
        _chance(ax)
        ax.set_xticks([tick for tick in ax.get_xticks() if 0 <= tick <= last])
        ax.set(title=title.label, xlabel=STEPS, ylabel="validation AUC")


def _lambdas(table: pd.DataFrame) -> dict[float, Look]:
    """The look of each lambda."""
    lambdas, known = sorted(set(table["lam"])), itertools.cycle(looks.LAMBDA_LOOKS)
    return {lam: Look(f"$\\lambda$ = {lam:g}", *one) for lam, one in zip(lambdas, known, strict=False)}


def _chance(ax: Axes) -> None:
    ax.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")


def lambda_handles(table: pd.DataFrame) -> list[Line2D]:
    """Legend handles of Figure 5."""
    kept = Look("checkpoint kept, 95 % interval", BLACK, "o", "none")
    found = looks.handles(_lambdas(table).values())
    return [*found, *looks.handles([kept], markerfacecolor="white"), *pale_handle(table)] if found else []


def draw_ratio_points(ax: Axes, table: pd.DataFrame) -> None:
    """Figure 6 of one cell: validation AUC against the teacher's share of the positives, intervals over queries."""
    for beside, (look, part) in zip((-0.003, 0.003), each(table, "comparison", COMPARISONS), strict=True):
        part = part.sort_values("teacher_share")
        x = part["teacher_share"] + beside
        looks.seed_dots(ax, x + 0.004, part["auc_seeds"], look.color)
        points(ax, x, part, AUC, look, capsize=3, label=look.label)
    shares = table.drop_duplicates("teacher_share").sort_values("teacher_share")
    ax.set_xticks(shares["teacher_share"], list(shares["teacher_to_student"]))
    _chance(ax)
    ax.set(xlabel="teacher : student positives", ylabel="validation AUC")


# ---- distributions and ROC


def draw_histogram(ax: Axes, table: pd.DataFrame) -> None:
    """Histograms of reward model scores by kind; columns kind, bin_low, bin_high, density."""
    for look, part in each(table, "kind", KINDS):
        steps_of(ax, part, look, filled=True)
    ax.set(xlabel="reward model score", ylabel="density")


def draw_roc(ax: Axes, table: pd.DataFrame) -> None:
    """ROC curves; columns comparison, fpr, tpr."""
    for look, part in each(table, "comparison", COMPARISONS):
        line(ax, part["fpr"], part, ["tpr"], look, marker="", label=look.label)
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    ax.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01), aspect="equal")


# ---- one run, in notebooks


def plot_sft_history(ax: Axes, history: pd.DataFrame) -> Axes:
    """An SFT run's losses (left axis) and validation agreement with the pseudo-labels (right axis, returned)."""
    right = ax.twinx()
    series = {
        "loss": (ax, Look("training loss", GREY, "", "-")),
        "eval_loss": (ax, Look("validation loss", BLACK, "o", "--")),
        "agreement": (right, Look("validation agreement (right)", BLUE, "D", "-")),
    }
    handles = []
    for column, (side, look) in series.items():
        part = history.dropna(subset=column)
        handles += line(side, part["step"], part, [column], look, label=look.label)
    ax.set(xlabel="optimizer step", ylabel="loss (nats per token)")
    right.set(ylabel="agreement with pseudo-labels", ylim=(0, 1))
    right.spines["right"].set_visible(True)
    right.grid(visible=False)
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    return right


def plot_reward_model_history(ax: Axes, history: pd.DataFrame) -> None:
    """Validation Pos/Neg and Pos/Pos AUC of one reward model along its training."""
    for comparison, look in COMPARISONS.items():
        part = history.dropna(subset=f"{comparison}_auc")
        line(ax, part["step"], part, [f"{comparison}_auc"], look, label=look.label)
    _chance(ax)
    ax.set(xlabel=STEPS, ylabel="validation AUC")
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


def plot_ppo_history(history: pd.DataFrame) -> Figure:
    """Six panels of one PPO run's metrics along its updates."""
    figure, axes = looks.grid(2, 3, width=9)
    pair = (Look("", BLUE, "", "-"), Look("", VERMILION, "o", "--"))
    for ax, (label, columns) in zip(axes.flat, PPO_PANELS.items(), strict=True):
        for column, look in zip(columns, pair, strict=False):
            part = history.reindex(columns=["update", column]).dropna(subset=column)
            line(ax, part["update"], part, [column], look, markersize=3, label=column.replace("_", " "))
        ax.set(xlabel="PPO update", ylabel=label)
        if len(columns) > 1:
            ax.legend(loc="best")
    return figure


def plot_votes(ax: Axes, labels: pd.DataFrame) -> None:
    """Histogram of the vote's share for the most frequent answer; queries without a pseudo-label hatched."""
    failed = labels["pseudo_label"].isna()
    bins = np.arange(-0.025, 1.05, 0.05)  # shares are multiples of 0.05, each in the middle of a bar
    style = {"color": [SKY, VERMILION], "edgecolor": BLACK, "linewidth": 0.6}
    names = ["pseudo-labelled", "failed (Q_fail)"]
    ax.hist([labels["share"][~failed], labels["share"][failed]], bins=bins, stacked=True, label=names, **style)
    for bar in ax.containers[1]:
        bar.set_hatch("////")
    ax.set(xlabel="share of high-confidence responses with the most frequent answer", ylabel="questions")
    ax.set_xlim(-0.03, 1.03)
    ax.legend(loc="upper left")
