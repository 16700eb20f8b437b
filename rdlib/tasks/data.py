"""Stage 0: the questions of every benchmark and, apart from them, gold answers.

Gold answers are an artifact of their own (`00_gold`), which only the evaluation and Figure 4 read: the training
stages could not see one if they tried. `rdlib.tasks.questions` reads both.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.micro import gsm, mmlu
from rdlib.micro.authors import Author
from rdlib.micro.splits import split_of
from rdlib.settings import Dataset
from rdlib.tasks import benchmarks, own_questions, sources
from rdlib.tasks.questions import COLUMNS, PERTURBED, SPLITS, Question

REFERENCE_AUTHOR = Author("reference", 99.0, 99.0, 0.0, (0.0, 1.0, 0.0))


def draw_unique(draw: Callable[[random.Random], Any], split: str, count: int, rng: random.Random) -> list[Any]:
    """`count` different problems of one split."""
    problems: dict[str, Any] = {}
    while len(problems) < count:
        problem = draw(rng)
        if split_of(problem.key) == split:
            problems.setdefault(problem.key, problem)
    return list(problems.values())


def perturbed(
    problems: list[gsm.GsmProblem], count: int, rng: random.Random, split: str = "test"
) -> list[tuple[str, gsm.GsmProblem]]:
    """Perturbations of a split's problems, each kind in turn, that are themselves in the split's draw."""
    result = []
    for index in range(count):
        kind = gsm.PERTURBATIONS[index % len(gsm.PERTURBATIONS)]
        seed_problem = problems[(index // len(gsm.PERTURBATIONS)) % len(problems)]
        changed = gsm.perturb(seed_problem, kind, rng)
        tries = 0
        while split_of(changed.key) != split:
            tries += 1
            if tries % 50 == 0:  # some problems have few perturbations of a kind: go on to another problem
                seed_problem = rng.choice(problems)
            changed = gsm.perturb(seed_problem, kind, rng)
        result.append((kind, changed))
    return result


def load(name: str, settings: Dataset, root: Path) -> list[Question]:
    """Every question of a benchmark; the same for every seed. Paths of a profile are relative to `root`.

    Raises UserError for a file, a hub dataset or a row that cannot be read.
    """
    if settings.source == "questions":
        return own_questions.load(name, settings, root)
    if not settings.source.startswith("micro"):
        return benchmarks.load(name, settings, root)
    return [
        Question(key, split, group, p.question, tuple(getattr(p, "options", ())), p.answer)
        for key, split, group, p in micro_problems(name, settings)
    ]


def worked_examples(name: str, settings: Dataset, root: Path) -> list[tuple[str, list[str], str]]:
    """(question, options, solution) of every question that may stand in a few-shot prompt: never of a test one.

    MMLU-Pro brings questions for that alone; elsewhere they are training questions with a worked solution.
    """
    if settings.source.startswith("micro"):
        rows = micro_problems(name, settings)
        return [
            (p.question, list(getattr(p, "options", ())), reference_solution(p))
            for _, split, _, p in rows
            if split == "train"
        ]
    if settings.source == "mmlu_pro":
        examples = benchmarks.mmlu_pro_examples(settings, root)
    else:
        examples = [question for question in load(name, settings, root) if question.split == "train"]
    return [(q.question, list(q.options), q.solution) for q in examples if q.solution]


def micro_problems(name: str, settings: Dataset) -> list[tuple[str, str, str, Any]]:
    """(id, split, group, problem) of every question of a micro benchmark; the same for every seed.

    The id of a multiple-choice question has the number of its stem, which other options may follow as well, and its own
    number among those of the stem: `mmlu-test-0012.3`. (`rdlib.tasks.problems` reads it.)
    """
    draw = gsm.draw if settings.source == "micro-gsm" else mmlu.draw
    rows = []
    for split in SPLITS:
        rng = random.Random(f"{name}/{split}")
        problems = draw_unique(draw, split, getattr(settings, split), rng)
        rows += [
            (f"{name}-{split}-{number}", split, getattr(problem, "category", ""), problem)
            for number, problem in zip(_numbers(problems), problems, strict=True)
        ]
        if split == "test" and settings.perturbed_test and settings.source == "micro-gsm":
            rng = random.Random(f"{name}/{PERTURBED}")
            rows += [
                (f"{name}-plus-{i:04d}", PERTURBED, kind, problem)
                for i, (kind, problem) in enumerate(perturbed(problems, settings.perturbed_test, rng))
            ]
    return rows


def perturbed_validation(name: str, settings: Dataset) -> list[Question]:
    """Perturbations of a micro-gsm benchmark's validation problems, as many as it has of test problems.

    UserError for a benchmark without perturbations of its own.
    """
    if settings.source != "micro-gsm" or not settings.perturbed_test:
        raise UserError(f"{name} has no perturbed questions: only micro-gsm with perturbed_test can make them.")
    problems = [problem for _, split, _, problem in micro_problems(name, settings) if split == "validation"]
    rng = random.Random(f"{name}/perturbed validation")
    found = perturbed(problems, settings.perturbed_test, rng, "validation")
    return [
        Question(f"{name}-perturbed-validation-{i:04d}", "validation", kind, p.question, (), p.answer)
        for i, (kind, p) in enumerate(found)
    ]


def _numbers(problems: list[gsm.GsmProblem] | list[mmlu.MmluProblem]) -> Iterator[str]:
    """What ids tell problems of a split apart by."""
    stems: dict[str, int] = {}
    seen: Counter[str] = Counter()
    for i, problem in enumerate(problems):
        if isinstance(problem, gsm.GsmProblem):
            yield f"{i:04d}"
            continue
        seen[problem.question] += 1
        yield f"{stems.setdefault(problem.question, len(stems)):04d}.{seen[problem.question]}"


def run(stage, work: Path) -> None:
    """Stage 00_data: write questions.parquet; the seed decides the order of the training questions.

    For real questions also source.json, what they were read from, and split_ids.json, the ids of each split.
    """
    questions = load(stage.dataset, stage.dataset_settings, stage.root)
    train = [q for q in questions if q.split == "train"]
    random.Random(f"order/{stage.seed}").shuffle(train)
    ordered = [*train, *(q for q in questions if q.split != "train")]
    artifacts.write_parquet(work / "questions.parquet", table_of(ordered))
    if content := sources.identity(stage.dataset_settings, stage.root):
        artifacts.write_json(work / "source.json", {"source": stage.dataset_settings.source, "content": content})
        artifacts.write_json(work / "split_ids.json", split_ids(questions))


def table_of(questions: Iterable[Question]) -> pd.DataFrame:
    """Questions as the table that stage 0 writes: no gold answer is in it."""
    return pd.DataFrame([(q.id, q.split, q.question, list(q.options), q.group) for q in questions], columns=COLUMNS)


def split_ids(questions: list[Question]) -> dict[str, list[str]]:
    """The ids of each split, sorted."""
    splits = dict.fromkeys(question.split for question in questions)
    return {split: sorted(q.id for q in questions if q.split == split) for split in splits}


def run_gold(stage, work: Path) -> None:
    """Stage 00_gold: write gold.parquet (id, answer), the answer missing where a question has none.

    A column `aliases` holds the other forms of answers that count as right, where a question has some.
    """
    questions = load(stage.dataset, stage.dataset_settings, stage.root)
    frame = pd.DataFrame([(q.id, q.answer) for q in questions], columns=["id", "answer"]).astype({"answer": "str"})
    if any(question.aliases for question in questions):
        frame["aliases"] = [list(question.aliases) or None for question in questions]
    artifacts.write_parquet(work / "gold.parquet", frame)


def reference_solution(problem: gsm.GsmProblem | mmlu.MmluProblem) -> str:
    """A worked solution without error, in the plain style; used in few-shot prompts only."""
    write = gsm.write if isinstance(problem, gsm.GsmProblem) else mmlu.write
    return write(problem, REFERENCE_AUTHOR, random.Random(0))
