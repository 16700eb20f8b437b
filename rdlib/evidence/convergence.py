"""Whether every training went on until its validation curve was flat: the one rule of `stopping`, seen in the results.

A training ends when its patience is used up, or at the most steps that its method may take; the latter says that it
might have gone on, so each such run is named.
"""

from __future__ import annotations

import math

import pandas as pd

from rdlib.evidence import looks

AXES = ["stage", "dataset", "teacher", "student", "method", "variant", "seed"]
KINDS = {"03_sft_warmup": "{}", "05_reward_model": "reward model of {}", "06_ppo": "PPO of {}", "13_baseline": "{}"}


def kind_of(stage: str, method: str) -> str:
    """What is trained, in words: the warm-up, PPO of Ours, ..."""
    label = looks.BASELINE_NAMES.get(method) or looks.METHODS[method].label
    return KINDS[stage].format("warm-up (Ours w/o R)" if (stage, method) == ("03_sft_warmup", "ours_wo_r") else label)


def convergence_table(trainings: pd.DataFrame) -> pd.DataFrame:
    """A row a kind of training: how many, by which step they were best (quartiles), and how many their patience ended.

    Steps are whole ones. `at_the_most` names those that ended at the most steps instead. `trainings`: AXES, best_step,
    steps, stopped_early.
    """
    rows = []
    for (stage, method), part in trainings.groupby(["stage", "method"], sort=True):
        quartiles = part["best_step"].quantile([0.25, 0.5, 0.75])
        unfinished = part[~part["stopped_early"].astype(bool)]
        rows.append(
            {
                "training": kind_of(stage, method),
                "runs": len(part),
                "best_step_median": round(quartiles[0.5]),
                "best_step_lower_quartile": round(quartiles[0.25]),
                "best_step_upper_quartile": round(quartiles[0.75]),
                "steps_median": round(part["steps"].median()),
                "ended_by_patience": len(part) - len(unfinished),
                "at_the_most": "; ".join(_name(row) for row in unfinished.itertuples()),
            }
        )
    return pd.DataFrame(rows)


def _name(row) -> str:
    cell = f"{row.dataset}/{row.teacher}/{row.student}"
    return f"{cell} {row.variant} seed {row.seed}".replace("  ", " ")


def patience_table(curves: pd.DataFrame, patiences: list[int]) -> pd.DataFrame:
    """What trainings would have come to with each of `patiences` (steps): means of the best value and of the steps.

    A constant learning rate makes a more patient training begin like a less patient one, so its curve tells.
    `curves`: cell, seed, trial, step, value; none of the trainings was less patient. A row a patience.
    """
    trainings = [part.sort_values("step") for _, part in curves.groupby(["cell", "seed", "trial"])]
    rows = []
    for patience in patiences:
        ends = pd.DataFrame([_ended(part, patience) for part in trainings], columns=["best", "steps"])
        rows.append({"patience": patience, **ends.mean()})
    return pd.DataFrame(rows)


def patience_of(curves: pd.DataFrame) -> int:
    """The patience that trainings had, in steps: what they went on for after the value that was their highest.

    One that took the most steps went on for less.
    """
    return max(
        int(part["step"].iloc[-1] - _reached_at(part))
        for _, part in curves.sort_values("step").groupby(["cell", "seed", "trial"])
    )


def _reached_at(curve: pd.DataFrame) -> int:
    """The step after the start at which a training reached its highest value."""
    trained = curve[curve["step"] > 0]
    return int(trained["step"].loc[trained["value"].idxmax()])


def _ended(curve: pd.DataFrame, patience: int) -> tuple[float, int]:
    """The best value of a curve, its start included, and the step that `patience` ends it at, by what it reached."""
    reached, since, best = -math.inf, 0, -math.inf
    for step, value in zip(curve["step"], curve["value"], strict=True):
        best = max(best, value)
        if step and value > reached:
            reached, since = value, step
        if step and step - since >= patience:
            break
    return best, step
