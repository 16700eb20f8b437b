"""Compares a run with the released one, stage by stage: `python -m rdlib verify [--profile ...] [--seeds ...]`.

Released results name the content (a hash over all files) of every stage. In the portable numerical mode the same commit
gives the same content on every machine that supports the mode, so every difference has a cause. With --record, stages
computed here on another processor than the released ones are counted in reruns.csv, beside each seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from rdlib import artifacts, numerics
from rdlib.errors import UserError
from rdlib.evidence.result_tables import RERUNS, RERUNS_COLUMNS, read_record, seed_folders, seed_of, unnamed
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.study.stage import Stage

SAME, DIFFERENT, ABSENT = "the same", "different", "not made here"


def released_stages(folder: Path) -> dict[str, dict]:
    """Every stage of a released seed that was made by its own profile, by label: key, content and environment."""
    record = read_record(folder)
    own = [one for one in record["experiments"].values() if one["profile"] == record["profile"]]
    stages = {label: stage for one in reversed(own) for label, stage in one["stages"].items()}
    return {label: one | {"environment": record["environments"][one["made"]]} for label, one in stages.items()}


def compare(released: Path, runs: Path) -> pd.DataFrame:
    """A row a released stage: label, and whether what lies in `runs` is SAME, DIFFERENT or ABSENT.

    Of what lies there also the numerical `mode` and `commit`, and the processors: `before` of the released, `now`.
    """
    rows = []
    for label, stage in released_stages(released).items():
        manifest = artifacts.read_manifest(runs / label)
        made = manifest["environment"] if manifest else {}
        same = manifest and artifacts.content_hash(manifest["files"]) == stage["content"]
        here = ABSENT if manifest is None else SAME if same else DIFFERENT
        processors = processor_of(stage["environment"]), processor_of(made)
        rows.append((label, here, made.get("numerics"), made.get("commit"), *processors))
    return pd.DataFrame(rows, columns=["stage", "here", "mode", "commit", "before", "now"])


def summary_lines(seed: int, table: pd.DataFrame, most: int = 5) -> str:
    """One comparison in words; of the stages that differ the first ones, by their labels."""
    counts = table["here"].value_counts()
    parts = ", ".join(f"{counts[kind]} {kind}" for kind in (SAME, DIFFERENT, ABSENT) if kind in counts)
    lines = [f"seed {seed}: {len(table)} released stages, {parts}."]
    lines += [f"  different: {label}" for label in table.loc[table["here"] == DIFFERENT, "stage"][:most]]
    return "\n".join(lines)


def require_comparable(stages: Iterable[Stage], released: Path) -> None:
    """UserError where a released seed and stages in another numerical mode would differ by more than rounding.

    Their settings, code and inputs must be the released ones, which the released keys prove.
    """
    known = {unnamed(label): one for label, one in released_stages(released).items()}
    for stage in stages:
        label = unnamed(stage.label)
        if label not in known:
            raise UserError(f"{released} has no stage {label}: release that seed again.")
        if known[label]["environment"].get("numerics") != numerics.PORTABLE:
            raise UserError(f"{released} was not computed in the portable mode alone: release that seed again in it.")
        read = {name: known[unnamed(one.label)]["content"] for name, one in stage.inputs.items()}
        if stage.key_from(read) != known[label]["key"]:
            commits = ", ".join(known[label]["environment"]["commits"])
            raise UserError(
                f"{released} has {label} of other settings or code (commit {commits}), so more than rounding would "
                f"differ: check out that commit, or release that seed again."
            )


# ---- on which processors


def processor_of(environment: dict) -> str:
    """A processor's name with the widest vectors that it has."""
    sets = " ".join(environment.get("instruction_sets", ()))
    widest = next((name for key, name in (("amx", "AMX"), ("avx512", "AVX-512"), ("avx2", "AVX2")) if key in sets), "")
    return f"{environment.get('processor', 'unknown')}{widest and f' ({widest})'}"


def reruns(seed: int, table: pd.DataFrame) -> pd.DataFrame:
    """What was rerun on another processor than the released: a row a seed, kind of stage and processor.

    Columns of RERUNS_COLUMNS: how many `stages`, and how many of them are the `same` to the byte.
    """
    other = table[(table["here"] != ABSENT) & (table["now"] != table["before"])]
    kinds = other["stage"].str.rpartition("/")[2].str.partition("@")[0]
    names = RERUNS_COLUMNS.split()[:5]
    columns = dict(zip(names, (seed, kinds, other["before"], other["now"], other["commit"]), strict=True))
    counts = pd.DataFrame(columns | {"same": other["here"] == SAME}).groupby(names)["same"]
    return counts.agg(stages="size", same="sum").reset_index()


def record(folder: Path, found: pd.DataFrame) -> None:
    """Write the `reruns` of a seed beside it; what other processors made of it stays."""
    path = folder / RERUNS
    if path.is_file():
        there = pd.read_csv(path)
        found = pd.concat([there[~there["made_on"].isin(found["made_on"])], found])
    if len(found):
        artifacts.write_bytes(path, found.to_csv(index=False).encode())


# ---- in which numerical mode


def made_natively(table: pd.DataFrame, runs: Path) -> str | None:
    """A sentence where stages here that are compared were not computed in the portable mode; None where all were."""
    native = table.loc[(table["here"] != ABSENT) & (table["mode"] != numerics.PORTABLE), "stage"]
    if native.empty:
        return None
    return (
        f"{len(native)} of the compared stages in {runs} were not computed in the portable numerical mode, so they "
        f"differ by rounding (docs/portable.md); the first is {native.iloc[0]}."
    )


def other_mode(results: Path) -> str | None:
    """A sentence where seeds were computed in another numerical mode than their profile has today; None where not."""
    native = [folder.name for folder in seed_folders(results) if _is_native(folder)]
    if not native:
        return None
    return (
        f"{results}: {', '.join(native)} were not computed in the portable numerical mode, so a run here differs from "
        f"them by rounding (docs/portable.md)."
    )


def _is_native(folder: Path) -> bool:
    """Whether stages of a seed whose profile is portable were not computed in that mode."""
    profile = ROOT / read_record(folder)["profile"]
    if not profile.is_file() or load_profile(profile).numerics != numerics.PORTABLE:
        return False
    return any(one["environment"].get("numerics") != numerics.PORTABLE for one in released_stages(folder).values())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m rdlib verify`."""
    parser.add_argument("--profile", default="params/reference.yaml", help="profile of the run")
    parser.add_argument("--released", type=Path, default=ROOT / "figures" / "results", help="released results")
    parser.add_argument("--seeds", type=int, nargs="+", help="seeds to compare (default: all that are released)")
    parser.add_argument("--record", action="store_true", help=f"count what another processor reran in {RERUNS}")


def run(options: argparse.Namespace) -> int:
    """Compare what is there of the released seeds; 1 where something differs."""
    runs = ROOT / load_profile(ROOT / options.profile).runs
    folders = [f for f in seed_folders(options.released) if not options.seeds or seed_of(f) in options.seeds]
    if not folders:
        raise UserError(f"{options.released} has none of these seeds.")
    tables = {seed_of(folder): compare(folder, runs) for folder in folders}
    for seed, table in tables.items():
        print(summary_lines(seed, table))
    for folder in folders if options.record else ():
        record(folder, reruns(seed_of(folder), tables[seed_of(folder)]))
    every = pd.concat(tables.values())
    for note in filter(None, (other_mode(options.released), made_natively(every, runs))):
        print(note)
    return int((every["here"] == DIFFERENT).any())
