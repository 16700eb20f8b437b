"""Stage 4: the student answers every training and validation question many times (Eq. 3)."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from rdlib import answers, artifacts, engines, generation, models, prompts, voting
from rdlib.questions import read_questions


def run(stage, work: Path) -> None:
    """Stage 04_student_responses: write responses.parquet with `positive`; Q_fail is left out."""
    profile, settings = stage.profile, stage.dataset_settings
    labels = artifacts.read_parquet(stage.input("labels") / "labels.parquet").dropna(subset="pseudo_label")
    questions = read_questions(stage.input("data"), "train", "validation")
    questions = questions[questions["id"].isin(labels["id"])]
    texts = prompts.of_questions(settings, questions)
    sampling = profile.student_sampling
    plan = questions[["id", "split"]].assign(temperature=float(sampling.temperature), n=sampling.samples)
    seed = generation.derive_seed("student", stage.dataset, stage.teacher, stage.student, stage.method, stage.seed)
    with closing(engines.open_own(stage, models.policy_source(stage))) as engine:
        responses = generation.sample_to_disk(engine, plan, texts, work, seed, profile.generation.shard_size)
    responses["answer"] = [answers.extract(text, settings.answer) for text in responses["text"]]
    artifacts.write_parquet(work / "responses.parquet", voting.propagate(responses, labels))
    generation.drop_shards(work)
