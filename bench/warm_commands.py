"""Part e: `make study` where all is done, and `make figures`, as a user waits for them."""

from __future__ import annotations

import os
import subprocess
import time

from bench.report import Row, Skipped
from bench.timing import middle
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.study.jobs import study_jobs

PROFILE = "params/micro.yaml"
COMMANDS = {"make study, all done": ("study", 10.0), "make figures": ("figures", 60.0)}


def unfinished(profile_path: str) -> int:
    """How many jobs of the study are still to do."""
    profile = load_profile(ROOT / profile_path)
    jobs = study_jobs(profile_path, profile.grid.seeds)
    runs = ROOT / profile.runs / profile.name
    return sum(not (job.marker(runs).exists() and all(stage.done for stage in job.stages)) for job in jobs)


def make(target: str) -> float:
    """Wall time of `make TARGET`, with the environment of a user who has set nothing."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    start = time.perf_counter()  # whatever clock is asked for: the work is another process's
    subprocess.run(["make", target], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def run(rounds: int, quick: bool) -> list[Row]:
    """Both commands, `rounds` times each."""
    if left := unfinished(PROFILE):
        raise Skipped(f"{left} jobs of the micro study are not done in this checkout: `make study` first.")
    rows = []
    for name, (target, aim) in COMMANDS.items():
        seconds = [make(target) for _ in range(1 if quick else rounds)]
        rows.append(Row("e", name, *middle(seconds), "s", aim, True))
    return rows
