"""Released results cut down to a few questions and seeds: real tables that are drawn in seconds."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from conftest import REPOSITORY

from rdlib.study import results as result_files
from rdlib.study.results import Seed

RELEASED = REPOSITORY / "figures/results"
QUESTIONS = 60  # of each benchmark


def excerpt(results: Path, seeds: tuple[int, ...] = (0,), answered: bool = False) -> Path:
    """Write the first questions of released seeds to a folder; `answered`: with the reviewers' questions."""
    for seed in seeds:
        found = result_files.read(RELEASED / f"seed{seed}")
        groups = ("study", "ablations", *(["questions"] if answered else []))
        known = {name: one for name, one in found.experiments.items() if one["group"] in groups}
        found.record["experiments"] = known
        nothing = Seed(found.record | {"experiments": {}}, {name: table[:0] for name, table in found.tables.items()})
        kept = result_files.merged(found, nothing)
        kept.tables = {name: _few(table) for name, table in kept.tables.items()}
        kept.documents.pop("measured.json", None)
        result_files.write(results / f"seed{seed}", kept)
    return results


def _few(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first questions of each benchmark or dataset; all of a table without questions."""
    if "id" not in table:
        return table
    by = next(name for name in ("benchmark", "dataset") if name in table)
    ids = table.groupby(by)["id"].unique().map(lambda ids: sorted(ids)[:QUESTIONS])
    return table[table["id"].isin({one for some in ids for one in some})].reset_index(drop=True)


def own_questions(results: Path) -> Path:
    """The same as of own questions, some with answers, of which only Ours and its warm-up were run."""
    folder = excerpt(results) / "seed0"
    seed = result_files.read(folder)
    seed.record["experiments"] = {name: seed.experiments[name] for name in ("main", "judgement")}
    seed.tables = {name: _of_own(table) for name, table in seed.tables.items()}
    answers = seed.tables["answers.parquet"]
    tokens = answers["method"].map({"ours_wo_r": 60, "ours": 20})
    looks = {"tokens": tokens.astype("Int64"), "answered": tokens.notna(), "text": pd.factorize(answers["id"])[0]}
    seed.tables["answers.parquet"] = answers.assign(**looks)
    settings = seed.documents["settings.json"]
    settings["datasets"] = {"mine": settings["datasets"]["gsm"] | {"source": "questions"}}
    for path in folder.iterdir():
        path.unlink()
    result_files.write(folder, seed)
    return results


def _of_own(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of Ours, its warm-up and what they are compared with in gsm/strong/small, as of own questions."""
    kept = table["method"].isin(["teacher", "icl", "ours_wo_r", "ours", ""])
    kept &= table[[name for name in table if "." in name]].isna().all(axis=1)
    for axis, name in (("dataset", "gsm"), ("benchmark", "gsm"), ("teacher", "strong"), ("student", "small")):
        kept &= table[axis].isin([name, ""]) if axis in table else True
    if "experiment" in table:
        kept &= table["experiment"].isin(["main", "judgement"])
    renamed = {axis: table.loc[kept, axis].replace("gsm", "mine") for axis in ("dataset", "benchmark") if axis in table}
    return table[kept].assign(**renamed).reset_index(drop=True)
