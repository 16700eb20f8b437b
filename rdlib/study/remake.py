"""Some methods of released seeds made again, after their code was mended: `python -m rdlib remake METHODS`.

    python -m rdlib remake grpo dpo --results figures/results --seeds 0 1

Every run of these methods among the reviewers' questions is made again, with all that it reads. What it reads must come
out as it was released, to the byte, so that all else of the seed stays true; then the methods' rows take the place of
the old ones, and the seed's question_provenance.json tells by which commit, under `remade`.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import pandas as pd

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence.result_tables import ANSWERED, QUESTION_TRAININGS, seed_folders, seed_of
from rdlib.evidence.tables import listed
from rdlib.paths import ROOT
from rdlib.study import arms, compared, curves, release, results, trials
from rdlib.study.grid import ablation_cells
from rdlib.study.specification import BASELINES
from rdlib.study.stage import Stage

ARM = ["cell", "question", "arm", "level"]  # what names an arm in the tables


def arms_again(profile_path: str, seed: int, methods: list[str]) -> list[arms.Arm]:
    """The arms of these methods in every cell of the reviewers' questions."""
    found = [arm for cell in ablation_cells(profile_path, seed) for arm in arms.arms_of(cell)]
    return [arm for arm in found if arm.stage.method in methods]


def told(folder: Path, stages: list[Stage], methods: list[str]) -> str:
    """How many stages of these methods are other than the released ones, in a sentence.

    UserError where any stage that they read is.
    """
    released = compared.released_contents(folder)
    read = [one for one in stages if one.method not in methods]
    compared.require_as_released(read, folder)
    made = [one for one in stages if one.method in methods]
    other = [one for one in made if compared.content_of(one.folder) != released.get(one.label)]
    now = f"{len(other)} of {len(made)} now differ"
    return f"{folder.name}: {len(read)} stages that are read are as released, to the byte; {now}."


def put_in_place(old: pd.DataFrame, new: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """`old` with rows that have the same `names` as rows of `new` replaced by those, at the place of the first.

    UserError for new rows whose names no old row has.
    """
    of_new, of_old = _names(new, names), _names(old, names)
    if missing := set(of_new) - set(of_old):
        row = ", ".join(filter(None, min(missing)))
        raise UserError(f"The released tables have no rows of {row}: they are of another profile.")
    place = {key: i for i, key in reversed(list(enumerate(of_old)))}
    again = set(of_new)
    kept = [key not in again for key in of_old]
    both = pd.concat([old[kept], new[list(old)]])
    order = [place[key] for key in _names(both, names)]
    return both.assign(_place=order).sort_values("_place", kind="stable", ignore_index=True).drop(columns="_place")


def _names(table: pd.DataFrame, names: list[str]) -> list[tuple[str, ...]]:
    """What names each row, as texts; what is missing is empty."""
    rows = table[names].itertuples(index=False)
    return [tuple("" if pd.isna(value) else str(value) for value in row) for row in rows]


def replaced(stages: list[Stage], record: dict) -> list[Stage]:
    """The stages that are of another key or content than a seed's record tells."""
    known = {label: (key, record["contents"].get(label)) for label, key in record["stages"].items()}
    return [
        one
        for one in stages
        if (artifacts.read_manifest(one.folder)["key"], compared.content_of(one.folder)) != known.get(one.label)
    ]


def replace_rows(folder: Path, found: list[arms.Arm], again: list[Stage]) -> None:
    """Write a seed's tables of questions with the rows of stages made `again`, and of the arms that read them."""
    folders = {one.folder for one in again}
    found = [arm for arm in found if folders & {one.folder for one in (arm.stage, *arm.stage.upstream())}]
    endings, costs, of_stage = curves.endings(again), results.arm_costs(found), ["stage", *results.CELL]
    new = set(_names(pd.DataFrame([one.columns | {"stage": one.name} for one in again]), of_stage))
    tables = {
        "reviewers.parquet": (arms.answers_table(found), ARM),
        "question_costs.csv": (costs[[name in new for name in _names(costs, of_stage)]], [*ARM, *of_stage]),
        QUESTION_TRAININGS: (endings, of_stage),
    }
    for name, (table, names) in tables.items():
        path = folder / name
        if table is None:
            continue
        if path.suffix == ".parquet":
            artifacts.write_parquet(path, put_in_place(pd.read_parquet(path), table, names))
            continue
        text = io.StringIO(table.to_csv(index=False, float_format="%.6g"))
        # as texts, so that the other rows stay as they were written
        old, new_rows = (pd.read_csv(source, dtype=str, keep_default_na=False) for source in (path, text))
        artifacts.write_bytes(path, put_in_place(old, new_rows, names).to_csv(index=False).encode())


def recorded(record: dict, made: dict, methods: list[str]) -> dict:
    """The provenance of a seed's questions after stages were made again; `made`: those stages' own provenance."""
    again = {key: made[key] for key in ("commits", "dirty", "started", "environment")}
    again["command"] = f"python -m rdlib remake {' '.join(methods)} --seeds {made['seed']}"
    again["stages"] = sorted(made["stages"])
    earlier = record.get("remade", [])
    remade = [one for one in earlier if not set(one["stages"]) <= set(again["stages"])] + [again]
    news = {name: record[name] | made[name] for name in ("stages", "contents")}
    news["commits"] = sorted({*release.commits_of(record)[0], *(commit for one in remade for commit in one["commits"])})
    news["dirty"] = record["dirty"] or made["dirty"]
    news["numerics"] = sorted({*record["numerics"], *made["numerics"]})
    return record | news | {"remade": remade}


def remake(folder: Path, methods: list[str], jobs: int) -> str:
    """Make the methods' runs of one released seed again and put them in place; returns what came of it.

    UserError, with the seed as it was, where it has no answered questions or what the runs read is not as released.
    """
    if not (folder / ANSWERED).is_file():
        raise UserError(f"{folder} has no reviewers' questions, so there are no runs of theirs to make again.")
    record = artifacts.read_json(folder / ANSWERED)
    profile, seed = record["profile"], record["seed"]
    found = arms_again(profile, seed, methods)
    stages = list({one.folder: one for arm in found for one in (*arm.stage.upstream(), arm.stage)}.values())
    trials.run_stages([arm.stage for arm in found], jobs, folder.name)
    sentence = told(folder, stages, methods)
    if again := replaced([one for one in stages if one.method in methods], record):
        replace_rows(folder, found, again)
        made = results.provenance(again, profile, seed)
        artifacts.write_json(folder / ANSWERED, recorded(record, made, methods))
    return sentence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m rdlib remake`."""
    parser.add_argument("methods", nargs="+", choices=BASELINES, metavar="METHODS", help=f"some of {listed(BASELINES)}")
    parser.add_argument("--results", type=Path, default=ROOT / "figures" / "results", help="a folder a released seed")
    parser.add_argument("--seeds", type=int, nargs="+", help="some of the seeds (default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="stages at a time (default: 2)")


def run(options: argparse.Namespace) -> None:
    """Make the methods again, seed by seed."""
    folders = {seed_of(folder): folder for folder in seed_folders(options.results)}
    if unknown := set(options.seeds or ()) - set(folders):
        raise UserError(f"{options.results} has no seed {min(unknown)}.")
    for seed in options.seeds or folders:
        print(remake(folders[seed], options.methods, options.jobs), flush=True)
