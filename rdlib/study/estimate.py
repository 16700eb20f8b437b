"""What a study will take before it starts: `python -m rdlib.study.dag --profile params/paper.yaml --dry-run`.

A row a stage that is not done yet, with questions, samples, tokens, GPU hours, disk and memory of one GPU. Every
question counts as labelled and every response as long as `LENGTHS` says, so the counts are of the right size and
rather too high. Hours are operations (rdlib.evidence.ledger) over the share of the peak that `hardware` names: expect a
factor of two or three either way. Where there is no GPU the hours and the memory are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from rdlib.evidence import ledger
from rdlib.profile import Profile
from rdlib.settings import Dataset
from rdlib.study.stage import Stage

# Questions of the splits of appendix B.1, where a profile takes all there are.
SIZES = {
    "gsm8k": {"train": 6726, "validation": 747, "test": 1319, "perturbed_test": 10552},
    "mmlu_pro": {"train": 9204, "validation": 1023, "test": 1805, "perturbed_test": 0},
}
# Tokens of a prompt and of a response: of Llama-3's on GSM8K and MMLU-Pro (../shared/data), and of the micro models'.
LENGTHS = {
    "gsm8k": (130, 190),
    "mmlu_pro": (260, 330),
    "micro-gsm": (40, 45),
    "micro-mmlu": (50, 12),
    "questions": (150, 250),
}
BYTES_PER_TOKEN = 4.5  # of text, before compression
WEIGHT = 2  # bytes of a bf16 parameter
TRAINING_STATE = 16  # bytes a trained parameter: weights and gradient in bf16, master weights and Adam in float32
WORKSPACE_GIB = 8.0  # activations, caches, fragments


@dataclass(frozen=True)
class Work:
    """What a stage samples and trains: questions, samples, and tokens of each."""

    questions: int = 0
    samples: int = 0
    generated: int = 0
    trained: int = 0


def split_sizes(dataset: Dataset, root: Path) -> dict[str, int]:
    """Questions of each split of a dataset; UserError where a file of your own questions cannot be read."""
    given = {name: getattr(dataset, name) for name in ("train", "validation", "test", "perturbed_test")}
    if None not in given.values():
        return given
    if dataset.source in SIZES:
        known = SIZES[dataset.source]
    else:
        from rdlib.tasks import data

        splits = pd.Series([q.split for q in data.load(dataset.source, dataset, root)]).value_counts()
        known = {name: int(splits.get(name, 0)) for name in given}
    return {name: known[name] if count is None else min(count, known[name]) for name, count in given.items()}


def work_of(stage: Stage) -> Work:
    """Upper bounds of what a stage does, from its profile's numbers."""
    profile, sizes = stage.profile, split_sizes(stage.dataset_settings, stage.root)
    prompt, response = LENGTHS[stage.dataset_settings.source]
    response = min(response, stage.dataset_settings.max_tokens)
    train, both = sizes["train"], sizes["train"] + sizes["validation"]
    if stage.name == "01_teacher_responses":
        teacher = profile.teacher_sampling
        temperatures = (*teacher.high_temperatures, *teacher.low_temperatures)
        each = sum(1 if t == 0 else teacher.samples_per_temperature for t in temperatures)
        return Work(both, both * each, both * each * response)
    if stage.name == "03_sft_warmup":
        teacher = profile.teacher_sampling
        most = teacher.samples_per_temperature * len((*teacher.high_temperatures, *teacher.low_temperatures))
        each = min(profile.sft.responses_per_question or most, most)
        length = min(prompt + response, profile.sft.max_length)
        return Work(train, 0, 0, train * each * length * profile.sft.epochs)
    if stage.name in ("04_student_responses", "13_judged_responses"):
        asked = both if stage.name == "04_student_responses" else sizes["validation"]
        samples = asked * profile.student_sampling.samples
        return Work(asked, samples, samples * response)
    if stage.name == "05_reward_model":
        kinds, settings = 3, profile.reward_model
        tokens = train * kinds * settings.samples_per_kind * (prompt + response) * settings.epochs
        return Work(train, 0, 0, tokens)
    if stage.name == "06_ppo":
        episodes = profile.ppo.total_updates * profile.ppo.episodes_per_update
        return Work(train, episodes, episodes * response, episodes * response * profile.ppo.epochs)
    if stage.name == "07_evaluate":
        asked = sizes["test"] + sizes["perturbed_test"]
        return Work(asked, asked, asked * response)
    if stage.name == "13_baseline":
        return _baseline_work(stage, train, prompt, response)
    return Work(both)


def _baseline_work(stage: Stage, train: int, prompt: int, response: int) -> Work:
    settings = stage.profile.baselines
    if stage.method == "rft":
        each = stage.profile.sft.responses_per_question or stage.profile.student_sampling.samples
        return Work(train, 0, 0, train * each * (prompt + response) * stage.profile.sft.epochs)
    if stage.method == "dpo":  # two pairs of Eq. 5, of two sequences each, for each of n
        pairs = 2 * stage.profile.reward_model.samples_per_kind * train
        return Work(train, 0, 0, 2 * pairs * (prompt + response) * settings.dpo_epochs)
    samples = settings.distillation_steps * settings.distillation_prompts_per_step
    if stage.method == "grpo":
        samples = settings.grpo_steps * settings.grpo_prompts_per_step * settings.grpo_samples_per_prompt
    return Work(train, samples, samples * response, samples * response)


def memory_gib(stage: Stage, parameters: float, gpus: int) -> float:
    """Memory of one GPU: weights where a stage samples, training state where it trains, spread over the GPUs."""
    gib = parameters / 2**30
    if stage.name in ("03_sft_warmup", "13_baseline", "05_reward_model"):
        return gib * TRAINING_STATE / gpus + WORKSPACE_GIB
    if stage.name == "06_ppo":  # policy and value model trained, reference and reward model whole on every GPU
        return gib * (2 * TRAINING_STATE / gpus + 2 * WEIGHT) + WORKSPACE_GIB
    if parameters:
        return gib * WEIGHT / gpus + WORKSPACE_GIB
    return 0.0


def row_of(stage: Stage) -> dict[str, Any]:
    """The estimate of one stage as a row of the table."""
    work, parameters, hardware = work_of(stage), ledger.parameters_of(stage), stage.profile.hardware
    sampling = ledger.flops(stage.name, parameters, work.generated, 0)
    training = ledger.flops(stage.name, parameters, 0, work.trained)
    peak = hardware.gpu_tflops * 1e12
    seconds = sampling / (peak * hardware.sampling_utilisation) + training / (peak * hardware.training_utilisation)
    saved = parameters * WEIGHT if work.trained else 0.0
    return {
        "stage": stage.name,
        "cell": "/".join(part for part in (stage.dataset, stage.teacher, stage.student, stage.method) if part),
        "variant": stage.variant,
        "seed": stage.seed,
        "questions": work.questions,
        "samples": work.samples,
        "mtokens_generated": work.generated / 1e6,
        "mtokens_trained": work.trained / 1e6,
        "gpu_hours": seconds / 3600 if hardware.gpus else math.nan,
        "disk_gb": (work.generated * BYTES_PER_TOKEN + saved) / 1e9,
        "gpu_memory_gib": memory_gib(stage, parameters, hardware.gpus) if hardware.gpus else math.nan,
    }


def estimate(stages: list[Stage]) -> pd.DataFrame:
    """A row for each stage; nothing is read but the profile and, for local models, the size of their files."""
    return pd.DataFrame([row_of(stage) for stage in stages])


def summary(table: pd.DataFrame, profile: Profile) -> str:
    """The estimate in words: totals by stage, and what does not fit."""
    if table.empty:
        return "Everything is done: nothing to do."
    columns = ["questions", "samples", "mtokens_generated", "mtokens_trained", "gpu_hours", "disk_gb"]
    by_stage = table.groupby("stage")[columns].sum(min_count=1)
    by_stage.insert(0, "runs", table.groupby("stage").size())
    by_stage["gpu_memory_gib"] = table.groupby("stage")["gpu_memory_gib"].max()
    total = by_stage[["runs", *columns]].sum(min_count=1).rename("total")
    shown = pd.concat([by_stage, total.to_frame().T])
    whole = ["runs", "questions", "samples"]
    formats = dict.fromkeys(whole, "{:,.0f}".format)
    text = shown.to_string(na_rep="", float_format="{:,.2f}".format, formatters=formats)
    gpus, room = profile.hardware.gpus, profile.hardware.gpu_memory_gib
    lines = [text, ""]
    if gpus:
        hours = table["gpu_hours"].sum()
        lines.append(f"About {hours:,.1f} GPU hours, {hours / gpus:,.1f} h on {gpus} GPUs; within a factor of three.")
    for row in table[table["gpu_memory_gib"] > room].drop_duplicates("stage").itertuples():
        lines.append(
            f"{row.stage} ({row.cell}) wants about {row.gpu_memory_gib:.0f} GiB on each GPU and there are {room:.0f}: "
            f"use LoRA, more GPUs, or a smaller model."
        )
    return "\n".join(lines)
