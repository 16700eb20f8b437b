"""Which model the stages after the warm-up start from."""

from __future__ import annotations

from rdlib.engines import models
from rdlib.settings import Model


def policy_source(stage) -> Model:
    """The model that reinforcement learning starts from: the warmed-up student, or the base one (w/o Data)."""
    if "warmup" in stage.inputs:
        return Model(model=str(stage.input("warmup") / "model"))
    return models.resolve(stage.profile.model_of(stage.student), stage.root)
