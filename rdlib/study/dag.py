"""The whole study as a DAG of notebooks, run by Snakemake: `python -m rdlib study --profile params/micro.yaml`.

Jobs come from `rdlib.study.jobs`, to this program and to the Snakefile alike.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.study import (
    cluster,
    estimate,
    failures,
    figures,
    grid,
    launch,
    outlook,
    requirements,
    retrain,
    warm,
)
from rdlib.study.grid import ablation_cells
from rdlib.study.jobs import Job, drop_stale_markers, stages_behind, stages_to_run, study_jobs
from rdlib.study.teacher_progress import TeacherBars, unanswered, unanswered_lines

INTERRUPTED = "Interrupted: what was finished is kept; the same command goes on from there."


def snakemake_command(arguments: argparse.Namespace, seeds: list[int]) -> list[str]:
    """The Snakemake call for these jobs; on one machine, jobs that need GPUs share those that the profile names.

    On a cluster the workflow profile says how many jobs there are at a time, and the scheduler counts GPUs.
    """
    profile, workflow = load_profile(ROOT / arguments.profile), workflow_profile(arguments)
    if workflow and workflow.remote:
        placed = workflow.arguments(ROOT / profile.runs / profile.name, arguments.jobs)
    else:
        placed = ["--cores", str(arguments.jobs)]
        placed += ["--resources", f"gpu={profile.hardware.gpus}"] if profile.hardware.gpus else []
    config = [f"profile={arguments.profile}", f"seeds={json.dumps(seeds)}", f"questions={arguments.questions}"]
    config += [f"exhibit={arguments.exhibit}"] if arguments.exhibit else []
    config += [f"{kind}={json.dumps(names)}" for kind in grid.KINDS if (names := getattr(arguments, kind))]
    return [
        *(
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            str(ROOT / "Snakefile"),
            "--directory",
            str(ROOT),
        ),
        *(
            "--config",
            *config,
            "--rerun-triggers",
            "mtime",
            "--rerun-incomplete",
        ),
        *("--nolock", "--keep-going", "--printshellcmds"),
        *(["--workflow-profile", str(workflow.folder)] if workflow else []),
        *placed,
    ]


def jobs_of(arguments: argparse.Namespace, seeds: list[int]) -> list[Job]:
    """The jobs asked for: of the whole study, or of what one exhibit rests on, whose time is then told."""
    profile = load_profile(ROOT / arguments.profile)
    more = grid.named(profile, arguments.methods, arguments.ablations)
    if arguments.exhibit is None:
        return study_jobs(arguments.profile, seeds, arguments.questions, more)
    jobs = retrain.jobs_behind(arguments.exhibit, arguments.profile, seeds)
    print(retrain.told(arguments.exhibit, jobs, profile), flush=True)
    return jobs


def workflow_profile(arguments: argparse.Namespace) -> cluster.WorkflowProfile | None:
    """The workflow profile that the command names, as its profile is named: relative to the repository."""
    name = arguments.workflow_profile
    return cluster.WorkflowProfile.read(ROOT / name) if name else None


def dry_run(arguments: argparse.Namespace) -> int:
    """Say what a study would take, and start nothing."""
    profile = load_profile(ROOT / arguments.profile)
    jobs = jobs_of(arguments, arguments.seeds or profile.grid.seeds)
    if not arguments.exhibit or profile.hardware.gpus:
        stages = stages_to_run(jobs)
        asked = [line for look in outlook.of(stages) for line in look.lines()]
        print(estimate.summary(estimate.estimate(stages), profile, asked))
    return 0


def run_study(arguments: argparse.Namespace) -> int:
    """Run what is not done yet, with a progress bar, and say where the results are."""
    profile, workflow = load_profile(ROOT / arguments.profile), workflow_profile(arguments)
    requirements.check(profile.training)
    seeds = arguments.seeds or profile.grid.seeds
    jobs = jobs_of(arguments, seeds)
    requirements.check_teachers(stages_behind(jobs))
    if any(job.notebook.startswith("13_") for job in jobs):
        for cell in ablation_cells(arguments.profile, seeds[0]):
            requirements.check_gold(cell)
    runs = ROOT / profile.runs / profile.name
    here = workflow is None or not workflow.remote
    runs.mkdir(parents=True, exist_ok=True)
    started = time.time()
    with (runs / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"Another run is at work in {profile.runs}/{profile.name}: wait for it or stop it."
            ) from None
        done = drop_stale_markers(jobs, runs)
        if done < len(jobs):
            launch.check_all(stages_to_run(jobs), here)
        if done < len(jobs) and workflow and workflow.slurm:
            workflow.check({job.gpus for job in jobs})
            cluster.clear_earlier_jobs(runs)
            done = drop_stale_markers(jobs, runs)
        if done < len(jobs):
            for stage in stages_to_run(jobs):
                requirements.check_sampler(stage)
            for look in outlook.of(stages_to_run(jobs)):
                print(*look.lines(), sep="\n", flush=True)
            with _watched(runs) as watch, warm.Server(keep=lock.fileno(), here=here) as server:
                command = snakemake_command(arguments, seeds)
                while True:
                    placed = cluster.Jobs(runs) if workflow and workflow.slurm else None
                    failed = _follow(command, jobs, done, runs, server.environment, lock.fileno(), placed)
                    if not (placed and placed.lost):
                        break
                    print("Snakemake had lost sight of its jobs in SLURM: it is started again.", flush=True)
                    done = drop_stale_markers(jobs, runs)
            if failed:
                return _report_failures(failed)
            if done == 0 and len(seeds) == 1 and here and not arguments.exhibit:
                measured = {"questions": arguments.questions, "jobs": len(jobs)}
                _record_measurements(runs, seeds[0], measured, time.time() - started, watch)
    minutes = (time.time() - started) / 60
    what = f"{len(jobs) - done} of {len(jobs)} jobs in {minutes:.1f} min" if done < len(jobs) else "nothing to do"
    if arguments.exhibit:
        paths = retrain.draw(arguments.exhibit, arguments.profile, seeds, jobs)
        print(f"Study {profile.name}: {what}.", *(f"  {os.path.relpath(path, ROOT)}" for path in paths), sep="\n")
        return 0
    for line in unanswered_lines(unanswered(stages_behind(jobs))):
        print(line)
    print(f"Study {profile.name}: {what}.\n  tables and figures: {profile.runs}/{profile.name}/figures")
    print(f"  executed notebooks and artifacts: {profile.runs}/{profile.name}/<dataset>/<teacher>/<student>/<method>/")
    print(*(f"{line}\n" for line in figures.health_lines(arguments.profile, seeds)), sep="", end="")
    return 0


def _record_measurements(runs: Path, seed: int, measured: dict[str, Any], seconds: float, watch: Watch) -> None:
    """What a whole seed took, for the README and the benchmarks; `seconds` of wall time."""
    files = [p for p in runs.rglob("*") if p.is_file() and f"seed{seed}" in p.relative_to(runs).parts]
    measured |= {
        "minutes": round(seconds / 60, 1),
        "cpu_minutes": round(watch.cpu / 60, 1),
        "peak_memory_gib": round(watch.peak / 2**30, 2),
        "disk_mb": round(sum(path.stat().st_size for path in files) / 1e6),
    }
    artifacts.write_json(runs / "results" / f"seed{seed}" / "measured.json", measured)


@contextlib.contextmanager
def _watched(runs: Path) -> Iterator[Watch]:
    """What a study takes, measured, and what its teachers behind servers are at, shown, as long as it runs."""
    watch, teachers = Watch(), TeacherBars(runs / ".progress")
    for thread in (watch, teachers):
        thread.start()
    try:
        yield watch
    finally:
        for thread in (watch, teachers):
            thread.stop.set()
        teachers.join()


class Watch(threading.Thread):
    """Samples this process and all its children until `stop` is set.

    `peak` is the largest sum of their memory seen, in bytes; `cpu` the seconds of a core that they had used when they
    were last seen, so it misses half an `interval` (seconds) of each process.
    """

    def __init__(self, interval: float = 1.0):
        super().__init__(daemon=True)
        self.interval, self.peak, self.stop = interval, 0, threading.Event()
        self._used: dict[psutil.Process, float] = {}  # by process: a number can be given again, a process is one

    @property
    def cpu(self) -> float:
        """Seconds of a core used so far."""
        return sum(self._used.values())

    def run(self) -> None:
        """Sample until `stop` is set."""
        process = psutil.Process()
        while not self.stop.wait(self.interval):
            total = 0
            for member in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    memory, times = member.memory_info(), member.cpu_times()
                    total += memory.rss - getattr(memory, "shared", 0)  # libraries mapped by all count once or less
                    self._used[member] = times.user + times.system
            self.peak = max(self.peak, total)


def _follow(
    command: list[str],
    jobs: list[Job],
    done: int,
    runs: Path,
    extra: dict[str, str],
    lock: int,
    placed: cluster.Jobs | None = None,
) -> list[failures.Failure]:
    """Run Snakemake, its output in a log file, a bar on the screen; returns the jobs that failed.

    Snakemake holds the lock too: should this process be killed, no second run starts beside what it left running.
    Interrupted, Snakemake ends what it has started; jobs `placed` in SLURM are cancelled here.
    """
    failures.clear(jobs)
    environment = os.environ | extra
    log_path = runs / "snakemake.log"
    with (
        log_path.open("a", buffering=1) as log,
        tqdm(total=len(jobs), initial=done, desc="study", unit="job", smoothing=0.05) as bar,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            pass_fds=[lock],
        ) as process,
    ):
        outcome = Outcome(jobs, bar)
        try:
            if placed:
                placed.watch(process)
            for line in process.stdout:
                log.write(line)
                if placed:
                    placed.hear(line)
                outcome.hear(line)
        except KeyboardInterrupt:
            if placed:  # Snakemake would sleep for minutes first, or at SIGTERM wait for its jobs to end
                process.kill()
                placed.cancel()
            else:
                process.terminate()
            raise KeyboardInterrupt(INTERRUPTED) from None
    if process.returncode and not outcome.failed and not (placed and placed.lost):
        tail = log_path.read_text().strip().splitlines()[-1]
        raise UserError(f"Snakemake stopped ({tail}); its log is {os.path.relpath(log_path, ROOT)}.")
    return list(outcome.failed.values())


class Outcome:
    """What Snakemake's lines tell of its jobs: those that finished go on a bar, those that failed are in `failed`."""

    def __init__(self, jobs: list[Job], bar: tqdm) -> None:
        self.jobs, self.bar = {job.name: job for job in jobs}, bar
        self.failed: dict[str, failures.Failure] = {}
        self._failing: list[str] | None = None  # while Snakemake writes of a failed job: the lines so far

    def hear(self, line: str) -> None:
        """Take in the next line."""
        if self._failing is not None and failures.goes_on(self._failing, line):
            self._failing.append(line.rstrip())
            return
        self._failing = None
        if finished := re.match(r"Finished jobid: \d+ \(Rule: (.+)\)", line):
            self.failed.pop(finished.group(1), None)  # at a second attempt, where a workflow profile allows one
            if finished.group(1) != "all":
                self.bar.update(1)
                self.bar.set_postfix_str(finished.group(1))
        elif (error := re.match(r"Error in rule (.+):", line)) and (job := self.jobs.get(error.group(1))):
            self.failed[job.name] = failures.Failure(job)
            self._failing = self.failed[job.name].lines


def _report_failures(failed: list[failures.Failure]) -> int:
    for failure in failed:
        print(failure.sentence(ROOT), file=sys.stderr)
    print("What was finished is kept; mend this and give the same command again.", file=sys.stderr)
    return 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m rdlib study`."""
    parser.add_argument("--profile", default="params/micro.yaml", help="profile, relative to the repository")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks at a time (one torch thread each)")
    parser.add_argument("--seeds", type=int, nargs="*", help="seeds instead of the profile's")
    parser.add_argument("--questions", action="store_true", help="the reviewers' questions as well")
    parser.add_argument("--methods", nargs="+", help="methods to add to the profile's, as sft ours_wo_d")
    parser.add_argument("--ablations", nargs="+", help="ablations to add to the profile's, as lambda data_ratio")
    parser.add_argument("--for", dest="exhibit", help="only what this table or figure rests on, as figure_5_lambda")
    parser.add_argument("--dry-run", action="store_true", help="only say what it would take: tokens, hours, memory")
    parser.add_argument("--workflow-profile", help="a Snakemake profile, as params/slurm, that says where jobs run")


def run(options: argparse.Namespace) -> int:
    """Run the study, or say what it would take."""
    if options.jobs < 1 or any(seed < 0 for seed in options.seeds or []):
        raise UserError("--jobs must be at least 1 and --seeds not below 0.")
    if options.exhibit and (options.methods or options.ablations):
        raise UserError("--for names all that it needs itself: leave out --methods and --ablations.")
    return dry_run(options) if options.dry_run else run_study(options)
