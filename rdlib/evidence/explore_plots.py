"""Figures of one question's responses, as `notebooks/explore.ipynb` shows them: each draws a ready table on axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rdlib.evidence import looks
from rdlib.evidence.looks import BLUE, GREY, KINDS, Look

UNLABELLED = Look("no pseudo-label", GREY, "o")
WIDTH = 0.22  # from one kind to the next, where a lambda has the width 1


def draw_vote(ax: Axes, shares: pd.Series, threshold: float, label: str | None) -> None:
    """Shares of the high-confidence votes by answer, and the threshold; the pseudo-label `label` in colour."""
    colors = [BLUE if answer == label else GREY for answer in shares.index]
    ax.bar(np.arange(len(shares)) + 0.5, shares, width=0.7, color=colors)
    ax.axhline(threshold, color="black", linestyle=":", linewidth=1.2)
    ax.text(len(shares), threshold, " threshold", ha="left", va="center")
    ax.set(ylabel="share of votes", ylim=(0, 1.05), xlim=(0, len(shares)))
    ax.tick_params(labelbottom=False)


def draw_answer_counts(ax: Axes, counts: pd.DataFrame) -> None:
    """Heat map of how often each answer came (columns) at each confidence and temperature (rows)."""
    rows = [f"{temperature:g}" for _, temperature in counts.index]
    marks = counts.astype(str).replace("0", "")
    sns.heatmap(counts.set_axis(rows), ax=ax, cmap="Blues", vmin=0, cbar=False, annot=marks, fmt="", linewidths=0.5)
    high = sum(confidence == "high" for confidence, _ in counts.index)
    ax.axhline(high, color="black", linewidth=1.2)
    for place, name in ((high / 2, "votes"), ((high + len(counts)) / 2, "does not vote")):
        ax.text(len(counts.columns), place, f" {name}", ha="left", va="center")
    ax.set(xlabel="answer", ylabel="temperature")
    ax.tick_params(axis="y", rotation=0)


def draw_scores(ax: Axes, table: pd.DataFrame, lambdas: Sequence[float], names: Sequence[str]) -> None:
    """Scores of one question's responses (columns kind, and a score a lambda) by lambda and kind, with their means.

    `names`: what stands below each lambda.
    """
    groups = {kind: (place, look) for place, (kind, look) in zip((-WIDTH, 0.0, WIDTH), KINDS.items(), strict=True)}
    for kind, (place, look) in {**groups, None: (0.0, UNLABELLED)}.items():
        part = table[table["kind"].isna() if kind is None else table["kind"] == kind]
        for center, lam in enumerate(lambdas):
            places = center + place + np.linspace(-0.06, 0.06, len(part))
            ax.plot(places, part[lam], look.marker, color=look.color, alpha=0.6, markersize=4, markeredgewidth=0)
            if len(part):
                ax.hlines(part[lam].mean(), center + place - 0.09, center + place + 0.09, color=look.color, linewidth=2)
    ax.axhline(0, color=GREY, linewidth=0.8, linestyle=":")
    ax.set(ylabel="reward model score", xlim=(-0.5, len(lambdas) - 0.5))
    ax.set_xticks(range(len(lambdas)), names)


def score_handles(table: pd.DataFrame) -> list[Line2D]:
    """Legend handles of the kinds of responses that a table of scores has."""
    looks = [look for kind, look in KINDS.items() if (table["kind"] == kind).any()]
    looks += [UNLABELLED] if table["kind"].isna().any() else []
    return [Line2D([], [], color=look.color, marker=look.marker, linestyle="", label=look.label) for look in looks]


def vote_axes(answers: int, temperatures: int):
    """A figure with axes for `draw_vote` above and `draw_answer_counts` below, their columns in line."""
    figure, axes = looks.grid(
        2,
        1,
        width=min(9.0, 2.2 + 0.6 * answers),
        height=0.75 + 0.11 * temperatures,
        sharex=True,
        height_ratios=(1, 0.28 * temperatures),
    )
    return figure, axes[:, 0]
