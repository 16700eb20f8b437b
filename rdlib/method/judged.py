"""Stage 13_judged_responses: the reward model's score of validation responses sampled before and after PPO.

Unlike the method's own stages it reads gold answers: nothing is trained on what it writes.
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
    """Write judged.parquet: policy, id, sample, tokens, text, answer, agrees, correct and score of each response.

    `text` numbers the distinct texts of a question, before and after PPO, so that equal ones can be told. After PPO it
    samples as many responses as the student gave before, and as hot.
    """
    labels = artifacts.read_parquet(stage.input("labels") / "labels.parquet").dropna(subset="pseudo_label")
    questions = read_questions(stage.input("data"), "validation")
    questions = questions[questions["id"].isin(labels["id"])]
    texts = prompts.of_questions(stage.dataset_settings, questions)
    before = artifacts.read_parquet(stage.input("student") / "responses.parquet")
    sampling = stage.profile.student_sampling
    plan = questions[["id", "split"]].assign(temperature=float(sampling.temperature), n=sampling.samples)
    seed = generation.derive_seed("judged", stage.dataset, stage.teacher, stage.student, stage.method, stage.seed)
    policy = engines.own(stage, Model(model=str(stage.input("ppo") / "model")))
    with sampled(stage, policy, plan, texts, work, seed) as after:
        parts = {"before": before[before["split"] == "validation"], "after": voting.propagate(after, labels)}
        responses = pd.concat([part.assign(policy=name) for name, part in parts.items()], ignore_index=True)
        artifacts.write_parquet(work / "judged.parquet", judge(stage, responses, texts))


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
