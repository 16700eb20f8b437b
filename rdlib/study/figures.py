"""Every table and figure of a study, drawn from its result tables: `python -m rdlib.study.figures RESULTS OUT`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import matplotlib

from rdlib import artifacts, numerics
from rdlib.errors import UserError
from rdlib.evidence import report_figures
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.study.specification import dag_edges


def draw_all(results: Path, out: Path, seeds: Iterable[int] | None = None) -> list[Path]:
    """Write every table and figure of the results in `results` to `out`; returns the paths written."""
    return report_figures.draw_all(results, out, dag_edges(), seeds)


def other_mode(results: Path) -> str | None:
    """A sentence where seeds were computed in another numerical mode than their profile has today; None where not."""
    made = {folder.name: _provenance(folder) for folder in report_figures.seed_folders(results)}
    native = [
        name
        for name, record in made.items()
        if record and numerics.NATIVE in record.get("numerics", [numerics.NATIVE]) and _is_portable(record["profile"])
    ]
    if not native:
        return None
    return (
        f"{results}: {', '.join(native)} were not computed in the portable numerical mode, so a run here differs from "
        f"them by rounding (docs/portable.md)."
    )


def _provenance(folder: Path) -> dict | None:
    path = folder / "provenance.json"
    return artifacts.read_json(path) if path.is_file() else None


def _is_portable(profile: str) -> bool:
    path = ROOT / profile
    return path.is_file() and load_profile(path).numerics == numerics.PORTABLE


def main(arguments: list[str] | None = None) -> int:
    """Command line: RESULTS OUT; prints how many files it wrote, or one sentence on what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m rdlib.study.figures", description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="folder with the result tables of a study, a folder a seed")
    parser.add_argument("out", type=Path, help="folder for the tables and figures")
    options = parser.parse_args(arguments)
    matplotlib.use("Agg")  # draws to files: no display is needed
    try:
        paths = draw_all(options.results, options.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(paths)} files written to {options.out}")
    if note := other_mode(options.results):
        print(note)
    return 0


if __name__ == "__main__":
    sys.exit(main())
