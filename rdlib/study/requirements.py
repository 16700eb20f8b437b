"""Checks of what a study needs besides this project, before anything is computed: packages, servers, models."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rdlib.errors import UserError
from rdlib.settings import Model, Training

# By the name that a setting knows them by: the module, and what pip calls it.
REPORTERS = {name: (name, name) for name in ("tensorboard", "wandb", "trackio")}
ATTENTION = {
    "flash_attention_2": ("flash_attn", "flash-attn"),
    "flash_attention_3": ("flash_attn_interface", "flash-attn-3"),
}
SCORED = ("05_reward_model", "06_ppo")
TRAINED = ("03_sft_warmup", *SCORED, "13_baseline")
SAMPLED = ("01_teacher_responses", "01_held_out", "04_student_responses", "07_evaluate")


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
    """UserError where a stage samples by vLLM, which is not installed here."""
    if _sampler(stage) == "vllm":
        from rdlib.engines.vllm_engine import require_vllm

        require_vllm()


def _sampler(stage) -> str | None:
    """The engine that a stage samples with; None where it only trains or reads."""
    if stage.asked is not None:
        return stage.asked.engine
    if stage.name == "06_ppo":
        return stage.profile.ppo.sampler
    return stage.profile.generation.engine if stage.name in ("04_student_responses", "07_evaluate") else None


# Engines of which only texts come back: no token's probability, and nothing that could be trained.
TEXT_ALONE = ("openai", "replay")


def check_teachers(stages: Iterable) -> None:
    """UserError for the first stage that is not done and cannot get what it needs from its teacher or its models.

    Each server that stages would ask is asked once, for its models. What is under way in a batch is not asked too.
    """
    from rdlib.study import outlook  # late: they load the engines, which read the environment

    asked: dict[tuple[str | None, str], Model] = {}
    stages = list(stages)
    for stage in stages:
        needs_weights, asks = _needs_weights(stage), stage.asked and stage.asked.engine == "openai"
        if (needs_weights or asks) and not stage.done:
            if problem := needs_weights or outlook.under_way(stage):
                raise UserError(problem)
            asked.setdefault((stage.asked.base_url, stage.asked.model), stage.asked)
    for stage in stages:
        outlook.check_recording(stage)
    check_models(stages)
    for model in asked.values():
        _check_server(model)


def check_gold(stage) -> None:
    """UserError where a test question has no gold answer, by which the reviewers' questions are judged."""
    from rdlib.tasks import data

    if not stage.dataset_settings.own:
        return
    if any(
        q.split == "test" and q.answer is None for q in data.load(stage.dataset, stage.dataset_settings, stage.root)
    ):
        raise UserError(
            f"The reviewers' questions are judged by gold answers, which test questions of datasets.{stage.dataset} "
            f"lack: add the answers, or leave the reviewers' questions out."
        )


def _needs_weights(stage) -> str | None:
    """Why a stage cannot use its teacher as the profile has it; None where it can."""
    if stage.name == "13_baseline" and stage.method == "distillation":
        name, why = stage.teacher, "on-policy distillation learns from the teacher's log-probabilities"
    elif stage.name == "13_style":
        name, why = stage.teacher, "what can be seen of the teacher is judged by its log-probabilities"
    elif stage.student in stage.profile.teachers and stage.name != "07_evaluate":
        name, why = stage.student, "the teacher itself is to be trained"
    else:
        return None
    model = stage.profile.model_of(name)
    if model.engine not in TEXT_ALONE:
        return None
    return (
        f"{stage.label}: {why}, but the engine {model.engine} of {name} gives texts alone: take a teacher whose "
        f"weights are available here (engine transformers or vllm), or leave the reviewers' questions out."
    )


def _check_server(model: Model) -> None:
    from rdlib.engines import server

    with closing(server.ServerEngine(model, server.Settings(model.model, 1), server.key_of(model))) as engine:
        engine.check()


# ---- models, by their small files


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

    def first(self, names: Iterable[str]):
        """One of the stages of these names that use the model; None where there is none."""
        return next((self.stages[name] for name in names if name in self.stages), None)

    @property
    def named(self) -> str:
        """The model's name and architecture, for messages."""
        return f"{self.label} ({self.config.model_type})"


def check_models(stages: Iterable) -> None:
    """UserError for the first model that stages which are not done would fail with, by its small files: no weights.

    Configurations say whether a reward model can be made, PPO can compute the logits, adapters find their layers and
    prompts have room; tokenizers are probed as they are when a stage loads them.

    The study's own micro models are left out, and models whose files are not here.
    """
    for use in uses(stages):
        if use.config is not None:
            for one in CHECKS:
                one(use)


def uses(stages: Iterable) -> list[Use]:
    """Each model that stages which are not done load, once, and what for; of a student as it is before training."""
    found: dict[str, Use] = {}
    for stage in stages:
        for name in sorted({stage.teacher, stage.student} - {None}):
            if (name in found and stage.name in found[name].stages) or not _loads(stage, name):
                continue
            model = _resolved(stage, name)
            micro = (Path(model.model) / "recipe.json").is_file()  # pretrained by this project
            if not micro and not stage.done:
                found.setdefault(name, Use(model, name)).stages[stage.name] = stage
    return list(found.values())


def _loads(stage, name: str) -> bool:
    """Whether a stage reads the files of the model of this name, or of what was trained from it."""
    if name == stage.student:
        return stage.name in (*TRAINED, *SAMPLED)
    here = stage.profile.model_of(name).engine in ("transformers", "vllm")
    return here and ((stage.name in SAMPLED and stage.student is None) or _distils(stage))


def _distils(stage) -> bool:
    return stage.name == "13_baseline" and stage.method == "distillation"


def _resolved(stage, name: str) -> Model:
    model = stage.profile.model_of(name)
    folder = stage.root / model.model
    return model.model_copy(update={"model": str(folder), "revision": None}) if folder.is_dir() else model


def _tokenizer(use: Use) -> None:
    from rdlib.engines import models, stateful

    try:
        models.load_tokenizer(use.model)
    except UserError as error:
        if not str(error).startswith("The model "):  # its files are not here
            raise
    if use.first((*SAMPLED, *TRAINED)) is not None and stateful.keeps_a_state(use.config):
        stateful.say(use.config.model_type)


def _room(use: Use) -> None:
    from rdlib.engines import models

    for stage in use.stages.values():
        models.require_room(models.context(use.config), 1, stage.dataset_settings.max_tokens)


def _reward_model(use: Use) -> None:
    from rdlib.engines import scorers

    stage = use.first(SCORED)
    if stage is not None and not scorers.can_be_made(use.config):
        raise UserError(
            f"{stage.label}: no reward model can be made of {use.named}, on whose body no linear head can be put: take "
            f"a decoder-only student of another architecture, such as Llama or Qwen2."
        )


def _logits(use: Use) -> None:
    from rdlib.engines import logits

    stage = use.first(["06_ppo"])
    if stage is not None and (setting := logits.changed_by(use.config)):
        raise UserError(
            f"{stage.label}: PPO does not support {use.named}, which scales or caps its logits ({setting}): choose a "
            f"student of another architecture, such as Llama or Qwen2."
        )


def _adapters(use: Use) -> None:
    from rdlib.engines import adapters

    stage = use.first(TRAINED)
    if stage is None:
        return
    for section in ("training", "sft"):
        lora = getattr(stage.profile, section).lora
        if lora is not None and (problem := adapters.problem(use.config, lora)):
            raise UserError(f"{section}.lora does not fit {use.named}: {problem}")


def _vocabularies(use: Use) -> None:
    """Distillation compares distributions over one vocabulary; embeddings of two sizes share their first ids."""
    from rdlib.engines import models

    stage = use.first(["13_baseline"])
    if stage is None or use.label != stage.student or not _distils(stage):
        return
    teacher = _resolved(stage, stage.teacher)
    try:
        own, others = models.vocabulary(use.model), models.vocabulary(teacher)
    except UserError:  # its files are not here
        return
    if own != others:
        raise UserError(
            f"{stage.label}: the teacher {teacher.model} has another vocabulary than the student {use.label}, so their "
            f"token distributions cannot be compared: take a teacher with the student's tokenizer, or leave the "
            f"reviewers' questions out."
        )


CHECKS = (_tokenizer, _room, _reward_model, _logits, _adapters, _vocabularies)
