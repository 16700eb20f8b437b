"""Stage 13_judged_responses: the reward model's score of validation responses sampled before and after PPO.

Unlike the method's own stages it reads gold answers: nothing is trained on what it writes.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pandas as pd

from rdlib import answers, artifacts, engines, evaluate, generation, models, prompts, reward_model, voting
from rdlib.questions import read_gold, read_questions


def sample_after(stage, questions: pd.DataFrame, texts: dict[str, prompts.Prompt], labels: pd.DataFrame, work: Path):
    """Responses of PPO's policy, as many and as hot as the student's before."""
    profile, settings = stage.profile, stage.dataset_settings
    sampling = profile.student_sampling
    plan = questions[["id", "split"]].assign(temperature=float(sampling.temperature), n=sampling.samples)
    seed = generation.derive_seed("judged", stage.dataset, stage.teacher, stage.student, stage.method, stage.seed)
    with closing(engines.open_own(stage, str(stage.input("ppo") / "model"))) as engine:
        responses = generation.sample_to_disk(engine, plan, texts, work, seed, profile.generation.shard_size)
    responses["answer"] = [answers.extract(text, settings.answer) for text in responses["text"]]
    return voting.propagate(responses, labels)


def run(stage, work: Path) -> None:
    """Write judged.parquet: policy, id, sample, tokens, answer, agrees, correct and score of each response."""
    labels = artifacts.read_parquet(stage.input("labels") / "labels.parquet").dropna(subset="pseudo_label")
    questions = read_questions(stage.input("data"), "validation")
    questions = questions[questions["id"].isin(labels["id"])]
    texts = prompts.of_questions(stage.dataset_settings, questions)
    before = artifacts.read_parquet(stage.input("student") / "responses.parquet")
    responses = pd.concat(
        [
            before[before["split"] == "validation"].assign(policy="before"),
            sample_after(stage, questions, texts, labels, work).assign(policy="after"),
        ],
        ignore_index=True,
    )
    source = stage.input("reward_model") / "model"
    tokenizer = models.load_tokenizer(source)
    encode = prompts.Encoder(texts, tokenizer)
    sequences = [encode(r.id, r.text, r.finished) for r in responses.itertuples()]
    model = models.load_scorer(source, tokenizer.pad_token_id)
    responses["score"] = reward_model.score(model, sequences, tokenizer.pad_token_id).numpy()
    truth = responses["id"].map(read_gold(stage.input("gold")))
    responses["correct"] = evaluate.correctness(responses["answer"], truth)
    responses = responses.rename(columns={"positive": "agrees"})
    columns = ["policy", "id", "sample", "tokens", "answer", "agrees", "correct", "score"]
    artifacts.write_parquet(work / "judged.parquet", responses[columns])
    generation.drop_shards(work)
