"""Stage 7: accuracy on the test questions by greedy decoding, against gold answers (section 4.1)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from rdlib import artifacts, engines
from rdlib.engines import generation
from rdlib.engines.sampling import sampled
from rdlib.errors import UserError
from rdlib.settings import Model
from rdlib.tasks import answers, data, prompts
from rdlib.tasks.questions import PERTURBED, TESTED, as_gold, read_aliases, read_gold, read_questions


def few_shot_examples(stage, count: int) -> list[tuple[str, list[str], str]]:
    """Worked examples for in-context learning: training questions with a correct reference response.

    The benchmarks bring worked solutions; the examples are the same for every test question and never from test.
    Own questions may bring none at all: then none are shown.
    """
    pool = data.worked_examples(stage.dataset, stage.dataset_settings, stage.root)
    if not pool and stage.dataset_settings.own:
        return []
    if count > len(pool):
        raise UserError(
            f"evaluation.few_shot is {count}, but {stage.dataset} has {len(pool)} worked examples: lower it."
        )
    return random.Random(f"few-shot/{stage.seed}").sample(pool, count)


def evaluated_model(stage) -> Model:
    """The model that a method evaluates, and the engine that samples from it."""
    if "model" in stage.inputs:
        return engines.own(stage, Model(model=str(stage.input("model") / "model")))
    return stage.profile.model_of(stage.teacher or stage.student)


def planned(
    stage, questions: pd.DataFrame, examples: Sequence[tuple[str, list[str], str]] = ()
) -> tuple[pd.DataFrame, dict[str, prompts.Prompt]]:
    """The plan of an evaluation and the prompts by question, after worked `examples`, out of the tested questions."""
    temperature = float(stage.profile.evaluation.temperature)
    plan = questions[["id", "split", "group"]].assign(temperature=temperature, n=1)
    return plan, prompts.of_questions(stage.dataset_settings, questions, examples)


def run(stage, work: Path) -> None:
    """Stage 07_evaluate: write answers.parquet (a row a test question) and summary.json (accuracies)."""
    profile, settings = stage.profile, stage.dataset_settings
    questions = read_questions(stage.input("data"), *TESTED)
    examples = few_shot_examples(stage, profile.evaluation.few_shot) if stage.method == "icl" else []
    plan, texts = planned(stage, questions, examples)
    seed = generation.derive_seed("evaluate", stage.seed)
    with sampled(stage, evaluated_model(stage), plan, texts, work, seed) as responses:
        table = grade(responses, read_gold(stage.input("gold")), stage, read_aliases(stage.input("gold")))
        artifacts.write_parquet(work / "answers.parquet", table)
    summary = {"accuracy": accuracies(table, "benchmark"), "tokens": int(table["tokens"].sum())}
    if not settings.source.startswith("micro"):
        summary |= details(table, stage.answer_kind, texts) | {"few_shot": len(examples)}
    artifacts.write_json(work / "summary.json", summary)


def run_validation(stage, work: Path) -> None:
    """Stage 13_validation_answers: write answers.parquet, a row a validation question, greedily answered.

    Columns id, answer, tokens, agrees (with the pseudo-label; missing in Q_fail) and correct (missing where there is no
    gold answer). Nothing is trained or chosen by what it writes.
    """
    questions = read_questions(stage.input("data"), "validation")
    labels = artifacts.read_parquet(stage.input("labels") / "labels.parquet").set_index("id")["pseudo_label"]
    gold, aliases = read_gold(stage.input("gold")), read_aliases(stage.input("gold"))
    texts = prompts.of_questions(stage.dataset_settings, questions)
    plan = questions[["id", "split"]].assign(temperature=float(stage.profile.evaluation.temperature), n=1)
    seed = generation.derive_seed("validation answers", stage.seed)
    with sampled(stage, evaluated_model(stage), plan, texts, work, seed) as responses:
        given = as_gold(responses["answer"], responses["id"], aliases)
        table = responses[["id", "answer", "tokens"]].assign(
            agrees=pd.array(correctness(responses["answer"], responses["id"].map(labels)), dtype="boolean"),
            correct=pd.array(correctness(given, responses["id"].map(gold)), dtype="boolean"),
        )
        artifacts.write_parquet(work / "answers.parquet", table)


def run_perturbed(stage, work: Path) -> None:
    """Stage 13_perturbed_answers: write answers.parquet, a row a perturbed validation question, greedily answered.

    Columns id, group (the kind of perturbation), answer, tokens and correct. Perturbed questions need skills that the
    training questions do not ask for, so they see what a training forgets. Nothing is trained or chosen by what it
    writes but the experiment `fair_rates`, beside the release.
    """
    questions = data.perturbed_validation(stage.dataset, stage.dataset_settings)
    gold = pd.Series({question.id: question.answer for question in questions})
    plan, texts = planned(stage, data.table_of(questions))
    seed = generation.derive_seed("perturbed answers", stage.seed)
    with sampled(stage, evaluated_model(stage), plan, texts, work, seed) as responses:
        table = responses[["id", "group", "answer", "tokens"]]
        table = table.assign(correct=correctness(responses["answer"], responses["id"].map(gold)))
        artifacts.write_parquet(work / "answers.parquet", table)


def grade(
    responses: pd.DataFrame, gold: pd.Series, stage, aliases: Mapping[str, Mapping[str, str]] = MappingProxyType({})
) -> pd.DataFrame:
    """benchmark, id, group, text, answer, gold, correct, tokens of each test response.

    `correct` is missing where a question of the user's own has no gold answer (`rdlib.method.held_out` compares those
    with the teacher's vote); any other must have one. A GSM-Plus question that lacks what an answer needs is answered
    right by saying so, as its authors have it. A question's `aliases` (by `questions.read_aliases`) are right as well.
    """
    benchmark = responses["split"].replace({"test": stage.dataset})
    answer = responses["answer"].tolist()
    truth = responses["id"].map(gold)
    missing = responses["id"][truth.isna()]
    if len(missing) and not stage.dataset_settings.own:
        raise UserError(
            f"{stage.label}: test question {missing.iloc[0]!r} has no gold answer: evaluate needs gold.parquet."
        )
    asked_too_much = (responses["split"] == PERTURBED) & (truth == answers.UNANSWERABLE)
    for at in asked_too_much.to_numpy().nonzero()[0]:
        answer[at] = answers.UNANSWERABLE if answers.refuses(responses["text"].iloc[at]) else answer[at]
    return pd.DataFrame(
        {
            "benchmark": benchmark,
            "id": responses["id"],
            "group": responses["group"],
            "text": responses["text"],
            "answer": answer,
            "gold": truth,
            "correct": correctness(as_gold(answer, responses["id"], aliases), truth),
            "tokens": responses["tokens"],
        }
    )


def correctness(
    answer: Sequence[str | None], truth: Sequence[str | None]
) -> list[bool] | pd.api.extensions.ExtensionArray:
    """Whether each answer is the gold one: bools or, where a gold answer is missing, nullable ones that may be NA."""
    correct = [None if pd.isna(t) else answers.same(a, t) for a, t in zip(answer, truth, strict=True)]
    return pd.array(correct, dtype="boolean") if None in correct else correct


def accuracies(table: pd.DataFrame, by: str) -> dict[str, float]:
    """Accuracy by the values of a column, of the answers that could be graded."""
    return table.dropna(subset="correct").groupby(by)["correct"].mean().astype(float).to_dict()


def details(table: pd.DataFrame, kind: str, asked: dict[str, prompts.Prompt]) -> dict[str, dict]:
    """By benchmark: accuracy of each group, share of extractable answers, of each rule of extraction, and mean tokens.

    GSM-Plus also without the questions that cannot be answered (critical thinking), as its authors report both.
    """
    parts = dict(iter(table.groupby("benchmark")))
    result = {
        "by_group": {name: accuracies(part, "group") for name, part in parts.items()},
        "extractable": {name: float(part["answer"].notna().mean()) for name, part in parts.items()},
        "rules": {
            name: answers.rule_shares(part["text"], kind, (asked[key].choices for key in part["id"]))
            for name, part in parts.items()
        },
        "mean_tokens": {name: float(part["tokens"].mean()) for name, part in parts.items()},
    }
    if PERTURBED in parts:
        answerable = table[table["gold"] != answers.UNANSWERABLE]
        result["without_critical_thinking"] = accuracies(answerable[answerable["benchmark"] == PERTURBED], "benchmark")
    return result
