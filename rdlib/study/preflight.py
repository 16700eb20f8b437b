"""What the models of a study would meet, told by their small files before the first notebook: no weights are read.

Configurations say whether a reward model can be made, PPO can compute the logits, adapters find their layers and
prompts have room; tokenizers are probed as they are when a stage loads them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rdlib.errors import UserError
from rdlib.settings import Model

SCORED = ("05_reward_model", "06_ppo")
TRAINED = ("03_sft_warmup", *SCORED, "13_baseline")
SAMPLED = ("01_teacher_responses", "01_held_out", "04_student_responses", "07_evaluate")
LOADED = ("transformers", "vllm")  # engines that read a model's files here


@dataclass
class Use:
    """What stages do with a model of a profile: `stages` by name, of which one shows the settings."""

    model: Model
    label: str
    stages: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def config(self):
        """The model's configuration; None where it cannot be read, which the stage that loads it says better."""
        from rdlib.engines import models

        return models.config_of(self.model)


def check(stages: Iterable) -> None:
    """UserError for the first model that stages which are not done would fail with.

    The study's own micro models are left out, and models whose files are not at hand.
    """
    for use in uses(stages):
        if use.config is not None:
            _check_tokenizer(use)
            for one in (_check_room, _check_reward_model, _check_logits, _check_adapters, _check_vocabularies):
                one(use)


def uses(stages: Iterable) -> list[Use]:
    """Each model that stages which are not done load, once, and what for; of a student as it is before training."""
    found: dict[str, Use] = {}
    for stage in stages:
        for name in sorted({stage.teacher, stage.student} - {None}):
            known = name in found and stage.name in found[name].stages
            if known or not _loads(stage, name):
                continue
            model = _resolved(stage, name)
            if not _is_micro(model) and not stage.done:
                found.setdefault(name, Use(model, name)).stages[stage.name] = stage
    return list(found.values())


def _is_micro(model: Model) -> bool:
    """Whether a model was pretrained by this project."""
    return (Path(model.model) / "recipe.json").is_file()


def _loads(stage, name: str) -> bool:
    """Whether a stage reads the files of the model of this name, or of what was trained from it."""
    if name == stage.student:
        return stage.name in (*TRAINED, *SAMPLED)
    engine = stage.profile.model_of(name).engine
    samples = stage.name in SAMPLED and stage.student is None
    return engine in LOADED and (samples or _distils(stage))


def _distils(stage) -> bool:
    return stage.name == "13_baseline" and stage.method == "distillation"


def _resolved(stage, name: str) -> Model:
    model = stage.profile.model_of(name)
    folder = stage.root / model.model
    return model.model_copy(update={"model": str(folder), "revision": None}) if folder.is_dir() else model


def _trained(use: Use):
    """A stage that trains the model, None where none does."""
    return next((stage for name, stage in use.stages.items() if name in TRAINED), None)


# ---- the checks


def _check_tokenizer(use: Use) -> None:
    from rdlib.engines import models, stateful

    try:
        models.load_tokenizer(use.model)
    except UserError as error:
        if not str(error).startswith("The model "):  # its files are not at hand
            raise
    samples = any(name in SAMPLED or name in TRAINED for name in use.stages)
    if samples and stateful.keeps_a_state(use.config):
        stateful.say(use.config.model_type)


def _check_room(use: Use) -> None:
    from rdlib.engines import models

    limit = models.context(use.config)
    for stage in use.stages.values():
        models.require_room(limit, 1, stage.dataset_settings.max_tokens)


def _check_reward_model(use: Use) -> None:
    from rdlib.engines import scorers

    stage = next((use.stages[name] for name in SCORED if name in use.stages), None)
    if stage is not None and not scorers.can_be_made(use.config):
        raise UserError(
            f"{stage.label}: no reward model can be made of {use.label} ({use.config.model_type}), on whose body no "
            f"linear head can be put: take a decoder-only student of another architecture, such as Llama or Qwen2."
        )


def _check_logits(use: Use) -> None:
    from rdlib.engines import logits

    stage = use.stages.get("06_ppo")
    if stage is not None and (setting := logits.changed_by(use.config)):
        raise UserError(
            f"{stage.label}: PPO does not support {use.label} ({use.config.model_type}), which scales or caps its "
            f"logits ({setting}): choose a student of another architecture, such as Llama or Qwen2."
        )


def _check_adapters(use: Use) -> None:
    from rdlib.engines import adapters

    stage = _trained(use)
    if stage is None:
        return
    found = [("training.lora", stage.profile.training.lora), ("sft.lora", stage.profile.sft.lora)]
    for setting, lora in found:
        if lora is not None and (problem := adapters.problem(use.config, lora)):
            raise UserError(f"{setting} does not fit {use.label} ({use.config.model_type}): {problem}")


def _check_vocabularies(use: Use) -> None:
    """Distillation compares distributions over one vocabulary; embeddings of two sizes share their first ids."""
    from rdlib.engines import models

    stage = use.stages.get("13_baseline")
    if stage is None or use.label != stage.student or not _distils(stage):
        return
    teacher = _resolved(stage, stage.teacher)
    try:
        own, others = models.vocabulary(use.model), models.vocabulary(teacher)
    except UserError:  # its files are not at hand
        return
    if own != others:
        raise UserError(
            f"{stage.label}: the teacher {teacher.model} has another vocabulary than the student {use.label}, so their "
            f"token distributions cannot be compared: take a teacher with the student's tokenizer, or leave the "
            f"reviewers' questions out."
        )
