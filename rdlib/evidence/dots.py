"""Dots with ready intervals, side by side: seaborn's objects, its own statistics unused."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure, SubFigure

from rdlib.evidence.looks import Look, look

STYLED = ("axes", "grid", "xtick", "ytick", "font", "text")


def _with_seeds(table: pd.DataFrame, keys: list[str], column: str | None) -> pd.DataFrame:
    """The table, and below it a row for each value in its texts of single seeds ("75.4 74.9"), as `seed_value`.

    One table, since seaborn joins that of a layer to the plot's by its index.
    """
    texts = table[column].astype("object").fillna("").astype(str) if column else pd.Series("", table.index)
    long = table.assign(seed_value=texts.str.split()).explode("seed_value").dropna(subset="seed_value")
    both = pd.concat([table, long[[*keys, "seed_value"]]], ignore_index=True)
    return both.astype({"seed_value": float})


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
    panels have the same rows; `dodged`: a row holds several dots.
    """
    import seaborn.objects as so

    if table.empty:
        figure.text(0.5, 0.5, "no such runs in these results", ha="center", va="center")
        return
    names = list(dict.fromkeys(table[by]))
    used = {name: look(dict(known), name) for name in names}
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
