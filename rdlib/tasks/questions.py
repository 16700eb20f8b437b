"""A question, when two of them are the same, and the tables of questions and gold answers that stage 0 writes.

A question table has the columns id, split, question, options (empty for numeric answers) and group (category or
perturbation).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pyarrow import parquet

from rdlib import artifacts
from rdlib.errors import UserError

SPLITS = ("train", "validation", "test")
PERTURBED = "gsm_plus"
TESTED = ("test", PERTURBED)
LETTERS = "ABCDEFGHIJ"  # of options
COLUMNS = ["id", "split", "question", "options", "group"]


@dataclass(frozen=True)
class Question:
    """One question with what only the evaluation may read, where there are: its gold answer, other forms of it that
    count as right (`aliases`), and a worked solution.
    """

    id: str
    split: str
    group: str
    question: str
    options: tuple[str, ...] = ()
    answer: str | None = None
    solution: str | None = None
    aliases: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The question's text without regard to case and spacing: equal texts belong on one side of a split."""
        return " ".join(self.question.casefold().split())


def require_sound(questions: Iterable[Question]) -> None:
    """UserError when two questions share an id, or their text across splits; test and GSM-Plus count as one."""
    ids: dict[str, Question] = {}
    texts: dict[str, Question] = {}
    for question in questions:
        if ids.setdefault(question.id, question) is not question:
            raise UserError(f"Two questions have the id {question.id!r}: give each its own.")
        other = texts.setdefault(question.text, question)
        if other.split != question.split and not {other.split, question.split} <= set(TESTED):
            raise UserError(
                f"The questions {other.id} ({other.split}) and {question.id} ({question.split}) have the same text: "
                f"leave one out or put both into one split, or what is tested has been trained on."
            )


def read_questions(folder: Path, *splits: str) -> pd.DataFrame:
    """The questions of the given splits, in their stored order."""
    frame = artifacts.read_parquet(folder / "questions.parquet", COLUMNS)
    return frame[frame["split"].isin(splits)].reset_index(drop=True)


def read_aliases(folder: Path) -> dict[str, dict[str, str]]:
    """By question, the gold answer that each of its aliases stands for; as `read_gold`, for evaluation alone."""
    path = folder / "gold.parquet"
    if "aliases" not in parquet.read_schema(path).names:
        return {}
    table = artifacts.read_parquet(path, ["id", "answer", "aliases"]).dropna(subset="aliases")
    rows = zip(table["id"], table["answer"], table["aliases"], strict=True)
    return {key: dict.fromkeys(aliases, answer) for key, answer, aliases in rows}


def as_gold(
    answers: Iterable[str | None], ids: Iterable[str], aliases: Mapping[str, Mapping[str, str]]
) -> list[str | None]:
    """Answers to the questions of these ids, an alias of the gold answer as the gold answer."""
    if not aliases:
        return list(answers)
    nothing: dict[str, str] = {}
    pairs = zip(answers, ids, strict=True)
    return [None if pd.isna(answer) else aliases.get(key, nothing).get(answer, answer) for answer, key in pairs]


def read_gold(folder: Path) -> pd.Series:
    """Gold answers by question id. For evaluation and Figure 4 only."""
    return artifacts.read_parquet(folder / "gold.parquet", ["id", "answer"]).set_index("id")["answer"]
