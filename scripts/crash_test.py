"""Kill a study at random moments, start it again each time, and compare what it ends with: `make check KIND=crash`.

The study runs twice, in a temporary folder: once from start to end, and once with SIGKILL sent at `--kills` moments to
all of its processes (Snakemake, the server of warm notebooks, kernels), so that none can tidy up. Moments are drawn by
`--seed` over the course of the study: after a number of finished notebooks and a part of a notebook's usual time. Both
runs must end with the same files, apart from the times that manifests and tables of costs record.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import yaml

from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.study.jobs import study_jobs

MARK = "RDLIB_CRASH_TEST"  # in the environment of every process of the study, by which they are found
TIMES = ("started", "ended", "seconds")
# Executed notebooks and logs say how a run went; the tables below are drawn from the times of the stages.
NO_ARTIFACT = ("*.ipynb", "*.error", "*.log", ".lock", "measured.json", "costs.md", "provenance.md", "provenance.csv")
STUDY_SECONDS = 4 * 3600.0


class Study:
    """A study of a profile in a folder of its own, which can be started, killed and started again.

    `words` are further words of its command, `environment` further variables of its processes.
    """

    def __init__(
        self,
        profile: Path,
        folder: Path,
        jobs: int,
        words: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        content = yaml.safe_load(profile.read_text(encoding="utf-8")) | {"runs": str(folder / "runs")}
        self.folder, self.profile, self.jobs = folder, folder / profile.name, jobs
        self.words, self.environment = words, environment or {}
        self.profile.write_text(yaml.safe_dump(content), encoding="utf-8")
        self.runs = folder / "runs" / content["name"]
        self.notebooks = len(study_jobs(str(self.profile), load_profile(self.profile).grid.seeds))

    def start(self) -> subprocess.Popen:
        """Start or resume the study; its output goes to a file."""
        words = ["-m", "rdlib", "study", "--profile", str(self.profile), "--jobs", str(self.jobs), *self.words]
        with (self.folder / "output.txt").open("a") as output:
            environment = os.environ | self.environment | {MARK: str(self.folder), "TQDM_DISABLE": "1"}
            streams = {"stdout": output, "stderr": output}
            return subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environment, **streams)

    def finish(self) -> None:
        """Run the study to its end; SystemExit where it fails."""
        if self.start().wait(STUDY_SECONDS):
            sys.exit(f"The study failed; the end of {self.folder / 'output.txt'}:\n{self.output()[-2000:]}")

    def output(self) -> str:
        """What the study has printed so far."""
        return (self.folder / "output.txt").read_text(errors="replace")

    def done(self) -> int:
        """How many notebooks are finished."""
        return sum(1 for _ in (self.runs / ".jobs").glob("*"))

    def processes(self) -> list[psutil.Process]:
        """Every process of the study, by its environment: kernels have sessions of their own."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == str(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:  # ended meanwhile, or of another user
                continue
        return found

    def kill(self) -> list[str]:
        """Kill every process at once, as far as that can be; the notebooks that were at work."""
        stopped: set[psutil.Process] = set()
        while new := set(self.processes()) - stopped:  # stopped first, so that none sees another end
            for process in new:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()
            stopped |= new
        names = [name for process in stopped if (name := _notebook_of(process))]
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(stopped, timeout=60)
        return sorted(set(names))


def _notebook_of(process: psutil.Process) -> str | None:
    """The notebook that a job's process is for."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return None
    at_work = words[1:4] == ["-m", "rdlib", "execute"] and len(words) > 4 and words[4].endswith(".ipynb")
    return Path(words[4]).stem if at_work else None


def moments(kills: int, notebooks: int, seconds: float, seed: int) -> list[tuple[int, float]]:
    """When to kill: after how many finished notebooks, and how many seconds after that.

    `seconds` are those of the whole study. The last moment is in its last notebook, which draws the figures.
    """
    rng = random.Random(seed)
    after = [*sorted(rng.randrange(notebooks) for _ in range(kills - 1)), notebooks - 1]
    return [(count, rng.uniform(0, 4 * seconds / notebooks)) for count in after]


def run_with_kills(study: Study, when: list[tuple[int, float]]) -> int:
    """Run a study to its end, killing it at these moments; returns how often it was killed."""
    killed = 0
    for count, pause in when:
        process = study.start()
        while process.poll() is None and study.done() < count:
            time.sleep(0.2)
        try:
            if process.wait(pause):
                sys.exit(f"The study failed after {killed} kills:\n{study.output()[-2000:]}")
            break  # it was faster
        except subprocess.TimeoutExpired:
            names = study.kill()
            process.wait()
            killed += 1
            print(f"kill {killed}: {study.done()} notebooks done; at work: {', '.join(names) or '-'}", flush=True)
    study.finish()
    return killed


def contents(runs: Path) -> Iterator[tuple[str, str]]:
    """(relative path, hash without times) of every artifact of a study."""
    for path in sorted(p for p in runs.rglob("*") if p.is_file()):
        if not any(path.match(pattern) for pattern in NO_ARTIFACT):
            yield path.relative_to(runs).as_posix(), hashlib.sha256(_without_times(path)).hexdigest()


def _without_times(path: Path) -> bytes:
    if path.name in ("manifest.json", "provenance.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        return json.dumps({k: v for k, v in content.items() if k not in TIMES}).encode()
    if path.name == "costs.csv":
        table = pd.read_csv(path)
        return table.drop(columns=[name for name in table if name.startswith("seconds")]).to_csv().encode()
    return path.read_bytes()


def differences(one: Path, other: Path, what: str = "kills") -> list[str]:
    """What two finished studies, one without and one with something, differ in: a line a file."""
    ours, theirs = dict(contents(one)), dict(contents(other))
    lines = [f"only without {what}: {name}" for name in sorted(ours.keys() - theirs.keys())]
    lines += [f"only with {what}: {name}" for name in sorted(theirs.keys() - ours.keys())]
    return lines + [f"differs: {name}" for name in sorted(ours.keys() & theirs.keys()) if ours[name] != theirs[name]]


def main() -> int:
    """Command line: --kills, --seed, --profile, --jobs."""
    parser = argparse.ArgumentParser(prog="crash_test", description="Kill a study at random moments and compare.")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--profile", type=Path, default=ROOT / "params" / "smoke.yaml")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks at a time")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="rdlib-crash-"))
    with contextlib.ExitStack() as stack:
        study = Study(arguments.profile, folder, arguments.jobs)
        stack.callback(study.kill)  # should this program be stopped
        started = time.time()
        study.finish()
        seconds = time.time() - started
        print(f"without kills: {study.notebooks} notebooks in {seconds / 60:.1f} min", flush=True)
        whole = study.runs.rename(folder / "whole")
        started = time.time()
        killed = run_with_kills(study, moments(arguments.kills, study.notebooks, seconds, arguments.seed))
        print(f"with {killed} kills: {(time.time() - started) / 60:.1f} min", flush=True)
        found = differences(whole, study.runs)
        if found:
            print("\n".join(found), f"\nBoth studies are in {folder}.")
            return 1
        print(f"{sum(1 for _ in contents(whole))} artifacts, all the same.")
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
