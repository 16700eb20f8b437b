"""Tables and figures of a study, drawn from its result tables: `python -m rdlib figures RESULTS OUT`.

`--name figure_5_lambda` draws one alone, and prints its caption, what it depends on, and how to retrain that.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import matplotlib

from rdlib.errors import UserError
from rdlib.evidence import gallery, health, tables
from rdlib.evidence.gallery import COMMAND, Exhibit, sentence_of
from rdlib.evidence.result_tables import Evidence, open_results, seed_of
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.study.specification import dag_edges
from rdlib.study.verify import other_mode


def draw_one(name: str, evidence: Evidence, out: Path) -> list[Path]:
    """Write one table or figure, known by its file's stem, to `out`; returns the paths written.

    UserError for one that these results have nothing to show of.
    """
    exhibit = gallery.find(name)
    table = exhibit.rows(evidence)
    if table is None:
        why = exhibit.why_left_out(evidence) or "it is about own questions, which these results are not of"
        raise UserError(sentence_of([exhibit], why))
    return gallery.draw(exhibit, evidence, out, table)


def health_lines(profile_path: str, seeds: Iterable[int]) -> list[str]:
    """What a finished study of own questions says of PPO, a line a cell, and where its numbers are; else no line."""
    profile = load_profile(ROOT / profile_path)
    folder = ROOT / profile.runs / profile.name
    if not any(dataset.own for dataset in profile.datasets.values()):
        return []
    found = health.measured(open_results(folder / "results", seeds))
    return [
        *(f"{one.cell}: {health.sentence(one)}" for one in found),
        f"  numbers: {profile.runs}/{profile.name}/figures/health.md",
    ]


def source(
    profile_path: str, seeds: list[int], results: str | None, collect: Callable[[str, list[int]], Path]
) -> tuple[Evidence, Path]:
    """What a notebook draws, and the folder to draw it to: seeds gathered by `collect`, or finished `results`.

    Of finished results (a folder, relative to the repository) all seeds are taken; what is drawn from them lies apart,
    in `runs/<profile>/released_figures`.
    """
    profile = load_profile(ROOT / profile_path)
    if results is None:
        collected = collect(profile_path, seeds)
        return open_results(collected, seeds, dag_edges()), collected.parent / "figures"
    return open_results(ROOT / results, edges=dag_edges()), ROOT / profile.runs / profile.name / "released_figures"


def described(exhibit: Exhibit, evidence: Evidence) -> str:
    """What an exhibit shows, what it depends on, and the command that retrains that."""
    seeds = ", ".join(str(seed_of(folder)) for folder in evidence.folders)
    commits = ", ".join(commit[:10] for commit in evidence.commits) or "not recorded"
    made = f"Results: seeds {seeds} of {evidence.folders[0].parent}, made by commits {commits}."
    lines = [exhibit.title, exhibit.caption, made]
    if exhibit.experiments:
        lines += [
            f"It depends on the experiments {tables.listed(exhibit.experiments)}.",
            f"To retrain them (a time estimate comes first): {COMMAND} --for {exhibit.name}",
        ]
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m rdlib figures`."""
    parser.add_argument("results", type=Path, help="folder with the result tables of a study, a folder a seed")
    parser.add_argument("out", type=Path, help="folder for the tables and figures")
    parser.add_argument("--name", help="one table or figure alone, as figure_5_lambda")


def run(options: argparse.Namespace) -> None:
    """Draw, and print what was written."""
    matplotlib.use("Agg")  # draws to files: no display is needed
    evidence = open_results(options.results, edges=dag_edges())
    if options.name is None:
        print(f"{len(gallery.draw_all(evidence, options.out))} files written to {options.out}")
    else:
        paths = draw_one(options.name, evidence, options.out)
        print(*map(os.path.relpath, paths), described(gallery.find(options.name), evidence), sep="\n")
    if note := other_mode(options.results):
        print(note)
