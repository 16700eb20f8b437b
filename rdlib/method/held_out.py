"""What stands in for gold answers where own questions have none: the teacher's vote on test questions set aside.

The teacher answers the held-out questions as it answers those of training, and votes by the same rule. Its labels are
an artifact of their own (`01_held_out`) that no stage reads: they are held against finished answers when results are
gathered, so nothing was trained, validated or chosen on them. Agreement is not accuracy: where the teacher is wrong,
so is an answer that agrees.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from rdlib import artifacts
from rdlib.engines import generation
from rdlib.engines.sampling import sampled
from rdlib.method import teacher, voting
from rdlib.tasks import answers, prompts
from rdlib.tasks.questions import read_gold, read_questions


def unanswered(questions: pd.DataFrame, gold: pd.Series) -> pd.DataFrame:
    """The questions that have no gold answer."""
    return questions[questions["id"].map(gold).isna()].reset_index(drop=True)


def planned(stage, questions: pd.DataFrame, gold: pd.Series) -> tuple[pd.DataFrame, dict[str, prompts.Prompt]]:
    """What the vote on held-out questions asks: its plan and the prompts by question, out of the table of them all."""
    asked = unanswered(questions[questions["split"] == "test"], gold)
    plan = teacher.sampling_plan(asked, stage.profile.teacher_sampling)
    plan = plan[plan["confidence"] == "high"].reset_index(drop=True)
    return plan, prompts.of_questions(stage.dataset_settings, asked)


def run(stage, work: Path) -> None:
    """Stage 01_held_out: write labels.parquet, the vote on test questions without a gold answer, and responses.parquet.

    Only the high-confidence responses that the vote reads are sampled; the model is not opened where there are none.
    """
    profile = stage.profile
    plan, texts = planned(stage, read_questions(stage.input("data"), "test"), read_gold(stage.input("gold")))
    if plan.empty:
        none = plan.drop(columns="n").assign(sample=0, text="", tokens=0, finished=True, answer="")
        artifacts.write_parquet(work / "responses.parquet", none)
        artifacts.write_parquet(work / "labels.parquet", voting.pseudo_labels(none, profile.voting.threshold))
        return
    seed = generation.derive_seed("held-out", stage.dataset, stage.teacher, stage.seed)
    with sampled(stage, profile.model_of(stage.teacher), plan, texts, work, seed) as responses:
        responses = teacher.repeat_greedy(responses, profile.teacher_sampling.samples_per_temperature)
        artifacts.write_parquet(work / "responses.parquet", teacher.with_questions(stage, responses, texts))
        artifacts.write_parquet(work / "labels.parquet", voting.pseudo_labels(responses, profile.voting.threshold))


def held_to_vote(table: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """The answers of an evaluation to questions that have a label, with `vote` and `agrees`."""
    votes = labels.dropna(subset="pseudo_label").set_index("id")["pseudo_label"]
    found = table[table["id"].isin(votes.index)]
    vote = found["id"].map(votes)
    agrees = [answers.same(a, y) for a, y in zip(found["answer"], vote, strict=True)]
    return found.assign(vote=vote, agrees=pd.Series(agrees, index=found.index, dtype=bool))
