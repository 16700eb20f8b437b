"""Snakemake, which runs a study's jobs: its command, what it says of them, and why one failed, in a sentence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from rdlib import artifacts
from rdlib.errors import UserError
from rdlib.paths import ROOT
from rdlib.profile import Profile
from rdlib.study import cluster
from rdlib.study.jobs import Job

INTERRUPTED = "Interrupted: what was finished is kept; the same command goes on from there."
NO_MESSAGE = "no message: its process was killed, most likely because memory ran out; run fewer jobs at a time"
# What SLURM's state of a job means for who runs the study; %s is SLURM's number of the job.
STATES = {
    "TIMEOUT": "SLURM ended it at its time limit (job %s): raise runtime in the workflow profile where it has saved no "
    "checkpoint; else the same command goes on from there",
    "OUT_OF_MEMORY": "it needed more memory than it had asked SLURM for (job %s): raise mem_mb in the workflow profile",
    "NODE_FAIL": "its node failed (SLURM's job %s)",
    "CANCELLED": "it was cancelled in SLURM (job %s)",
    "PREEMPTED": "SLURM gave its place to another job (job %s)",
}


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


def command(plan: Path, jobs: int, profile: Profile, placement: cluster.WorkflowProfile | None = None) -> list[str]:
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
    words: list[str],
    jobs: list[Job],
    done: int,
    runs: Path,
    extra: dict[str, str],
    lock: int,
    placed: cluster.Jobs | None = None,
) -> list[Failure]:
    """Run Snakemake, its output in a log file, a bar on the screen; returns the jobs that failed.

    Snakemake holds the lock too: should this process be killed, no second run starts beside what it left running.
    Interrupted, Snakemake ends what it has started; jobs `placed` in SLURM are cancelled here.
    """
    for job in jobs:  # so that no message of an earlier failure is taken for a new one
        job.executed.with_suffix(".error").unlink(missing_ok=True)
    log_path, pipes = runs / "snakemake.log", {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with (
        log_path.open("a", buffering=1) as log,
        tqdm(total=len(jobs), initial=done, desc="study", unit="job", smoothing=0.05) as bar,
        subprocess.Popen(words, env=os.environ | extra, pass_fds=[lock], **pipes) as process,
    ):
        outcome = Outcome(jobs, bar)
        if placed:
            placed.watch(process)
        try:
            for line in process.stdout:
                log.write(line)
                if placed:
                    placed.hear(line)
                outcome.hear(line)
        except KeyboardInterrupt:
            _interrupt(process, placed)
            raise KeyboardInterrupt(INTERRUPTED) from None
    if process.returncode and not outcome.failed and not (placed and placed.lost):
        tail = log_path.read_text().strip().splitlines()[-1]
        raise UserError(f"Snakemake stopped ({tail}); its log is {os.path.relpath(log_path, ROOT)}.")
    return list(outcome.failed.values())


def _interrupt(process: subprocess.Popen, placed: cluster.Jobs | None) -> None:
    if placed:  # Snakemake would sleep for minutes first, or at SIGTERM wait for its jobs to end
        process.kill()
        placed.cancel()
    else:
        process.terminate()


class Outcome:
    """What Snakemake's lines say of its jobs: those that finished go on a bar, those that failed are in `failed`."""

    def __init__(self, jobs: list[Job], bar: tqdm) -> None:
        self.jobs, self.bar = {job.name: job for job in jobs}, bar
        self.failed: dict[str, Failure] = {}
        self._failing: list[str] | None = None  # while Snakemake writes of a failed job: the lines so far

    def hear(self, line: str) -> None:
        """Take in the next line."""
        if self._failing is not None and _goes_on(self._failing, line):
            self._failing.append(line.rstrip())
            return
        self._failing = None
        if finished := re.match(r"Finished jobid: \d+ \(Rule: (.+)\)", line):
            self.failed.pop(finished.group(1), None)  # at a second attempt, where a workflow profile allows one
            if finished.group(1) != "all":
                self.bar.update(1)
                self.bar.set_postfix_str(finished.group(1))
        elif (error := re.match(r"Error in rule (.+):", line)) and (job := self.jobs.get(error.group(1))):
            self.failed[job.name] = Failure(job)
            self._failing = self.failed[job.name].lines


def _goes_on(lines: list[str], line: str) -> bool:
    """Whether what Snakemake writes of a failed job goes on with this line; a message may have lines of any kind."""
    return line.startswith("    ") or not any(before.startswith("    jobid: ") for before in lines)


@dataclass
class Failure:
    """A job that failed, and the lines that Snakemake wrote of it."""

    job: Job
    lines: list[str] = field(default_factory=list)

    def sentence(self, root: Path) -> str:
        """What went wrong, and where more of it stands; paths relative to `root`."""
        see = " and ".join(os.path.relpath(path, root) for path in (self.job.executed, *self.logs()))
        return f"FAILED {self.job.name}: {self.reason()}\n  see {see}"

    def reason(self) -> str:
        """The message of the notebook, or else of the scheduler."""
        problem = self.job.executed.with_suffix(".error")
        if problem.exists():
            return problem.read_text(encoding="utf-8").strip()
        text = "\n".join(self.lines)
        if ended := re.search(r"SLURM-job '(\S+)' failed\b.*?'([A-Z_]+)'", text, re.DOTALL):
            number, state = ended.groups()
            return STATES.get(state, "no message from its notebook (SLURM's job %s)") % number
        if refused := re.search(r"sbatch failed\. The error message was '(.+?)'\.$", text, re.DOTALL | re.MULTILINE):
            return f"SLURM did not take it ({' '.join(refused.group(1).split())})"
        if broken := re.search(r"submission failed with exception: (.+)", text):
            return f"it could not be submitted ({broken.group(1).strip()})"
        return NO_MESSAGE

    def logs(self) -> list[Path]:
        """Log files beside the executed notebook, as SLURM's of the job."""
        listed = re.search(r"^\s+log: (.+?)(?: \(check log file.*)?$", "\n".join(self.lines), re.MULTILINE)
        paths = [Path(path) for path in listed.group(1).split(", ")] if listed else []
        return [path for path in paths if path != self.job.executed and path.exists()]
