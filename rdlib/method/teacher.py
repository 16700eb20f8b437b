"""Stage 1: the teacher answers every training and validation question at ten temperatures."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from rdlib import artifacts
from rdlib.engines import generation
from rdlib.engines.sampling import sampled
from rdlib.settings import TeacherSampling
from rdlib.tasks import prompts
from rdlib.tasks.questions import read_questions


def sampling_plan(questions: pd.DataFrame, settings: TeacherSampling) -> pd.DataFrame:
    """One row a question and temperature: id, split, confidence, temperature, n (section 3.1).

    Dividing logits by `heat` is sampling at so many times the temperature, and leaves the likeliest response as it is.
    Temperature 0 gives equal samples, so one is generated; `repeat_greedy` counts it in full.
    """
    sets = [("high", settings.heat * t) for t in settings.high_temperatures]
    sets += [("low", settings.heat * t) for t in settings.low_temperatures]
    rows = [
        (
            question.id,
            question.split,
            confidence,
            temperature,
            1 if temperature == 0 else settings.samples_per_temperature,
        )
        for question in questions.itertuples()
        for confidence, temperature in sets
    ]
    return pd.DataFrame(rows, columns=["id", "split", "confidence", "temperature", "n"])


def repeat_greedy(responses: pd.DataFrame, samples: int) -> pd.DataFrame:
    """Count the single response at temperature 0 as `samples` equal ones; the copies cost no tokens."""
    greedy = responses[responses["temperature"] == 0]
    copies = [greedy.assign(sample=k, tokens=0) for k in range(1, samples)]
    return pd.concat([responses, *copies], ignore_index=True).sort_values(
        ["id", "confidence", "temperature", "sample"], kind="stable", ignore_index=True
    )


def run(stage, work: Path) -> None:
    """Stage 01_teacher_responses: write responses.parquet with the extracted answers."""
    profile = stage.profile
    questions = read_questions(stage.input("data"), "train", "validation")
    texts = prompts.of_questions(stage.dataset_settings, questions)
    plan = sampling_plan(questions, profile.teacher_sampling)
    seed = generation.derive_seed("teacher", stage.dataset, stage.teacher, stage.seed)
    with sampled(stage, profile.model_of(stage.teacher), plan, texts, work, seed) as responses:
        responses = repeat_greedy(responses, profile.teacher_sampling.samples_per_temperature)
        artifacts.write_parquet(work / "responses.parquet", responses)
