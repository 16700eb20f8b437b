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
COMPARED = ("R1", "R2")  # the questions whose arms are compared by what making them costs
NO_LEVEL = -1.0


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


# ---- tables


def ledger_table(costs: pd.DataFrame) -> pd.DataFrame:
    """R6: tokens, operations and seconds of every stage that an arm of R1 or R2 needs, by cell; means over seeds."""
    keys = ["stage", "teacher", "student", "method", "variant"]
    whole = ["parameters", "tokens_generated", "tokens_read", "tokens_trained", "reader_parameters"]
    costs = ledger(costs[costs["question"].isin(COMPARED)])
    of_cell = costs.groupby("cell", sort=False)
    means = {cell: part.groupby(keys, sort=True)[[*whole, "flops", "seconds"]].mean() for cell, part in of_cell}
    table = pd.concat(means, names=["cell"]).reset_index()
    return table.assign(gflop=table["flops"] / 1e9).drop(columns="flops").round(1).astype(dict.fromkeys(whole, int))


def pareto_table(arms: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of the arms of R1 and R2 of each cell against the operations that making one takes, inputs included.

    Evaluation is left out; an arm of both questions appears once. `arms`: by `accuracy.arm_accuracies`.
    """
    names = ["cell", "question", "arm", "level"]
    table = arms[arms["question"].isin(COMPARED)]
    spent = ledger(costs[costs["stage"] != "07_evaluate"])
    spent = spent.fillna({"level": NO_LEVEL}).groupby(names)["flops"].sum() / costs["seed"].nunique()
    keys = table.fillna({"level": NO_LEVEL}).set_index(names).index
    table = table.assign(gflop=spent.reindex(keys).to_numpy() / 1e9, level=table["level"].replace(1.0, float("nan")))
    return table.drop_duplicates(["cell", "benchmark", "arm", "level"])


def cost_table(costs: pd.DataFrame) -> pd.DataFrame:
    """Seconds and tokens of each stage: number of runs, their sums and the mean seconds of one run."""
    table = costs.groupby("stage", sort=True).agg(
        runs=("seconds", "size"),
        seconds=("seconds", "sum"),
        seconds_a_run=("seconds", "mean"),
        tokens_generated=("tokens_generated", "sum"),
        tokens_trained=("tokens_trained", "sum"),
    )
    return table.reset_index()


def compute_factor(costs: pd.DataFrame) -> float:
    """Tokens generated by the pipeline of Ours over those by the teacher alone; `costs` of one cell's stages.

    Columns stage and tokens_generated; evaluation is left out.
    """
    generated = costs[costs["stage"] != "07_evaluate"].groupby("stage")["tokens_generated"].sum()
    return float(generated.sum() / generated["01_teacher_responses"])
