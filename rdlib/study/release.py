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
from rdlib.study.stage import Stage

MODE = ("name", "numerics")  # of a profile: all in which one of another numerical mode differs


def release(run: Path, released: Path, replace: bool = False) -> list[str]:
    """Put the results of a run into the released ones; returns what was done, and caveats, in sentences.

    `replace`: experiments that the run does not have and that do not fit to it any more are removed. UserError, with
    nothing done, where there are such without `replace`, for a run without a seed, or with seeds of several settings.
    """
    new = {folder.name: results.read(folder) for folder in every_seed(run)}
    new = {name: seed for name, seed in new.items() if seed is not None}
    if not new:
        raise UserError(f"{run} holds no results of any seed: run and collect the study first.")
    require_one_profile([run / name for name in new])
    merged, kept_reruns = {}, []
    for name, seed in new.items():
        old = _same_study(released / name, run / name, seed)
        if old is not None and not replace:
            _require_fitting(released / name, old, seed)
        merged[name] = seed if old is None else _joined(old, seed)
        if old is not None and old.contents(old.experiments).items() <= merged[name].contents(old.experiments).items():
            kept_reruns.append(name)
    others = [] if _is_rerun(*new.values()) else [one for one in every_seed(released) if one.name not in new]
    gone = [folder for folder in others if not _alike(run / next(iter(new)), folder)]
    for name, seed in merged.items():
        _replace(released / name, seed, run / name, name in kept_reruns)
    for folder in gone:
        shutil.rmtree(folder)
    said = [f"Released from {run}: {listed(list(new))}."]
    if gone:
        said.append(f"Removed from {released}, as made with other settings: {listed([one.name for one in gone])}.")
    return said + caveats(released)


def _alike(one: Path, other: Path, but: tuple[str, ...] = ()) -> bool:
    """Whether two seeds have the same settings, but for some, so that tables can be drawn from both."""
    try:
        first, second = ({k: v for k, v in settings_of(folder).items() if k not in but} for folder in (one, other))
    except UserError:  # it cannot be read, so it cannot be drawn
        return False
    return first == second


def _is_rerun(*seeds: Seed) -> bool:
    """Whether these have nothing but reruns of released seeds."""
    return all(one["group"] == "reruns" for seed in seeds for one in seed.experiments.values())


def _same_study(released: Path, folder: Path, new: Seed) -> Seed | None:
    """The released seed that a run's belongs to; None where it takes its place whole.

    Reruns in another numerical mode belong to the seed whose settings they have; UserError where more than rounding
    would differ.
    """
    if _is_rerun(new):
        if not released.is_dir() or not _alike(folder, released, but=MODE):
            raise UserError(f"{released} is no released seed with the settings of {folder}: release that seed first.")
        if read_json(folder / "settings.json")["numerics"] == numerics.NATIVE:
            verify.require_comparable(_stages_of(new), released)
        return results.read(released)
    return results.read(released) if released.is_dir() and _alike(folder, released) else None


def _stages_of(seed: Seed) -> list[Stage]:
    """The stages of a seed's runs, as the present code has them."""
    path, number = seed.record["profile"], seed.record["seed"]
    known = experiments.load()
    runs = [run for name in seed.experiments for run in experiments.runs(known[name], path, [number])]
    return experiments.with_upstream(run.stage for run in runs)


def _require_fitting(folder: Path, old: Seed, new: Seed) -> None:
    """UserError where the release has experiments whose stages came out otherwise in the run, which lacks them."""
    if stale := results.outdated(old, new):
        raise UserError(
            f"{folder} stays as it is: stages of {listed(stale)} came out other than released, and the run does not "
            f"have {'it' if len(stale) == 1 else 'them'}. Run {listed(stale)} too, or release with --replace, which "
            f"removes {'it' if len(stale) == 1 else 'them'}."
        )


def _joined(old: Seed, new: Seed) -> Seed:
    """The released seed with the experiments of a run; its settings and profile stay those of the study."""
    seed = results.merged(old, new)
    if _is_rerun(new):
        seed.record |= {"profile": old.record["profile"]}
        seed.documents |= old.documents
    return seed


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
