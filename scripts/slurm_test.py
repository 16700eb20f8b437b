"""The study on a SLURM cluster of one node, on this machine: `make check KIND=slurm`.

Parts, all of them unless some are named:
- refusals: what SLURM would not take, or is not there, ends the command in one sentence before anything is computed.
- faults: the notebooks of one cell, each of which asks for two GPUs that the node claims to have. Meanwhile a hung
  notebook meets its time limit, the command is killed on its login node, the only node goes down and comes up again,
  and the controller is away for longer than Snakemake's plugin bears by default. Each time the study goes on by itself
  or by the same command, and ends with the same artifacts as on this machine without SLURM.
- smoke: the whole smoke study without SLURM, then with it: the same artifacts.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import yaml

from rdlib.errors import UserError
from rdlib.paths import ROOT
from scripts.crash_test import Study, contents, differences
from scripts.local_slurm import NODE, Cluster, install

WORKFLOW = "params/slurm"
PARTS = ("refusals", "faults", "smoke")
GPUS = 2
COLD = "no server of warm notebooks for this job, so it starts cold."
STEP_SECONDS = 1800.0  # of patience with one notebook: this machine may be busy
OUTAGE_SECONDS = 75.0  # of the controller; with the plugin's own 5 attempts of 9 seconds the study would hang
COMMANDS = 4  # how often the same command is given before the study counts as failed


def one_cell(content: dict, name: str = "cell") -> dict:
    """A profile cut down to the first cell that the ablations are of, whose jobs ask for GPUs."""
    cell = content["grid"]["ablation_cells"][0]
    cut = {f"{axis}s": {name_of: content[f"{axis}s"][name_of]} for axis, name_of in cell.items()}
    grid = content["grid"] | {"ablation_cells": [cell]}
    return content | cut | {"grid": grid, "name": name, "hardware": {"gpus": GPUS}}


def write(path: Path, content: dict) -> Path:
    """A YAML file with this content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def read(path: Path) -> dict:
    """A YAML file's content."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def wait(ready: Callable[[], object], what: str, study: Study | None = None, seconds: float = STEP_SECONDS):
    """What `ready` returns as soon as it is true; SystemExit with the study's last words where it never is."""
    deadline = time.monotonic() + seconds
    while not (found := ready()):
        if time.monotonic() > deadline:
            sys.exit(f"Waited {seconds:.0f} s in vain: {what}.\n{study.output()[-2000:] if study else ''}")
        time.sleep(0.5)
    return found


def say(text: str, started: float) -> None:
    """A line of progress, with the minutes since this part began."""
    print(f"  {(time.time() - started) / 60:5.1f} min  {text}", flush=True)


# ---- refusals


def refusals(cluster: Cluster, folder: Path) -> list[str]:
    """Every way in which SLURM cannot or will not, and what the command says; returns what is wrong with it."""
    workflow = read(ROOT / WORKFLOW / "config.yaml")
    cell = one_cell(read(ROOT / "params/smoke.yaml")) | {"runs": str(folder / "runs")}
    many = cell | {"hardware": {"gpus": 64}}
    asked = workflow["default-resources"]
    cases = {
        "a partition that is not there": (cell, {"slurm_partition": "mian"}, "has no partition 'mian'"),
        "more memory than a node has": (cell, {"mem_mb": 10**9}, "would refuse a job of the study"),
        "more GPUs than there are": (many, {}, "--gpus=64"),
        "more time than the partition gives": (cell, {"runtime": 10**5}, "lower runtime"),
    }
    wrong = []
    for what, (profile, changes, sentence) in cases.items():
        changed = write(folder / "workflow/config.yaml", workflow | {"default-resources": asked | changes}).parent
        wrong += _refusal(what, write(folder / "cell.yaml", profile), changed, cluster.environment, sentence)
    plain = write(folder / "cell.yaml", cell)
    bare = cluster.environment | {"PATH": str(Path(sys.executable).parent)}
    wrong += _refusal("no SLURM", plain, ROOT / WORKFLOW, bare, "there is none here")
    cluster.stop("slurmctld")
    wrong += _refusal("a controller that is down", plain, ROOT / WORKFLOW, cluster.environment, "does not answer")
    cluster.start_controller()
    return wrong + [f"{path} was written" for path in (folder / "runs").rglob("*.ipynb")]


def _refusal(what: str, profile: Path, workflow: Path, environment: dict[str, str], sentence: str) -> list[str]:
    words = [sys.executable, "-m", "rdlib", "study", "--profile", str(profile), "--workflow-profile", str(workflow)]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(words, cwd=ROOT, env=os.environ | environment, **streams) as process:
        try:
            error = process.communicate(timeout=120)[1].strip()
        except subprocess.TimeoutExpired:
            error = "it started the study"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    print(f"  {what}: {error}", flush=True)
    good = process.returncode == 2 and sentence in error and len(error.splitlines()) == 1
    return [] if good else [f"{what}: exit status {process.returncode}, {error[-500:]!r}"]


# ---- faults


class Faulty:
    """One cell's study on the cluster, while things go wrong; `given` counts how often its command was given."""

    def __init__(self, study: Study, cluster: Cluster) -> None:
        self.study, self.cluster, self.started = study, cluster, time.time()
        self.given = 0
        self.process: subprocess.Popen | None = None

    def give_command(self) -> None:
        """Give the command that every time is the same."""
        self.process, self.given = self.study.start(), self.given + 1

    def running(self, notebook: str) -> str:
        """SLURM's number of a running job of this notebook, waited for; the command is given where none is at work."""

        def found() -> str | None:
            if self.process is None or self.process.poll() is not None:
                if self.given > COMMANDS:
                    sys.exit(f"The study failed {self.given} times:\n{self.study.output()[-2000:]}")
                self.give_command()
            return next((number for number, rule in self.cluster.jobs().items() if rule.startswith(notebook)), None)

        return wait(found, f"a running job of {notebook}", self.study)

    def kernel(self, number: str) -> psutil.Process:
        """The kernel of a job's notebook, waited for."""

        def found() -> psutil.Process | None:
            for process in self.study.processes():
                with contextlib.suppress(psutil.Error):
                    if process.environ().get("SLURM_JOB_ID") == number and "ipykernel_launcher" in process.cmdline():
                        return process
            return None

        return wait(found, f"the kernel of job {number}", self.study)

    def say(self, text: str) -> None:
        """A line of progress."""
        say(text, self.started)

    def check_gpus(self, number: str) -> None:
        """A job that trains or samples has its GPUs, on one node; SystemExit otherwise."""
        job = self.cluster.job(number)
        asked = {name: job.get(name) for name in ("TresPerJob", "NumNodes", "MinMemoryNode", "CPUs/Task")}
        gpus = re.fullmatch(r"gres[:/]gpu[:=](\d+)", asked["TresPerJob"] or "")  # by SLURM's version
        if not gpus or int(gpus.group(1)) != GPUS or not asked["NumNodes"].startswith("1"):
            sys.exit(f"Job {number} asks SLURM for {asked}, not for {GPUS} GPUs on one node.")
        self.say(f"job {number} has {GPUS} GPUs on one node (TresPerJob={asked['TresPerJob']})")

    def time_limit(self) -> None:
        """A notebook hangs and its job's time is over."""
        number = self.running("01_teacher_responses")
        self.check_gpus(number)
        kernel, work = self.kernel(number), "01_teacher_responses.partial"
        wait(lambda: any(self.study.runs.rglob(work)), f"{work} in {self.study.runs}", self.study)
        kernel.suspend()  # at work: one that hangs while it starts is given up by its notebook after a minute
        self.cluster.command("scontrol", "update", f"jobid={number}", "TimeLimit=1")
        self.say(f"job {number} (01_teacher_responses) hangs, with a time limit of a minute")
        status = self.process.wait(STEP_SECONDS)
        if not status or "SLURM ended it at its time limit" not in self.study.output():
            sys.exit(f"The study does not say that a job's time was over:\n{self.study.output()[-2000:]}")
        # A stopped process cannot notice that its parent is gone, and without cgroups SLURM does not find an orphan.
        with contextlib.suppress(psutil.NoSuchProcess):
            kernel.resume()
        wait(lambda: not kernel.is_running(), f"the end of job {number}'s kernel ({kernel.pid})", self.study, 60)
        self.say("the study ended and says so: " + self.study.output().split("FAILED")[-1].splitlines()[0].strip())

    def command_killed(self) -> None:
        """The login node ends every process of the study's command; SLURM's jobs go on."""
        number = self.running("03_sft_warmup")
        self.kernel(number)
        for process in self.study.processes():
            with contextlib.suppress(psutil.Error):
                if "SLURM_JOB_ID" not in process.environ():
                    process.kill()
        self.process.wait()
        left = self.cluster.jobs()
        self.say(f"the command was killed; SLURM still runs {', '.join(sorted(left.values()))}")
        self.give_command()
        wait(lambda: "Waiting for jobs of an earlier run" in self.study.output(), "the study to see them", self.study)
        self.say("the same command waits for them")

    def node_down(self) -> None:
        """The only node goes down under a job, and comes up again."""
        number = self.running("04_student_responses")
        self.kernel(number)
        self.cluster.command("scontrol", "update", f"nodename={NODE}", "state=down", "reason=test")
        wait(lambda: number not in self.cluster.jobs(), f"job {number} to be off the node", self.study)
        state = self.cluster.job(number).get("JobState")
        time.sleep(15)  # Snakemake asks for states meanwhile
        self.cluster.command("scontrol", "update", f"nodename={NODE}", "state=resume")
        wait(lambda: self.cluster.node_state().startswith(("IDLE", "MIXED", "ALLOC")), "the node to be up")
        self.say(f"the node was down under job {number}, which was then {state}; it is up again")

    def controller_away(self) -> None:
        """slurmctld stops under running jobs, and is started again."""
        number = self.running("06_ppo")
        self.kernel(number)
        self.cluster.stop("slurmctld")
        time.sleep(OUTAGE_SECONDS)
        self.cluster.start_controller()
        self.say(f"the controller was away for {OUTAGE_SECONDS:.0f} s under job {number}")

    def finish(self) -> None:
        """The rest of the study, by the same command if need be; SystemExit where it does not end."""
        while self.process is None or self.process.wait(2 * STEP_SECONDS):
            if self.given > COMMANDS:
                sys.exit(f"The study failed {self.given} times:\n{self.study.output()[-2000:]}")
            self.say("the study ended with a failure; the same command again")
            self.give_command()
        self.say(f"finished; its command was given {self.given} times")


def faults(cluster: Cluster, folder: Path, stack: contextlib.ExitStack) -> list[str]:
    """One cell's study without SLURM, then with it and with faults; returns what differs."""
    profile = write(folder / "cell.yaml", one_cell(read(ROOT / "params/smoke.yaml")))
    reference = without_slurm(profile, folder / "study", stack)
    study = with_slurm(profile, folder / "study", cluster, stack)
    faulty = Faulty(study, cluster)
    for fault in (faulty.time_limit, faulty.command_killed, faulty.node_down, faulty.controller_away):
        fault()
    faulty.finish()
    return compare(reference, study)


# ---- whole studies


def without_slurm(profile: Path, folder: Path, stack: contextlib.ExitStack) -> Path:
    """The runs of a profile's study made on this machine alone, beside where the same study will be made with SLURM."""
    folder.mkdir(parents=True)
    study, started = Study(profile, folder, 2), time.time()
    stack.callback(study.kill)
    study.finish()
    say(f"without SLURM: {study.notebooks} notebooks", started)
    return study.runs.rename(folder / "without")


def with_slurm(profile: Path, folder: Path, cluster: Cluster, stack: contextlib.ExitStack) -> Study:
    """The study of a profile on the cluster, not started."""
    folder.mkdir(parents=True, exist_ok=True)
    study = Study(profile, folder, 2, ("--workflow-profile", WORKFLOW), cluster.environment)
    stack.callback(study.kill)
    return study


def compare(reference: Path, study: Study) -> list[str]:
    """What is wrong with a finished study's artifacts and logs."""
    wrong = differences(reference, study.runs, "SLURM")
    logs = {path: path.read_text(errors="replace") for path in (study.runs / "slurm").rglob("*.log")}
    cold = sum(COLD in text for text in logs.values())
    wrong += [f"warm: {path}" for path, text in logs.items() if "Finished jobid" in text and COLD not in text]
    if cold < study.notebooks:
        wrong.append(f"{cold} logs of {study.notebooks} notebooks in {study.runs / 'slurm'} say that it started cold")
    if not wrong:
        print(f"  {sum(1 for _ in contents(reference))} artifacts, all the same; {cold} jobs started cold.")
    return wrong


def smoke(cluster: Cluster, folder: Path, stack: contextlib.ExitStack, profile: Path) -> list[str]:
    """A whole study without SLURM and with it; returns what differs."""
    reference = without_slurm(profile, folder, stack)
    study, started = with_slurm(profile, folder, cluster, stack), time.time()
    process = study.start()
    said = 0
    while process.poll() is None:
        if study.done() >= said + 10:
            said = study.done()
            say(f"{said} of {study.notebooks} notebooks", started)
        time.sleep(2)
    if process.returncode:
        sys.exit(f"The study failed:\n{study.output()[-2000:]}")
    say(f"with SLURM: {study.notebooks} notebooks", started)
    return compare(reference, study)


def main(argv: list[str] | None = None) -> int:
    """Command line: the parts, and --profile of the part smoke."""
    parser = argparse.ArgumentParser(prog="slurm_test", description="The study on a SLURM cluster on this machine.")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all of them unless named")
    parser.add_argument("--profile", type=Path, default=ROOT / "params/smoke.yaml", help="of the part smoke")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))
    folder = Path(tempfile.mkdtemp(prefix="rdlib-slurm-"))
    try:
        wrong = run(arguments, folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        with contextlib.suppress(OSError):
            folder.rmdir()  # empty, where SLURM is not there
        return 2
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        print("Interrupted: the cluster and all its jobs are stopped.", file=sys.stderr)
        return 130
    except BaseException:
        print(f"All of it is in {folder}.", file=sys.stderr)
        raise
    if wrong:
        print("\n".join(wrong), f"\nAll of it is in {folder}.")
        return 1
    shutil.rmtree(folder)
    return 0


def run(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """The parts, in a cluster that is stopped whatever happens; returns what went wrong."""
    parts = arguments.parts or PARTS
    print("On two cores: refusals 1 minute, faults 25, smoke 40; up to twice that where they are busy.")
    print(f"0.2 GB in {folder}; where SLURM is missing, Debian's is installed (14 MB).", flush=True)
    install()
    wrong = []
    with Cluster(folder / "cluster") as cluster, contextlib.ExitStack() as stack:
        for part in (part for part in PARTS if part in parts):
            print(f"{part}:", flush=True)
            if part == "refusals":
                wrong += refusals(cluster, folder / part)
            elif part == "faults":
                wrong += faults(cluster, folder / part, stack)
            else:
                wrong += smoke(cluster, folder / part, stack, arguments.profile)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
