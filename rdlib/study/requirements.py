"""What a study needs besides this project, asked for before anything is computed: packages, servers, weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from contextlib import closing

from rdlib.errors import UserError
from rdlib.settings import Model, Training
from rdlib.study import preflight

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
    """UserError where a stage samples by vLLM, which is not installed here."""
    if _sampler(stage) == "vllm":
        from rdlib.engines.vllm_engine import require_vllm

        require_vllm()


def _sampler(stage) -> str | None:
    """The engine that a stage samples with; None where it only trains or reads."""
    if _is_teachers(stage):
        return stage.profile.model_of(stage.teacher).engine
    if stage.name == "06_ppo":
        return stage.profile.ppo.sampler
    return stage.profile.generation.engine if stage.name in ("04_student_responses", "07_evaluate") else None


# Engines of which only texts come back: no token's probability, and nothing that could be trained.
TEXT_ALONE = ("openai", "replay")


def check_teachers(stages: Iterable) -> None:
    """UserError for the first stage that is not done and cannot get what it needs from its teacher or its models.

    Each server that stages would ask is asked once, for its models. What is under way in a batch is not asked too.
    """
    from rdlib.study import batch_requests, outlook  # late: they load the engines, which read the environment

    asked: dict[tuple[str | None, str], Model] = {}
    stages = list(stages)
    for stage in stages:
        needs_weights, asks = _needs_weights(stage), _asks(stage)
        if (needs_weights or asks) and not stage.done:
            if needs_weights:
                raise UserError(needs_weights)
            if waiting := batch_requests.under_way(stage):
                raise UserError(waiting)
            asked.setdefault((asks.base_url, asks.model), asks)
    for stage in stages:
        outlook.check_recording(stage)
    preflight.check(stages)
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
        f"weights are at hand (engine transformers or vllm), or leave the reviewers' questions out."
    )


def _is_teachers(stage) -> bool:
    """Whether a stage samples from a teacher as it is."""
    return stage.name in ("01_teacher_responses", "01_held_out") or stage.method == "teacher"


def _asks(stage) -> Model | None:
    """The model behind a server that a stage samples from; None where there is none."""
    if not _is_teachers(stage):  # what the study trains is never on a server
        return None
    model = stage.profile.model_of(stage.teacher)
    return model if model.engine == "openai" else None


def _check_server(model: Model) -> None:
    from rdlib.engines import server

    with closing(server.ServerEngine(model, server.Settings(model.model, 1), server.key_of(model))) as engine:
        engine.check()
