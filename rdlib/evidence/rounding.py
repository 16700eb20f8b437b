"""What rounding alone does: released seeds held to the same seeds under torch's own numerics.

In either mode an accuracy has an error of rounding of its own. If both have the standard deviation s, the difference
between the modes has sqrt(2) s: so s is the root mean square of that difference over sqrt(2). It stands beside the
standard deviation between seeds, in which it is contained.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rdlib.errors import UserError
from rdlib.evidence import looks, paper, tables
from rdlib.evidence.exhibit import Exhibit
from rdlib.evidence.result_tables import Evidence

KEYS = ["benchmark", "teacher", "student", "method"]
MODES = {"portable": "portable mode", "native": "torch's own numerics"}
APART = 0.16  # of a method's place, from its middle to either mode


def pairs(portable: pd.DataFrame, native: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every seed in both modes, a row a seed: KEYS, seed, questions, `portable_pct`, `native_pct`, changed.

    `changed` counts the answers that are right in one mode alone. Both tables: KEYS, seed, id, correct; UserError where
    an answer of `native` has no counterpart.
    """
    keys = [*KEYS, "seed"]
    both = native.merge(portable, on=[*keys, "id"], suffixes=("_native", "_portable"), validate="one_to_one")
    if len(both) != len(native):
        raise UserError(
            f"rounding.parquet: of {len(native)} answers {len(native) - len(both)} are to none of the questions of "
            f"correctness.parquet: run `make study EXPERIMENTS=rounding` again."
        )
    both["changed"] = both["correct_native"] != both["correct_portable"]
    grouped = both.groupby(keys)
    table = pd.DataFrame(
        {
            "questions": grouped.size(),
            "portable_pct": 100 * grouped["correct_portable"].mean(),
            "native_pct": 100 * grouped["correct_native"].mean(),
            "changed": grouped["changed"].sum(),
        }
    )
    return tables.sorted_by(table.reset_index(), keys)


def first_differing(stages: pd.DataFrame) -> pd.DataFrame:
    """The first stage whose bytes differ behind every model, "" where none does: teacher, student, method, ...

    `stages`: dataset, teacher, student, method, seed (of the model), stage, same.
    """
    model = ["dataset", "teacher", "student", "method", "seed"]
    stages = stages.assign(first=stages["stage"].where(~stages["same"].astype(bool)))
    return stages.groupby(model, as_index=False)["first"].min().fillna({"first": ""})


def spread_table(by_seed: pd.DataFrame) -> pd.DataFrame:
    """A row a benchmark, cell and method: the difference between the modes beside the one between seeds, and changes.

    `rounding_sd_pp` is the standard deviation that rounding alone gives an accuracy, `seeds_sd_pp` that of the portable
    accuracies between seeds (none with one seed). `by_seed`: as `pairs` gives it.
    """
    rows = []
    for key, part in by_seed.groupby(KEYS, sort=False):
        rms = _rms(part["native_pct"] - part["portable_pct"])
        means = {name: part[name].mean() for name in ("portable_pct", "native_pct")}
        spread = {"rms_difference_pp": rms, "rounding_sd_pp": rms / np.sqrt(2)}
        spread["seeds_sd_pp"] = part["portable_pct"].std(ddof=1)
        changes = {"answers": part["questions"].sum(), "changed": part["changed"].sum()}
        changes["changed_pct"] = 100 * changes["changed"] / changes["answers"]
        rows.append(dict(zip(KEYS, key, strict=True)) | {"seeds": len(part)} | means | spread | changes)
    return pd.DataFrame(rows)


def _rms(values: pd.Series) -> float:
    return float(np.sqrt((values**2).mean()))


# ---- in words


def plain_answer(by_seed: pd.DataFrame, firsts: pd.DataFrame) -> str:
    """What rounding does, where it begins, and what a reader should do with it, in words."""
    changed, answers = by_seed["changed"].sum(), by_seed["questions"].sum()
    rms = _rms(by_seed["native_pct"] - by_seed["portable_pct"])
    return (
        f"Answer: {_spreads(spread_table(by_seed))} {_begins(firsts)} {changed:,} of {answers:,} answers "
        f"({100 * changed / answers:.1f} %) are right in one mode and wrong in the other. What to do with it: every "
        f"seed rounds in its own way, so intervals over several seeds, paired ones too, hold this already; those of "
        f"one seed do not, and there a difference between two methods of less than {2 * rms:.1f} points (twice the "
        f"root mean square) may be rounding alone."
    )


def _spreads(spread: pd.DataFrame) -> str:
    """The difference between the modes by method, as a standard deviation of rounding, beside that between seeds."""
    methods = tables.in_order(spread["method"], paper.METHODS)
    by_method = [spread[spread["method"] == name] for name in methods]
    words = [looks.look(looks.METHODS, name).label for name in methods]
    rms, sd, seeds = (
        [_rms(part[column]) for part in by_method] for column in ("rms_difference_pp", "rounding_sd_pp", "seeds_sd_pp")
    )
    beside = "" if np.isnan(seeds).any() else f"; between seeds it is {_listed(seeds)}"
    return (
        f"in {', '.join(words)} the same seed differs between the modes by {_listed(rms)} percentage points (root mean "
        f"square over {_seeds(spread)}, cells and benchmarks), which is a standard deviation of {_listed(sd)} from "
        f"rounding alone{beside}."
    )


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def _seeds(spread: pd.DataFrame) -> str:
    seeds = int(spread["seeds"].max())
    return f"{seeds} seed{'s' * (seeds > 1)}"


def _begins(firsts: pd.DataFrame) -> str:
    """In which stage bytes first differ, behind how many models."""
    counts = firsts["first"].value_counts().sort_index()
    parts = [f"in `{stage}` behind {count}" for stage, count in counts.items() if stage]
    parts += [f"nowhere behind {counts['']}"] if "" in counts else []
    return f"Of {len(firsts)} models, bytes first differ {', '.join(parts)}."


# ---- as a figure


def draw(by_seed: pd.DataFrame) -> Figure:
    """A panel a benchmark and cell: each seed's accuracy in both modes, joined, beside mean and deviation of seeds."""
    panels = list(by_seed.groupby(KEYS[:3], sort=False))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = looks.grid(rows, columns, width=7.4, height=2.7)
    several = by_seed[["teacher", "student"]].drop_duplicates().shape[0] > 1
    for ax, ((benchmark, teacher, student), part) in zip(axes.flat, panels, strict=False):
        _draw_panel(ax, part)
        cell = f", {teacher} to {student}" if several else ""
        ax.set(title=f"{looks.benchmark_label(benchmark)}{cell}", ylabel="accuracy (%)")
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    looks.legend_below(figure, _handles())
    return figure


def _draw_panel(ax: Axes, part: pd.DataFrame) -> None:
    methods = list(dict.fromkeys(part["method"]))
    for place, method in enumerate(methods):
        look, own = looks.look(looks.METHODS, method), part[part["method"] == method]
        ends, values = [place - APART, place + APART], own[["portable_pct", "native_pct"]].to_numpy()
        ax.plot(ends, values.T, color=look.color, linewidth=0.8)
        for x, accuracies, side, face in zip(ends, values.T, (-1, 1), (look.color, "white"), strict=True):
            style = {"color": look.color, "marker": look.marker, "mfc": face, "linestyle": "none", "zorder": 3}
            ax.plot([x] * len(own), accuracies, **style)
            deviation = accuracies.std(ddof=1) if len(own) > 1 else 0.0
            bar = {"color": looks.BLACK, "marker": "_", "markersize": 5, "linewidth": 1, "capsize": 2}
            ax.errorbar(x + 0.16 * side, accuracies.mean(), deviation, **bar)
    names = [looks.look(looks.METHODS, method).label for method in methods]
    ax.set(xticks=range(len(methods)), xticklabels=names, xlim=(-0.55, len(methods) - 0.45))
    ax.grid(visible=False, axis="x")


def _handles() -> list[Line2D]:
    """Filled and open markers, the line between them, and the bar."""
    faces = zip(MODES.values(), (looks.BLACK, "white"), strict=True)
    found = [Line2D([], [], color=looks.BLACK, marker="o", mfc=face, linestyle="none", label=k) for k, face in faces]
    found.append(Line2D([], [], color=looks.BLACK, linewidth=0.8, label="the same seed"))
    bar = {"marker": "|", "markersize": 9, "linestyle": "none", "label": "mean, standard deviation between seeds"}
    return [*found, Line2D([], [], color=looks.BLACK, **bar)]


# ---- as exhibits


def _by_seed(evidence: Evidence) -> pd.DataFrame:
    portable = evidence.correctness[evidence.correctness["variant"] == ""]
    return pairs(portable[[*KEYS, "seed", "id", "correct"]], evidence.rounding)


def _answer(evidence: Evidence) -> str:
    return plain_answer(_by_seed(evidence), first_differing(evidence.rounding_stages))


EXHIBITS = (
    Exhibit(
        name="rounding",
        title="What rounding alone does",
        caption="The same seeds, settings and code in the portable numerical mode and under torch's own numerics "
        "(`make study EXPERIMENTS=rounding`). Accuracies are means over seeds in %; `rms_difference_pp` is the root "
        "mean square over seeds of the difference between the modes, `rounding_sd_pp` that over the square root of 2, "
        "`seeds_sd_pp` the standard deviation of the portable accuracies between seeds.",
        table=lambda evidence: spread_table(_by_seed(evidence)),
        draw=None,
        rests_on=(),
        of_rounding=True,
        answer=_answer,
    ),
    Exhibit(
        name="figure_rounding",
        title="The same seeds in two numerical modes",
        caption="Accuracy on the test questions in % of each seed in the portable numerical mode (filled) and under "
        "torch's own (open, by `make study EXPERIMENTS=rounding`), joined by a line; beside them mean and standard "
        "deviation of seeds.",
        table=_by_seed,
        draw=draw,
        rests_on=(),
        of_rounding=True,
    ),
)
