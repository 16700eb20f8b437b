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

    Temperature 0 gives equal samples, so one is generated; `repeat_greedy` counts it in full. The temperature is
    missing where the provider's own is asked for.
    """
    rows = [(question.id, question.split, *part) for question in questions.itertuples() for part in settings.sets]
    plan = pd.DataFrame(rows, columns=["id", "split", "confidence", "temperature", "n"])
    return plan.astype({"temperature": float})


def repeat_greedy(responses: pd.DataFrame, samples: int) -> pd.DataFrame:
    """Count the single response at temperature 0 as `samples` equal ones; the copies cost no tokens."""
    greedy = responses[responses["temperature"] == 0]
    copies = [greedy.assign(sample=k, tokens=0) for k in range(1, samples)]
    return pd.concat([responses, *copies], ignore_index=True).sort_values(
        ["id", "confidence", "temperature", "sample"], kind="stable", ignore_index=True
    )


def with_questions(stage, responses: pd.DataFrame, texts: dict[str, prompts.Prompt]) -> pd.DataFrame:
    """Responses to real questions with what was `asked`, by which a recording is matched (`engine: replay`).

    The micro world's questions are drawn, so their ids say all.
    """
    if stage.dataset_settings.source.startswith("micro"):
        return responses
    return responses.assign(asked=responses["id"].map({key: prompt.question for key, prompt in texts.items()}))


def planned(stage, questions: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, prompts.Prompt]]:
    """The plan of stage 1 and the prompts by question, out of the table of all questions."""
    asked = questions[questions["split"].isin(["train", "validation"])].reset_index(drop=True)
    return sampling_plan(asked, stage.profile.teacher_sampling), prompts.of_questions(stage.dataset_settings, asked)


def run(stage, work: Path) -> None:
    """Stage 01_teacher_responses: write responses.parquet with the extracted answers."""
    profile = stage.profile
    plan, texts = planned(stage, read_questions(stage.input("data"), "train", "validation"))
    seed = generation.derive_seed("teacher", stage.dataset, stage.teacher, stage.seed)
    with sampled(stage, profile.model_of(stage.teacher), plan, texts, work, seed, look=True) as responses:
        responses = repeat_greedy(responses, profile.teacher_sampling.samples_per_temperature)
        artifacts.write_parquet(work / "responses.parquet", with_questions(stage, responses, texts))
