"""How the packages build on each other, read from the code and drawn: `python -m rdlib architecture`.

It writes docs/architecture.csv, a row a module with what it imports, and docs/architecture.svg, the picture of it.
tests/test_architecture.py holds the order of the packages, and that both files are of the present code.
"""

from __future__ import annotations

import argparse
import ast
import io
import textwrap
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence import looks
from rdlib.paths import ROOT

# The packages in their order, after the modules at the top. `micro` is the world alone: pretraining is of the study.
PACKAGES = ("", "micro", "tasks", "engines", "method", "evidence", "study")
FOLDERS = ("rdlib", "bench")
TOP = "top modules"


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of the project by its dotted name; a package's own is named as the package."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imports(path: Path, known: set[str]) -> set[str]:
    """Those of the known modules that a module imports, at the top or late; UserError for a relative import."""
    named: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise UserError(f"{path} has a relative import in line {node.lineno}: write the whole name.")
            named |= {full if (full := f"{node.module}.{alias.name}") in known else node.module for alias in node.names}
    return named & known


def graph(paths: Mapping[str, Path] | None = None) -> dict[str, set[str]]:
    """What each module imports of the project."""
    paths = modules() if paths is None else paths
    return {name: imports(path, set(paths)) for name, path in paths.items()}


def package_of(module: str, known: Mapping[str, Path]) -> str:
    """The package of rdlib that a module is in, "" for a module at the top; "bench" for the benchmarks."""
    package, *parts = module.split(".")
    if package != "rdlib":
        return package
    is_package = len(parts) == 1 and known[module].name == "__init__.py"
    return parts[0] if len(parts) > 1 or is_package else ""


def floor(module: str, known: Mapping[str, Path]) -> int:
    """The place of a module's package in the order; the benchmarks come after all."""
    package = package_of(module, known)
    return PACKAGES.index(package) if package in PACKAGES else len(PACKAGES)


def table() -> pd.DataFrame:
    """A row a module of rdlib, in the order of the packages: package, module, imports (names parted by a space)."""
    paths = modules()
    rows = [
        (package_of(name, paths) or TOP, name, " ".join(sorted(imported)))
        for name, imported in sorted(graph(paths).items(), key=lambda item: (floor(item[0], paths), item[0]))
        if name.startswith("rdlib.")
    ]
    return pd.DataFrame(rows, columns=["package", "module", "imports"])


def counts(edges: pd.DataFrame) -> pd.DataFrame:
    """How many imports there are, of the package of a column by the package of a row."""
    package = dict(zip(edges["module"], edges["package"], strict=True))
    pairs = [(row.package, package[name]) for row in edges.itertuples() for name in row.imports.split()]
    names = list(dict.fromkeys(edges["package"]))
    counted = pd.DataFrame(pairs, columns=["importer", "imported"]).value_counts().unstack(fill_value=0)
    return counted.reindex(index=names, columns=names, fill_value=0)


def draw(edges: pd.DataFrame) -> Figure:
    """Packages from top to bottom with their modules; beside them, how often each imports from those before it."""
    names = list(dict.fromkeys(edges["package"]))
    texts = [_module_names(edges[edges["package"] == name]) for name in names]
    heights = [1.1 + text.count("\n") for text in texts]
    with looks.style():
        figure, (left, right) = plt.subplots(
            1, 2, width_ratios=[3.1, 2], figsize=(8.6, 0.19 * sum(heights) + 0.9), layout="constrained"
        )
        middles = _draw_packages(left, names, texts, heights)
        _draw_counts(right, counts(edges), middles, heights)
    return figure


def _module_names(rows: pd.DataFrame) -> str:
    """The short names of a package's modules, wrapped; without its own, which stands beside them."""
    names = [module.rpartition(".")[2] for module in rows["module"]]
    return textwrap.fill("   ".join(name for name in names if name not in PACKAGES), 71)


def _draw_packages(ax: Axes, names: list[str], texts: list[str], heights: list[float]) -> list[float]:
    """A band a package; returns the height of each band's middle."""
    middles, top = [], 0.0
    for i, (name, text, height) in enumerate(zip(names, texts, heights, strict=True)):
        if i % 2 == 0:
            ax.axhspan(top, top + height, color=looks.GREY, alpha=0.12, linewidth=0)
        middles.append(top + height / 2)
        ax.text(0.0, middles[-1], name, va="center", weight="bold")
        ax.text(0.2, middles[-1], text, va="center", fontsize=7.5, linespacing=1.35)
        top += height
    ax.set(xlim=(-0.02, 1), ylim=(top, 0))
    ax.axis("off")
    return middles


def _draw_counts(ax: Axes, counted: pd.DataFrame, middles: list[float], heights: list[float]) -> None:
    """The counts as squares of one height a package, darker where there are more."""
    most = counted.to_numpy().max()
    for row, (middle, height) in enumerate(zip(middles, heights, strict=True)):
        for column, count in enumerate(counted.iloc[row]):
            if count:
                share = 0.12 + 0.7 * (count / most) ** 0.5
                box = (column - 0.48, middle - 0.46 * height)
                ax.add_patch(plt.Rectangle(box, 0.96, 0.92 * height, color=looks.BLUE, alpha=share, linewidth=0))
                ax.text(column, middle, str(count), ha="center", va="center", fontsize=8)
    ax.set(xlim=(-0.5, len(counted) - 0.5), ylim=(sum(heights), 0), xlabel="imports from")
    ax.set_xticks(range(len(counted)), counted.columns, rotation=35, ha="left", rotation_mode="anchor")
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.set_yticks([])
    ax.tick_params(length=0)
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m rdlib architecture`."""
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / "docs", help="folder of both files")


def run(options: argparse.Namespace) -> None:
    """Write both files."""
    out = options.out
    mpl.use("Agg")
    edges, picture = table(), io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "rdlib", "svg.fonttype": "path"}):
        draw(edges).savefig(picture, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
    artifacts.write_bytes(out / "architecture.csv", edges.to_csv(index=False).encode())
    artifacts.write_bytes(out / "architecture.svg", picture.getvalue())
