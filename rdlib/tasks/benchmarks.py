"""GSM8K, GSM-Plus and MMLU-Pro as questions, in the splits of the paper's appendix B.1.

Splits are drawn from `datasets.*.split_seed`, so all seeds of a study share them. Ids are those of the original rows:
gsm8k-train-00012 keeps its name when it goes to validation. What becomes of a row of each:

    {"question": "Weng earns $12 ...", "answer": "... $<<0.2*50=10>>10.\\n#### 10"}        -> answer "10"
    {"question": "...", "answer": "None", "perturbation_type": "critical thinking", ...}  -> group, answer "None"
    {"question_id": 70, "options": [...], "answer": "I", "category": "business", ...}     -> group, answer "I"
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from rdlib.settings import Dataset
from rdlib.tasks import answers, sources
from rdlib.tasks.questions import LETTERS, PERTURBED, SPLITS, Question, require_sound
from rdlib.tasks.records import Record
from rdlib.tasks.splits import assign, cap

VALIDATION_SHARE = 0.1  # of GSM8K's training set, and of what is left of MMLU-Pro
MMLU_PRO_TEST_SHARE = 0.15


def load(name: str, settings: Dataset, root: Path) -> list[Question]:
    """Every question of the benchmark, capped to the profile's counts.

    Raises UserError for a file, a hub dataset or a row that cannot be read, and a count above what there is.
    """
    read = {"gsm8k": gsm8k, "mmlu_pro": mmlu_pro}[settings.source]
    limits = {split: getattr(settings, split) for split in SPLITS}
    limits[PERTURBED] = settings.perturbed_test
    questions = read(settings, root)
    require_sound(questions)
    capped = []
    for split, limit in limits.items():
        some = [question for question in questions if question.split == split]
        setting = f"datasets.{name}.{'perturbed_test' if split == PERTURBED else split}"
        if some:
            capped += cap(some, limit, setting, f"{settings.source}/{split}/{settings.split_seed}")
    return capped


def gsm8k(settings: Dataset, root: Path) -> list[Question]:
    """GSM8K: 90 / 10 of the original training set to train and validation, the original test set, and GSM-Plus."""
    source = sources.GSM8K.at(settings.path, settings.revision, root)
    train = [_gsm8k_question(record, "train") for record in source.records("train")]
    test = [_gsm8k_question(record, "test") for record in source.records("test")]
    plus = gsm_plus(settings, root) if settings.perturbed_test != 0 else []
    return [*_train_and_validation(train, f"gsm8k/{settings.split_seed}"), *test, *plus]


def _train_and_validation(questions: list[Question], seed: str) -> list[Question]:
    count = round(VALIDATION_SHARE * len(questions))
    sizes = {"validation": count, "train": len(questions) - count}
    found = assign([question.text for question in questions], sizes, seed)
    return [replace(question, split=split) for question, split in zip(questions, found, strict=True)]


def _gsm8k_question(record: Record, split: str) -> Question:
    question, solution = record.text("question"), record.text("answer")
    answer = answers.extract(solution, "math") if "####" in solution else None
    if answer is None:
        raise record.error("its 'answer' has no number after '####', as GSM8K's have.")
    plain = re.sub(r"<<[^<>\n]*>>", "", solution)  # the calculator's marks: 48/2 = <<48/2=24>>24
    return Question(f"gsm8k-{split}-{record.number:05d}", split, "", question, (), answer, plain)


def gsm_plus(settings: Dataset, root: Path) -> list[Question]:
    """GSM-Plus, whose groups are the eight perturbations; a local folder may hold testmini alone."""
    source = sources.GSM_PLUS.at(settings.perturbed_path, settings.perturbed_revision, root)
    split = source.first_of(*sources.GSM_PLUS_SPLITS)
    return [_gsm_plus_question(record, f"{PERTURBED}-{split}") for record in source.records(split)]


def _gsm_plus_question(record: Record, prefix: str) -> Question:
    question, given, kind = record.text("question"), record.text("answer"), record.text("perturbation_type")
    answer = answers.UNANSWERABLE if given == answers.UNANSWERABLE else answers.extract(f"#### {given}", "math")
    if answer is None:
        raise record.error(f"its 'answer' {given[:40]!r} is neither a number nor {answers.UNANSWERABLE!r}.")
    return Question(f"{prefix}-{record.number:05d}", PERTURBED, kind, question, (), answer)


def mmlu_pro(settings: Dataset, root: Path) -> list[Question]:
    """MMLU-Pro's 12,032 test questions: 15 % test, the rest 90 / 10 train and validation; groups are categories."""
    source = sources.MMLU_PRO.at(settings.path, settings.revision, root)
    questions = [_mmlu_pro_question(record) for record in source.records("test")]
    count = round(MMLU_PRO_TEST_SHARE * len(questions))
    seed = f"mmlu_pro/{settings.split_seed}"
    found = assign([question.text for question in questions], {"test": count}, f"{seed}/test")
    pairs = list(zip(questions, found, strict=True))
    rest = [question for question, split in pairs if split is None]
    return [*_train_and_validation(rest, seed), *(question for question, split in pairs if split == "test")]


def _mmlu_pro_question(record: Record) -> Question:
    number, options, letter = record.fields.get("question_id"), record.options(), record.text("answer")
    if not isinstance(number, int):
        raise record.error("its 'question_id' is no whole number, as MMLU-Pro's are.")
    if letter not in LETTERS[: len(options)] or len(letter) != 1:
        raise record.error(f"its 'answer' {letter[:40]!r} is no letter of its {len(options)} options.")
    key, category = f"mmlu_pro-{number}", record.text("category")
    solution = str(record.fields.get("cot_content") or "").strip().removeprefix("A: ") or None
    return Question(key, "test", category, record.text("question"), options, letter, solution)


def mmlu_pro_examples(settings: Dataset, root: Path) -> list[Question]:
    """MMLU-Pro's own validation questions, five a category, with worked solutions: few-shot prompts alone see them."""
    source = sources.MMLU_PRO.at(settings.path, settings.revision, root)
    return [_mmlu_pro_question(record) for record in source.records("validation")]
