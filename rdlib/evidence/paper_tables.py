"""The paper's tables, this study's values beside the paper's: a value of each never shares a column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from rdlib.evidence import paper, stats, tables
from rdlib.evidence.verdicts import NOTHING
from rdlib.method import metrics

TABLE_5 = {
    "sft": {"batch_size": "sft.batch_size", "learning_rate": "sft.learning_rate", "epochs": "sft.epochs"},
    "reward_model": {
        "batch_size": "reward_model.batch_size",
        "learning_rate": "reward_model.learning_rate",
        "epochs": "reward_model.epochs",
    },
    "ppo": {"batch_size": "ppo.minibatch_size", "learning_rate": "ppo.learning_rate", "epochs": "ppo.epochs"},
}
SOURCES = [
    ("without_reward", "ours_wo_r", ""),
    ("from_teacher", "ours", "reward_model.source=teacher"),
    ("from_student", "ours", ""),
]
MISMATCHES = {
    "": "-|r| (Ours)",
    "reward.mismatch=minus": "r - c (Minus)",
    "reward.mismatch=clip": "min(r, 0)",
    "reward.mismatch=fixed": "-c",
    "reward.mismatch=none": "r (no check)",
}


def main_points(correctness: pd.DataFrame) -> pd.DataFrame:
    """Table 2, one row for each benchmark, cell and method: accuracy with interval, and the paper's."""
    rows = []
    for teacher, student in tables.cells(correctness):
        for method in paper.METHODS:
            for benchmark in tables.in_order(correctness.benchmark, paper.BENCHMARKS):
                answers = tables.method_rows(correctness, benchmark, teacher, student, method)
                interval = stats.accuracy_interval(answers, benchmark)
                rows.append(
                    {
                        "benchmark": benchmark,
                        "teacher": teacher,
                        "student": student,
                        "method": method,
                        **tables.percent(interval),
                        "n": interval.n,
                        "study_seeds": tables.accuracy_by_seed(answers),
                        "paper_pct": paper.accuracy(benchmark, teacher, "" if method == "teacher" else student, method),
                    }
                )
    columns = [
        "benchmark",
        "teacher",
        "student",
        "method",
        "study_pct",
        "study_low_pct",
        "study_high_pct",
        "n",
        "study_seeds",
    ]
    return pd.DataFrame(rows, columns=[*columns, "paper_pct"]).astype({"paper_pct": float})


def main_table(points: pd.DataFrame) -> pd.DataFrame:
    """Table 2 as the paper sets it: a row for each cell and method, columns for each benchmark."""
    rows = {}
    for point in points.itertuples():
        student = "" if point.method == "teacher" else point.student
        row = rows.setdefault((point.teacher, student, point.method), {})
        for name in ("study_pct", "study_low_pct", "study_high_pct", "n", "paper_pct"):
            row[f"{point.benchmark}_{name}"] = getattr(point, name)
    keys = [dict(zip(["teacher", "student", "method"], key, strict=True)) for key in rows]
    table = pd.DataFrame([{**key, **row} for key, row in zip(keys, rows.values(), strict=True)])
    papers = [name for name in table.columns if name.endswith("paper_pct")]
    return table[[name for name in table.columns if name not in papers] + papers]


def agreement_table(agreement: pd.DataFrame) -> pd.DataFrame:
    """Agreement with the teacher's vote on held-out questions, a row a method and variant in a cell.

    With its interval and the paired gain over the student before training (`icl`).
    """
    agreement = agreement.rename(columns={"agrees": "correct", "dataset": "benchmark"})
    rows = []
    for dataset in sorted(set(agreement.benchmark)):
        for teacher, student in tables.cells(tables.select(agreement, benchmark=dataset)):
            cell = tables.select(agreement, benchmark=dataset, teacher=teacher)
            cell = cell[cell.student.isin([student, ""])]
            rows += _agreement_rows(cell, {"dataset": dataset, "teacher": teacher, "student": student})
    return pd.DataFrame(rows)


def _agreement_rows(cell: pd.DataFrame, names: dict[str, str]) -> list[dict]:
    base, rows = tables.select(cell, method="icl"), []
    methods = dict(iter(cell.groupby(["method", "variant"])))
    for method in tables.in_order(cell.method, paper.METHODS):
        for variant in sorted(v for m, v in methods if m == method):
            found = methods[method, variant]
            interval = stats.accuracy_interval(found, names["dataset"])
            row = names | {"method": method, "variant": variant, **tables.percent(interval, "agreement")}
            row |= {"n": interval.n, "held_out": int(found.held_out.max()), "seeds": tables.accuracy_by_seed(found)}
            gained = len(base) and len(found) and method != "icl"
            gain = stats.paired_difference(found, base, names["dataset"]).interval() if gained else NOTHING
            ends = {"gain_pp": gain.estimate, "gain_low_pp": gain.low, "gain_high_pp": gain.high}
            rows.append(row | {name: 100 * value for name, value in ends.items()})
    return rows


def auc_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Table 3: validation AUC of each reward model with its interval over queries; the paper's beside it."""
    rows = []
    for cell, group in tables.cells_of(tables.select(scores, variant=""), [*tables.CELL, "method"]):
        row = dict(zip([*tables.CELL, "method"], cell, strict=True)) | {"queries": group.id.nunique()}
        for comparison in metrics.COMPARISONS:
            interval = stats.auc_draws(group, comparison, cell[0]).interval()
            row[f"study_{comparison}_auc"] = interval.estimate
            row[f"study_{comparison}_low"], row[f"study_{comparison}_high"] = interval.low, interval.high
            row[f"study_{comparison}_seeds"] = tables.auc_by_seed(group, comparison)
        for comparison in metrics.COMPARISONS:
            known = cell[3] == "ours"
            row[f"paper_{comparison}_auc"] = paper.reward_model_auc(*cell[:3], comparison) if known else None
        rows.append(row)
    return pd.DataFrame(rows)


def reward_source_table(correctness: pd.DataFrame) -> pd.DataFrame:
    """Table 4: what the reward model is trained on; accuracy, paired gain over no reward, the paper's."""
    return _variant_table(
        correctness,
        [("reward_model", name, method, variant) for name, method, variant in SOURCES],
        needs="reward_model.source=teacher",
        baseline=("ours_wo_r", ""),
        paper_values=paper.reward_source(),
    )


def correctness_validation_table(correctness: pd.DataFrame) -> pd.DataFrame:
    """Table 7: what Eq. 7 does with a mismatch; gain over Ours (paired). The paper's numbers are lost."""
    table = _variant_table(
        correctness,
        [("mismatch", label, "ours", variant) for variant, label in MISMATCHES.items()],
        needs="reward.mismatch=",
        baseline=("ours", ""),
        paper_values={},
    )
    return table.drop(columns="paper_pct")


def _variant_table(correctness, rows, needs: str, baseline: tuple[str, str], paper_values: dict) -> pd.DataFrame:
    found = []
    for benchmark, teacher, student in ablation_cells(correctness, needs):
        base = tables.method_rows(correctness, benchmark, teacher, student, *baseline)
        for what, name, method, variant in rows:
            answers = tables.method_rows(correctness, benchmark, teacher, student, method, variant)
            if answers.empty:
                continue
            row = {"benchmark": benchmark, "teacher": teacher, "student": student, what: name}
            interval = stats.accuracy_interval(answers, benchmark)
            row |= tables.percent(interval) | {"n": interval.n}
            gain = stats.paired_difference(answers, base, benchmark).interval() if len(base) else interval
            row |= {
                "gain_pp": 100 * gain.estimate,
                "gain_low_pp": 100 * gain.low,
                "gain_high_pp": 100 * gain.high,
            }
            if not len(base) or (method, variant) == baseline:
                row |= {"gain_pp": np.nan, "gain_low_pp": np.nan, "gain_high_pp": np.nan}
            is_the_papers = (benchmark, teacher, student) == ("gsm", "strong", "small")
            row["paper_pct"] = paper_values.get(name) if is_the_papers else None
            found.append(row)
    columns = [
        "benchmark",
        "teacher",
        "student",
        rows[0][0],
        "study_pct",
        "study_low_pct",
        "study_high_pct",
        "n",
    ]
    columns += ["gain_pp", "gain_low_pp", "gain_high_pp", "paper_pct"]
    return pd.DataFrame(found, columns=columns).astype({"paper_pct": float})


def ablation_cells(correctness: pd.DataFrame, needs: str) -> list[tuple[str, str, str]]:
    """(benchmark, teacher, student) in which Ours ran with a variant that starts with `needs`."""
    runs = correctness[correctness.variant.str.startswith(needs) & (correctness.method == "ours")]
    columns = ["benchmark", "teacher", "student"]
    found = set(runs[columns].drop_duplicates().itertuples(index=False, name=None))
    order = [(b, t, s) for b in paper.BENCHMARKS for t in paper.TEACHERS for s in paper.STUDENTS]
    return [cell for cell in order if cell in found] + sorted(found - set(order))


def hyperparameter_table(settings: dict, stages: tuple[str, ...]) -> pd.DataFrame:
    """Tables 5 and 6 (and the reward models' values): the paper's rows, this study's settings beside them."""
    table = paper.load("hyperparameters")
    table = table[table.stage.isin(stages)].reset_index(drop=True)
    renamed = table.rename(columns={name: f"paper_{name}" for name in ("batch_size", "save_steps", "gpus")})
    renamed["paper_save_steps"] = renamed["paper_save_steps"].astype("Int64")
    for name in ("batch_size", "learning_rate", "epochs"):
        values = [_setting_of_cell(settings, TABLE_5[row.stage][name], row) for row in table.itertuples()]
        renamed[f"study_{name}"] = [paper.as_text(value) for value in values]
    renamed["teacher"] = renamed["teacher"].fillna("any")
    return renamed.dropna(axis="columns", how="all")


def _setting_of_cell(settings: dict, key: str, row) -> Any:
    """A setting in the cell of a row of the paper's table: the profile's `cells` come before its sections."""
    found = paper.lookup(settings, key)
    names = {"dataset": paper.BENCHMARKS, "teacher": paper.TEACHERS, "student": paper.STUDENTS}
    for cell in settings.get("tables.cells", []):
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


def accuracy_by_group(correctness: pd.DataFrame, benchmark: str, group: str) -> pd.DataFrame:
    """Accuracy on each group of a benchmark's questions (a perturbation, or a category)."""
    rows = []
    answers = tables.select(correctness, benchmark=benchmark, variant="")
    for (teacher, student, method, name), part in answers.groupby(["teacher", "student", "method", "group"], sort=True):
        interval = stats.accuracy_interval(part, f"{benchmark}/{name}")
        row = {group: name, "teacher": teacher, "student": student, "method": method}
        rows.append(row | tables.percent(interval) | {"n": interval.n})
    columns = [group, "teacher", "student", "method", "study_pct", "study_low_pct", "study_high_pct", "n"]
    table = pd.DataFrame(rows, columns=columns)
    places = {name: i for i, name in enumerate([*paper.TEACHERS, *paper.STUDENTS, *paper.METHODS])}
    return table.sort_values(
        columns[:4],
        key=lambda column: column.map(lambda name: (places.get(name, -1), name)),
        ignore_index=True,
    )


def cost_table(costs: pd.DataFrame) -> pd.DataFrame:
    """Seconds and tokens of each stage: number of runs, their sums and the mean seconds of one run."""
    table = costs.groupby("stage", sort=True).agg(
        runs=("seconds", "size"),
        seconds=("seconds", "sum"),
        seconds_a_run=("seconds", "mean"),
        tokens_generated=("tokens_generated", "sum"),
        tokens_trained=("tokens_trained", "sum"),
    )
    return table.reset_index()
