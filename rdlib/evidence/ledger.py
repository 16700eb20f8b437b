"""R6, the cost ledger: floating-point operations of every stage from its tokens and its model's size.

The usual estimate: with N parameters a forward pass costs 2N operations a token and a backward pass twice that.
What is trained on and what is read besides are whole sequences, prompt and response. Left out are attention's own term,
and the prompts where responses are sampled, which are read once for all their samples.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from rdlib.errors import UserError

FORWARD, TRAINING = 2, 6
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

    (PPO's other networks count as of the policy's size, also a reward model that has another.)
    """
    reads = stage.name == "13_baseline" and stage.method == "distillation"
    return parameters_of(replace(stage, student=None)) if reads else 0.0


def flops(
    stage: str, parameters: float, generated: float, trained: float, read: float = 0.0, reader: float = 0.0
) -> float:
    """Operations of a stage that generated, trained on and `read` so many tokens with models of N = `parameters`.

    What it trained on a model of `reader` parameters reads too.
    """
    networks = PPO_TRAINED if stage == "06_ppo" else 1
    forwards = parameters * FORWARD * (generated + read) + reader * FORWARD * trained
    return forwards + parameters * TRAINING * networks * trained


def ledger(costs: pd.DataFrame) -> pd.DataFrame:
    """Costs with `flops`; columns stage, parameters, tokens_generated and tokens_trained are read.

    And tokens_read and reader_parameters, which results before version 1.0.0 do not have: they tell responses alone,
    which PPO's four networks read.
    """
    costs = costs if "reader_parameters" in costs else costs.assign(reader_parameters=0.0)
    if "tokens_read" not in costs:
        costs = costs.assign(tokens_read=4 * costs["tokens_generated"].where(costs["stage"] == "06_ppo", 0))
    rows = costs[["stage", "parameters", "tokens_generated", "tokens_trained", "tokens_read", "reader_parameters"]]
    return costs.assign(flops=[flops(*row) for row in rows.itertuples(index=False)])
