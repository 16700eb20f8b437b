"""Why a job of a study failed, in a sentence: from what its notebook left, or from what Snakemake and SLURM say."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from rdlib.study.jobs import Job

# What SLURM's state of a job means for who runs the study; %s is SLURM's number of the job.
STATES = {
    "TIMEOUT": "SLURM ended it at its time limit (job %s): raise runtime in the workflow profile where it has saved no "
    "checkpoint; else the same command goes on from there",
    "OUT_OF_MEMORY": "it needed more memory than it had asked SLURM for (job %s): raise mem_mb in the workflow profile",
    "NODE_FAIL": "its node failed (SLURM's job %s)",
    "CANCELLED": "it was cancelled in SLURM (job %s)",
    "PREEMPTED": "SLURM gave its place to another job (job %s)",
}


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
        return "no message: its process was killed, most likely because memory ran out; run fewer jobs at a time"

    def logs(self) -> list[Path]:
        """Log files beside the executed notebook, as SLURM's of the job."""
        listed = re.search(r"^\s+log: (.+?)(?: \(check log file.*)?$", "\n".join(self.lines), re.MULTILINE)
        paths = [Path(path) for path in listed.group(1).split(", ")] if listed else []
        return [path for path in paths if path != self.job.executed and path.exists()]


def goes_on(lines: list[str], line: str) -> bool:
    """Whether what Snakemake writes of a failed job goes on with this line; a message may have lines of any kind."""
    return line.startswith("    ") or not any(before.startswith("    jobid: ") for before in lines)


def clear(jobs: list[Job]) -> None:
    """Remove the messages of earlier failures, so that none is taken for a new one."""
    for job in jobs:
        job.executed.with_suffix(".error").unlink(missing_ok=True)
