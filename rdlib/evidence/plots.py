"""Figures: each function draws a ready table on the axes it is given, and computes nothing.

A method, teacher or kind of response has one colour and one marker or hatch in every figure, told apart in
greyscale too. Colours are Okabe and Ito's, safe for colour-blind readers. Error bars are 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rdlib.evidence import paper
from rdlib.method import metrics

BLACK, GREY, ORANGE, SKY = "#000000", "#999999", "#E69F00", "#56B4E9"
GREEN, YELLOW, BLUE, VERMILION, PURPLE = "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"


@dataclass(frozen=True)
class Look:
    """How one thing is drawn, in every figure."""

    label: str
    color: str
    marker: str = "o"
    line: str | tuple = "-"
    hatch: str = ""


METHODS = {
    "teacher": Look("Teacher", BLACK, "*", (0, (1, 1))),
    "icl": Look("ICL", GREY, "o", (0, (5, 2, 1, 2))),
    "sft": Look("SFT", ORANGE, "s", "--"),
    "ours_wo_r": Look("Ours w/o R", SKY, "^", (0, (6, 2))),
    "ours_wo_d": Look("Ours w/o D", VERMILION, "v", ":"),
    "ours": Look("Ours", BLUE, "D", "-"),
}
TEACHERS = {
    "strong": Look("strong teacher", GREEN, "o", "-", ""),
    "weak": Look("weak teacher", PURPLE, "s", "--", "////"),
}
STUDENTS = {"small": Look("small student", BLACK, "o"), "large": Look("large student", BLACK, "s")}
KINDS = {
    "teacher_positive": Look("teacher positive", GREEN, "o", "--"),
    "student_positive": Look("student positive", BLUE, "s", "-"),
    "student_negative": Look("student negative", VERMILION, "^", ":"),
}
COMPARISONS = {
    "pos_neg": Look("Pos/Neg: student + against student -", BLUE, "o", "-"),
    "pos_pos": Look("Pos/Pos: teacher + against student +", GREEN, "s", "--"),
}
SOURCES = {"gsm8k": "GSM8K", "mmlu_pro": "MMLU-Pro"}
PERTURBED = {"micro-gsm": "micro-gsm-plus", "gsm8k": "GSM-Plus"}
LAMBDA_LOOKS = [
    (GREEN, "^", ":"),
    (ORANGE, "s", "--"),
    (BLUE, "D", "-"),
    (PURPLE, "v", (0, (5, 1, 1, 1))),
    (BLACK, "o", (0, (1, 1))),
]
SPARE = [GREY, BLACK, YELLOW]
STYLE = {
    "axes.prop_cycle": mpl.cycler(color=[BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE, BLACK]),
    "figure.dpi": 110,
    "savefig.dpi": 170,
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # fonts stay text in the PDF
    "svg.fonttype": "none",
}


@contextmanager
def style(benchmarks: Mapping[str, str] | None = None) -> Iterator[None]:
    """Context in which figures are made: `with plots.style(): ...`; `benchmarks` are their names in figures."""
    token = _benchmark_names.set(benchmarks or {})
    try:
        with mpl.rc_context(STYLE):
            yield
    finally:
        _benchmark_names.reset(token)


def use_style() -> None:
    """Set the style for the whole process, as a notebook does once."""
    mpl.rcParams.update(STYLE)


def look(looks: dict[str, Look], name: str) -> Look:
    """The look of a name; an unknown one (another profile's) gets its own name and a spare colour."""
    if name in looks:
        return looks[name]
    return Look(name, SPARE[sum(map(ord, name)) % len(SPARE)], "P", "-.", "xx")


_benchmark_names: ContextVar[Mapping[str, str]] = ContextVar("benchmark_names", default={})  # noqa: B039


def benchmark_names(datasets: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """How figures name the benchmarks of a study, from its profile's `datasets`: by what they are made from.

    Own questions keep the name that the profile gives them.
    """
    names = {}
    for name, settings in datasets.items():
        source = settings["source"]
        names[name] = name if source == "questions" else SOURCES.get(source, source)
        if source in PERTURBED:
            names["gsm_plus"] = PERTURBED[source]
    return names


def benchmark_label(name: str) -> str:
    """The name of a benchmark as figures print it."""
    return _benchmark_names.get().get(name, name)


def grid(rows: int, columns: int, width: float = 7.0, height: float = 2.4, **options) -> tuple[Figure, np.ndarray]:
    """A figure with rows x columns axes (a 2-d array); the page's width and a row's height in inches."""
    size = (width, height * rows + 0.5)
    return plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, **options)


def legend_below(figure: Figure, handles: list, columns: int | None = None) -> None:
    """One legend for the whole figure, under its axes."""
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=columns or len(handles))


def note_if_empty(ax: Axes, table: pd.DataFrame) -> bool:
    """Say on the axes that there is nothing to draw, as in a run without this ablation."""
    if len(table):
        return False
    ax.text(0.5, 0.5, "no such runs in these results", ha="center", va="center", transform=ax.transAxes)
    ax.set(xticks=[], yticks=[])
    return True


def error_ends(table: pd.DataFrame, value: str, low: str, high: str) -> np.ndarray:
    """Lengths of error bars below and above a value, (2, N), as matplotlib takes them; 0 where there is none."""
    ends = np.stack([table[value] - table[low], table[high] - table[value]]).astype(float)
    return np.nan_to_num(np.clip(ends, 0, None))


def seed_dots(ax: Axes, places: Iterable[float], seeds: Iterable[str], color: str, along: str = "y") -> None:
    """Small dots for the values of single seeds ("75.4 74.9", as in tables) at each place of the other axis."""
    for place, text in zip(places, seeds, strict=True):
        values = [float(value) for value in text.split()] if isinstance(text, str) else []
        points = ([place] * len(values), values)
        style = {"marker": ".", "markersize": 3, "linestyle": "none", "alpha": 0.55, "zorder": 4}
        ax.plot(*(points if along == "y" else points[::-1]), color=color, **style)


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
    """Figure 5: AUC along training for each lambda, Pos/Neg and Pos/Pos; the kept checkpoint at the right."""
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
            _curve_over_seeds(ax, curve.step, curve, ("auc", "auc_low", "auc_high"), **style)
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
        ax.set(xlabel="optimiser step of the reward model", ylabel="validation AUC")


PALE = 0.35


def _curve_over_seeds(ax: Axes, steps: pd.Series, curve: pd.DataFrame, names: Sequence[str], **style: Any) -> None:
    """A mean over seeds, with the band of its interval as far as no seed has stopped early, and pale from there on.

    `names` are the columns of the mean and of the interval's ends. What is left of the seeds is another mean, and of
    two seeds an interval says nothing.
    """
    whole = (curve.seeds == curve.seeds.max()).to_numpy()
    mean, low, high = (curve[name] for name in names)
    every = style.pop("markevery", 1)
    ax.plot(steps[whole], mean[whole], markevery=every, **style)
    ax.fill_between(steps[whole], low[whole], high[whole], color=style["color"], alpha=0.12, linewidth=0)
    if not whole.all():
        rest = ~whole
        rest[whole.nonzero()[0].max()] = True  # from the last whole point on
        ax.plot(steps[rest], mean[rest], markevery=every, **style | {"alpha": PALE, "label": None})


def lambda_handles(table: pd.DataFrame) -> list[Line2D]:
    """Legend handles of Figure 5."""
    handles = []
    for i, lam in enumerate(sorted(table.lam.unique())):
        color, marker, line = LAMBDA_LOOKS[i % len(LAMBDA_LOOKS)]
        handles.append(Line2D([], [], color=color, marker=marker, linestyle=line, label=f"$\\lambda$ = {lam:g}"))
    kept = Line2D([], [], color=BLACK, marker="o", markerfacecolor="white", linestyle="none")
    kept.set_label("checkpoint kept, 95 % interval")
    return [*handles, kept, *_pale_handle(table)] if handles else []


def draw_ratio_points(ax: Axes, table: pd.DataFrame) -> None:
    """Figure 6: validation AUC against the teacher's share of the positives, with intervals over queries."""
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
    ax.set(xlabel="teacher : student positives in the reward model's data", ylabel="validation AUC")
    legend_below(ax.figure, ax.get_legend_handles_labels()[0], columns=1)


# --- Table 2 and the claims as pictures ---------------------------------------------------------------------


def draw_main_results(axes: np.ndarray, table: pd.DataFrame) -> None:
    """Table 2 as dots: axes (2, benchmarks), this study with intervals above, the paper's values below."""
    cells = list(dict.fromkeys(zip(table.teacher, table.student, strict=True)))
    for column, benchmark in enumerate(dict.fromkeys(table.benchmark)):
        part = table[table.benchmark == benchmark]
        for row, (value, names) in enumerate((("study_pct", _cell_label), ("paper_pct", _paper_cell_label))):
            ax = axes[row, column]
            _dots(ax, part, value, cells)
            ax.set_yticks(range(len(cells)), [names(*cell) for cell in cells] if column == 0 else [])
            ax.set_ylim(len(cells) - 0.5, -0.5)
            ax.grid(visible=False, axis="y")
            label = paper.LABELS.get(paper.BENCHMARKS.get(benchmark, ""), benchmark)
            ax.set_title(f"this study: {benchmark_label(benchmark)}" if row == 0 else f"paper: {label}")
            ax.set_xlabel("accuracy (%)")


def _dots(ax: Axes, part: pd.DataFrame, value: str, cells: list) -> None:
    for i, method in enumerate(paper.METHODS):
        mine, looks = part[part.method == method], look(METHODS, method)
        ys = [cells.index(cell) + 0.12 * (i - 2.5) for cell in zip(mine.teacher, mine.student, strict=True)]
        size = 7 if looks.marker == "*" else 4.5
        errors = error_ends(mine, value, "study_low_pct", "study_high_pct") if value == "study_pct" else None
        ax.errorbar(
            mine[value],
            ys,
            xerr=errors,
            color=looks.color,
            marker=looks.marker,
            markersize=size,
            linestyle="none",
            elinewidth=1,
        )
        if value == "study_pct":
            seed_dots(ax, np.array(ys) + 0.05, mine.study_seeds, looks.color, along="x")
    for border in range(1, len(cells)):
        ax.axhline(border - 0.5, color="#cccccc", linewidth=0.6)


def _cell_label(teacher: str, student: str) -> str:
    return f"{teacher} teacher\n{student} student"


def _paper_cell_label(teacher: str, student: str) -> str:
    names = [paper.TEACHERS.get(teacher, teacher), paper.STUDENTS.get(student, student)]
    return "\n".join(paper.LABELS.get(name, name) for name in names)


def method_handles(methods: Iterable[str], lines: bool = False) -> list[Line2D]:
    """Legend handles of methods: markers alone, or with their lines."""
    looks = [look(METHODS, method) for method in methods]
    return [
        Line2D([], [], color=k.color, marker=k.marker, linestyle=k.line if lines else "none", label=k.label)
        for k in looks
    ]


def draw_claim_differences(axes: Iterable[Axes], table: pd.DataFrame, source: str) -> None:
    """Differences behind the claims, an axes each; source: "study" (with intervals) or "paper" (without)."""
    axes, names = list(axes), list(dict.fromkeys(table.claim))
    for ax, claim in zip(axes, names, strict=False):
        part = table[table.claim == claim].reset_index(drop=True)
        if source == "study":
            errors = error_ends(part, "study_difference", "study_low", "study_high")
            ax.errorbar(part.study_difference, part.index, xerr=errors, color=BLUE, fmt="D", capsize=2)
            seed_dots(ax, part.index + 0.25, part.study_seeds, BLUE, along="x")
        else:
            ax.plot(part.paper_difference, part.index, color=BLACK, marker="x", linestyle="none")
        ax.axvline(0, color=BLACK, linewidth=0.8)
        ax.set_yticks(part.index, part.cell)
        middle, half = (len(part) - 1) / 2, max(len(part), 4) / 2
        ax.set_ylim(middle + half, middle - half)
        ax.set_title(f"{claim}, {'this study' if source == 'study' else 'the paper'}")
        ax.set_xlabel("percentage points" if part.unit[0] == "pp" else "AUC")
    for ax in axes[len(names) :]:
        ax.axis("off")


# --- learning curves, distributions, ROC: all cells ---------------------------------------------------------


def draw_learning_curves(axes: np.ndarray, table: pd.DataFrame, step: str, values: dict[str, str], x: str) -> None:
    """Curves of each cell: rows of axes are datasets, columns the `values` (column -> label with unit).

    Colour is the method, the line the teacher (solid strong, dashed weak), the marker the student.
    """
    for row, dataset in enumerate(dict.fromkeys(table.dataset)):
        for ax, (value, label) in zip(axes[row], values.items(), strict=True):
            part = table[(table.dataset == dataset) & (table.value == value)]
            for (teacher, student, method), curve in part.groupby(["teacher", "student", "method"], sort=False):
                line, marker = look(TEACHERS, teacher).line, look(STUDENTS, student).marker
                color, every = look(METHODS, method).color, max(1, len(curve) // 6)
                style = {"color": color, "linestyle": line, "marker": marker, "markevery": every, "markersize": 4}
                _curve_over_seeds(ax, curve[step], curve, ("mean", "low", "high"), **style)
            ax.set(xlabel=x, ylabel=label, title=benchmark_label(dataset))


def cell_handles(table: pd.DataFrame) -> list[Line2D]:
    """Legend handles of learning curves: colours of methods, lines of teachers, markers of students."""
    colors = [
        Line2D([], [], color=look(METHODS, m).color, label=look(METHODS, m).label) for m in dict.fromkeys(table.method)
    ]
    lines = [
        Line2D([], [], color=BLACK, linestyle=look(TEACHERS, t).line, label=look(TEACHERS, t).label)
        for t in dict.fromkeys(table.teacher)
    ]
    marks = [
        Line2D(
            [],
            [],
            color=BLACK,
            linestyle="none",
            marker=look(STUDENTS, s).marker,
            label=look(STUDENTS, s).label,
        )
        for s in dict.fromkeys(table.student)
    ]
    return colors + lines + marks + _pale_handle(table)


def _pale_handle(table: pd.DataFrame) -> list[Line2D]:
    """A legend handle where seeds stop at different steps."""
    if table.seeds.dropna().nunique() <= 1:
        return []
    return [Line2D([], [], color=BLACK, alpha=PALE, label="pale: mean of the seeds left")]


def cell_title(dataset: str, teacher: str, student: str) -> str:
    """Title of one cell's panel."""
    return f"{benchmark_label(dataset)}\n{teacher} teacher, {student} student"


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


def kind_handles() -> list[Line2D]:
    """Legend handles of the kinds of responses."""
    return [Line2D([], [], color=k.color, linestyle=k.line, label=k.label) for k in KINDS.values()]


def draw_roc(ax: Axes, table: pd.DataFrame) -> None:
    """ROC curves; columns comparison, fpr, tpr."""
    if note_if_empty(ax, table):
        return
    for comparison, looks in COMPARISONS.items():
        part = table[table.comparison == comparison]
        ax.plot(part.fpr, part.tpr, color=looks.color, linestyle=looks.line, label=looks.label)
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    ax.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01), aspect="equal")


def comparison_handles() -> list[Line2D]:
    """Legend handles of Pos/Neg and Pos/Pos."""
    return [Line2D([], [], color=k.color, linestyle=k.line, label=k.label) for k in COMPARISONS.values()]


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
    ax.set(xlabel="optimiser step", ylabel="loss (nats per token)")
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
    ax.set(xlabel="optimiser step of the reward model", ylabel="validation AUC")
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
