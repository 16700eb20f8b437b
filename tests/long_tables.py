"""Invented results for tests: rows given in short tables, written as the long tables of `rdlib.study.results`.

    write(folder, correctness=..., reward_scores=...)   # tables by the name of the property of Evidence that has them

Rows name axes, `variant` ("reward_model.lam=0.25", "" for none) and seed; of questions cell, question, arm, level.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd

from rdlib import artifacts
from rdlib.evidence.result_tables import KEY_LENGTH, PROVENANCE, RUN, STAGE
from rdlib.study import results

# Of each property: the kind of its rows, and the stage that they are of
KINDS = {
    "correctness": ("answers", "07_evaluate"),
    "reviewers": ("answers", "07_evaluate"),
    "reward_scores": ("scores", "05_reward_model"),
    "reward_model_history": ("curves", "05_reward_model"),
    "sft_history": ("curves", "03_sft_warmup"),
    "ppo_history": ("curves", "06_ppo"),
    "pseudo_labels": ("votes", "02_judgement"),
    "thresholds": ("votes", "01_teacher_responses"),
    "judged": ("responses", None),
    "question_costs": ("costs", None),
}
ABLATIONS = {
    "reward_model.lam": "lambda",
    "reward_model.teacher_share": "data_ratio",
    "reward_model.source": "reward_source",
    "reward.mismatch": "correctness",
}
OTHERS = {None: "RM", "02_judgement": "judgement", "01_teacher_responses": "R4"}  # experiments of stages of no variant
AXES = ["dataset", "teacher", "student", "method"]
RELATION = [*f"{RUN} {STAGE}".split(), "stage"]


def write(folder: Path, seed: int, commit: str = "0" * 40, **short: pd.DataFrame) -> Path:
    """Add the rows to the results of a seed; those of an experiment take the place of the same one's."""
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in results.FILES}
    for name, table in short.items():
        kind, stage = KINDS.get(name, (name, None))
        parts[kind].append(_long(table.reset_index(drop=True), stage, seed))
    others = [frame for kind, frames in parts.items() for frame in frames if kind != "costs"]
    relation = [frame[[*RELATION, *(n for n in frame if "." in n)]].drop_duplicates() for frame in others]
    costs = pd.concat([*parts["costs"], *relation], ignore_index=True)  # which say what stages there are
    again = costs.duplicated(["key", "experiment", "arm"])
    spent = pd.Series(range(len(costs))) < sum(map(len, parts["costs"]))
    parts["costs"] = [costs[spent | ~again]]
    stacked = {kind: pd.concat(frames, ignore_index=True) for kind, frames in parts.items() if frames}
    tables = {name: results.in_shape(stacked.get(kind, pd.DataFrame()), name) for kind, name in results.FILES.items()}
    record = _record(tables["costs.parquet"], seed, commit)
    results.write(folder, results.merged(results.read(folder), results.Seed(record, tables)))
    return folder


def _long(table: pd.DataFrame, stage: str | None, seed: int) -> pd.DataFrame:
    """Rows with everything that names them."""
    table = table.rename(columns={"question": "experiment"})
    if "cell" in table and "dataset" not in table:
        axes = table["cell"].str.split("/", expand=True).set_axis(AXES[:3], axis=1)
        table = table.assign(**{name: axes[name] for name in axes}, method="ours")
    if "dataset" not in table:
        table = table.assign(dataset=table["benchmark"].str.removesuffix("_plus"))
    named = {name: table.get(name, pd.Series("", table.index)).fillna("") for name in [*AXES, "variant"]}
    table = table.assign(**named)
    table = table.assign(seed=seed, **_settings_of(table["variant"]))
    ablation = table["variant"].str.partition("=")[0].map(ABLATIONS).fillna("main")
    defaults = {"stage": stage or "13_judged_responses", "experiment": OTHERS.get(stage, ablation)}
    keys = ["stage", *AXES, "variant", *(["experiment", "arm", "level", "cell"] if "experiment" in table else [])]
    defaults |= {"arm": table["method"].where(table["variant"] == "", table["variant"]), "level": None}
    defaults |= {"reference": False, "cell": table["dataset"] + "/" + table["teacher"] + "/" + table["student"]}
    defaults |= {"split": "test", "moment": "" if stage is None else "kept"}
    table = table.assign(**{name: value for name, value in defaults.items() if name not in table})
    texts = table[keys].astype("object").fillna("").astype(str)
    names = texts["stage"].str.cat(texts[keys[1:]], sep="/")
    hashed = {name: hashlib.sha256(f"{name}/{seed}".encode()).hexdigest()[:KEY_LENGTH] for name in names.unique()}
    return table.assign(key=names.map(hashed))


def _settings_of(variants: pd.Series) -> dict[str, list]:
    """The settings of variants as columns; numbers as such."""
    rows = [dict(part.split("=") for part in text.split(",") if part) for text in variants]
    names = sorted({name for row in rows for name in row})
    return {name: [_number(row.get(name)) for row in rows] for name in names}


def _number(text: str | None) -> float | str | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _record(costs: pd.DataFrame, seed: int, commit: str) -> dict:
    """A record of the experiments that have rows, as of one commit."""
    known = results.experiments.load()
    records = {}
    for name in dict.fromkeys(costs["experiment"]):
        keys = costs.loc[costs["experiment"] == name, ["stage", "key"]].drop_duplicates().itertuples(index=False)
        stages = {f"p/{stage}/{key}": {"key": key, "content": key, "made": "m"} for stage, key in keys}
        group = known[name].group if name in known else "follow-ups"
        command = f"python -m rdlib study --profile params/micro.yaml --seeds {seed}"
        records[name] = {"title": name, "group": group, "file": "", "profile": "params/micro.yaml", "missing": 0}
        records[name] |= {"command": command, "started": "2026-01-01T00:00:00+00:00", "stages": stages}
    environment = {"commits": [commit], "dirty": False, "machine": "Linux", "numerics": "portable", "packages": {}}
    environment |= {"python": "3.11"}
    return {"profile": "params/micro.yaml", "seed": seed, "environments": {"m": environment}, "experiments": records}


def origin(
    folder: Path, seed: int, commit: str = "0" * 40, dirty: bool = False, name: str = "main", **environment
) -> Path:
    """Where a seed's experiment comes from, without its tables; added to what is recorded there."""
    path = folder / PROVENANCE
    record = artifacts.read_json(path) if path.is_file() else {"environments": {}, "experiments": {}}
    made = {"commits": [commit], "dirty": dirty, "numerics": "portable"} | environment
    record |= {"profile": "params/micro.yaml", "seed": seed}
    record["environments"][name] = made
    stage = {"key": name, "content": name, "made": name}
    group = results.experiments.load()[name].group
    one = {"group": group, "command": "python -m rdlib study", "started": "2026-01-01", "profile": "params/micro.yaml"}
    record["experiments"][name] = one | {"title": name, "missing": 0, "stages": {f"p/{name}": stage}}
    artifacts.write_json(path, record)
    return folder
