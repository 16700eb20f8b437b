"""Packages that settings ask for and that are no dependency of this project: asked for before anything is computed."""

from __future__ import annotations

import importlib.util

from rdlib.errors import UserError
from rdlib.settings import Training

# By the name that a setting knows them by: the module, and what pip calls it.
REPORTERS = {name: (name, name) for name in ("tensorboard", "wandb", "trackio")}
ATTENTION = {
    "flash_attention_2": ("flash_attn", "flash-attn"),
    "flash_attention_3": ("flash_attn_interface", "flash-attn-3"),
}


def check(training: Training) -> None:
    """UserError for the first package that a training's settings name and that is not installed here."""
    wanted = [("training.report_to", name, REPORTERS[name]) for name in training.report_to]
    if training.attention in ATTENTION:
        wanted.append(("training.attention", training.attention, ATTENTION[training.attention]))
    for setting, name, (module, package) in wanted:
        if importlib.util.find_spec(module) is None:
            raise UserError(
                f"{setting} names {name}, which is not installed here: pip install {package}, or take it out of "
                f"the profile."
            )


def check_sampler(stage) -> None:
    """UserError where a stage is PPO with rollouts by vLLM, which is not installed here."""
    if stage.name == "06_ppo" and stage.profile.ppo.sampler == "vllm":
        from rdlib.engines.vllm_engine import require_vllm

        require_vllm()
