"""The paper's tables, and the tables that its figures draw, from the result tables alone.

Accuracies are in per cent (columns `*_pct`), differences in percentage points (`*_pp`), AUCs in [0, 1]. A
value of this study and a value of the paper never share a column.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.evidence import paper, shown, stats
from rdlib.method import metrics

CELL = ["dataset", "teacher", "student"]
KEYS = ("dataset", "benchmark", "teacher", "student", "method", "variant", "stage", "group")
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


# --- reading ------------------------------------------------------------------------------------------------


def read_table(path: Path, columns: str) -> pd.DataFrame:
    """One result table with its names as text ("" where empty); UserError when a column is missing."""
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `make study`, which writes it.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({first_line(error)}): run `make study` to write it again.") from None
    missing = [name for name in columns.split() if name not in table]
    if missing:
        raise UserError(f"{path} lacks the column {missing[0]!r}: run `make study` to write it again.")
    names = {name: table[name].astype("object").fillna("").astype(str) for name in KEYS if name in table}
    return table.assign(**names)


def first_line(error: Exception) -> str:
    """The first line of an error's message, without its full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")


# --- order, selection, rounding -----------------------------------------------------------------------------


def in_order(names, known) -> list[str]:
    """The names that occur, the known ones first and in their order, the rest sorted."""
    names = set(pd.unique(names) if isinstance(names, pd.Series) else names)  # a column of text is slow to walk
    return [name for name in known if name in names] + sorted(names - set(known))


def select(table: pd.DataFrame, **values) -> pd.DataFrame:
    """The rows in which each named column has the given value."""
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def setting_of(variant: str, key: str, default: float) -> float | None:
    """The value of a numeric override in a variant: default for "", None for another override."""
    if variant == "":
        return default
    name, _, value = variant.partition("=")
    return float(value) if name == key and "," not in value else None


def cells(correctness: pd.DataFrame) -> list[tuple[str, str]]:
    """(teacher, student) pairs with a trained student, in the paper's order."""
    trained = correctness[(correctness.teacher != "") & (correctness.student != "")]
    pairs = set(zip(trained.teacher, trained.student, strict=True))
    teachers = in_order(trained.teacher, paper.TEACHERS)
    students = in_order(trained.student, paper.STUDENTS)
    return [(t, s) for t in teachers for s in students if (t, s) in pairs]


def method_rows(correctness: pd.DataFrame, benchmark: str, teacher: str, student: str, method: str, variant=""):
    """The answers of one method in one cell; the teacher's own row has no student, ICL has no teacher."""
    teacher = "" if method == "icl" else teacher
    student = "" if method == "teacher" else student
    return select(correctness, benchmark=benchmark, teacher=teacher, student=student, method=method, variant=variant)


def _percent(interval: stats.Interval, prefix: str = "study") -> dict:
    scale = {"estimate": prefix + "_pct", "low": prefix + "_low_pct", "high": prefix + "_high_pct"}
    return {name: 100 * getattr(interval, part) for part, name in scale.items()}


def by_seed(values: pd.Series, decimals: int) -> str:
    """A value of each seed as one text in the seeds' order, "75.40 74.90"; empty with a single seed."""
    return " ".join(f"{value:.{decimals}f}" for value in values.sort_index()) if len(values) > 1 else ""


def accuracy_by_seed(answers: pd.DataFrame) -> str:
    """Accuracy of each seed in per cent, as `by_seed` writes it; columns seed, correct."""
    return by_seed(100 * answers.groupby("seed")["correct"].mean(), 2)


def auc_by_seed(scores: pd.DataFrame, comparison: str) -> str:
    """AUC of each seed, as `by_seed` writes it; columns seed, kind, score."""
    values = {seed: metrics.comparison_auc(group, comparison) for seed, group in scores.groupby("seed")}
    return by_seed(pd.Series(values, dtype=float), 4)


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Floats as they are written: 2 decimals in per cent and percentage points, 4 elsewhere."""
    table = table.copy()
    for column in table.select_dtypes("float").columns:
        table[column] = table[column].round(_decimals(column)) + 0.0  # no minus zero
    return table


def _decimals(column: str) -> int:
    return 2 if column.endswith(("_pct", "_pp")) else 4


# --- tables of the paper ------------------------------------------------------------------------------------


def main_points(correctness: pd.DataFrame) -> pd.DataFrame:
    """Table 2, one row for each benchmark, cell and method: accuracy with interval, and the paper's."""
    rows = []
    for teacher, student in cells(correctness):
        for method in paper.METHODS:
            for benchmark in in_order(correctness.benchmark, paper.BENCHMARKS):
                answers = method_rows(correctness, benchmark, teacher, student, method)
                interval = stats.accuracy_interval(answers, benchmark)
                rows.append(
                    {
                        "benchmark": benchmark,
                        "teacher": teacher,
                        "student": student,
                        "method": method,
                        **_percent(interval),
                        "n": interval.n,
                        "study_seeds": accuracy_by_seed(answers),
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


def auc_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Table 3: validation AUC of each reward model with its interval over queries; the paper's beside it."""
    rows = []
    for cell, group in _cells_of(select(scores, variant=""), [*CELL, "method"]):
        row = dict(zip([*CELL, "method"], cell, strict=True)) | {"queries": group.id.nunique()}
        for comparison in metrics.COMPARISONS:
            interval = stats.auc_draws(group, comparison, cell[0]).interval()
            row[f"study_{comparison}_auc"] = interval.estimate
            row[f"study_{comparison}_low"], row[f"study_{comparison}_high"] = interval.low, interval.high
            row[f"study_{comparison}_seeds"] = auc_by_seed(group, comparison)
        for comparison in metrics.COMPARISONS:
            known = cell[3] == "ours"
            row[f"paper_{comparison}_auc"] = paper.reward_model_auc(*cell[:3], comparison) if known else None
        rows.append(row)
    return pd.DataFrame(rows)


def _cells_of(table: pd.DataFrame, columns: list[str]):
    order = {"dataset": paper.BENCHMARKS, "teacher": paper.TEACHERS, "student": paper.STUDENTS}
    order |= {"method": paper.METHODS}
    groups = dict(list(table.groupby(columns, sort=True))) if len(table) else {}
    places = {c: {name: i for i, name in enumerate(in_order(table[c], order[c]))} for c in columns}
    return sorted(groups.items(), key=lambda item: [places[c][v] for c, v in zip(columns, item[0], strict=True)])


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
    return table.drop(columns="paper_pct").assign(paper="lost: the text has Table 7's caption only")


def _variant_table(correctness, rows, needs: str, baseline: tuple[str, str], paper_values: dict) -> pd.DataFrame:
    found = []
    for benchmark, teacher, student in ablation_cells(correctness, needs):
        base = method_rows(correctness, benchmark, teacher, student, *baseline)
        for what, name, method, variant in rows:
            answers = method_rows(correctness, benchmark, teacher, student, method, variant)
            if answers.empty:
                continue
            row = {"benchmark": benchmark, "teacher": teacher, "student": student, what: name}
            interval = stats.accuracy_interval(answers, benchmark)
            row |= _percent(interval) | {"n": interval.n}
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


def accuracy_by_group(correctness: pd.DataFrame, benchmark: str, group: str) -> pd.DataFrame:
    """Accuracy on each group of a benchmark's questions (a perturbation, or a category)."""
    rows = []
    answers = select(correctness, benchmark=benchmark, variant="")
    for (teacher, student, method, name), part in answers.groupby(["teacher", "student", "method", "group"], sort=True):
        interval = stats.accuracy_interval(part, f"{benchmark}/{name}")
        row = {group: name, "teacher": teacher, "student": student, "method": method}
        rows.append(row | _percent(interval) | {"n": interval.n})
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


# --- tables that figures draw -------------------------------------------------------------------------------


def failure_ratios(pseudo_labels: pd.DataFrame) -> pd.DataFrame:
    """Figure 3: |Q_fail| / |Q| over the training and validation questions, with Wilson's interval."""
    rows = [
        {"dataset": dataset, "teacher": teacher}
        | _percent(stats.wilson(counts.failed, counts.questions))
        | {"n": int(counts.questions), "study_seeds": by_seed(100 * seeds.failed / seeds.questions, 2)}
        | {"paper_words": paper.FAILURE_WORDS.get((dataset, teacher), "")}
        for dataset, teacher, counts, seeds in vote_counts(pseudo_labels)
    ]
    return pd.DataFrame(rows)


def vote_counts(pseudo_labels: pd.DataFrame):
    """(dataset, teacher, counts, counts by seed): seeds share their questions, so counts are means over seeds."""
    asked = pseudo_labels[pseudo_labels.split.isin(["train", "validation"])]
    for (dataset, teacher), group in _cells_of(asked, ["dataset", "teacher"]):
        seeds = group.drop(columns=["dataset", "teacher", "split"]).groupby("seed").sum()
        yield dataset, teacher, seeds.sum() / len(seeds), seeds


def judged_correctness(pseudo_labels: pd.DataFrame) -> pd.DataFrame:
    """Figure 4: share judged correctly against the gold answer, of pseudo-labels and of responses.

    Responses to one question are judged together, so both intervals count questions (Wilson with n =
    labelled).
    """
    rows = []
    units = (("pseudo-labels", "label_correct", "labelled"), ("responses", "judged_right", "responses"))
    for dataset, teacher, counts, seeds in vote_counts(pseudo_labels):
        for unit, right, total in units:
            share = counts[right] / counts[total] if counts[total] else np.nan
            interval = stats.wilson(share * counts.labelled, counts.labelled)
            row = {"dataset": dataset, "teacher": teacher, "unit": unit} | _percent(interval)
            rows.append(row | {"n": int(counts.labelled), "study_seeds": by_seed(100 * seeds[right] / seeds[total], 2)})
    return pd.DataFrame(rows)


def over_seeds(history: pd.DataFrame, by: list[str], step: str, value: str) -> pd.DataFrame:
    """Mean of a value over seeds at each step, with t intervals: columns `by`, step, seeds, mean, low, high.

    What seeds evaluate belongs together by its order: their data differ in size, so they evaluate at other steps. The
    step given is the mean of theirs.
    """
    runs = [*by, "seed"]
    known = history.dropna(subset=value).sort_values([*runs, step])
    known = known.assign(order=known.groupby(runs).cumcount())
    rows = []
    for (*key, _), group in known.groupby([*by, "order"], sort=True):
        interval = stats.seed_interval(group[value])
        row = dict(zip(by, key, strict=True)) | {step: round(group[step].mean()), "seeds": group.seed.nunique()}
        rows.append(row | {"mean": interval.estimate, "low": interval.low, "high": interval.high})
    return pd.DataFrame(rows, columns=[*by, step, "seeds", "mean", "low", "high"])


def lambda_curves(history: pd.DataFrame, scores: pd.DataFrame, default: float) -> pd.DataFrame:
    """Figure 5: validation AUC along training for each lambda; rows `selected` are the checkpoint that is kept.

    A row of a curve has an interval over seeds (none with one seed), a selected row one over queries.
    """
    key = "reward_model.lam"
    runs, kept = ablation_runs(history, key, default), ablation_runs(scores, key, default)
    parts = []
    for comparison in metrics.COMPARISONS:
        curve = over_seeds(runs, [*CELL, key], "step", f"{comparison}_auc")
        curve = curve.rename(columns={"mean": "auc", "low": "auc_low", "high": "auc_high"})
        parts.append(curve.assign(comparison=comparison, point="curve"))
        chosen = ablation_aucs(kept, key, comparison).assign(comparison=comparison, point="selected")
        last = runs.groupby([*CELL, key]).step.max().reset_index()
        parts.append(chosen.merge(last, on=[*CELL, key], how="left"))
    table = pd.concat(parts, ignore_index=True).rename(columns={key: "lam"})
    columns = [*CELL, "comparison", "point", "lam", "step", "seeds", "auc", "auc_low", "auc_high", "auc_seeds"]
    return table.sort_values(columns[:7], ignore_index=True)[columns]


def ablation_runs(table: pd.DataFrame, key: str, default: float) -> pd.DataFrame:
    """Runs of Ours in cells where one numeric setting was varied, its value as column `key`."""
    ours = table[table.method == "ours"]
    ours = ours.assign(**{key: [setting_of(variant, key, default) for variant in ours.variant]})
    ours = ours[ours[key].notna()].astype({key: float})
    varied = ours[ours.variant != ""][CELL].drop_duplicates()
    return ours.merge(varied, on=CELL)


def ablation_aucs(runs: pd.DataFrame, key: str, comparison: str) -> pd.DataFrame:
    """AUC with its interval over queries for each value of an ablated setting: auc, auc_low, auc_high."""
    rows = []
    for cell, group in runs.groupby(CELL, sort=True):
        for value, draws in ablation_draws(group, key, comparison).items():
            interval = draws.interval()
            row = dict(zip(CELL, cell, strict=True)) | {key: value, "seeds": group.seed.nunique()}
            row |= {"auc": interval.estimate, "auc_low": interval.low, "auc_high": interval.high}
            row["auc_seeds"] = auc_by_seed(group[group[key] == value], comparison)
            rows.append(row)
    table = pd.DataFrame(rows, columns=[*CELL, key, "seeds", "auc", "auc_low", "auc_high", "auc_seeds"])
    return table.astype({key: float, "auc": float, "auc_low": float, "auc_high": float})


def ablation_draws(runs: pd.DataFrame, key: str, comparison: str) -> dict[float, stats.Draws]:
    """Bootstrap of the AUC for each value of a setting, all on the same resampled queries of one cell."""
    ids = sorted(set(runs.id))
    return {
        value: stats.auc_draws(group, comparison, str(runs.dataset.iloc[0]), ids=ids)
        for value, group in runs.groupby(key, sort=True)
    }


def ratio_points(scores: pd.DataFrame, default: float) -> pd.DataFrame:
    """Figure 6: validation AUC against the teacher's share of the positives, with intervals over queries."""
    key = "reward_model.teacher_share"
    runs = ablation_runs(scores, key, default)
    parts = [ablation_aucs(runs, key, c).assign(comparison=c) for c in metrics.COMPARISONS]
    table = pd.concat(parts, ignore_index=True).rename(columns={key: "teacher_share"})
    table["teacher_to_student"] = [_ratio(share) for share in table.teacher_share]
    columns = [
        *CELL,
        "comparison",
        "teacher_share",
        "teacher_to_student",
        "seeds",
        "auc",
        "auc_low",
        "auc_high",
        "auc_seeds",
    ]
    return table[columns]


def _ratio(share: float) -> str:
    part = Fraction(share).limit_denominator(20)
    return f"{part.numerator}:{part.denominator - part.numerator}"


def roc_table(scores: pd.DataFrame) -> pd.DataFrame:
    """ROC curves of each cell's reward model (seeds pooled): columns cell, comparison, fpr, tpr."""
    parts = []
    for cell, group in _cells_of(select(scores, variant="", method="ours"), CELL):
        for comparison in metrics.COMPARISONS:
            points = metrics.roc_points(group, comparison)
            parts.append(points.assign(**dict(zip(CELL, cell, strict=True)), comparison=comparison))
    columns = [*CELL, "comparison", "fpr", "tpr"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def histogram_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Histograms of the reward model's scores by kind for each cell (seeds pooled)."""
    parts = []
    for cell, group in _cells_of(select(scores, variant="", method="ours"), CELL):
        parts.append(metrics.score_histogram(group).assign(**dict(zip(CELL, cell, strict=True))))
    columns = [*CELL, "kind", "bin_low", "bin_high", "density"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def smoothed(history: pd.DataFrame, column: str, window: int = 20) -> pd.DataFrame:
    """The history with `column` as its mean over the last `window` steps of its run.

    Batches hold texts of similar length, so the loss of a single step says more about its batch than about the model.
    """
    runs = [*CELL, "method", "seed"]
    history = history.sort_values([*runs, "step"], ignore_index=True)
    means = history.groupby(runs)[column].transform(lambda values: values.rolling(window, min_periods=1).mean())
    return history.assign(**{column: means})


def learning_curves(history: pd.DataFrame, step: str, values: list[str]) -> pd.DataFrame:
    """Training curves of every cell and method without an ablation: `over_seeds` of each value, named in `value`."""
    history = select(history, variant="") if "variant" in history else history
    parts = [over_seeds(history, [*CELL, "method"], step, value).assign(value=value) for value in values]
    table = pd.concat(parts, ignore_index=True)
    return table[["value", *(column for column in table if column != "value")]]


# --- writing ------------------------------------------------------------------------------------------------


def write_csv(table: pd.DataFrame, path: Path) -> Path:
    """Write a table as CSV with fixed formats; the same table gives the same bytes."""
    artifacts.write_bytes(path, rounded(table).map(_as_cell).to_csv(index=False, lineterminator="\n").encode())
    return path


def _as_cell(value) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return ""
    return repr(float(value)) if isinstance(value, float) else str(value)


def write_markdown(table: pd.DataFrame, path: Path, title: str, note: str = "") -> Path:
    """Write a table as Markdown under its title; a missing value is a dash, a line break a space."""
    lines = [
        f"# {title}",
        "",
        *([note, ""] if note else []),
        "| " + " | ".join(map(str, table.columns)) + " |",
    ]
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]
    lines.append("| " + " | ".join("---:" if is_number else "---" for is_number in numeric) + " |")
    for row in table.itertuples(index=False):
        values = [_as_markdown(v, name) for v, name in zip(row, table.columns, strict=True)]
        lines.append("| " + " | ".join(values) + " |")
    artifacts.write_bytes(path, ("\n".join(lines) + "\n").encode())
    return path


def _as_markdown(value, column: str) -> str:
    if isinstance(value, float) and not np.isnan(value):
        return f"{value:.{_decimals(column)}f}"
    return shown.in_markdown(_as_cell(value)) or "-"
