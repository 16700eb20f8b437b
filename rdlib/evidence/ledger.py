"""R6, the cost ledger: floating-point operations of every stage from its tokens and its model's size.

The usual estimate: with N parameters a forward pass costs 2N operations a token and a backward pass twice that.
Attention's own term and the prompts are left out (prompts are read once for all their samples).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from rdlib.errors import UserError

FORWARD, TRAINING = 2, 6
# Forward passes over PPO's sampled tokens besides sampling: policy, reference, value model and reward model
PPO_FORWARDS = 4
# Networks that PPO trains, of one size: policy and value model
PPO_TRAINED = 2


def parameters_of(stage) -> float:
    """Parameters of the model that a stage works with; 0 for a stage without one.

    UserError for a model whose size neither the profile nor its folder tells.
    """
    from rdlib.engines import models

    name = stage.student or stage.teacher
    if stage.name == "05_reward_model":
        name = stage.profile.reward_model.student or name
    if name is None or stage.name in ("02_pseudo_labels", "02_judgement"):
        return 0.0
    model = stage.profile.model_of(name)
    if model.parameters is not None:
        return model.parameters
    folder = Path(models.resolve(model, stage.root).model)
    if not folder.is_dir():
        raise UserError(f"The size of {model.model} is not known: give its `parameters` in the profile, as in 8.0e9.")
    return float(models.parameter_count(folder))


def parameters_of_reader(stage) -> float:
    """Parameters of a second model that reads all that a stage samples: in on-policy distillation the teacher; else 0.

    (PPO's other networks have the policy's size, and are in `flops`.)
    """
    reads = stage.name == "13_baseline" and stage.method == "distillation"
    return parameters_of(replace(stage, student=None)) if reads else 0.0


def flops(stage: str, parameters: float, generated: float, trained: float, reader: float = 0.0) -> float:
    """Operations of a stage that generated and trained on so many tokens with a model of N = `parameters`.

    What it generated is read by a model of `reader` parameters too.
    """
    if stage == "06_ppo":
        return parameters * (FORWARD * (1 + PPO_FORWARDS) * generated + TRAINING * PPO_TRAINED * trained)
    return parameters * (FORWARD * generated + TRAINING * trained) + reader * FORWARD * generated


def ledger(costs: pd.DataFrame) -> pd.DataFrame:
    """Costs with `flops`; columns stage, parameters, tokens_generated and tokens_trained are read.

    And reader_parameters, which results before version 1.0.0 do not have.
    """
    costs = costs if "reader_parameters" in costs else costs.assign(reader_parameters=0.0)
    rows = costs[["stage", "parameters", "tokens_generated", "tokens_trained", "reader_parameters"]]
    return costs.assign(flops=[flops(*row) for row in rows.itertuples(index=False)])
