"""The whole study as a DAG of notebooks, run by Snakemake: `python -m rdlib.dag --profile params/micro.yaml`.

A job is one notebook executed by papermill with its parameters; its marker file in `runs/<profile>/.jobs`
says that it is done. A marker whose stages are missing, or were made with other settings, code or inputs, is dropped
before Snakemake looks, so a change re-runs what depends on it and nothing else. Notebooks after that are executed
again, but a stage of theirs whose inputs came out as they were finds itself done.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from rdlib import artifacts, claims, code_identity, estimate, reviewers, warm
from rdlib.errors import UserError
from rdlib.profile import load_profile
from rdlib.study import ROOT, Stage, ablation_cell, ablation_overrides, make_stage

ABLATIONS = {
    "08_ablation_lambda": ("lambda", "05_reward_model"),
    "09_ablation_data_ratio": ("data_ratio", "05_reward_model"),
    "10_ablation_reward_source": ("reward_source", "07_evaluate"),
    "11_ablation_correctness": ("correctness", "07_evaluate"),
}
GPU_FREE = ("00_data", "00_gold", "02_pseudo_labels", "02_judgement")
# Notebooks that collect results and draw the report's tables and figures, with the modules that they do it by.
REPORT = ("rdlib.results", "rdlib.report_figures")
DRAWING = {"12_paper_tables_and_figures": REPORT, "13_reviewer_questions": REPORT}
CELL_METHODS = ("sft", "ours_wo_r", "ours_wo_d", "ours")


@dataclass
class Job:
    """One notebook run: its parameters, the stages it makes, and the jobs before it."""

    notebook: str
    parameters: dict[str, Any]
    folder: Path
    stages: list[Stage]
    after: list[Job] = field(default_factory=list)
    priority: int = 0

    @property
    def name(self) -> str:
        """A unique name made of the notebook and its parameters."""
        left_out = ("profile", "methods", "seed", "overrides")
        shown = [str(v) for k, v in self.parameters.items() if k not in left_out and v is not None]
        shown += [f"{k}={v}" for k, v in self.parameters.get("overrides", {}).items()]
        if self.parameters.get("methods") in (["teacher"], ["icl"]):
            shown += self.parameters["methods"]
        return "-".join([self.notebook, *shown, f"seed{self.parameters.get('seed', 'all')}"])

    @property
    def gpus(self) -> int:
        """GPUs that the job needs: all of the profile's, for a job that samples or trains."""
        works = any(stage.name not in GPU_FREE for stage in self.stages)
        return self.stages[0].profile.hardware.gpus if works else 0

    @property
    def executed(self) -> Path:
        """Where the executed notebook goes: beside the artifacts it makes."""
        variant = f"@{self.stages[0].variant}" if "overrides" in self.parameters and self.stages[0].variant else ""
        return self.folder / f"{self.notebook}{variant}.ipynb"

    def marker(self, runs: Path) -> Path:
        """The file that says that this job is done; if it draws, with this code, these settings and criteria."""
        if self.notebook not in DRAWING:
            return runs / ".jobs" / self.name
        profile = load_profile(ROOT / self.parameters["profile"]).model_dump()
        read = [code_identity.of(*DRAWING[self.notebook]), profile, artifacts.file_hash(claims.CLAIMS_FILE)]
        return runs / ".jobs" / f"{self.name}@{artifacts.content_hash(read)[:16]}"

    @property
    def command(self) -> str:
        """The shell command that runs the notebook."""
        source = ROOT / "notebooks" / f"{self.notebook}.ipynb"
        words = [sys.executable, "-m", "rdlib.warm", source, self.executed, json.dumps(self.parameters)]
        return shlex.join(map(str, words))


def _job(notebook: str, stages: list[Stage], after: list[Job], **extra: Any) -> Job:
    first = stages[0]
    axes = {a: getattr(first, a) for a in ("dataset", "teacher", "student", "method") if getattr(first, a)}
    if "methods" in extra:  # an axis that a method has not is none, whatever the notebook's default
        axes = {a: getattr(first, a) for a in ("dataset", "teacher", "student")}
    parameters = {"profile": first.profile_path, **axes, "seed": first.seed, **extra}
    return Job(notebook, parameters, stages[-1].folder.parent, stages, after)


def seed_jobs(profile_path: str, seed: int) -> Iterator[Job]:
    """The jobs of the main grid and the ablations for one seed."""
    profile = load_profile(ROOT / profile_path)
    for dataset in profile.datasets:
        base = make_stage("00_data", profile_path, seed=seed, dataset=dataset)
        data = _job("00_data", [base, base.at("00_gold")], [])
        yield data
        for student in profile.students:
            icl = replace(base, name="07_evaluate", student=student, method="icl")
            yield _job("07_evaluate", [icl], [data], methods=["icl"])
        for teacher in profile.teachers:
            cell = replace(base, teacher=teacher)
            responses = _job("01_teacher_responses", [cell.at("01_teacher_responses")], [data])
            labels = _job("02_pseudo_labels", [cell.at("02_pseudo_labels"), cell.at("02_judgement")], [responses])
            yield from (responses, labels)
            yield _job(
                "07_evaluate",
                [replace(cell, name="07_evaluate", method="teacher")],
                [data],
                methods=["teacher"],
            )
            for student in profile.students:
                yield from _cell_jobs(replace(cell, student=student), data, labels)


def _cell_jobs(cell: Stage, data: Job, labels: Job) -> Iterator[Job]:
    sft = {
        m: _job("03_sft_warmup", [replace(cell, name="03_sft_warmup", method=m)], [labels])
        for m in ("sft", "ours_wo_r")
    }
    policies, before = [], {"ours": [sft["ours_wo_r"]], "ours_wo_d": [labels]}
    yield from sft.values()
    for method, start in before.items():
        after = start
        for name in ("04_student_responses", "05_reward_model", "06_ppo"):
            job = _job(name, [replace(cell, name=name, method=method)], after)
            yield job
            after = [job]
        policies.append(job)
    stages = [replace(cell, name="07_evaluate", method=m) for m in CELL_METHODS]
    evaluation = _job("07_evaluate", stages, [*sft.values(), *policies], methods=list(CELL_METHODS))
    yield evaluation
    grid = cell.profile.grid
    if (cell.dataset, cell.teacher, cell.student) == (
        grid.ablation_dataset,
        grid.ablation_teacher,
        grid.ablation_student,
    ):
        yield from _ablation_jobs(replace(cell, method="ours"), policies[0], evaluation)


def _ablation_jobs(cell: Stage, ppo: Job, evaluation: Job) -> Iterator[Job]:
    for notebook, (ablation, last) in ABLATIONS.items():
        stages = [
            replace(cell, name=last).with_overrides(overrides)
            for overrides in ablation_overrides(cell.profile)[ablation]
        ]
        job = _job(notebook, stages, [evaluation] if last == "07_evaluate" else [ppo])
        job.parameters.pop("method")
        yield job


def study_jobs(profile_path: str, seeds: list[int], questions: bool = False) -> list[Job]:
    """Every job of the study, the last one being the notebook of tables and figures.

    With `questions`, the runs of the reviewers' questions follow, and the notebook that answers them.
    """
    jobs = [job for seed in seeds for job in seed_jobs(profile_path, seed)]
    profile = load_profile(ROOT / profile_path)
    folder = ROOT / profile.runs / profile.name
    last = Job("12_paper_tables_and_figures", {"profile": profile_path, "seeds": seeds}, folder, [], list(jobs))
    jobs.append(last)
    if questions:
        jobs += [job for seed in seeds for job in reviewer_jobs(profile_path, seed, list(jobs))]
    _prioritise(jobs)
    return jobs


def reviewer_jobs(profile_path: str, seed: int, study: list[Job]) -> list[Job]:
    """The runs of the reviewers' questions that the study does not make, and the notebook that answers them.

    A run makes its own inputs; runs that share one are put one after the other, so none is made twice at once.
    """
    cell = ablation_cell(profile_path, seed)
    made = {stage.folder for job in study for stage in job.stages}
    jobs: list[Job] = []
    makes: list[set[Path]] = []
    for arm in reviewers.arms(cell):
        new = {stage.folder for stage in (arm.stage, *_before(arm.stage))} - made
        if arm.stage.folder not in new or any(arm.stage.folder == job.stages[0].folder for job in jobs):
            continue
        after = [study[-1], *(job for job, others in zip(jobs, makes, strict=True) if new & others)]
        job = _job("13_reviewer_runs", [arm.stage], after, overrides=arm.stage.all_overrides)
        jobs.append(job)
        makes.append(new)
    judged = cell.at("13_judged_responses")
    last = Job("13_reviewer_questions", {"profile": profile_path, "seeds": [seed]}, judged.folder.parent, [judged])
    return [*jobs, replace(last, after=[study[-1], *jobs])]


def _before(stage: Stage) -> Iterator[Stage]:
    for upstream in stage.inputs.values():
        yield upstream
        yield from _before(upstream)


def _prioritise(jobs: list[Job]) -> None:
    # A job's priority is the length of the longest chain that waits for it, so long chains start first.
    for job in reversed(jobs):
        weight = 4 if job.notebook in ("06_ppo", *ABLATIONS) else 1
        for before in job.after:
            before.priority = max(before.priority, job.priority + weight)


def drop_stale_markers(jobs: list[Job], runs: Path) -> int:
    """Remove the markers of jobs whose stages are not done as the profile now asks; returns how many jobs are done.

    Done is a job that has a marker and comes after no job without one: Snakemake runs the others.
    """
    done: set[int] = set()
    for job in jobs:
        marker = job.marker(runs)
        if marker.exists() and not all(stage.done for stage in job.stages):
            marker.unlink()
        if job.notebook in DRAWING:
            for other in marker.parent.glob("*@*"):  # drawn since in another way
                if other != marker and other.name.startswith(f"{job.name}@"):
                    other.unlink()
        if marker.exists() and all(id(before) in done for before in job.after):
            done.add(id(job))
    return len(done)


def stages_to_run(jobs: list[Job]) -> list[Stage]:
    """Every stage that these jobs would compute, inputs included, each once and in order; those done are left out."""
    stages: dict[Path, Stage] = {}
    for job in jobs:
        for stage in job.stages:
            for one in (*_before(stage), stage):
                stages.setdefault(one.folder, one)
    return [stage for stage in stages.values() if not stage.done]


def snakemake_command(arguments: argparse.Namespace, seeds: list[int]) -> list[str]:
    """The Snakemake call for these jobs; on one machine, jobs that need GPUs share those that the profile names."""
    gpus = 0 if arguments.workflow_profile else load_profile(ROOT / arguments.profile).hardware.gpus
    config = [f"profile={arguments.profile}", f"seeds={json.dumps(seeds)}", f"questions={arguments.questions}"]
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
            "--cores",
            str(arguments.jobs),
            "--config",
            *config,
            "--rerun-triggers",
            "mtime",
            "--rerun-incomplete",
        ),
        *("--nolock", "--keep-going", "--printshellcmds"),
        *(["--workflow-profile", arguments.workflow_profile] if arguments.workflow_profile else []),
        *(["--resources", f"gpu={gpus}"] if gpus else []),
    ]


def dry_run(arguments: argparse.Namespace) -> int:
    """Say what a study would take, and start nothing."""
    profile = load_profile(ROOT / arguments.profile)
    jobs = study_jobs(arguments.profile, arguments.seeds or profile.grid.seeds, arguments.questions)
    print(estimate.summary(estimate.estimate(stages_to_run(jobs)), profile))
    return 0


def run_study(arguments: argparse.Namespace) -> int:
    """Run what is not done yet, with a progress bar, and say where the results are."""
    profile = load_profile(ROOT / arguments.profile)
    seeds = arguments.seeds or profile.grid.seeds
    jobs = study_jobs(arguments.profile, seeds, arguments.questions)
    runs = ROOT / profile.runs / profile.name
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
            watch = Watch()
            watch.start()
            with warm.Server(keep=lock.fileno()) as server:
                failed = _follow(
                    snakemake_command(arguments, seeds), jobs, done, runs, server.environment, lock.fileno()
                )
            watch.stop.set()
            if failed:
                return _report_failures(failed)
            if done == 0 and len(seeds) == 1:
                measured = {"questions": arguments.questions, "jobs": len(jobs)}
                _record_measurements(runs, seeds[0], measured, time.time() - started, watch)
    minutes = (time.time() - started) / 60
    what = f"{len(jobs) - done} of {len(jobs)} jobs in {minutes:.1f} min" if done < len(jobs) else "nothing to do"
    print(f"Study {profile.name}: {what}.\n  tables and figures: {profile.runs}/{profile.name}/figures")
    print(f"  executed notebooks and artifacts: {profile.runs}/{profile.name}/<dataset>/<teacher>/<student>/<method>/")
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


def _follow(command: list[str], jobs: list[Job], done: int, runs: Path, extra: dict[str, str], lock: int) -> list[Job]:
    """Run Snakemake, its output in a log file, a bar on the screen; returns the jobs that failed.

    Snakemake holds the lock too: should this process be killed, no second run starts beside what it left running.
    """
    by_name = {job.name: job for job in jobs}
    failed: list[Job] = []
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")} | extra
    log_path = runs / "snakemake.log"
    with (
        log_path.open("a") as log,
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
        try:
            for line in process.stdout:
                log.write(line)
                if finished := re.match(r"Finished jobid: \d+ \(Rule: (.+)\)", line):
                    if finished.group(1) != "all":
                        bar.update(1)
                        bar.set_postfix_str(finished.group(1))
                elif (error := re.match(r"Error in rule (.+):", line)) and by_name.get(error.group(1)) not in failed:
                    failed.append(by_name[error.group(1)])
        except KeyboardInterrupt:
            process.terminate()
            raise UserError("Interrupted: what was finished is kept; the same command goes on from there.") from None
    if process.returncode and not failed:
        tail = log_path.read_text().strip().splitlines()[-1]
        raise UserError(f"Snakemake stopped ({tail}); its log is {os.path.relpath(log_path, ROOT)}.")
    return failed


def _report_failures(failed: list[Job]) -> int:
    for job in failed:
        reason = job.executed.with_suffix(".error")
        text = reason.read_text().strip() if reason.exists() else "no message"
        print(f"FAILED {job.name}: {text}\n  see {os.path.relpath(job.executed, ROOT)}", file=sys.stderr)
    print("What was finished is kept; mend this and give the same command again.", file=sys.stderr)
    return 1


def main(argv: list[str] | None = None) -> int:
    """Command line: --profile, --jobs, --seeds, --questions."""
    parser = argparse.ArgumentParser(prog="rdlib.dag", description="Run the whole study.")
    parser.add_argument("--profile", default="params/micro.yaml", help="profile, relative to the repository")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks at a time (one torch thread each)")
    parser.add_argument("--seeds", type=int, nargs="*", help="seeds instead of the profile's")
    parser.add_argument("--questions", action="store_true", help="the reviewers' questions as well")
    parser.add_argument("--dry-run", action="store_true", help="only say what it would take: tokens, hours, memory")
    parser.add_argument("--workflow-profile", help="a Snakemake profile, as params/slurm, that says where jobs run")
    try:
        arguments = parser.parse_args(argv)
        if arguments.jobs < 1 or any(seed < 0 for seed in arguments.seeds or []):
            raise UserError("--jobs must be at least 1 and --seeds not below 0.")
        return dry_run(arguments) if arguments.dry_run else run_study(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if not artifacts.is_disk_full(error):
            raise
        print("error: The disk is full: make room, then give the same command again.", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
