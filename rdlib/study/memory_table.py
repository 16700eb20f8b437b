"""Memory of one GPU for every stage of the GPU profiles, as docs/memory.csv: `python -m rdlib memory`.

A row a profile and stage: the run that takes most, of the study's own (not of the reviewers' questions). docs/memory.md
shows it; a test holds the file to the present code.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from rdlib import artifacts
from rdlib.paths import ROOT
from rdlib.study import estimate
from rdlib.study.jobs import study_jobs
from rdlib.study.stage import Stage

ONE, PAPER = "params/single_gpu.yaml", "params/paper.yaml"
ADAPTERS = {"training.lora": {"r": 16, "alpha": 32}, "hardware.gpu_memory_gib": 24}
ROWS = {ONE: (ONE, {}), f"{ONE}, LoRA": (ONE, ADAPTERS), PAPER: (PAPER, {})}  # by name: profile and other settings


def table() -> pd.DataFrame:
    """A row a profile and stage: GiB by what holds them, their sum, and what the stage may take."""
    frames = []
    for name, (profile, overrides) in ROWS.items():
        largest = estimate.memory_table(estimate.estimate(_stages(profile, overrides))).round(1)
        frames.append(largest.assign(profile=name)[["profile", *largest.columns]])
    return pd.concat(frames, ignore_index=True)


def _stages(profile: str, overrides: dict) -> list[Stage]:
    """Every stage of a study of one seed, done or not, under other settings."""
    jobs = study_jobs(profile, [0])
    found = {stage.folder: stage for job in jobs for one in job.stages for stage in (*one.upstream(), one)}
    return [stage.with_overrides(overrides) for stage in found.values()]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m rdlib memory`."""
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / "docs", help="folder of memory.csv")


def run(options: argparse.Namespace) -> None:
    """Write the table."""
    artifacts.write_bytes(options.out / "memory.csv", table().to_csv(index=False).encode())
