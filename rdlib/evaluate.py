"""Stage 7: accuracy on the test questions by greedy decoding, against gold answers (section 4.1)."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import pandas as pd

from rdlib import answers, artifacts, data, engines, generation, prompts
from rdlib.errors import UserError


def few_shot_examples(stage, count: int) -> list[tuple[str, list[str], str]]:
    """Worked examples for in-context learning: training questions with a correct reference response.

    The benchmarks bring worked solutions; the examples are the same for every test question and never from test.
    """
    pool = data.worked_examples(stage.dataset, stage.dataset_settings, stage.root)
    if count > len(pool):
        raise UserError(
            f"evaluation.few_shot is {count}, but {stage.dataset} has {len(pool)} worked examples: lower it."
        )
    return random.Random(f"few-shot/{stage.seed}").sample(pool, count)


def open_engine(stage) -> generation.Engine:
    """The engine that samples from the model that a method evaluates."""
    if "model" in stage.inputs:
        return engines.open_own(stage, str(stage.input("model") / "model"))
    return engines.open_engine(stage, stage.profile.model_of(stage.teacher or stage.student))


def run(stage, work: Path) -> None:
    """Stage 07_evaluate: write answers.parquet (a row a test question) and summary.json (accuracies)."""
    profile, settings = stage.profile, stage.dataset_settings
    questions = data.read_questions(stage.input("data"), "test", data.PERTURBED)
    examples = few_shot_examples(stage, profile.evaluation.few_shot) if stage.method == "icl" else []
    texts = prompts.of_questions(settings, questions, examples)
    plan = questions[["id", "split", "group"]].assign(temperature=float(profile.evaluation.temperature), n=1)
    seed = generation.derive_seed("evaluate", stage.seed)
    with closing(open_engine(stage)) as engine:
        responses = generation.sample_to_disk(engine, plan, texts, work, seed, profile.generation.shard_size)
    artifacts.write_parquet(work / "answers.parquet", grade(responses, data.read_gold(stage.input("gold")), stage))
    generation.drop_shards(work)
    table = pd.read_parquet(work / "answers.parquet")
    accuracy = table.groupby("benchmark")["correct"].mean().to_dict()
    artifacts.write_json(work / "summary.json", {"accuracy": accuracy, "tokens": int(table["tokens"].sum())})


def grade(responses: pd.DataFrame, gold: pd.Series, stage) -> pd.DataFrame:
    """benchmark, id, group, text, answer, gold, correct, tokens of each test response."""
    benchmark = responses["split"].replace({"test": stage.dataset})
    answer = [answers.extract(text, stage.dataset_settings.answer) for text in responses["text"]]
    truth = responses["id"].map(gold)
    if truth.isna().any():
        missing = responses["id"][truth.isna()].iloc[0]
        raise UserError(f"{stage.label}: test question {missing!r} has no gold answer: evaluate needs gold.parquet.")
    correct = [answers.same(a, t) for a, t in zip(answer, truth, strict=True)]
    return pd.DataFrame(
        {
            "benchmark": benchmark,
            "id": responses["id"],
            "group": responses["group"],
            "text": responses["text"],
            "answer": answer,
            "gold": truth,
            "correct": correct,
            "tokens": responses["tokens"],
        }
    )
