"""Cost of a study before it starts: `python -m rdlib study --profile params/paper.yaml --dry-run`.

Each stage that is not done yet has a row: questions, samples, tokens, GPU hours, disk, and memory of one GPU
(rdlib.study.memory). Every question counts as labelled and every response has the length in `memory.LENGTHS`, so counts
are slightly too high. Hours are operations (rdlib.evidence.ledger) divided by the share of the hardware's peak that is
usually reached. They may be wrong by a factor of two or three either way.

`python -m rdlib memory` writes docs/memory.csv: for every stage of the GPU profiles, the run that takes most memory.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from rdlib import artifacts
from rdlib.evidence import card_tables, gallery, gpu_rows, ledger
from rdlib.evidence.result_tables import open_results
from rdlib.evidence.tables import listed
from rdlib.method import rl
from rdlib.paths import ROOT
from rdlib.profile import Profile
from rdlib.settings import Weights
from rdlib.study.jobs import Job, every_stage, stages_to_run, study_jobs
from rdlib.study.memory import GIB, LENGTHS, PARTS, footprint, split_sizes
from rdlib.study.stage import Stage

BYTES_PER_TOKEN = 4.5  # of text, before compression
WEIGHT = {"float32": 4, "bfloat16": 2, "auto": 2}  # bytes of a saved parameter
COUNTS = ["questions", "samples", "mtokens_generated", "mtokens_trained", "hours", "disk_gb"]
NAMED = ["stage", "dataset", "teacher", "student", "method", "variant"]  # a stage in a table of costs
RELEASED = ROOT / "figures" / "results"
ONE, PAPER = "params/single_gpu.yaml", "params/paper.yaml"
ADAPTERS = {"training.lora": {"r": 16, "alpha": 32}, "hardware.gpu_memory_gib": 24}
IN_DOCS = {ONE: (ONE, {}), f"{ONE}, LoRA": (ONE, ADAPTERS), PAPER: (PAPER, {})}  # by name: profile and other settings


class Workload(NamedTuple):
    """What a stage does: questions, samples, and tokens that are generated, trained on, and read without gradient."""

    questions: int = 0
    samples: int = 0
    generated: int = 0
    trained: int = 0
    read: int = 0


def workload_of(stage: Stage) -> Workload:
    """Upper bounds of what a stage does, from its profile's numbers."""
    sizes, profile = split_sizes(stage.dataset_settings, stage.root), stage.profile
    train, both = sizes["train"], sizes["train"] + sizes["validation"]
    prompt, response = LENGTHS[stage.dataset_settings.source]
    response = min(response, stage.dataset_settings.max_tokens)
    if stage.name in (sampled := _samples(stage, sizes)):
        asked, each = sampled[stage.name]
        return Workload(asked, asked * each, asked * each * response)
    tokens = prompt + response
    match stage.name:
        case "03_sft_warmup":
            most = profile.teacher_sampling.samples_per_temperature * len(profile.teacher_sampling.sets)
            each = min(profile.sft.responses_per_question or most, most)
            return Workload(train, trained=train * each * min(tokens, profile.sft.max_length) * profile.sft.epochs)
        case "05_reward_model":
            kinds, settings = 3, profile.reward_model
            return Workload(train, trained=train * kinds * settings.samples_per_kind * tokens * settings.epochs)
        case "06_ppo":
            episodes = profile.ppo.total_updates * profile.ppo.episodes_per_update
            trained = episodes * tokens * profile.ppo.epochs
            return Workload(train, episodes, episodes * response, trained, rl.READERS * episodes * tokens)
        case "13_baseline":
            return _baseline(stage, train, tokens, response)
    return Workload(both)


def _samples(stage: Stage, sizes: dict[str, int]) -> dict[str, tuple[int, int]]:
    """By stage that asks a model: how many questions, and samples of each."""
    both, students = sizes["train"] + sizes["validation"], stage.profile.student_sampling.samples
    sets = stage.profile.teacher_sampling.sets
    return {
        "01_teacher_responses": (both, sum(n for _, _, n in sets)),
        "01_held_out": (sizes["test"], sum(n for confidence, _, n in sets if confidence == "high")),
        "04_student_responses": (both, students),
        "07_evaluate": (sizes["test"] + sizes["perturbed_test"], 1),
        "13_judged_responses": (sizes["validation"], students),
    }


def _baseline(stage: Stage, train: int, tokens: int, response: int) -> Workload:
    """The workload of one of TRL's trainers of R1; `tokens` of a prompt and its response."""
    settings, sft = stage.profile.baselines, stage.profile.sft
    if stage.method == "rft":
        each = sft.responses_per_question or stage.profile.student_sampling.samples
        return Workload(train, trained=train * each * tokens * sft.epochs)
    if stage.method == "dpo":  # two pairs of Eq. 5, of two sequences each, for each of n
        pairs = 2 * stage.profile.reward_model.samples_per_kind * train
        trained = 2 * pairs * tokens * settings.dpo_epochs
        return Workload(train, trained=trained, read=trained)
    samples = settings.distillation_steps * settings.distillation_prompts_per_step
    if stage.method == "grpo":
        samples = settings.grpo_steps * settings.grpo_prompts_per_step * settings.grpo_samples_per_prompt
    with_reference = stage.method == "grpo" and settings.grpo_kl_coef > 0
    return Workload(train, samples, samples * response, samples * tokens, samples * tokens * with_reference)


# ---- hours


def peak_of(profile: Profile) -> float:
    """Operations a second of a GPU, or of a core where the profile computes without one; NaN where it is not known."""
    hardware = profile.hardware
    if hardware.gpus:
        return hardware.gpu_tflops * 1e12
    if hardware.cpu_tflops == "measured":
        return measured_peak(profile.training.weights)
    return (hardware.cpu_tflops or math.nan) * 1e12


@cache
def measured_peak(weights: Weights, size: int = 1024, seconds: float = 0.3) -> float:
    """Operations a second of products of square matrices on a core here, with numbers as weights are held."""
    import torch  # late: a dry run of a profile with GPUs has no use for it
    from torch.utils.benchmark import Timer

    from rdlib.engines import models

    matrices = {"a": torch.ones(size, size, dtype=models.dtype_of(weights))}
    timer = Timer("a @ a", globals=matrices, timer=time.process_time)
    return 2 * size**3 / timer.blocked_autorange(min_run_time=seconds).median


def hours_of(stage: Stage, work: Workload) -> float:
    """Hours of one GPU, or core: operations over the share of the peak that sampling and training reach."""
    parameters, reader = ledger.parameters_of(stage), ledger.parameters_of_reader(stage)
    hardware, peak = stage.profile.hardware, peak_of(stage.profile)
    elsewhere = stage.asked is not None and stage.asked.engine in ("openai", "replay")  # a server or a recording
    sampling = 0.0 if elsewhere else ledger.flops(stage.name, parameters, work.generated, 0)
    training = ledger.flops(stage.name, parameters, 0, work.trained, work.read, reader)
    seconds = sampling / (peak * hardware.sampling_utilisation) + training / (peak * hardware.training_utilisation)
    return seconds / 3600


# ---- the table


def estimate(stages: Sequence[Stage]) -> pd.DataFrame:
    """A row for each stage; nothing is read but the profile and, for local models, the size of their files."""
    return pd.DataFrame([row_of(stage) for stage in stages])


def row_of(stage: Stage) -> dict[str, Any]:
    """The estimate of one stage as a row of the table; without GPUs its memory is NaN."""
    work = workload_of(stage)
    saved = ledger.parameters_of(stage) * WEIGHT[stage.profile.training.weights] if work.trained else 0.0
    memory = {"source": "", "advice": ""} | dict.fromkeys([*PARTS, "total", "may_take"], math.nan)
    if stage.profile.hardware.gpus:
        found = footprint(stage)
        memory = {"source": found.source, "advice": found.advice} | {part: found.memory[part] / GIB for part in PARTS}
        memory |= {"total": found.memory.total() / GIB, "may_take": found.limit / GIB}
    return {
        "stage": stage.name,
        "cell": "/".join(part for part in (stage.dataset, stage.teacher, stage.student, stage.method) if part),
        "questions": work.questions,
        "samples": work.samples,
        "mtokens_generated": work.generated / 1e6,
        "mtokens_trained": work.trained / 1e6,
        "hours": hours_of(stage, work),
        "disk_gb": (work.generated * BYTES_PER_TOKEN + saved) / 1e9,
        **memory,
    }


def memory_table(table: pd.DataFrame) -> pd.DataFrame:
    """For each stage that uses a GPU the run that takes most of it: its cell, GiB by what holds them, and their sum."""
    used = table[table["total"] > 0]
    return used.loc[used.groupby("stage")["total"].idxmax(), ["stage", "cell", *PARTS, "total", "may_take"]]


def docs_table() -> pd.DataFrame:
    """`memory_table` of the study of each profile of IN_DOCS, done or not, without the reviewers' questions."""
    frames = []
    for name, (profile, overrides) in IN_DOCS.items():
        stages = sorted(every_stage(study_jobs(profile, [0])), key=lambda stage: stage.label)  # of equals the first
        largest = memory_table(estimate([stage.with_overrides(overrides) for stage in stages])).round(1)
        frames.append(largest.assign(profile=name)[["profile", *largest.columns]])
    return pd.concat(frames, ignore_index=True)


# ---- in words


def summary(table: pd.DataFrame, profile: Profile, asked: Sequence[str] = ()) -> str:
    """The estimate in words: totals by stage, what servers are `asked`, the memory of a GPU, what does not fit."""
    if table.empty:
        return "Everything is done: nothing to do."
    hours, gpus = table["hours"].sum(), profile.hardware.gpus
    lines = [_totals(table, "gpu_hours" if gpus else "core_hours"), *asked, ""]
    if gpus:
        lines.append(f"About {hours:,.1f} GPU hours, {hours / gpus:,.1f} h on {gpus} GPUs; within a factor of three.")
        lines += ["", *_memory_lines(table)]
    elif profile.hardware.cpu_tflops:
        speed = peak_of(profile) / 1e9
        lines.append(f"About {hours:,.1f} hours of one core of {speed:,.0f} GFLOP/s; within a factor of three.")
    return "\n".join(lines)


def _totals(table: pd.DataFrame, hours: str) -> str:
    stages = table.groupby("stage")
    shown = stages[COUNTS].sum(min_count=1).rename(columns={"hours": hours}).rename_axis(None)
    shown.insert(0, "runs", stages.size())
    shown.loc["total"] = shown.sum(min_count=1)
    formats = dict.fromkeys(["runs", "questions", "samples"], "{:,.0f}".format)
    return shown.to_string(na_rep="", float_format="{:,.2f}".format, formatters=formats)


def _memory_lines(table: pd.DataFrame) -> list[str]:
    largest = memory_table(table)
    if largest.empty:
        return ["No stage uses a GPU."]
    lines = [f"GiB of one GPU, of each stage's largest run (formulas of rdlib.study.memory, {gpu_rows.seen()}):"]
    lines.append(largest.to_string(index=False, float_format="{:,.1f}".format))
    lines += [f"Shape from {source}." for source in table.loc[table["total"] > 0, "source"].unique()]
    too_large = table[table["total"] > table["may_take"]].sort_values("total", ascending=False)
    for row in too_large.drop_duplicates(["stage", "advice"]).sort_values("stage", kind="stable").itertuples():
        lines.append(
            f"{row.stage} ({row.cell}) does not fit: it wants about {row.total:.0f} GiB of each GPU and may "
            f"take {row.may_take:.0f}: {row.advice}."
        )
    return lines


# ---- minutes, by what a released run took


def exhibit_line(name: str, jobs: list[Job], released: Path = RELEASED) -> str:
    """What retraining an exhibit takes: its experiments, the notebooks, and minutes by what the released run took."""
    exhibit = gallery.find(name)
    if not exhibit.experiments:
        return f"{name} ({exhibit.title}) depends on no training: `make figures NAME={name}` draws it."
    head = f"{name} ({exhibit.title}) depends on {listed(exhibit.experiments)}"
    return f"{head}: {len(jobs)} notebooks. {time_estimate(jobs, released)}"


def time_estimate(jobs: list[Job], released: Path = RELEASED) -> str:
    """How long some jobs take, in a sentence, by a released run of their profile."""
    stages = stages_to_run(jobs)
    if not stages:
        return "All of them are done."
    done = sum(bool(job.stages) and all(stage.done for stage in job.stages) for job in jobs)
    head = f"Done: {done} of {len(jobs)} notebooks. The others" if done else "They"
    minutes = minutes_of(stages, released)
    if minutes is None:
        profile = stages[0].profile.name
        return f"{head} take an unknown time: no run of the profile {profile} is released."
    return f"{head} take about {max(1, round(minutes))} minutes, two at a time, by the released run."


def minutes_of(stages: list[Stage], released: Path) -> float | None:
    """Minutes that stages take by a released run of their profile; None where there is none.

    A stage takes the mean of its seconds over the released seeds (one that was never timed: of its kind's), times the
    minutes of a measured seed over its stages' seconds: notebooks start up, and two run at once.
    """
    evidence = open_results(released) if released.is_dir() else None
    if evidence is None or evidence.settings["name"] != stages[0].profile.name:
        return None
    spent = pd.concat([table for table in (evidence.costs, evidence.question_costs) if len(table)])
    spent = spent.drop_duplicates([*NAMED, "seed"]).dropna(subset="seconds")
    by_stage, by_kind = (spent.groupby(keys)["seconds"].mean() for keys in (NAMED, "stage"))
    keys = [tuple((stage.columns | {"stage": stage.name})[axis] for axis in NAMED) for stage in stages]
    seconds = sum(by_stage.get(key, by_kind.get(key[0], 0.0)) for key in keys)
    return seconds * card_tables.minutes_a_second(evidence)


# ---- the command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder to write into."""
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / "docs", help="folder of memory.csv")


def run(options: argparse.Namespace) -> None:
    """Write memory.csv, which docs/memory.md shows."""
    artifacts.write_bytes(options.out / "memory.csv", docs_table().to_csv(index=False).encode())
