"""A run held to the released one, artifact by artifact: `python -m rdlib verify [--profile ...] [--seeds ...]`.

With --record, what was made here on another processor than the released is counted beside each seed, in made_again.csv.
Released results name the content (a hash over all files) of every stage behind them. In the portable numerical mode the
same commit gives the same content on every machine that can hold it, so whatever differs has a reason.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from rdlib import artifacts, numerics
from rdlib.errors import UserError
from rdlib.evidence.result_tables import ANSWERED, MADE_AGAIN, MADE_AGAIN_COLUMNS, seed_folders, seed_of
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.study.stage import Stage

SAME, DIFFERENT, ABSENT = "the same", "different", "not made here"


def released_contents(folder: Path) -> dict[str, str]:
    """The content of every stage behind a released seed, by label; UserError where the release does not tell it."""
    found = recorded(folder, "contents")
    if not found:
        raise UserError(f"{folder} does not tell the content of its stages: it was released before version 1.0.0.")
    return found


def require_as_released(read: list[Stage], folder: Path) -> None:
    """UserError where one of these finished stages, which others read, came out other than in a released seed."""
    released = released_contents(folder)
    if moved := [one.label for one in read if content_of(one.folder) != released.get(one.label)]:
        raise UserError(
            f"{folder} stays as it is: {len(moved)} stages that are read came out other than released, the first is "
            f"{moved[0]}. Take the profile, the code, the numerical mode and the packages of the release."
        )


def recorded(folder: Path, what: str) -> dict[str, str]:
    """What a released seed tells of every stage behind it, by label: its key ("stages") or its content ("contents")."""
    found: dict[str, str] = {}
    for name in ("provenance.json", ANSWERED):
        if (folder / name).is_file():
            found |= artifacts.read_json(folder / name).get(what, {})
    return found


def content_of(folder: Path) -> str | None:
    """The content of a finished stage's folder, whatever made it; None where there is none."""
    manifest = artifacts.read_manifest(folder)
    return None if manifest is None else artifacts.content_hash(manifest["files"])


def compare(released: Path, runs: Path) -> pd.DataFrame:
    """A row a released stage: label, and whether what lies in `runs` is SAME, DIFFERENT or ABSENT."""
    rows = []
    for label, content in released_contents(released).items():
        here = content_of(runs / label)
        rows.append((label, ABSENT if here is None else SAME if here == content else DIFFERENT))
    return pd.DataFrame(rows, columns=["stage", "here"])


def told(seed: int, table: pd.DataFrame, most: int = 5) -> str:
    """One comparison in words; of the stages that differ the first ones, by their labels."""
    counts = table["here"].value_counts()
    parts = ", ".join(f"{counts[kind]} {kind}" for kind in (SAME, DIFFERENT, ABSENT) if kind in counts)
    lines = [f"seed {seed}: {len(table)} released stages, {parts}."]
    lines += [f"  different: {label}" for label in table.loc[table["here"] == DIFFERENT, "stage"][:most]]
    return "\n".join(lines)


# ---- on which processors


def made_from(folder: Path) -> dict[str, str]:
    """The processor that made each stage behind a released seed, by label."""
    found: dict[str, str] = {}
    for name in ("provenance.json", ANSWERED):
        record = artifacts.read_json(folder / name) if (folder / name).is_file() else {}
        for one in (record, *record.get("remade", [])):
            found |= dict.fromkeys(one.get("stages", ()), processor_of(one.get("environment", {})))
    return found


def processor_of(environment: dict) -> str:
    """A processor's name with the widest vectors that it has."""
    sets = " ".join(environment.get("instruction_sets", ()))
    widest = next((name for key, name in (("amx", "AMX"), ("avx512", "AVX-512"), ("avx2", "AVX2")) if key in sets), "")
    return f"{environment.get('processor', 'unknown')}{widest and f' ({widest})'}"


def made_again(folder: Path, runs: Path) -> pd.DataFrame:
    """What was made in `runs` on another processor than the released: a row a seed, notebook's stage and processor.

    Columns of MADE_AGAIN_COLUMNS: how many `stages`, and how many of them are the `same` to the byte.
    """
    released_from, rows = made_from(folder), []
    for label, here in compare(folder, runs).itertuples(index=False):
        if here == ABSENT:
            continue
        environment = artifacts.read_manifest(runs / label)["environment"]
        if (made_on := processor_of(environment)) != released_from[label]:
            stage = label.rpartition("/")[2].partition("@")[0]
            rows.append((seed_of(folder), stage, released_from[label], made_on, environment["commit"], here == SAME))
    names = MADE_AGAIN_COLUMNS.split()[:5]
    counts = pd.DataFrame(rows, columns=[*names, "same"]).groupby(names)["same"].agg(stages="size", same="sum")
    return counts.reset_index()


def record(folder: Path, found: pd.DataFrame) -> None:
    """Write what was `made_again` of a seed beside it; what other processors had made of it stays."""
    path = folder / MADE_AGAIN
    if path.is_file():
        there = pd.read_csv(path)
        found = pd.concat([there[~there["made_on"].isin(found["made_on"])], found])
    if len(found):
        artifacts.write_bytes(path, found.to_csv(index=False).encode())


def made_natively(table: pd.DataFrame, runs: Path) -> str | None:
    """A sentence where stages here that are compared were not computed in the portable mode; None where all were."""
    labels = table.loc[table["here"] != ABSENT, "stage"]
    modes = {label: artifacts.read_manifest(runs / label)["environment"].get("numerics") for label in labels}
    native = [label for label, mode in modes.items() if mode != numerics.PORTABLE]
    if not native:
        return None
    return (
        f"{len(native)} of the compared stages in {runs} were not computed in the portable numerical mode, so they "
        f"differ by rounding (docs/portable.md); the first is {native[0]}."
    )


def other_mode(results: Path) -> str | None:
    """A sentence where seeds were computed in another numerical mode than their profile has today; None where not."""
    made = {folder.name: _provenance(folder) or {} for folder in seed_folders(results)}
    native = [
        name
        for name, record in made.items()
        if numerics.NATIVE in record.get("numerics", [numerics.NATIVE]) and _is_portable(record.get("profile", ""))
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m rdlib verify`."""
    parser.add_argument("--profile", default="params/reference.yaml", help="profile of the run")
    parser.add_argument("--released", type=Path, default=ROOT / "figures" / "results", help="released results")
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds to compare (default: all that are released)")
    parser.add_argument("--record", action="store_true", help=f"write what another processor made again ({MADE_AGAIN})")


def run(options: argparse.Namespace) -> int:
    """Compare what is there of the released seeds; 1 where something differs."""
    runs = ROOT / load_profile(ROOT / options.profile).runs
    folders = [f for f in seed_folders(options.released) if not options.seeds or seed_of(f) in options.seeds]
    if not folders:
        raise UserError(f"{options.released} has none of these seeds.")
    tables = {seed_of(folder): compare(folder, runs) for folder in folders}
    for seed, table in tables.items():
        print(told(seed, table))
    for folder in folders if options.record else ():
        record(folder, made_again(folder, runs))
    for note in (other_mode(options.released), made_natively(pd.concat(tables.values()), runs)):
        if note:
            print(note)
    return int(any((table["here"] == DIFFERENT).any() for table in tables.values()))
