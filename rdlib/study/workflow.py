"""Snakemake, which runs a study's jobs, on this machine or on a SLURM cluster: its command, and why a job failed.

A workflow profile such as params/slurm says where jobs run. Snakemake's plugin for SLURM finds a mistake only when it
submits a job, which then fails. `WorkflowProfile.check` finds it first: it asks SLURM's own programs, with the
submission that the plugin would make.
"""

from __future__ import annotations

import getpass
import hashlib
import importlib.util
import logging
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from tqdm import tqdm

from rdlib import artifacts
from rdlib.errors import UserError, hint
from rdlib.paths import ROOT
from rdlib.profile import Profile
from rdlib.study.jobs import Job

INTERRUPTED = "Interrupted: what was finished is kept; the same command continues from there."
NO_MESSAGE = "no message: its process was killed, most likely because memory ran out; run fewer jobs at a time"
# What SLURM's state of a job means for who runs the study; %s is SLURM's number of the job.
STATES = {
    "TIMEOUT": "SLURM ended it at its time limit (job %s): raise runtime in the workflow profile where it has saved no "
    "checkpoint; else the same command resumes from there",
    "OUT_OF_MEMORY": "it needed more memory than it had asked SLURM for (job %s): raise mem_mb in the workflow profile",
    "NODE_FAIL": "its node failed (SLURM's job %s)",
    "CANCELLED": "it was cancelled in SLURM (job %s)",
    "PREEMPTED": "SLURM gave its place to another job (job %s)",
}
PLUGIN = "snakemake-executor-plugin-slurm"
PROGRAMS = ("sbatch", "squeue", "scancel", "sinfo", "scontrol")
# The plugin asks for states at most every 180 seconds; squeue must remember a job's end for longer.
REMEMBERED_SECONDS = 200
NOT_UP = ("down", "drain", "fail", "unknown", "power", "reboot")
FINISHED = re.compile(r"Finished jobid: \d+ \(Rule: (.+)\)")
# What Snakemake writes of a failed job: a message with lines of any kind, then indented lines from its number on
FAILED = re.compile(r"^Error in rule (.+):\n((?s:.*?)(?:^    jobid: .*\n(?:    .*\n)*|\Z))", re.MULTILINE)


# ---- Snakemake and its jobs


def planned(jobs: list[Job], runs: Path) -> Path:
    """Write what Snakemake needs of each job, which the Snakefile reads; the file's path."""
    content = [
        {
            "name": job.name,
            "marker": str(job.marker(runs)),
            "after": [str(before.marker(runs)) for before in job.after],
            "executed": str(job.executed),
            "priority": job.priority,
            "gpus": job.gpus,
            "command": job.command,
        }
        for job in jobs
    ]
    artifacts.write_json(runs / ".jobs.json", content)
    return runs / ".jobs.json"


def command(plan: Path, jobs: int, profile: Profile, placement: WorkflowProfile | None = None) -> list[str]:
    """The Snakemake call for a plan, so many jobs at a time; on one machine those with GPUs share the profile's.

    With a `placement` on a cluster that says how many jobs there are at a time, and the scheduler counts GPUs.
    """
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(ROOT)]
    words += ["--rerun-triggers", "mtime", "--rerun-incomplete", "--nolock", "--keep-going", "--printshellcmds"]
    words += ["--config", f"plan={plan}"]
    words += ["--workflow-profile", str(placement.folder)] if placement else []
    if placement and placement.remote:
        return words + placement.arguments(ROOT / profile.runs / profile.name, jobs)
    words += ["--cores", str(jobs)]
    return words + (["--resources", f"gpu={profile.hardware.gpus}"] if profile.hardware.gpus else [])


def follow(
    words: list[str], jobs: list[Job], done: int, runs: Path, extra: dict[str, str], lock: int, placed: Placed | None
) -> list[Failure]:
    """Run Snakemake, its output in a log file, a bar on the screen; returns the jobs that failed.

    Snakemake holds the lock too: should this process be killed, no second run starts beside what it left running.
    Interrupted, Snakemake ends what it has started; jobs `placed` in SLURM are cancelled here. SIGTERM interrupts too,
    as a container's end sends it to this process alone.
    """
    for job in jobs:  # so that no message of an earlier failure is taken for a new one
        job.executed.with_suffix(".error").unlink(missing_ok=True)
    path, lines = runs / "snakemake.log", []
    with (
        path.open("a", buffering=1) as log,
        tqdm(total=len(jobs), initial=done, desc="study", unit="job", smoothing=0.05) as bar,
        _start(words, env=os.environ | extra, pass_fds=[lock]) as process,
    ):
        signal.signal(signal.SIGTERM, lambda *_: _interrupt(process))
        if placed:
            placed.watch(process)
        try:
            for line in process.stdout:
                log.write(line)
                lines.append(line)
                if placed:
                    placed.heard = time.monotonic()
                    placed.submitted |= " has been submitted with SLURM jobid " in line
                if (finished := FINISHED.match(line)) and finished[1] != "all":
                    bar.update()
                    bar.set_postfix_str(finished[1])
        except KeyboardInterrupt:
            placed.cancel(process) if placed else process.terminate()
            raise KeyboardInterrupt(INTERRUPTED) from None
    failed = failures("".join(lines), jobs)
    if process.returncode and not failed and not (placed and placed.lost):
        tail = path.read_text().strip().splitlines()[-1]
        raise UserError(f"Snakemake stopped ({tail}); its log is {os.path.relpath(path, ROOT)}.")
    return failed


def _start(words: list[str], **options: Any) -> subprocess.Popen:
    """A process that SIGINT ends, also where this one ignores it, as a shell has its background jobs do."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    finally:
        signal.signal(signal.SIGINT, handler)


def _interrupt(process: subprocess.Popen) -> None:
    """Do what a terminal's Ctrl-C does: interrupt Snakemake and this process."""
    process.send_signal(signal.SIGINT)
    raise KeyboardInterrupt


def failures(text: str, jobs: Iterable[Job]) -> list[Failure]:
    """The jobs that failed, by what Snakemake wrote; one that a second attempt finished has not."""
    known, found = {job.name: job for job in jobs}, {}
    for error in FAILED.finditer(text):
        if error[1] in known and error[1] not in FINISHED.findall(text, error.end()):
            found[error[1]] = Failure(known[error[1]], error[2])
    return list(found.values())


@dataclass
class Failure:
    """A job that failed, and the text that Snakemake wrote of it."""

    job: Job
    text: str = ""

    def sentence(self, root: Path) -> str:
        """What went wrong, and where more of it stands; paths relative to `root`."""
        see = " and ".join(os.path.relpath(path, root) for path in (self.job.executed, *self.logs()))
        return f"FAILED {self.job.name}: {self.reason()}\n  see {see}"

    def reason(self) -> str:
        """The message of the notebook, or else of the scheduler."""
        problem = self.job.executed.with_suffix(".error")
        if problem.exists():
            return problem.read_text(encoding="utf-8").strip()
        if ended := re.search(r"SLURM-job '(\S+)' failed\b(?s:.*?)'([A-Z_]+)'", self.text):
            return STATES.get(ended[2], "no message from its notebook (SLURM's job %s)") % ended[1]
        if refused := re.search(r"sbatch failed\. The error message was '((?s:.+?))'\.$", self.text, re.MULTILINE):
            return f"SLURM did not take it ({' '.join(refused[1].split())})"
        if broken := re.search(r"submission failed with exception: (.+)", self.text):
            return f"it could not be submitted ({broken[1].strip()})"
        return NO_MESSAGE

    def logs(self) -> list[Path]:
        """Log files beside the executed notebook, as SLURM's of the job."""
        listed = re.search(r"^\s+log: (.+?)(?: \(check log file.*)?$", self.text, re.MULTILINE)
        paths = map(Path, listed[1].split(", ") if listed else ())
        return [path for path in paths if path != self.job.executed and path.exists()]


# ---- SLURM


@dataclass(frozen=True)
class WorkflowProfile:
    """A folder with a Snakemake profile (`config.yaml`), and what it says."""

    folder: Path
    settings: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> WorkflowProfile:
        """The workflow profile in a folder; UserError where there is none."""
        path = folder / "config.yaml"
        if not path.is_file():
            raise UserError(f"There is no workflow profile {path}: give a folder such as params/slurm.")
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
        if not isinstance(settings, dict) or not isinstance(settings.get("default-resources", {}), dict):
            raise UserError(f"{path} is not a workflow profile: write it as params/slurm/config.yaml is written.")
        return cls(folder, settings)

    @property
    def remote(self) -> bool:
        """Whether its jobs run elsewhere than as children of Snakemake."""
        return self.settings.get("executor", "local") not in ("local", "dryrun", "touch")

    @property
    def slurm(self) -> bool:
        """Whether its jobs go to SLURM."""
        return self.settings.get("executor") == "slurm"

    @cached_property
    def resources(self) -> dict[str, Any]:
        """What it asks for each job; values that only Snakemake can compute are left out."""
        asked = self.settings.get("default-resources", {})
        words = {"slurm_account", "slurm_partition", "constraint", "qos", "slurm_extra", "gres", "gpu_model"}
        return {k: v for k, v in asked.items() if isinstance(v, int) or (k in words and isinstance(v, str))}

    def arguments(self, runs: Path, jobs: int) -> list[str]:
        """Snakemake's arguments beside the profile: where logs go, how the study's jobs are called, how to ask."""
        words = [] if {"jobs", "cores"} & self.settings.keys() else ["--jobs", str(jobs)]
        if self.slurm:
            given = {"slurm-logdir": str(runs / "slurm"), "slurm-jobname-prefix": job_prefix(runs)}
            given |= {} if _has_accounting() else {"slurm-status-command": "squeue"}
            words += [word for k, v in given.items() if k not in self.settings for word in (f"--{k}", v)]
        return words

    def check(self, gpus: set[int]) -> None:
        """UserError where SLURM is not there or would not take jobs with these numbers of GPUs; does nothing else."""
        sends, asked = f"{self.folder} sends jobs to SLURM", self.settings.get("default-resources", {})
        if not importlib.util.find_spec(PLUGIN.replace("-", "_")):
            raise UserError(f"{sends}, and {PLUGIN} is not installed: `pip install -c constraints.txt {PLUGIN}`.")
        if absent := [name for name in PROGRAMS if not shutil.which(name)]:
            raise UserError(
                f"{sends}, and there is none here ({', '.join(absent)} not on the PATH): give the command on a login "
                f"node of a cluster, or without --workflow-profile to run on this machine."
            )
        if {"cluster", "clusters", "slurm_cluster"} & asked.keys() or "slurm-partition-config" in self.settings:
            _ask("sinfo", "-h")  # only the plugin knows which partition or which of several clusters a job goes to
            return
        partition = self._partition()
        self._check_plugin()
        if all(state.startswith(NOT_UP) for state in _ask("sinfo", "-h", "-p", partition, "-o", "%T").split()):
            print(f"No node of SLURM's partition {partition} is up at present: jobs wait until one is.")
            return
        for count in sorted(gpus):
            self._check_submission(partition, count)

    def _partition(self) -> str:
        """The partition that jobs go to (or several, with commas between), checked with its time limit."""
        from snakemake_executor_plugin_slurm.utils import time_to_seconds

        lines = [line.partition(" ") for line in _ask("sinfo", "-a", "-h", "-o", "%P %l").splitlines()]
        limits = {name.rstrip("*"): time_to_seconds(limit) / 60 or math.inf for name, _, limit in lines}
        default = next((name.rstrip("*") for name, _, _ in lines if name.endswith("*")), "")
        partition = str(self.resources.get("slurm_partition", default))
        there = f"{self.folder}/config.yaml; SLURM has {', '.join(limits)}"
        if not partition:
            raise UserError(f"SLURM has no default partition: name one as slurm_partition in {there}.")
        for name in partition.split(","):
            if name not in limits:
                other = hint(name, limits, "name one of those.")
                raise UserError(f"SLURM has no partition {name!r} (slurm_partition in {there}): {other}")
        asked, limit = self.resources.get("runtime", 0), max(limits[name] for name in partition.split(","))
        if asked > limit:
            raise UserError(
                f"Jobs ask for {asked} minutes and SLURM's partition {partition} gives {limit:.0f}: lower runtime in "
                f"{self.folder}/config.yaml (a stage cut short resumes from its last checkpoint)."
            )
        return partition

    def _check_plugin(self) -> None:
        """UserError where the plugin would not submit for the profile's account, or could not see how a job ended."""
        from snakemake_executor_plugin_slurm.accounts import WorkflowError, validate_account
        from snakemake_executor_plugin_slurm.job_status_query import get_min_job_age

        for account in filter(None, re.split(r"[,\s]+", str(self.resources.get("slurm_account") or ""))):
            try:
                validate_account(account, logging.getLogger(__name__))
            except (WorkflowError, OSError) as error:
                place, reason = f"slurm_account {account!r} in {self.folder}/config.yaml", " ".join(str(error).split())
                raise UserError(f"{place} is none to submit with: {reason}") from None
        seconds = None if _has_accounting() else get_min_job_age()
        if seconds is not None and seconds < REMEMBERED_SECONDS:
            raise UserError(
                f"This cluster has no accounting (sacct) and forgets a finished job after {seconds} s (MinJobAge), so "
                f"nothing could tell how it ended: ask its administrator for {REMEMBERED_SECONDS} s."
            )

    def submission(self, partition: str, gpus: int) -> list[str]:
        """The words of the plugin's own sbatch command for a job with these GPUs, without what the job runs."""
        from snakemake_executor_plugin_slurm.submit_string import get_submit_command
        from snakemake_executor_plugin_slurm.utils import set_gres_string

        account = shlex.quote(str(self.resources.get("slurm_account") or ""))
        job = SimpleNamespace(resources=_Resources(self.resources | {"gpu": gpus}), threads=1, is_group=lambda: False)
        given = {"run_uuid": "check", "slurm_logfile": "/dev/null", "comment_str": "check", "workdir": None}
        given |= {"partition": f"-p {shlex.quote(partition)}", "account": account and f"-A {shlex.quote(account)}"}
        return shlex.split(get_submit_command(job, given) + set_gres_string(job))

    def _check_submission(self, partition: str, gpus: int) -> None:
        words = [*self.submission(partition, gpus), "--test-only", "--wrap", "true"]
        done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            kept = "-p|-A|-t|--mem|--nodes|--cpus-per-task|--gpus|--gres|--qos|-C"
            asked = re.findall(rf"(?:{kept})(?:=| )\S+", " ".join(words))
            raise UserError(
                f"SLURM would refuse a job of the study ({_last_line(done.stderr)}): see default-resources in "
                f"{self.folder}/config.yaml and the study's hardware.gpus; it would be asked for {' '.join(asked)}."
            )


class _Resources(dict):
    """Resources as Snakemake's jobs have them: a mapping whose values are attributes too."""

    __getattr__ = dict.__getitem__


def job_prefix(runs: Path) -> str:
    """How the jobs of the study in this folder are called in SLURM: the same each time, unlike other studies'."""
    name = re.sub(r"[^A-Za-z0-9_-]", "-", runs.name)[:30]
    return f"rdlib-{name}-{hashlib.sha256(str(runs.resolve()).encode()).hexdigest()[:8]}"


def jobs_of(runs: Path) -> dict[str, str]:
    """Jobs that the study in this folder has in SLURM: their states, by SLURM's number."""
    lines = _ask("squeue", "-h", "--user", getpass.getuser(), "--format", "%i|%T|%j").splitlines()
    jobs = [line.split("|", 2) for line in lines]
    return {number: state for number, state, name in jobs if name.startswith(f"{job_prefix(runs)}_")}


class Placed:
    """The jobs that a Snakemake process has in SLURM for the study in a folder: watched, and cancelled if need be.

    Snakemake's plugin (2.8.0) forgets its jobs once their states could not be had for a while, as after a restart of
    the controller, and Snakemake then waits for them for ever. It is ended, and `lost` set, when SLURM has had no job
    of the study for `seconds` in which Snakemake, which asks at least every three minutes, said nothing (`heard`: when
    it last did; `submitted`: whether it has given SLURM a job).
    """

    def __init__(self, runs: Path, seconds: float = 300, interval: float = 30) -> None:
        self.runs, self.seconds, self.interval = runs, seconds, interval
        self.lost = self.submitted = False
        self.heard = time.monotonic()

    def watch(self, process: subprocess.Popen) -> None:
        """Look after a Snakemake process, in a thread, until it ends."""
        threading.Thread(target=self._watch, args=(process,), daemon=True).start()

    def _watch(self, process: subprocess.Popen) -> None:
        none_since = None
        while process.poll() is None:
            time.sleep(self.interval)
            try:
                none_since = None if jobs_of(self.runs) else none_since or time.monotonic()
            except UserError:  # SLURM does not answer
                none_since = None
            if none_since and self.submitted and time.monotonic() - max(self.heard, none_since) > self.seconds:
                self.lost = True
                process.kill()
                return

    def cancel(self, process: subprocess.Popen) -> None:
        """End Snakemake, which would sleep for minutes first, or at SIGTERM wait for its jobs, and cancel those."""
        process.kill()
        if jobs := jobs_of(self.runs):
            _ask("scancel", *jobs)


def clear_earlier_jobs(runs: Path, seconds: float = 10) -> None:
    """Cancel what an earlier run left waiting, and wait for what it left running, asking every so many seconds.

    Two jobs of one notebook would get into each other's way; what runs is computed anyhow, and found done.
    """
    if waiting := [number for number, state in jobs_of(runs).items() if state == "PENDING"]:
        _ask("scancel", "--state=PENDING", *waiting)
    try:
        if running := " ".join(jobs_of(runs)):
            at_work = f"still at work (`scancel {running}` ends them)."
            print(f"Waiting for jobs of an earlier run that are {at_work}", flush=True)
        while jobs_of(runs):
            time.sleep(seconds)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Interrupted: the jobs of an earlier run continue in SLURM.") from None


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


def _has_accounting() -> bool:
    """Whether sacct tells how a job ended."""
    try:
        _ask("sacct", "-n", "-X")
        return True
    except UserError:
        return False


def _ask(*words: str) -> str:
    """What a program of SLURM prints; UserError where it fails or is not there."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        problem = _last_line(done.stderr) if done.returncode else ""
    except OSError as error:
        problem = error.strerror
    if problem:
        raise UserError(
            f"SLURM does not answer ({problem}): see that `{words[0]}` works here, then give the same command again."
        )
    return done.stdout
