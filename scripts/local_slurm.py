"""A SLURM cluster of one node on this machine, for tests: munged, slurmctld and slurmd, all they have in one folder.

Nothing of the system's own SLURM is read or written. The node's processors, memory and GPUs are claimed, not there:
jobs that ask for as much as on a real cluster are placed as they would be, and SLURM only counts.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from rdlib.errors import UserError

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "srun", "sinfo", "scontrol", "scancel")
PACKAGES = ("slurm-wlm", "munge")
DAEMON_FOLDERS = ("/usr/sbin", "/sbin")  # where Debian has daemons, not on every user's PATH
NODE = socket.gethostname().split(".")[0]
PARTITION = "main"
START_SECONDS = 60.0


def install() -> None:
    """Install Debian's packages where a program is missing; UserError where that cannot be."""
    if not missing():
        return
    if not shutil.which("apt-get"):
        raise UserError(
            f"There is no SLURM here ({', '.join(missing())}) and no apt-get to install it: install slurm-wlm and "
            f"munge as your system does, then run this again."
        )
    if os.geteuid() != 0:
        raise UserError(
            f"There is no SLURM here ({', '.join(missing())}), and only root can install it: run "
            f"`sudo apt-get install {' '.join(PACKAGES)}`, then this again."
        )
    for words in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        command = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise UserError(f"`{' '.join(command)}` failed ({' '.join(last)}): see to that, then run this again.")
    if missing():
        raise UserError(f"{' and '.join(PACKAGES)} are installed, but {', '.join(missing())} is not on the PATH.")


def missing() -> list[str]:
    """The programs of SLURM and munge that are not on the PATH (which gets the folders of daemons)."""
    search = os.pathsep.join([os.environ.get("PATH", ""), *DAEMON_FOLDERS])
    return [name for name in PROGRAMS if not shutil.which(name, path=search)]


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def configuration(folder: Path, ports: list[int], user: str) -> str:
    """slurm.conf of the cluster: what a container allows (no cgroups, no systemd, no accounting database)."""
    return f"""\
ClusterName=rdlib
SlurmctldHost={NODE}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=0
KillWait=5
MinJobAge=300
SchedulerParameters=batch_sched_delay=1,sched_interval=5,bf_interval=5
NodeName={NODE} NodeAddr=127.0.0.1 CPUs=32 RealMemory=256000 Gres=gpu:4 State=UNKNOWN
PartitionName={PARTITION} Nodes={NODE} Default=YES MaxTime=7-00:00:00 State=UP
"""


class Cluster:
    """A context in which the cluster runs; `environment` is what its commands and jobs need to find it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen] = {}
        path = os.pathsep.join([str(folder / "bin"), os.environ.get("PATH", ""), *DAEMON_FOLDERS])
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}

    def __enter__(self) -> Cluster:
        self._write()
        try:
            munge = self.folder / "munge"
            self._start(
                *("munged", "--foreground", f"--key-file={munge}/key", f"--socket={munge}/socket"),
                *(f"--pid-file={munge}/pid", f"--seed-file={munge}/seed", f"--log-file={self.folder}/munged.log"),
                "--force",  # others need not reach its socket: the cluster has one user
            )
            self._wait(lambda: (munge / "socket").exists(), "munged")
            self.start_controller()
            self._start("slurmd", "-D", "-N", NODE)
            self._wait(lambda: self.node_state().startswith(("IDLE", "MIXED")), "slurmd")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if "slurmctld" in self.daemons:
            with contextlib.suppress(UserError):
                self.command("scancel", "--full", "--user", getpass.getuser())
                deadline = time.monotonic() + 20
                while time.monotonic() < deadline and self.command("squeue", "-h"):
                    time.sleep(0.5)
        for name in ("slurmd", "slurmctld", "munged"):
            self.stop(name)

    def _write(self) -> None:
        for name in ("munge", "state", "spool", "bin"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "munge/key").write_bytes(os.urandom(128))
        (self.folder / "munge/key").chmod(0o600)
        gpus = [self.folder / f"gpu{number}" for number in range(4)]
        for gpu in gpus:
            gpu.touch()
        (self.folder / "gres.conf").write_text("".join(f"Name=gpu File={gpu}\n" for gpu in gpus))
        # Snakemake's plugin takes SLURM_CONF away from the srun within a job; a cluster has its file in /etc/slurm.
        srun = self.folder / "bin/srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
        srun.chmod(0o755)
        text = configuration(self.folder, free_ports(2), getpass.getuser())
        (self.folder / "slurm.conf").write_text(text)

    def _start(self, *words: str) -> None:
        # In a session of its own, so that Ctrl-C leaves the order of stopping to us; it ends with us at the latest.
        words = ("setpriv", "--pdeathsig", "TERM", *words) if shutil.which("setpriv") else words
        name = next(word for word in words if word in PROGRAMS)
        with (self.folder / f"{name}.out").open("a") as output:
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, "start_new_session": True}
            self.daemons[name] = subprocess.Popen(words, env=os.environ | self.environment, **streams)

    def _wait(self, ready, name: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if self.daemons[name].poll() is not None or time.monotonic() > deadline:
                raise UserError(f"{name} does not start: {self._last_words(name)}")
            time.sleep(0.2)

    def _last_words(self, name: str) -> str:
        for path in (self.folder / f"{name}.log", self.folder / f"{name}.out"):
            if path.exists() and (lines := path.read_text(errors="replace").strip().splitlines()):
                return lines[-1]
        return "it said nothing."

    def start_controller(self) -> None:
        """Start slurmctld, with the jobs that it knew when it was stopped."""
        self._start("slurmctld", "-D")
        self._wait(lambda: self._answers(), "slurmctld")

    def stop(self, name: str) -> None:
        """Stop a daemon and wait for its end."""
        process = self.daemons.pop(name, None)
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _answers(self) -> bool:
        try:
            return "UP" in self.command("scontrol", "ping")
        except UserError:
            return False

    def command(self, *words: str) -> str:
        """What a command of SLURM prints; UserError with its last line where it fails."""
        environment = os.environ | self.environment
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise UserError(f"`{' '.join(words)}`: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}")
        return done.stdout.strip()

    def node_state(self) -> str:
        """The node's state, as IDLE, MIXED, ALLOCATED, DOWN; empty where it is not known."""
        with contextlib.suppress(UserError):
            fields = dict(word.partition("=")[::2] for word in self.command("scontrol", "show", "node", NODE).split())
            return fields.get("State", "")
        return ""

    def jobs(self, state: str = "RUNNING") -> dict[str, str]:
        """The jobs in a state: the rule of the study, by SLURM's number."""
        lines = self.command("squeue", "-h", "--states", state, "--format", "%i|%k").splitlines()
        return {number: rule.removeprefix("rule_") for number, _, rule in (line.partition("|") for line in lines)}

    def job(self, number: str) -> dict[str, str]:
        """The fields of `scontrol show job`."""
        words = self.command("scontrol", "show", "job", number).split()
        return dict(word.partition("=")[::2] for word in words)
