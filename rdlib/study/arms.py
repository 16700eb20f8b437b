"""The runs that answer what the paper's reviewers asked (R1-R5).

All are of one cell, the ablations' cell: the same questions, the same evaluation, the same warm-up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pandas as pd

from rdlib.evidence.looks import BASELINE_NAMES
from rdlib.study.specification import BASELINES
from rdlib.study.stage import Stage

R1, R2, R3, R4, R5 = "R1", "R2", "R3", "R4", "R5"
REWARD_MODEL = "RM"  # what the reward model can give: no arm, but the responses of stage 13_judged_responses
QUESTIONS = (R1, R2, R3, R4, R5, REWARD_MODEL)
VOTE = {"reward.source": "vote"}
REWARD_MODEL_ALONE = {"reward.mismatch": "none"}


@dataclass(frozen=True)
class Arm:
    """One evaluated model and what it is compared for; `reference` is Ours, to which the others are held."""

    question: str
    name: str
    stage: Stage
    level: float | None = None
    reference: bool = False


def arms_of(cell: Stage) -> list[Arm]:
    """Every run of the reviewers' questions in the cell of `cell`, a stage of method ours."""

    def evaluation(method: str, overrides: dict | None = None, **axes: str | None) -> Stage:
        """The evaluation of a method of this cell."""
        stage = replace(cell, name="07_evaluate", method=method, **axes)
        return stage.with_overrides(overrides) if overrides else stage

    grid, more = cell.profile.grid, more_samples(cell)
    warmup, ours = evaluation("ours_wo_r"), evaluation("ours")
    found = [
        Arm(R1, "SFT", evaluation("sft")),
        Arm(R1, "Ours w/o R", warmup),
        Arm(R1, "Ours", ours, reference=True),
        Arm(R1, "PPO on the vote", evaluation("ours", VOTE)),
        *(Arm(R1, BASELINE_NAMES[method], evaluation(method)) for method in BASELINES),
        Arm(R2, "SFT", evaluation("sft"), 1.0),
        Arm(R2, "SFT", evaluation("sft", more), grid.compute_factor),
        Arm(R2, "Ours w/o R", warmup, 1.0),
        Arm(R2, "Ours w/o R", evaluation("ours_wo_r", more), grid.compute_factor),
        Arm(R2, "Ours", ours, reference=True),
        Arm(R3, "teacher", evaluation("teacher", student=None)),
        Arm(R3, "teacher, fine-tuned", evaluation("ours_wo_r", student=cell.teacher)),
        Arm(R3, "Ours", ours, reference=True),
        Arm(R5, "no PPO", warmup),
        Arm(R5, "vote alone", evaluation("ours", VOTE)),
        Arm(R5, "reward model alone", evaluation("ours", REWARD_MODEL_ALONE)),
        Arm(R5, "both (Ours)", ours, reference=True),
    ]
    for share in (0.0, *grid.flip_share):
        overrides = {"voting.flip_share": share} if share else None
        found += [
            Arm(R4, "Ours w/o R", evaluation("ours_wo_r", overrides), share),
            Arm(R4, "Ours", evaluation("ours", overrides), share, reference=True),
        ]
    return found


def more_samples(cell: Stage) -> dict[str, int]:
    """Overrides that give SFT `grid.compute_factor` times the teacher samples, and trains on as many more."""
    factor, sampling, sft = (
        cell.profile.grid.compute_factor,
        cell.profile.teacher_sampling,
        cell.profile.sft,
    )
    overrides = {"teacher_sampling.samples_per_temperature": math.ceil(factor * sampling.samples_per_temperature)}
    if sft.responses_per_question is not None:
        overrides["sft.responses_per_question"] = math.ceil(factor * sft.responses_per_question)
    return overrides


def answers_table(found: list[Arm]) -> pd.DataFrame:
    """Per-question correctness of finished arms: question, arm, level, reference, benchmark, seed, id, correct."""
    frames = []
    for arm in found:
        table = arm.stage.table("answers")[["benchmark", "id", "correct"]]
        names = {"question": arm.question, "arm": arm.name, "level": arm.level, "reference": arm.reference}
        frames.append(table.assign(**names, seed=arm.stage.seed))
    columns = ["question", "arm", "level", "reference", "benchmark", "seed", "id", "correct"]
    return pd.concat(frames, ignore_index=True)[columns].astype({"level": float})
