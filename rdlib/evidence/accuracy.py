"""Accuracies with their intervals, and paired differences to a base: Tables 2, 4 and 7, by group, and of arms.

    summary(answers, ["teacher", "method", "benchmark"], base=lambda row: answers_of_icl)

A row of `answers` is a graded answer: seed, id, correct, and the columns that define groups. Accuracies are in per
cent, differences in percentage points; a value of the paper never shares a column with one of this study.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd

from rdlib.evidence import paper, stats, tables
from rdlib.evidence.verdicts import NOTHING

CELL = ["benchmark", "teacher", "student"]
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
LEVELS = {"R2": "teacher_samples_times", "R4": "flipped_share"}  # what the level of an arm is, by question


def summary(
    answers: pd.DataFrame,
    by: Sequence[str],
    base: Callable[[dict], pd.DataFrame] | None = None,
    *,
    questions: Sequence[str] = ("benchmark",),
    name: str = "study",
    gain: str = "gain",
    base_minus_row: bool = False,
) -> pd.DataFrame:
    """A row a group of answers: `by`, NAME_pct with its interval, n, NAME_seeds, and GAIN_pp with its interval.

    `base` gives the answers that a row's group is compared with, question by question, and none for a row without a
    difference. `questions` are the columns that name the set of questions, which are resampled alike in every row.
    """
    rows = []
    for values, part in answers.groupby(list(by), sort=False, dropna=False):
        row = dict(zip(by, values, strict=True))
        key = "/".join(row[column] for column in questions)
        interval = stats.accuracy_interval(part, key)
        held = part[:0] if base is None else base(row)
        pair = (held, part) if base_minus_row else (part, held)
        difference = stats.paired_difference(*pair, key).interval() if len(held) else NOTHING
        row |= tables.percent(interval, name) | {"n": interval.n, f"{name}_seeds": tables.accuracy_by_seed(part)}
        rows.append(row | tables.points(difference, gain))
    columns = [*tables.percent(NOTHING, name), "n", f"{name}_seeds", *tables.points(NOTHING, gain)]
    return pd.DataFrame(rows, columns=[*by, *columns])


def against(answers: pd.DataFrame, match: Sequence[str], column: str, value: str) -> Callable[[dict], pd.DataFrame]:
    """A `base` of `summary`: the rows with this value of a column that share the columns `match`; none for these."""
    held = dict(iter(answers[answers[column] == value].groupby(list(match))))
    nothing = answers[:0]
    return lambda row: nothing if row[column] == value else held.get(tuple(row[name] for name in match), nothing)


# ---- Table 2


def main_points(evidence: Any) -> pd.DataFrame:
    """Table 2, a row a benchmark, cell and method: accuracy with interval and by seed, and the paper's; rounded.

    The teacher stands beside every student, and ICL beside every teacher. In a part of a study what was run alone.
    """
    correctness = evidence.correctness
    parts = [
        tables.method_rows(correctness, None, *cell, method).assign(teacher=cell[0], student=cell[1])
        for cell in tables.cells(correctness)
        for method in paper.METHODS
    ]
    answers = pd.concat(parts, ignore_index=True) if parts else correctness[:0]
    by = ["teacher", "student", "method", "benchmark"]
    points = tables.sorted_by(summary(answers, by), by)
    papers = [
        paper.accuracy(row.benchmark, row.teacher, "" if row.method == "teacher" else row.student, row.method)
        for row in points.itertuples()
    ]
    points = points.assign(paper_pct=pd.Series(papers, points.index, dtype=float))
    points = tables.rounded(points[[*CELL, "method", *tables.percent(NOTHING), "n", "study_seeds", "paper_pct"]])
    return points if evidence.asks_for_all else points[points["n"] > 0].reset_index(drop=True)


def main_table(points: pd.DataFrame) -> pd.DataFrame:
    """Table 2 as the paper sets it: a row a cell and method, columns for each benchmark; the paper's are the last."""
    points = points.assign(student=points["student"].where(points["method"] != "teacher", ""))
    values = ["study_pct", "study_low_pct", "study_high_pct", "n", "paper_pct"]
    keys, rows = ["teacher", "student", "method"], {}
    for point in points.drop_duplicates([*CELL, "method"]).to_dict("records"):
        key = tuple(point[name] for name in keys)
        row = rows.setdefault(key, dict(zip(keys, key, strict=True)))
        row |= {f"{point['benchmark']}_{name}": point[name] for name in values}
    table = pd.DataFrame(rows.values())
    return table[sorted(table, key=lambda column: column.endswith("paper_pct"))]


def agreement_table(agreement: pd.DataFrame) -> pd.DataFrame:
    """Agreement with the teacher's vote on held-out questions, a row a method and variant in a cell.

    With its interval and the paired gain over the student before training (`icl`).
    """
    answers = agreement.rename(columns={"agrees": "correct"})
    parts = []
    for dataset in sorted(set(answers["dataset"])):
        of_dataset = tables.select(answers, dataset=dataset)
        for teacher, student in tables.cells(of_dataset):
            own = of_dataset[(of_dataset["teacher"] == teacher) & of_dataset["student"].isin([student, ""])]
            parts.append(own.assign(student=student))
    answers, by = pd.concat(parts, ignore_index=True), [*tables.CELL, "method", "variant"]
    base = against(answers, tables.CELL, "method", "icl")
    table = summary(answers, by, base, questions=["dataset"], name="agreement")
    asked = answers.groupby(by, sort=False)["held_out"].max().astype(int)  # in the order of `summary`
    table.insert(table.columns.get_loc("n") + 1, "held_out", asked.to_list())
    return tables.sorted_by(table.rename(columns={"agreement_seeds": "seeds"}), by)


# ---- Tables 4 and 7


def reward_source_table(correctness: pd.DataFrame) -> pd.DataFrame:
    """Table 4: what the reward model is trained on; accuracy, paired gain over no reward, the paper's."""
    table = _variant_table(correctness, "reward_model", SOURCES, "reward_model.source=teacher", "without_reward")
    theirs = paper.reward_source()
    is_the_papers = (table[CELL] == ["gsm", "strong", "small"]).all(axis="columns")
    return table.assign(paper_pct=table["reward_model"].map(theirs).where(is_the_papers).astype(float))


def correctness_validation_table(correctness: pd.DataFrame) -> pd.DataFrame:
    """Table 7: what Eq. 7 does with a mismatch; gain over Ours (paired). The paper's numbers are lost."""
    arms = [(label, "ours", variant) for variant, label in MISMATCHES.items()]
    return _variant_table(correctness, "mismatch", arms, "reward.mismatch=", MISMATCHES[""])


def _variant_table(
    correctness: pd.DataFrame, what: str, arms: Iterable[tuple[str, str, str]], needs: str, base: str
) -> pd.DataFrame:
    """Accuracy of some arms (name, method, variant) in the cells of an ablation, and the gain over the arm `base`."""
    parts = [
        tables.method_rows(correctness, *cell, method, variant).assign(**{what: name})
        for cell in ablation_cells(correctness, needs)
        for name, method, variant in arms
    ]
    answers = pd.concat(parts, ignore_index=True) if parts else correctness[:0].assign(**{what: ""})
    return summary(answers, [*CELL, what], against(answers, CELL, what, base)).drop(columns="study_seeds")


def ablation_cells(correctness: pd.DataFrame, needs: str) -> list[tuple[str, str, str]]:
    """(benchmark, teacher, student) in which Ours ran with a variant that starts with `needs`, in the paper's order."""
    runs = correctness[correctness["variant"].str.startswith(needs) & (correctness["method"] == "ours")]
    found = tables.sorted_by(runs[CELL].drop_duplicates(), CELL)
    return list(found.itertuples(index=False, name=None))


# ---- groups of questions, seeds


def by_group(correctness: pd.DataFrame, benchmark: str, group: str) -> pd.DataFrame:
    """Accuracy on each group of a benchmark's questions (a perturbation, or a category): a column `group`."""
    answers = tables.select(correctness, benchmark=benchmark, variant="")
    keys = ["group", "teacher", "student", "method"]
    found = summary(answers, ["benchmark", *keys], questions=["benchmark", "group"])
    places = {name: i for i, name in enumerate([*paper.TEACHERS, *paper.STUDENTS, *paper.METHODS])}
    found = found.sort_values(
        keys, key=lambda column: column.map(lambda name: (places.get(name, -1), name)), ignore_index=True
    )
    return found[[*keys, *tables.percent(NOTHING), "n"]].rename(columns={"group": group})


def seed_table(correctness: pd.DataFrame) -> pd.DataFrame:
    """R7: accuracy of every method by seed, and the standard deviation over seeds, in percentage points."""
    main = correctness[(correctness["variant"] == "") & (correctness["method"] != "")]
    table = 100 * main.groupby([*CELL, "method", "seed"])["correct"].mean().unstack("seed")
    table.columns = [f"seed{seed}_pct" for seed in table.columns]
    return table.assign(sd_pp=table.std(axis=1, ddof=1)).reset_index()


# ---- arms of the reviewers' questions


def arm_accuracies(evidence: Any) -> pd.DataFrame:
    """The arms of the reviewers' questions in an `Evidence`: `of_arms`."""
    return of_arms(evidence.reviewers)


def of_arms(answers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each arm with its interval, and the reference minus the arm (paired).

    `answers` has cell, question, arm, level, reference and benchmark too. An arm is compared with the reference of its
    own level where there is one, else with the question's, in its own cell. Cells keep their order.
    """
    places = {cell: i for i, cell in enumerate(dict.fromkeys(answers["cell"]))}
    by_cell = {"key": lambda column: column.map(places) if column.name == "cell" else column, "kind": "stable"}
    answers = answers.sort_values(["cell", "question", "benchmark"], **by_cell)
    where = ["cell", "question", "benchmark"]
    references = dict(iter(answers[answers["reference"].astype(bool)].groupby(where)))

    def base(row: dict) -> pd.DataFrame:
        """The answers of the reference that an arm is compared with."""
        ours = references.get(tuple(row[column] for column in where), answers[:0])
        same = ours[ours["level"] == row["level"]]
        return answers[:0] if row["reference"] else same if len(same) else ours

    by = [*where, "arm", "level", "reference"]
    return summary(answers, by, base, gain="ours_minus_arm", base_minus_row=True).drop(columns="reference")


def arms_of(arms: pd.DataFrame, question: str) -> pd.DataFrame:
    """The rows of `arm_accuracies` of one question."""
    return arms[arms["question"] == question]


def arm_table(arms: pd.DataFrame, question: str) -> pd.DataFrame:
    """The same as a table of its own: no empty columns, and the level by its name."""
    found = arms_of(arms, question).dropna(axis="columns", how="all").drop(columns="question")
    return found.rename(columns={"level": LEVELS.get(question, "level")})


def arm_label(arm: str, level: float, question: str = "R2") -> str:
    """An arm's name, with its level where it has one other than the study's own: R2's samples, R4's flipped labels."""
    if math.isnan(level) or level == {"R2": 1, "R4": 0}.get(question):
        return arm
    words = {"R2": f"{level:g} x teacher samples", "R4": f"{100 * level:g} % flipped"}
    return f"{arm} ({words.get(question, f'{level:g}')})"
