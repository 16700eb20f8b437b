"""Stage 4: the student answers every labelled training and validation question many times (Eq. 3)."""

from __future__ import annotations

from pathlib import Path

from rdlib import artifacts, engines
from rdlib.engines import generation
from rdlib.engines.sampling import sampled
from rdlib.method import voting
from rdlib.method.policy import policy_source
from rdlib.tasks import prompts
from rdlib.tasks.questions import read_questions


def run(stage, work: Path) -> None:
    """Stage 04_student_responses, Eq. 3: write responses.parquet with `positive`; Q_fail is left out."""
    labels = artifacts.read_parquet(stage.input("labels") / "labels.parquet").dropna(subset="pseudo_label")
    questions = read_questions(stage.input("data"), "train", "validation")
    questions = questions[questions["id"].isin(labels["id"])]
    texts = prompts.of_questions(stage.dataset_settings, questions)
    sampling = stage.profile.student_sampling
    plan = questions[["id", "split"]].assign(temperature=float(sampling.temperature), n=sampling.samples)
    seed = generation.derive_seed("student", stage.dataset, stage.teacher, stage.student, stage.method, stage.seed)
    with sampled(stage, engines.own(stage, policy_source(stage)), plan, texts, work, seed) as responses:
        artifacts.write_parquet(work / "responses.parquet", voting.propagate(responses, labels))
