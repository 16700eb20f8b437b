"""Release the results of a run: `python -m rdlib release RUN RELEASED`.

Rows and record of an experiment replace its released ones, for each seed. Other experiments stay in the release, as
long as the stages that both depend on have the released content. So an experiment can be rerun, or added, without the
others. Released seeds with other settings are removed, since no table could combine both.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from rdlib import numerics
from rdlib.errors import UserError
from rdlib.evidence.result_tables import (
    PROVENANCE,
    RERUNS,
    every_seed,
    origin,
    read_json,
    read_record,
    require_one_profile,
    seed_folders,
    settings_of,
)
from rdlib.evidence.tables import listed
from rdlib.study import experiments, results, verify
from rdlib.study.results import Seed

MODE = ("name", "numerics")  # of a profile: all in which one of another numerical mode differs


def release(run: Path, released: Path, replace: bool = False) -> list[str]:
    """Put the results of a run into the released ones; returns what was done, and caveats, in sentences.

    `replace`: experiments that the run does not have and that do not fit to it any more are removed. UserError, with
    nothing done, where there are such without `replace`, for a run without a seed, or with seeds of several settings.
    """
    new = {folder.name: seed for folder in every_seed(run) if (seed := results.read(folder)) is not None}
    if not new:
        raise UserError(f"{run} holds no results of any seed: run and collect the study first.")
    require_one_profile([run / name for name in new])
    joined = {name: _joined(seed, run / name, released / name, replace) for name, seed in new.items()}
    others = [] if all(map(_is_rerun, new.values())) else [one for one in every_seed(released) if one.name not in new]
    gone = [folder for folder in others if not _alike(run / next(iter(new)), folder)]
    for name, (seed, same) in joined.items():
        _replace(released / name, seed, run / name, keep_reruns=same)
    for folder in gone:
        shutil.rmtree(folder)
    said = [f"Released from {run}: {listed(list(new))}."]
    if gone:
        said.append(f"Removed from {released}, as made with other settings: {listed([one.name for one in gone])}.")
    return said + caveats(released)


def _joined(new: Seed, run: Path, released: Path, replace: bool) -> tuple[Seed, bool]:
    """A seed of a run with the released experiments beside it, and whether what is released comes out the same.

    A released seed of other settings is left out whole. UserError where it has experiments whose stages came out
    otherwise in the run, which lacks them, and `replace` is not given.
    """
    rerun = _is_rerun(new)
    if rerun:
        _require_rerun_of(released, run, new)
    old = results.read(released) if rerun or (released.is_dir() and _alike(run, released)) else None
    if old is None:
        return new, False
    if not replace and (stale := results.outdated(old, new)):
        it = "it" if len(stale) == 1 else "them"
        raise UserError(
            f"{released} stays as it is: stages of {listed(stale)} came out other than released, and the run does not "
            f"have {it}. Run {listed(stale)} too, or release with --replace, which removes {it}."
        )
    seed = results.merged(old, new)
    if rerun:  # settings and profile stay those of the study
        seed.record["profile"] = old.record["profile"]
        seed.documents |= old.documents
    return seed, old.contents(old.experiments).items() <= seed.contents(old.experiments).items()


def _alike(one: Path, other: Path, but: tuple[str, ...] = ()) -> bool:
    """Whether two seeds have the same settings, but for some, so that tables can be drawn from both."""
    try:
        first, second = ({k: v for k, v in settings_of(folder).items() if k not in but} for folder in (one, other))
    except UserError:  # it cannot be read, so it cannot be drawn
        return False
    return first == second


def _is_rerun(seed: Seed) -> bool:
    """Whether it has nothing but reruns of released seeds."""
    return all(one["group"] == "reruns" for one in seed.experiments.values())


def _require_rerun_of(released: Path, run: Path, new: Seed) -> None:
    """UserError where reruns are of another seed than the released, or would differ by more than rounding."""
    if not released.is_dir() or not _alike(run, released, but=MODE):
        raise UserError(f"{released} is no released seed with the settings of {run}: release that seed first.")
    if read_json(run / "settings.json")["numerics"] == numerics.NATIVE:
        path, number, known = new.record["profile"], new.record["seed"], experiments.load()
        found = [one for name in new.experiments for one in experiments.runs(known[name], path, [number])]
        verify.require_comparable(experiments.with_upstream(one.stage for one in found), released)


def _replace(old: Path, seed: Seed, run: Path, keep_reruns: bool) -> None:
    """Replace a released seed; the record of reruns on other processors stays where the seed is the same."""
    made = old.with_name(f".new.{old.name}")
    shutil.rmtree(made, ignore_errors=True)
    results.write(made, seed)
    for path in (run / RERUNS, *([old / RERUNS] if keep_reruns else [])):
        if path.is_file() and not (made / RERUNS).exists():
            shutil.copy2(path, made / RERUNS)
    shutil.rmtree(old, ignore_errors=True)
    made.rename(old)


def caveats(released: Path) -> list[str]:
    """A sentence each for what keeps an experiment's released seeds from being complete and of one clean commit."""
    folders = [folder for folder in seed_folders(released) if (folder / PROVENANCE).is_file()]
    records = {folder.name: read_record(folder) for folder in folders}
    names = dict.fromkeys(name for record in records.values() for name in record["experiments"])
    said = []
    for name in names:
        commits = {folder.name: made["commits"] for folder in folders if (made := origin(folder, name))}
        if len(set(map(tuple, commits.values()))) > 1:
            of_each = "; ".join(f"{seed}: {', '.join(one[:12] for one in own)}" for seed, own in commits.items())
            said.append(f"The released seeds of {name} are not of one commit ({of_each}): rerun those of another.")
        if absent := [seed for seed in records if seed not in commits]:
            said.append(f"{name} is not released for {listed(absent)}.")
        if partial := [seed for seed in commits if records[seed]["experiments"][name].get("missing")]:
            said.append(f"Some runs of {name} are missing in {listed(partial)}.")
    if dirty := [name for name, one in records.items() if any(e["dirty"] for e in one["environments"].values())]:
        said.append(f"Made with uncommitted changes: {listed(dirty)}. Commit, and run them again.")
    return said


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m rdlib release`."""
    parser.add_argument("results", type=Path, help="result tables of the run, a folder a seed")
    parser.add_argument("released", type=Path, help="the released results, a folder a seed")
    parser.add_argument("--replace", action="store_true", help="remove released experiments that fit no more")


def run(options: argparse.Namespace) -> None:
    """Release, and print what was done."""
    print(*release(options.results, options.released, options.replace), sep="\n")
