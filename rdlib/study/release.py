"""Make the seeds of a run the released ones, a part of `make release`: `python -m rdlib release RUN RELEASED`.

A seed takes the place of the one that was released under its number. Seeds that an earlier release made with other
settings go, since nothing could be drawn from both; seeds of the same settings stay beside the new ones.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence.result_tables import (
    ANSWERED,
    MADE_AGAIN,
    ROUNDED,
    SAME_RATE_MADE,
    open_results,
    seed_folders,
    settings_of,
)
from rdlib.evidence.tables import listed

PROVENANCE = "provenance.json"


def release(run: Path, released: Path) -> list[str]:
    """Copy the seeds of a run to the released results; returns what was done, and what is amiss, in sentences.

    UserError, with nothing done, for a run without a seed, or with seeds of several settings.
    """
    if not seed_folders(run):
        raise UserError(f"{run} holds no results of any seed: run `make study PROFILE=params/reference.yaml` first.")
    new = open_results(run).folders
    names = {folder.name for folder in new}
    for folder in new:
        _replace(released / folder.name, folder)
    gone = [old for old in seed_folders(released) if old.name not in names and not _drawn_together(new[0], old)]
    for folder in gone:
        shutil.rmtree(folder)
    told = [f"Released from {run}: {listed([folder.name for folder in new])}."]
    if gone:
        told.append(f"Removed from {released}, as made with other settings: {listed([one.name for one in gone])}.")
    return told + amiss(released)


def _replace(old: Path, new: Path) -> None:
    """Put a seed in the place of an old one.

    What was made from the old one (rounding, SFT with another rate, what was made again) stays where both are the same
    run.
    """
    copy = old.with_name(f".new.{old.name}")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(new, copy)
    if (old / PROVENANCE).is_file() and (old / PROVENANCE).read_bytes() == (new / PROVENANCE).read_bytes():
        beside = [*old.glob("rounding*")] if (old / ROUNDED).is_file() else []
        beside += [*old.glob("same_rate*")] if (old / SAME_RATE_MADE).is_file() else []
        for path in (*beside, *old.glob(MADE_AGAIN)):
            if not (copy / path.name).exists():
                shutil.copy2(path, copy)
    shutil.rmtree(old, ignore_errors=True)
    copy.rename(old)


def _drawn_together(one: Path, other: Path) -> bool:
    """Whether two seeds have the same settings, so that tables can be drawn from both."""
    try:
        return settings_of(one) == settings_of(other)
    except UserError:  # it cannot be read, so it cannot be drawn
        return False


def commits_of(record: dict) -> tuple[set[str], set[str]]:
    """The commits by which a seed was run, and those by which some of it was made again (`rdlib.study.remake`)."""
    again = {commit for one in record.get("remade", []) for commit in one["commits"]}
    return set(record["commits"]) - again or set(record["commits"]), again


def amiss(released: Path) -> list[str]:
    """A sentence each for what keeps the released seeds from being those of one clean commit."""
    records = {folder.name: _records(folder) for folder in seed_folders(released)}
    told = []
    for which, what, advice in (
        (0, "The released seeds are not of one commit", "release those of other commits again"),
        (1, "What was made again since is not of one commit", "make it again in all seeds"),
    ):
        commits = {name: set().union(*(commits_of(one)[which] for one in found)) for name, found in records.items()}
        if len({frozenset(own) for own in commits.values()}) > 1 or any(len(own) > 1 for own in commits.values()):
            of_each = "; ".join(f"{name}: {', '.join(c[:12] for c in sorted(own))}" for name, own in commits.items())
            told.append(f"{what} ({of_each}): {advice}.")
    if dirty := [name for name, found in records.items() if any(one["dirty"] for one in found)]:
        told.append(f"Made with uncommitted changes: {listed(dirty)}. Commit, and run them again.")
    if unasked := [name for name in records if not (released / name / ANSWERED).is_file()]:
        told.append(f"Without the reviewers' questions: {listed(unasked)}. Run them too.")
    return told


def _records(folder: Path) -> list[dict]:
    """Where a seed's results come from: those of the study and, where they are there, of the questions."""
    return [artifacts.read_json(folder / name) for name in (PROVENANCE, ANSWERED) if (folder / name).is_file()]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m rdlib release`."""
    parser.add_argument("results", type=Path, help="result tables of the run, a folder a seed")
    parser.add_argument("released", type=Path, help="the released results, a folder a seed")


def run(options: argparse.Namespace) -> None:
    """Release, and print what was done."""
    print(*release(options.results, options.released), sep="\n")
