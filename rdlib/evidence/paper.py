"""The paper's numbers and names, and where each constant of the method comes from.

The tables are copies of the paper's (`paper_values/*.csv`). A constant is "stated" where the paper's text gives it. It
is "reconstructed" where a formula or value is missing and this reading fits the words, and "open" where the value is
ours because the text has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

TEACHERS = {"strong": "llama3-70b", "weak": "llama3-8b"}
STUDENTS = {"small": "llama3-1b", "large": "llama3-3b"}
BENCHMARKS = {"gsm": "gsm8k", "gsm_plus": "gsm_plus", "mmlu": "mmlu_pro"}
METHODS = ("teacher", "icl", "sft", "ours_wo_r", "ours_wo_d", "ours")
LABELS = {
    "llama3-70b": "Llama-3-70B",
    "llama3-8b": "Llama-3.1-8B",
    "llama3-3b": "Llama-3.2-3B",
    "llama3-1b": "Llama-3.2-1B",
    "gsm8k": "GSM8K",
    "gsm_plus": "GSM-Plus",
    "mmlu_pro": "MMLU-Pro",
}
# What the paper's text says about its Figure 3, which survives only as a picture (section 4.3).
FAILURE_WORDS = {
    ("gsm", "strong"): "near-perfect evaluation",
    ("gsm", "weak"): "near-perfect evaluation",
    ("mmlu", "strong"): "drops significantly",
    ("mmlu", "weak"): "nearly half of the questions fail",
}
# Settings of this study beside a row of the paper's tables of hyperparameters, by stage
TABLE_5 = {
    "sft": {"batch_size": "sft.batch_size", "learning_rate": "sft.learning_rate", "epochs": "sft.epochs"},
    "reward_model": {name: f"reward_model.{name}" for name in ("batch_size", "learning_rate", "epochs")},
    "ppo": {"batch_size": "ppo.minibatch_size", "learning_rate": "ppo.learning_rate", "epochs": "ppo.epochs"},
}


@cache
def load(name: str) -> pd.DataFrame:
    """A table of `paper_values`: main_results, reward_model_auc, reward_source, hyperparameters, provenance."""
    return pd.read_csv(Path(__file__).parent / "paper_values" / f"{name}.csv")


def accuracy(benchmark: str, teacher: str, student: str, method: str) -> float | None:
    """The paper's Table 2 in per cent, by this project's names; None where it has no such cell."""
    table = load("main_results").fillna({"student": ""})
    return _value(table[table["method"] == method], BENCHMARKS.get(benchmark), teacher, student)


def reward_model_auc(dataset: str, teacher: str, student: str, comparison: str) -> float | None:
    """The paper's Table 3 by this project's names (comparison: pos_neg, pos_pos); None where it has none."""
    return _value(load("reward_model_auc"), f"{BENCHMARKS.get(dataset)}_{comparison}", teacher, student)


def _value(table: pd.DataFrame, column: str | None, teacher: str, student: str) -> float | None:
    student = STUDENTS.get(student, "?") if student else ""
    rows = table[(table["teacher"] == TEACHERS.get(teacher)) & (table["student"] == student)]
    return float(rows[column].iloc[0]) if len(rows) and column in rows else None


def reward_source() -> dict[str, float]:
    """The paper's Table 4 in per cent: without_reward, from_teacher, from_student (GSM8K, 70B to 1B)."""
    row = load("reward_source").iloc[0]
    return {name: float(row[name]) for name in ("without_reward", "from_teacher", "from_student")}


def lookup(settings: dict, key: str) -> Any:
    """A dotted key of the settings, None where missing; `*` gives a dict over all names at that place."""
    head, _, rest = key.partition(".")
    if head == "*":
        found = {name: lookup({name: value}, f"{name}.{rest}") for name, value in settings.items()}
        return found or None
    value = settings.get(head) if isinstance(settings, dict) else None
    return lookup(value, rest) if rest and value is not None else value


def as_text(value: Any) -> str:
    """A setting as short text: 0.0005 -> "0.0005", [0, 1] -> "0, 1", {"gsm": 80} -> "gsm 80"."""
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "; ".join(f"{key} {as_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(as_text(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def provenance_table(settings: dict) -> pd.DataFrame:
    """Every constant: what the paper has, its status, where in the paper, and this study's value."""
    table = load("provenance").fillna("")
    keys = [text.split() for text in table["keys"]]  # dotted settings that hold our value, where `ours` does not say it
    found = [" / ".join(as_text(lookup(settings, key)) for key in some) for some in keys]
    ours = [said or value for said, value in zip(table["ours"], found, strict=True)]
    if rank := lookup(settings, "training.lora.r"):
        trained = table["name"] == "SFT parameters trained"
        ours = [f"adapters (LoRA) of rank {rank}" if one else value for one, value in zip(trained, ours, strict=True)]
    table = table.assign(this_study=ours, setting=[", ".join(some) for some in keys])
    return table.rename(columns={"name": "constant"})[["constant", "paper", "status", "where", "this_study", "setting"]]


def hyperparameter_table(settings: dict, stages: Sequence[str]) -> pd.DataFrame:
    """Tables 5 and 6 (and the reward models' values): the paper's rows, this study's settings beside them."""
    table = load("hyperparameters")
    table = table[table.stage.isin(stages)].reset_index(drop=True)
    renamed = table.rename(columns={name: f"paper_{name}" for name in ("batch_size", "save_steps", "gpus")})
    renamed["paper_save_steps"] = renamed["paper_save_steps"].astype("Int64")
    for name in ("batch_size", "learning_rate", "epochs"):
        values = [_setting_of_cell(settings, TABLE_5[row.stage][name], row) for row in table.itertuples()]
        renamed[f"study_{name}"] = [as_text(value) for value in values]
    renamed["teacher"] = renamed["teacher"].fillna("any")
    return renamed.dropna(axis="columns", how="all")


def _setting_of_cell(settings: dict, key: str, row) -> Any:
    """A setting in the cell of a row of the paper's table: the profile's `cells` come before its sections."""
    found = lookup(settings, key)
    names = {"dataset": BENCHMARKS, "teacher": TEACHERS, "student": STUDENTS}
    for cell in settings.get("cells", []):
        axes = [axis for axis in names if cell.get(axis) is not None]
        if all(names[axis].get(cell[axis]) == getattr(row, axis) for axis in axes):
            found = cell["settings"].get(key, found)
    return found


def example_table(example: dict) -> pd.DataFrame:
    """Table 1: one question with its pseudo-label and responses, and the reward model's score of each."""
    scores = example.get("scores") or {}
    rows = []
    for name, value in example.items():
        if name == "scores" or isinstance(value, dict):
            continue
        score = next((scores[key] for key in (name, name.removesuffix("_response")) if key in scores), None)
        text = "\n".join(map(str, value)) if isinstance(value, list) else str(value)
        rows.append({"what": name.replace("_", " "), "text": text, "reward_model_score": score})
    return pd.DataFrame(rows).astype({"reward_model_score": float})


def edge_table(edges: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Figure 2: the edges of the stages' DAG."""
    return pd.DataFrame(edges, columns=["stage", "read_by"])
