"""Released results cut down to a few questions and seeds: real tables that are drawn in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from conftest import REPOSITORY

RELEASED = REPOSITORY / "figures/results"
QUESTIONS = 60  # of each benchmark
STUDY = "correctness.parquet pseudo_labels.csv reward_scores.parquet reward_model_history.parquet sft_history.parquet"
STUDY += " ppo_history.parquet costs.csv trainings.csv example.json settings.json"
ANSWERS = "reviewers.parquet judged.parquet thresholds.csv over_optimisation.csv question_costs.csv"
ANSWERS += " question_trainings.csv question_provenance.json"


def excerpt(results: Path, seeds: tuple[int, ...] = (0,), answered: bool = False) -> Path:
    """Write the first questions of released seeds to a folder; `answered`: with the reviewers' questions."""
    for seed in seeds:
        folder = results / f"seed{seed}"
        folder.mkdir(parents=True)
        for name in STUDY.split() + (ANSWERS.split() if answered else []):
            source = RELEASED / folder.name / name
            if source.suffix == ".parquet":
                _few(pd.read_parquet(source)).to_parquet(folder / name)
            else:
                (folder / name).write_bytes(source.read_bytes())
    return results


def _few(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first questions of each benchmark or dataset; all of a table without questions."""
    if "id" not in table:
        return table
    by = next((name for name in ("benchmark", "dataset") if name in table), "id")
    ids = table.groupby(by)["id"].unique().map(lambda ids: sorted(ids)[:QUESTIONS]) if by != "id" else None
    kept = {one for some in ids for one in some} if ids is not None else set(sorted(set(table["id"]))[:QUESTIONS])
    return table[table["id"].isin(kept)].reset_index(drop=True)


def own_questions(results: Path) -> Path:
    """The same as of own questions, some with answers, of which only Ours and its warm-up were run."""
    folder = excerpt(results) / "seed0"
    kept = ["teacher", "icl", "ours_wo_r", "ours"]
    for path in folder.glob("*.parquet"):
        table = pd.read_parquet(path)
        rows = table["method"].isin(kept)
        rows &= table["variant"].fillna("").eq("") if "variant" in table else True
        for axis, name in (("dataset", "gsm"), ("benchmark", "gsm"), ("teacher", "strong"), ("student", "small")):
            rows &= table[axis].fillna("").isin([name, ""]) if axis in table else True
        renamed = {
            axis: table.loc[rows, axis].replace("gsm", "mine") for axis in ("dataset", "benchmark") if axis in table
        }
        table[rows].assign(**renamed).to_parquet(path)
    labels = pd.read_csv(folder / "pseudo_labels.csv").query("dataset == 'gsm' and teacher == 'strong'")
    labels.assign(dataset="mine").to_csv(folder / "pseudo_labels.csv", index=False)
    costs = pd.read_csv(folder / "costs.csv", keep_default_na=False)
    costs[costs["method"].isin([*kept, ""]) & (costs["variant"] == "")].to_csv(folder / "costs.csv", index=False)
    columns = {"dataset": "mine", "student": "small", "variant": "", "seed": 0, "answered": 1.0, "distinct": 0.9}
    greedy = [columns | {"teacher": "strong", "method": "ours_wo_r", "tokens": 60.0}]
    greedy += [columns | {"teacher": "strong", "method": "ours", "tokens": 20.0}]
    pd.DataFrame(greedy).to_csv(folder / "greedy_answers.csv", index=False)
    settings = json.loads((folder / "settings.json").read_text())
    settings["datasets"] = {"mine": settings["datasets"]["gsm"] | {"source": "questions"}}
    (folder / "settings.json").write_text(json.dumps(settings))
    return results
