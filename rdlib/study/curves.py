"""Validation curves of finished trainings, whatever the method: by which step each was best, and how it ended."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from rdlib.study.stage import Stage

# What a training's checkpoint is chosen by, by stage.
MEASURES = {
    "03_sft_warmup": "agreement",
    "05_reward_model": "pos_neg_auc",
    "06_ppo": "agreement",
    "13_baseline": "agreement",
}


def curve(stage: Stage) -> pd.DataFrame:
    """The validation curve of a finished training: step (of the optimizer) and value, a row an evaluation."""
    if stage.name == "06_ppo":
        history, steps = stage.jsonl("history"), stage.profile.ppo.steps_per_update
        history = history.assign(step=history["update"] * steps, agreement=history["validation_agreement"])
    else:
        history = stage.table("history")
    found = history[["step", MEASURES[stage.name]]].dropna()
    return found.set_axis(["step", "value"], axis=1).astype({"step": int}).reset_index(drop=True)


def ending(stage: Stage) -> dict[str, Any]:
    """How a finished training went: its `start` where that was evaluated, `best` and `best_step`, and all its `steps`.

    `stopped_early`: its patience ended it, not the most steps that it could take.
    """
    found = curve(stage)
    best = found.loc[found["value"].idxmax()]
    return {
        "measure": MEASURES[stage.name],
        "start": found["value"].iloc[0] if found["step"].iloc[0] == 0 else None,
        "best": best["value"],
        "best_step": int(best["step"]),
        "steps": int(found["step"].iloc[-1]),
        "stopped_early": stage.json("summary")["stopped_early"],
    }


def endings(stages: Iterable[Stage]) -> pd.DataFrame | None:
    """The `ending` of every training among some finished stages, a row each with its axes; None where there is none."""
    rows = [stage.columns | {"stage": stage.name} | ending(stage) for stage in stages if stage.name in MEASURES]
    return pd.DataFrame(rows) if rows else None
