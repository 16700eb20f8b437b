"""What a study will take before it starts: `python -m rdlib study --profile params/paper.yaml --dry-run`.

A row a stage that is not done yet, with questions, samples, tokens, GPU hours, disk and memory of one GPU. Every
question counts as labelled and every response as long as `sizes.LENGTHS` says, so the counts are of the right size and
rather too high. Hours are operations (rdlib.evidence.ledger) over the share of the peak that `hardware` names, of GPUs
or of a processor's cores: expect a factor of two or three either way. Memory is rdlib.study.stage_memory's, of GPUs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import pandas as pd

from rdlib.evidence import gpu_rows, ledger
from rdlib.method import rl
from rdlib.profile import Profile
from rdlib.settings import Weights
from rdlib.study import stage_memory
from rdlib.study.memory import GIB, Memory
from rdlib.study.sizes import LENGTHS, split_sizes
from rdlib.study.stage import Stage

BYTES_PER_TOKEN = 4.5  # of text, before compression
WEIGHT = {"float32": 4, "bfloat16": 2, "auto": 2}  # bytes of a saved parameter
PARTS = [part.name for part in fields(Memory)]


@dataclass(frozen=True)
class Work:
    """What a stage samples, trains on and reads: questions, samples, and tokens of each."""

    questions: int = 0
    samples: int = 0
    generated: int = 0
    trained: int = 0
    read: int = 0  # besides, without gradient


def work_of(stage: Stage) -> Work:
    """Upper bounds of what a stage does, from its profile's numbers."""
    profile, sizes = stage.profile, split_sizes(stage.dataset_settings, stage.root)
    prompt, response = LENGTHS[stage.dataset_settings.source]
    response = min(response, stage.dataset_settings.max_tokens)
    train, both = sizes["train"], sizes["train"] + sizes["validation"]
    if stage.name in ("01_teacher_responses", "01_held_out"):
        held_out = stage.name == "01_held_out"
        asked = sizes["test"] if held_out else both
        sets = [n for confidence, _, n in profile.teacher_sampling.sets if confidence == "high" or not held_out]
        return Work(asked, asked * sum(sets), asked * sum(sets) * response)
    if stage.name == "03_sft_warmup":
        most = profile.teacher_sampling.samples_per_temperature * len(profile.teacher_sampling.sets)
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
        whole = episodes * (prompt + response)
        return Work(train, episodes, episodes * response, whole * profile.ppo.epochs, rl.READERS * whole)
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
        tokens = 2 * pairs * (prompt + response) * settings.dpo_epochs
        return Work(train, 0, 0, tokens, tokens)
    samples = settings.distillation_steps * settings.distillation_prompts_per_step
    if stage.method == "grpo":
        samples = settings.grpo_steps * settings.grpo_prompts_per_step * settings.grpo_samples_per_prompt
    whole = samples * (prompt + response)
    with_reference = stage.method == "grpo" and settings.grpo_kl_coef > 0
    return Work(train, samples, samples * response, whole, whole if with_reference else 0)


def peak_of(profile: Profile) -> float:
    """Operations a second of a GPU, or of a core where the profile computes without one; NaN where nothing tells."""
    hardware = profile.hardware
    if hardware.gpus:
        return hardware.gpu_tflops * 1e12
    if hardware.cpu_tflops == "measured":
        return measured_peak(profile.training.weights)
    return (hardware.cpu_tflops or math.nan) * 1e12


@cache
def measured_peak(weights: Weights, size: int = 1024, seconds: float = 0.3) -> float:
    """Operations a second that products of square matrices reach here, in the numbers that weights are held in."""
    import torch  # late: a dry run of a profile with GPUs has no use for it

    from rdlib.engines import models

    a = torch.ones(size, size, dtype=models.dtype_of(weights))
    a @ a  # the first product chooses its kernel
    started, count = time.process_time(), 0
    while (taken := time.process_time() - started) < seconds:
        a @ a
        count += 1
    return count * 2 * size**3 / taken


def row_of(stage: Stage) -> dict[str, Any]:
    """The estimate of one stage as a row of the table."""
    work, parameters, hardware = work_of(stage), ledger.parameters_of(stage), stage.profile.hardware
    reader = ledger.parameters_of_reader(stage)
    sampling = 0.0 if _is_sampled_elsewhere(stage) else ledger.flops(stage.name, parameters, work.generated, 0)
    training = ledger.flops(stage.name, parameters, 0, work.trained, work.read, reader)
    peak = peak_of(stage.profile)
    seconds = sampling / (peak * hardware.sampling_utilisation) + training / (peak * hardware.training_utilisation)
    saved = parameters * WEIGHT[stage.profile.training.weights] if work.trained else 0.0
    memory = {"source": "", "advice": "", "limit_gib": math.nan} | dict.fromkeys([*PARTS, "gpu_memory_gib"], math.nan)
    if hardware.gpus:
        found = stage_memory.of(stage)
        memory = {"source": found.source, "advice": found.advice, "limit_gib": found.limit / GIB}
        memory |= {part: getattr(found.memory, part) / GIB for part in PARTS}
        memory["gpu_memory_gib"] = found.memory.total / GIB
    return {
        "stage": stage.name,
        "cell": "/".join(part for part in (stage.dataset, stage.teacher, stage.student, stage.method) if part),
        "variant": stage.variant,
        "seed": stage.seed,
        "questions": work.questions,
        "samples": work.samples,
        "mtokens_generated": work.generated / 1e6,
        "mtokens_trained": work.trained / 1e6,
        "hours": seconds / 3600,
        "disk_gb": (work.generated * BYTES_PER_TOKEN + saved) / 1e9,
        **memory,
    }


def _is_sampled_elsewhere(stage: Stage) -> bool:
    """Whether a stage's samples come from a server or a recording, and take no operation here."""
    asks = stage.name in ("01_teacher_responses", "01_held_out") or stage.method == "teacher"
    return asks and stage.profile.model_of(stage.teacher).engine in ("openai", "replay")


def estimate(stages: list[Stage]) -> pd.DataFrame:
    """A row for each stage; nothing is read but the profile and, for local models, the size of their files."""
    return pd.DataFrame([row_of(stage) for stage in stages])


def summary(table: pd.DataFrame, profile: Profile, asked: Sequence[str] = ()) -> str:
    """The estimate in words: totals by stage, what servers are `asked`, the memory of a GPU, what does not fit."""
    if table.empty:
        return "Everything is done: nothing to do."
    columns = ["questions", "samples", "mtokens_generated", "mtokens_trained", "hours", "disk_gb"]
    by_stage = table.groupby("stage")[columns].sum(min_count=1)
    by_stage.insert(0, "runs", table.groupby("stage").size())
    total = by_stage[["runs", *columns]].sum(min_count=1).rename("total")
    shown = pd.concat([by_stage, total.to_frame().T])
    whole = ["runs", "questions", "samples"]
    formats = dict.fromkeys(whole, "{:,.0f}".format)
    shown = shown.rename(columns={"hours": "gpu_hours" if profile.hardware.gpus else "core_hours"})
    lines = [shown.to_string(na_rep="", float_format="{:,.2f}".format, formatters=formats), *asked, ""]
    hours = table["hours"].sum()
    if profile.hardware.cpu_tflops and not profile.hardware.gpus:
        speed = peak_of(profile) / 1e9
        lines.append(f"About {hours:,.1f} hours of one core of {speed:,.0f} GFLOP/s; within a factor of three.")
    if gpus := profile.hardware.gpus:
        lines.append(f"About {hours:,.1f} GPU hours, {hours / gpus:,.1f} h on {gpus} GPUs; within a factor of three.")
        lines += ["", *_memory_lines(table)]
    return "\n".join(lines)


def memory_table(table: pd.DataFrame) -> pd.DataFrame:
    """For each stage that uses a GPU the run that takes most of it: its cell, GiB by what holds them, and their sum."""
    used = table[table["gpu_memory_gib"] > 0]
    largest = used.loc[used.groupby("stage")["gpu_memory_gib"].idxmax()]
    names = {"gpu_memory_gib": "total", "limit_gib": "may_take"}
    return largest[["stage", "cell", *PARTS, "gpu_memory_gib", "limit_gib"]].rename(columns=names)


def _memory_lines(table: pd.DataFrame) -> list[str]:
    largest = memory_table(table)
    if largest.empty:
        return ["No stage uses a GPU."]
    lines = [f"GiB of one GPU, of each stage's largest run (formulas of rdlib.study.memory, {gpu_rows.seen()}):"]
    lines.append(largest.to_string(index=False, float_format="{:,.1f}".format))
    lines += [f"Shape from {source}." for source in table.loc[table["gpu_memory_gib"] > 0, "source"].unique()]
    too_large = table[table["gpu_memory_gib"] > table["limit_gib"]].sort_values("gpu_memory_gib", ascending=False)
    for row in too_large.drop_duplicates(["stage", "advice"]).sort_values("stage", kind="stable").itertuples():
        lines.append(
            f"{row.stage} ({row.cell}) does not fit: it wants about {row.gpu_memory_gib:.0f} GiB of each GPU and may "
            f"take {row.limit_gib:.0f}: {row.advice}."
        )
    return lines
