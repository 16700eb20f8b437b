"""Accuracies with their intervals, and paired differences to a base: Tables 2, 4 and 7, by group, and of arms.

    summary(answers, ["teacher", "method", "benchmark"], base=lambda row: answers_of_icl)

A row of `answers` is a graded answer: seed, id, correct, and the columns that define groups. Accuracies are in per
cent, differences in percentage points; a value of the paper never shares a column with one of this study.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from rdlib.evidence import paper, stats, tables
from rdlib.evidence.stats import NOTHING

CELL = ["benchmark", "teacher", "student"]
# The ablations of Tables 4 and 7: what their arms are called, what marks their cells, the arms (name, method, variant),
# and the arm that the others are compared with
ABLATIONS = {
    "reward_source": (
        "reward_model",
        "reward_model.source=teacher",
        [
            ("without_reward", "ours_wo_r", ""),
            ("from_teacher", "ours", "reward_model.source=teacher"),
            ("from_student", "ours", ""),
        ],
        "without_reward",
    ),
    "correctness": (
        "mismatch",
        "reward.mismatch=",
        [
            ("-|r| (Ours)", "ours", ""),
            ("r - c (Minus)", "ours", "reward.mismatch=minus"),
            ("min(r, 0)", "ours", "reward.mismatch=clip"),
            ("-c", "ours", "reward.mismatch=fixed"),
            ("r (no check)", "ours", "reward.mismatch=none"),
        ],
        "-|r| (Ours)",
    ),
}
LEVELS = {"R2": "teacher_samples_times", "R4": "flipped_share"}  # what the level of an arm is, by question


def summary(
    answers: pd.DataFrame,
    by: Sequence[str],
    base: Callable[[pd.Series], pd.DataFrame] | None = None,
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

    def row(part: pd.DataFrame) -> dict:
        """The numbers of a group; its first row names it."""
        key = "/".join(part.iloc[0][[*questions]])
        held = part[:0] if base is None else base(part.iloc[0])
        pair = (held, part) if base_minus_row else (part, held)
        difference = stats.paired_difference(*pair, key).interval() if len(held) else NOTHING
        return numbers(stats.accuracy_interval(part, key), tables.accuracy_by_seed(part), difference)

    def numbers(interval: stats.Interval, seeds: str, difference: stats.Interval) -> dict:
        """The columns."""
        return (
            interval.columns(name, "pct") | {"n": interval.n, f"{name}_seeds": seeds} | difference.columns(gain, "pp")
        )

    return tables.rows_of(answers, by, row).reindex(columns=[*by, *numbers(NOTHING, "", NOTHING)])


def against(answers: pd.DataFrame, match: Sequence[str], column: str, value: str) -> Callable[..., pd.DataFrame]:
    """A `base` of `summary`: the rows with this value of a column that share the columns `match`; none for these."""
    held = dict(iter(answers[answers[column] == value].groupby(list(match))))
    nothing = answers[:0]
    return lambda row: nothing if row[column] == value else held.get(tuple(row[name] for name in match), nothing)


# ---- Table 2


def main_points(evidence: Any) -> pd.DataFrame:
    """Table 2, a row a benchmark, cell and method: accuracy with interval and by seed, and the paper's; rounded.

    The teacher stands beside every student, and ICL beside every teacher.
    """
    correctness = evidence.correctness
    parts = [
        tables.method_rows(correctness, None, *cell, method).assign(teacher=cell[0], student=cell[1])
        for cell in tables.cells(correctness)
        for method in paper.METHODS
    ]
    by = ["teacher", "student", "method", "benchmark"]
    points = tables.sorted_by(summary(tables.stacked(parts, correctness), by), by)
    papers = [
        paper.accuracy(row.benchmark, row.teacher, "" if row.method == "teacher" else row.student, row.method)
        for row in points.itertuples()
    ]
    points = points.assign(paper_pct=pd.Series(papers, points.index, dtype=float))
    return tables.rounded(points[[*CELL, "method", *NOTHING.columns("study", "pct"), "n", "study_seeds", "paper_pct"]])


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
    answers, by = agreement.rename(columns={"agrees": "correct"}), [*tables.CELL, "method", "variant"]
    parts = []
    for dataset, teacher, student in tables.cells(answers, tables.CELL):
        own = tables.select(answers, dataset=dataset, teacher=teacher)
        parts.append(own[own["student"].isin([student, ""])].assign(student=student))
    answers = pd.concat(parts, ignore_index=True)
    base = against(answers, tables.CELL, "method", "icl")
    table = summary(answers, by, base, questions=["dataset"], name="agreement")
    asked = answers.groupby(by, sort=False)["held_out"].max().astype(int)  # in the order of `summary`
    table.insert(table.columns.get_loc("n") + 1, "held_out", asked.to_list())
    return tables.sorted_by(table.rename(columns={"agreement_seeds": "seeds"}), by)


# ---- Tables 4 and 7


def ablation_table(correctness: pd.DataFrame, ablation: str) -> pd.DataFrame:
    """Table 4 or 7: accuracy of the arms of one of `ABLATIONS` in its cells, and the paired gain over one of them.

    Of Table 4 the paper's too (`paper_pct`); its Table 7 is lost.
    """
    what, needs, arms, base = ABLATIONS[ablation]
    parts = [
        tables.method_rows(correctness, *cell, method, variant).assign(**{what: name})
        for cell in ablation_cells(correctness, needs)
        for name, method, variant in arms
    ]
    answers = tables.stacked(parts, correctness.assign(**{what: ""}))
    table = summary(answers, [*CELL, what], against(answers, CELL, what, base)).drop(columns="study_seeds")
    if ablation != "reward_source":
        return table
    is_the_papers = (table[CELL] == ["gsm", "strong", "small"]).all(axis="columns")
    return table.assign(paper_pct=table[what].map(paper.reward_source()).where(is_the_papers).astype(float))


def ablation_cells(correctness: pd.DataFrame, needs: str) -> list[tuple[str, ...]]:
    """(benchmark, teacher, student) in which Ours ran with a variant that starts with `needs`, in the paper's order."""
    runs = correctness["variant"].str.startswith(needs) & (correctness["method"] == "ours")
    return tables.cells(correctness[runs], CELL)


# ---- groups of questions, seeds


def by_group(correctness: pd.DataFrame, benchmark: str, group: str) -> pd.DataFrame:
    """Accuracy on each group of a benchmark's questions (a perturbation, or a category): a column `group`."""
    answers = tables.select(correctness, benchmark=benchmark, variant="")
    keys = ["group", "teacher", "student", "method"]
    found = summary(answers, ["benchmark", *keys], questions=["benchmark", "group"])
    places = {name: i for i, name in enumerate([*paper.TEACHERS, *paper.STUDENTS, *paper.METHODS])}
    place = lambda column: column.map(lambda name: (places.get(name, -1), name))  # noqa: E731
    found = found.sort_values(keys, key=place, ignore_index=True)
    return found[[*keys, *NOTHING.columns("study", "pct"), "n"]].rename(columns={"group": group})


def seed_table(correctness: pd.DataFrame) -> pd.DataFrame:
    """R7: accuracy of every method by seed, and the standard deviation over seeds, in percentage points."""
    main = correctness[(correctness["variant"] == "") & (correctness["method"] != "")]
    table = 100 * main.groupby([*CELL, "method", "seed"])["correct"].mean().unstack("seed")
    table.columns = [f"seed{seed}_pct" for seed in table.columns]
    return table.assign(sd_pp=table.std(axis=1, ddof=1)).reset_index()


# ---- arms of the reviewers' questions


def of_arms(answers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each arm with its interval, and the reference minus the arm (paired).

    `answers` has cell, question (or experiment), arm, level, reference and benchmark too. An arm is compared with the
    reference of its own level where there is one, else with the question's, in its own cell. Cells keep their order.
    """
    where = ["cell", "question", "benchmark"]
    answers = tables.as_found(answers.rename(columns={"experiment": "question"}), "cell")
    answers = answers.sort_values(where, kind="stable")
    references = dict(iter(answers[answers["reference"].astype(bool)].groupby(where, observed=True)))

    def base(row: pd.Series) -> pd.DataFrame:
        """The answers of the reference that an arm is compared with."""
        ours = references.get(tuple(row[column] for column in where), answers[:0])
        same = ours[ours["level"] == row["level"]]
        return answers[:0] if row["reference"] else same if len(same) else ours

    by = [*where, "arm", "level", "reference"]
    return summary(answers, by, base, gain="ours_minus_arm", base_minus_row=True).drop(columns="reference")


def arm_accuracies(evidence: Any) -> pd.DataFrame:
    """`of_arms` of the reviewers' questions in an `Evidence`."""
    return of_arms(evidence.reviewers)


def arm_table(arms: pd.DataFrame, question: str) -> pd.DataFrame:
    """The arms of one question as a table of its own: no empty columns, and the level by its name."""
    found = tables.select(arms, question=question).dropna(axis="columns", how="all").drop(columns="question")
    return found.rename(columns={"level": LEVELS.get(question, "level")})


def arm_label(arm: str, level: float, question: str = "R2") -> str:
    """An arm's name, with its level where it has one other than the study's own: R2's samples, R4's flipped labels."""
    if math.isnan(level) or level == {"R2": 1, "R4": 0}.get(question):
        return arm
    words = {"R2": f"{level:g} x teacher samples", "R4": f"{100 * level:g} % flipped"}
    return f"{arm} ({words.get(question, f'{level:g}')})"
