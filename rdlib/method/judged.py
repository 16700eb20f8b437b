"""The reward model's score of sampled validation responses: before and after PPO, and of the policy of any method.

Unlike the method's own stages these read gold answers: nothing is trained on what they write.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from rdlib import artifacts, engines
from rdlib.engines import generation, models
from rdlib.engines.sampling import sampled
from rdlib.method import evaluate, scoring, voting
from rdlib.settings import Model
from rdlib.tasks import prompts
from rdlib.tasks.questions import as_gold, read_aliases, read_gold, read_questions


def run(stage, work: Path) -> None:
    """Stage 13_judged_responses: write judged.parquet, a row a response.

    Columns policy (before or after PPO), id, sample, tokens, text, answer, agrees, correct and score. `text` numbers
    the distinct texts of a question, before and after PPO. After PPO it samples as many responses as the student gave
    before, and as hot.
    """
    labels, questions, texts = _asked(stage)
    before = artifacts.read_parquet(stage.input("student") / "responses.parquet")
    policy = engines.own(stage, Model(model=str(stage.input("ppo") / "model")))
    with sampled(stage, policy, _plan(stage, questions), texts, work, _seed(stage, "judged", stage.method)) as after:
        parts = {"before": before[before["split"] == "validation"], "after": voting.propagate(after, labels)}
        responses = pd.concat([part.assign(policy=name) for name, part in parts.items()], ignore_index=True)
        artifacts.write_parquet(work / "judged.parquet", judge(stage, responses, texts))


def run_sampled(stage, work: Path) -> None:
    """Stage 13_sampled_responses: write sampled.parquet, the same columns but policy, of one method's policy.

    It samples as many responses as the student gave before PPO, and as hot, with one seed for all methods: equal
    policies give equal responses. The score is of Ours' reward model.
    """
    labels, questions, texts = _asked(stage)
    plan, seed = _plan(stage, questions), _seed(stage, "sampled")
    with sampled(stage, evaluate.evaluated_model(stage), plan, texts, work, seed) as responses:
        responses = voting.propagate(responses, labels).assign(policy="after")
        artifacts.write_parquet(work / "sampled.parquet", judge(stage, responses, texts).drop(columns="policy"))


def _asked(stage) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, prompts.Prompt]]:
    """The pseudo-labels, the validation questions that have one, and their prompts."""
    labels = artifacts.read_parquet(stage.input("labels") / "labels.parquet").dropna(subset="pseudo_label")
    questions = read_questions(stage.input("data"), "validation")
    questions = questions[questions["id"].isin(labels["id"])]
    return labels, questions, prompts.of_questions(stage.dataset_settings, questions)


def _plan(stage, questions: pd.DataFrame) -> pd.DataFrame:
    sampling = stage.profile.student_sampling
    return questions[["id", "split"]].assign(temperature=float(sampling.temperature), n=sampling.samples)


def _seed(stage, purpose: str, *method: str) -> int:
    return generation.derive_seed(purpose, stage.dataset, stage.teacher, stage.student, *method, stage.seed)


def judge(stage, responses: pd.DataFrame, texts: dict[str, prompts.Prompt]) -> pd.DataFrame:
    """The responses with the reward model's score, whether each answer is right, and texts as numbers (see `run`)."""
    source = stage.input("reward_model")
    tokenizer = models.load_tokenizer(source / "model")
    encode = prompts.Encoder(texts, tokenizer)
    sequences = [encode(r.id, r.text, r.finished) for r in responses.itertuples()]
    model = scoring.load(source, tokenizer.pad_token_id)
    truth = responses["id"].map(read_gold(stage.input("gold")))
    given = as_gold(responses["answer"], responses["id"], read_aliases(stage.input("gold")))
    responses = responses.rename(columns={"positive": "agrees"}).assign(
        score=scoring.score(model, sequences, tokenizer.pad_token_id, responses["id"].tolist()).numpy(),
        correct=evaluate.correctness(given, truth),
        text=responses.groupby("id")["text"].transform(lambda texts: pd.factorize(texts)[0]).astype("int32"),
    )
    return responses[["policy", "id", "sample", "tokens", "text", "answer", "agrees", "correct", "score"]]
