"""`make check KIND=crash`: when it kills, what it compares, and that it finds and ends every process of its study."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
from conftest import REPOSITORY

from scripts import crash_test


def finished(folder: Path, **manifest) -> Path:
    """A folder with what two equal studies may differ in."""
    stage = folder / "gsm" / "00_data"
    stage.mkdir(parents=True)
    (stage / "manifest.json").write_text(json.dumps({"stage": "00_data", "started": str(folder)} | manifest))
    (stage / "questions.parquet").write_bytes(b"questions")
    (stage / "00_data.ipynb").write_text(str(folder))
    (folder / "costs.csv").write_text(f"stage,seconds\n00_data,{len(str(folder))}\n")
    return folder


def test_times_and_logs_make_no_difference(tmp_path):
    one, other = finished(tmp_path / "a"), finished(tmp_path / "another")
    assert crash_test.differences(one, other) == []
    assert len(list(crash_test.contents(one))) == 3


def test_everything_else_does(tmp_path):
    one, other = finished(tmp_path / "a"), finished(tmp_path / "b", key="k")
    (one / "gsm" / "more.json").write_text("{}")
    (other / "gsm" / "00_data" / ".key").write_text("left over")
    (other / "gsm" / "00_data" / "questions.parquet").write_bytes(b"other questions")
    assert crash_test.differences(one, other) == [
        "only without kills: gsm/more.json",
        "only with kills: gsm/00_data/.key",
        "differs: gsm/00_data/manifest.json",
        "differs: gsm/00_data/questions.parquet",
    ]


def test_the_moments_are_those_of_the_seed_and_reach_the_figures():
    when = crash_test.moments(30, 95, 190.0, seed=0)
    assert when == crash_test.moments(30, 95, 190.0, seed=0) != crash_test.moments(30, 95, 190.0, seed=1)
    assert len(when) == 30 and when == sorted(when, key=lambda moment: moment[0])
    assert when[0][0] < 20 and when[-1][0] == 94 and all(0 <= pause <= 8 for _, pause in when)


def test_processes_in_other_sessions_are_found_and_killed(tmp_path):
    """As kernels and training processes are, which no signal to a process group would reach."""
    study = crash_test.Study(REPOSITORY / "params/smoke.yaml", tmp_path, jobs=2)
    assert study.notebooks > 80 and study.done() == 0
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'], start_new_session=True)"
    environment = os.environ | {crash_test.MARK: str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", child], env=environment, stdin=subprocess.PIPE)
    while len(study.processes()) < 2:
        time.sleep(0.05)
    assert study.kill() == []
    assert study.processes() == [] and not psutil.pid_exists(process.pid)
