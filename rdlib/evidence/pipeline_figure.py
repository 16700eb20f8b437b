"""Figure 2: the pipeline, drawn from the stages' own inputs: what it shows is what runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve

from rdlib.evidence import looks
from rdlib.evidence.looks import BLACK

BOX = (0.68, 0.56)  # width and height of a stage; stages are 1 apart from left to right


def pipeline(table: pd.DataFrame) -> Figure:
    """Figure 2: the stages and what each reads; columns stage, read_by."""
    figure, axes = looks.grid(1, 1, width=7.2, height=2.6)
    draw_pipeline(axes[0, 0], table.itertuples(index=False, name=None))
    return figure


def draw_pipeline(ax: Axes, edges: Iterable[tuple[str, str]]) -> None:
    """Figure 2: the DAG of stages that `edges` lists as (stage, stage that reads it), left to right by depth.

    An edge that only shortens a way through other stages is pale.
    """
    pairs = list(dict.fromkeys(edges))
    places, routes = _layout(pairs)
    for pair, points in zip(pairs, routes, strict=True):
        ax.add_patch(_arrow(points, pale=_is_shortcut(pair, pairs)))
    for name, (x, y) in places.items():
        ax.add_patch(_box(x, y, _stage_color(name)))
        ax.text(x, y, _stage_label(name), ha="center", va="center", fontsize=7.5, zorder=4)
    ys = [y for points in routes for _, y in points]
    ax.set(xlim=(-0.45, max(x for x, _ in places.values()) + 0.45), ylim=(min(ys) - 0.35, max(ys) + 0.35))
    ax.axis("off")


def _is_shortcut(pair: tuple[str, str], pairs: list[tuple[str, str]]) -> bool:
    seen, ahead = set(), [b for a, b in pairs if a == pair[0] and b != pair[1]]
    while ahead:
        name = ahead.pop()
        if name not in seen:
            seen.add(name)
            ahead += [b for a, b in pairs if a == name]
    return pair[1] in seen


def _box(x: float, y: float, color: str) -> FancyBboxPatch:
    width, height = BOX
    shape = "round,pad=0,rounding_size=0.08"
    box = FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle=shape)
    box.set(facecolor=color, edgecolor=BLACK, linewidth=0.9, zorder=3)
    return box


def _stage_label(name: str) -> str:
    number, _, words = name.partition("_")
    return f"{number}\n" + words.replace("_", "\n") if number.isdigit() else name.replace("_", "\n")


def _stage_color(name: str) -> str:
    """Tints: data and evaluation grey, the teacher's stages green, the student's blue, rewards' orange."""
    for word, tint in (
        ("teacher", "#d5efe6"),
        ("pseudo", "#d5efe6"),
        ("reward", "#fbe7c2"),
        ("ppo", "#fbe7c2"),
    ):
        if word in name:
            return tint
    return "#d6e9f5" if "sft" in name or "student" in name else "#eeeeee"


def _arrow(points: list[tuple[float, float]], pale: bool) -> FancyArrowPatch:
    """An arrow that runs level through the columns it passes and bends only between them."""
    half = BOX[0] / 2
    vertices, codes = [(points[0][0] + half, points[0][1])], [Curve.MOVETO]
    for (xa, ya), (xb, yb) in zip(points, points[1:], strict=False):
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


def _layout(pairs: list[tuple[str, str]]) -> tuple[dict, list]:
    """Places of the stages and routes of the edges: layers by longest path, long edges led through free lanes."""
    depth = _depths(pairs)
    chains = [[a, *((a, b, d) for d in range(depth[a] + 1, depth[b])), b] for a, b in pairs]
    level = {node: node[2] if isinstance(node, tuple) else depth[node] for chain in chains for node in chain}
    layers = defaultdict(list)
    for node in sorted(level, key=lambda node: (isinstance(node, tuple), str(node))):
        layers[level[node]].append(node)
    neighbours = defaultdict(list)
    for chain in chains:
        for a, b in zip(chain, chain[1:], strict=False):
            neighbours[a].append(b)
            neighbours[b].append(a)
    height = _heights(layers, neighbours)
    places = {node: (depth[node], height[node]) for node in depth}
    return places, [[(level[node], height[node]) for node in chain] for chain in chains]


def _depths(pairs: list[tuple[str, str]]) -> dict[str, int]:
    depth = {name: 0 for pair in pairs for name in pair}
    for _ in depth:
        for a, b in pairs:
            depth[b] = max(depth[b], depth[a] + 1)
    if any(depth[b] <= depth[a] for a, b in pairs):
        raise ValueError("the stages form a cycle, so they have no order to draw them in")
    first = {name: min(depth[b] for a, b in pairs if a == name) for name, _ in pairs}
    sources = set(first) - {b for _, b in pairs}
    return depth | {name: first[name] - 1 for name in sources}  # a source stands just before its first reader


def _heights(layers: dict, neighbours: dict) -> dict:
    """Vertical places by a few barycentre sweeps; a lane of a long edge takes half the room of a stage."""
    height = {node: float(i) for nodes in layers.values() for i, node in enumerate(nodes)}
    for _ in range(12):
        for _, nodes in sorted(layers.items()):
            wish = {node: np.mean([height[other] for other in neighbours[node]]) for node in nodes}
            nodes.sort(key=lambda node: (wish[node], isinstance(node, tuple), str(node)))
            sizes = [0.2 if isinstance(node, tuple) else BOX[1] + 0.16 for node in nodes]
            tops = np.cumsum(sizes) - np.array(sizes) / 2
            for node, top in zip(nodes, tops - sum(sizes) / 2, strict=True):
                height[node] = float(top)
    return height
