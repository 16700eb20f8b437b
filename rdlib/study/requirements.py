"""Checks of what a study needs besides this project, before anything is computed: packages, servers, models."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import closing

from rdlib.errors import UserError
from rdlib.settings import Model, Training

# By the name that a setting knows them by: the module, and what pip calls it.
PACKAGES = {name: (name, name) for name in ("tensorboard", "wandb", "trackio")}
PACKAGES |= {"flash_attention_2": ("flash_attn", "flash-attn")}
PACKAGES |= {"flash_attention_3": ("flash_attn_interface", "flash-attn-3")}
TEXT_ALONE = ("openai", "replay")  # engines that give no token's probability, and nothing that could be trained
UNREACHABLE = "We couldn't connect to"  # how transformers begins to say that a hub was not reached
SCORED = ("05_reward_model", "06_ppo")
TRAINED = ("03_sft_warmup", *SCORED, "13_baseline")
SAMPLED = ("01_teacher_responses", "01_held_out", "04_student_responses", "07_evaluate", "13_judged_responses")


def check(training: Training) -> None:
    """UserError for the first package that a training's settings name and that is not installed here."""
    wanted = [("training.report_to", name) for name in training.report_to]
    wanted.append(("training.attention", training.attention))
    for setting, name in wanted:
        module, package = PACKAGES.get(name, (None, None))
        if module is not None and importlib.util.find_spec(module) is None:
            raise UserError(
                f"{setting} names {name}, which is not installed here: pip install {package}, or take it out of "
                f"the profile."
            )


def sampler_of(stage) -> str | None:
    """The engine that a stage samples with; None where it only trains or reads."""
    if stage.name == "06_ppo":
        return stage.profile.ppo.sampler
    if stage.name not in SAMPLED:
        return None
    if stage.asked is not None:
        return stage.asked.engine
    return stage.profile.model_of(stage.student).engine if stage.method == "icl" else stage.profile.generation.engine


def check_sampler(stage) -> None:
    """UserError where a stage samples by vLLM, which is not installed here."""
    if sampler_of(stage) == "vllm":
        from rdlib.engines.vllm_engine import require_vllm

        require_vllm()


def check_gold(stage) -> None:
    """UserError where a test question has no gold answer, by which the reviewers' questions are judged."""
    from rdlib.tasks import data

    settings = stage.dataset_settings
    questions = data.load(stage.dataset, settings, stage.root) if settings.own else []
    if any(question.split == "test" and question.answer is None for question in questions):
        raise UserError(
            f"The reviewers' questions are judged by gold answers, which test questions of datasets.{stage.dataset} "
            f"lack: add the answers, or leave the reviewers' questions out."
        )


# ---- teachers


def check_teachers(stages: Iterable) -> None:
    """UserError for the first stage that is not done and cannot get what it needs from its teacher or its models.

    Each server that stages would ask is asked once, for its models. What is under way in a batch is not asked too.
    """
    from rdlib.engines import server  # late: engines read the environment
    from rdlib.study import outlook

    asked: dict[tuple[str | None, str], Model] = {}
    stages = [stage for stage in stages if not stage.done]
    for stage in stages:
        asks = stage.asked is not None and stage.asked.engine == "openai"
        if problem := _needs_weights(stage) or (asks and outlook.under_way(stage)):
            raise UserError(problem)
        if asks:
            asked.setdefault((stage.asked.base_url, stage.asked.model), stage.asked)
    for stage in stages:
        outlook.check_recording(stage)
    check_models(stages)
    for model in asked.values():
        with closing(server.ServerEngine(model, server.Settings(model.model, 1), server.key_of(model))) as engine:
            engine.check()


def _needs_weights(stage) -> str | None:
    """Why a stage cannot use its teacher as the profile has it; None where it can."""
    if _distils(stage):
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


def _distils(stage) -> bool:
    return stage.name == "13_baseline" and stage.method == "distillation"


# ---- models, by their small files


def check_models(stages: Iterable) -> None:
    """UserError for the first model that stages would fail with, by its small files: no weights are read.

    Configurations say whether a reward model can be made, PPO can compute the logits, adapters find their layers and
    prompts have room; tokenizers are probed as they are when a stage loads them. Models on the hub that cannot be
    reached from here are left out.
    """
    found = uses(stages)
    if not found:
        return
    from rdlib.engines import models, probe, stateful

    for name, used in found.items():
        model = models.resolve(used[0].profile.model_of(name), used[0].root)
        students = [stage for stage in used if stage.student == name]
        if students or model.engine == "transformers":
            models.check_files(model, used[0].root)
        if (config := _within_reach(models.load_config, model)) is not None:
            tokenizer = _within_reach(models.load_tokenizer, model)
            if tokenizer is not None and any(stage.method == "icl" for stage in used):
                probe.check_examples(tokenizer)
            if stateful.keeps_a_state(config):
                stateful.say(config.model_type)
            for stage in used:
                models.require_room(models.context(config), 1, stage.dataset_settings.max_tokens)
            for problem in _problems(students, config, f"{name} ({config.model_type})"):
                raise UserError(problem)


def uses(stages: Iterable) -> dict[str, list]:
    """By each model that stages load, these stages, one for each name and method; of a student as before training.

    Left out are the study's own micro models, which were pretrained by this project.
    """
    found: dict[str, dict] = {}
    for stage in stages:
        for name in sorted({stage.teacher, stage.student} - {None}):
            recipe = stage.root / stage.profile.model_of(name).model / "recipe.json"
            if _loads(stage, name) and not recipe.is_file():
                found.setdefault(name, {}).setdefault((stage.name, stage.method), stage)
    return {name: sorted(used.values(), key=lambda stage: stage.name) for name, used in found.items()}


def _loads(stage, name: str) -> bool:
    """Whether a stage reads the files of the model of this name, or of what was trained from it."""
    if name == stage.student:
        return stage.name in (*TRAINED, *SAMPLED)
    here = stage.profile.model_of(name).engine not in TEXT_ALONE
    return here and ((stage.name in SAMPLED and stage.student is None) or _distils(stage))


def _within_reach(load, model: Model):
    """What `load` makes of a model's small files; None where they are on a hub that cannot be reached from here."""
    try:
        return load(model)
    except UserError as error:
        if UNREACHABLE in str(error):
            return None
        raise


def _problems(stages: list, config, named: str) -> Iterator[str]:
    """Why a student of this configuration, `named` so, will not do for these stages."""
    from rdlib.engines import adapters, logits, scorers

    other = "of another architecture, such as Llama or Qwen2"
    if stages and (reason := adapters.cannot_be_built(config)):
        yield (
            f"{stages[0].label}: transformers cannot build {named} ({reason}): correct its config.json, or take a "
            f"student {other}."
        )
    for stage in stages:
        if stage.name in TRAINED and (kind := getattr(config, "quantization_config", None)):
            method = kind.get("quant_method") if isinstance(kind, dict) else kind.quant_method
            yield (
                f"{stage.label}: {named} is quantized ({method}), and cannot be trained: take the student whose "
                f"weights it was quantized from."
            )
        if stage.name in SCORED and not scorers.can_be_made(config):
            yield (
                f"{stage.label}: no reward model can be made of {named}, on whose body no linear head can be put: take "
                f"a decoder-only student {other}."
            )
        if stage.name == "06_ppo" and (setting := logits.changed_by(config)):
            yield (
                f"{stage.label}: PPO does not support {named}, which scales or caps its logits ({setting}): choose a "
                f"student {other}."
            )
        if _distils(stage) and (teacher := _other_vocabulary(stage)):
            yield (
                f"{stage.label}: the teacher {teacher} has another vocabulary than the student {stage.student}, so "
                f"their token distributions cannot be compared: take a teacher with the student's tokenizer, or leave "
                f"the reviewers' questions out."
            )
    trained = [stage for stage in stages if stage.name in TRAINED]
    for section in ("training", "sft") if trained else ():
        lora = getattr(trained[0].profile, section).lora
        if lora is not None and (problem := adapters.problem(config, lora)):
            yield f"{section}.lora does not fit {named}: {problem}"


def _other_vocabulary(stage) -> str | None:
    """The teacher, where its vocabulary is not the student's: embeddings of two sizes may share their first ids."""
    from rdlib.engines import models

    teacher, student = (models.resolve(stage.profile.model_of(n), stage.root) for n in (stage.teacher, stage.student))
    try:
        return None if models.vocabulary(teacher) == models.vocabulary(student) else teacher.model
    except UserError:  # the files of one are not here
        return None
