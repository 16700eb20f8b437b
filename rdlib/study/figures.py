"""Every table and figure of a study, drawn from its result tables: `python -m rdlib.study.figures RESULTS OUT`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import matplotlib

from rdlib.errors import UserError
from rdlib.evidence import gallery, result_tables
from rdlib.study.specification import dag_edges


def draw_all(results: Path, out: Path, seeds: Iterable[int] | None = None) -> list[Path]:
    """Write every table and figure of the results in `results` to `out`; returns the paths written."""
    return gallery.draw_all(result_tables.open_results(results, seeds, dag_edges()), out)


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
    return 0


if __name__ == "__main__":
    sys.exit(main())
