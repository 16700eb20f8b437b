"""Notebooks run by forks of a warm process: as in a new process, with the same failures, and nothing left running."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from rdlib.study import warm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="notebooks start warm on Linux alone")

LOOK = """
import json, os, sys, torch, matplotlib.pyplot as plt
seen = {"torch": torch.rand(3).tolist(), "folder": os.getcwd(), "name": os.environ.get("WARM_TEST"),
        "threads": torch.get_num_threads(), "backend": plt.get_backend(), "word": word}
print(json.dumps(seen))
plt.plot([1, 2]);
"""


def write_notebook(path: Path, *cells: str) -> Path:
    """A notebook with a parameter `word` and these cells."""
    book = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    parameters = nbformat.v4.new_code_cell("word = 'none'", metadata={"tags": ["parameters"]})
    book.cells = [parameters, *map(nbformat.v4.new_code_cell, cells)]
    nbformat.write(book, path)
    return path


def command(notebook: Path, output: Path, **parameters) -> list[str]:
    return [sys.executable, "-m", "rdlib", "warm", str(notebook), str(output), json.dumps(parameters)]


def run(server, notebook: Path, output: Path, **parameters) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WARM_TEST": "yes"} | (server.environment if server else {})
    environment = {k: v for k, v in environment.items() if server or k != warm.ADDRESS}
    return subprocess.run(command(notebook, output, **parameters), env=environment, capture_output=True, text=True)


def outputs(path: Path) -> list:
    return [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]


@pytest.fixture(scope="module")
def server():
    with warm.Server() as started:
        yield started
    assert started.process.returncode == 0


def test_a_fork_sees_what_a_new_process_sees(server, tmp_path):
    notebook = write_notebook(tmp_path / "look.ipynb", "import torch; torch.manual_seed(0);", LOOK)
    results = {}
    for name, where in (("warm", server), ("cold", None)):
        done = run(where, notebook, tmp_path / f"{name}.ipynb", word="given")
        assert done.returncode == 0, done.stderr
        text, picture = outputs(tmp_path / f"{name}.ipynb")
        results[name] = json.loads(text["text"])
        assert "image/png" in picture["data"]
    assert results["warm"] == results["cold"]
    assert results["warm"]["word"] == "given" and results["warm"]["name"] == "yes"
    assert results["warm"]["folder"] == str(tmp_path) and results["warm"]["threads"] == 1


def test_a_failure_is_reported_as_in_a_new_process(server, tmp_path):
    notebook = write_notebook(
        tmp_path / "fail.ipynb", "from rdlib.errors import UserError", "raise UserError('the milk is sour')"
    )
    warm_run, cold_run = (run(where, notebook, tmp_path / "out.ipynb") for where in (server, None))
    assert warm_run.returncode == cold_run.returncode == 2
    assert "error: the milk is sour" in warm_run.stderr and "error: the milk is sour" in cold_run.stderr
    assert (tmp_path / "out.error").read_text() == "the milk is sour\n"
    bad = run(server, notebook, tmp_path / "out.ipynb", wrod=1)
    assert bad.returncode == 2 and "did you mean 'word'?" in bad.stderr


def test_without_a_server_the_notebook_runs_in_a_new_process(tmp_path):
    notebook = write_notebook(tmp_path / "plain.ipynb", "print('ran')")
    gone = warm.Server()
    gone.environment = {warm.ADDRESS: "rdlib-nobody-listens"}
    assert run(gone, notebook, tmp_path / "out.ipynb").returncode == 0
    assert outputs(tmp_path / "out.ipynb")[0]["text"] == "ran\n"


def test_a_killed_job_leaves_no_kernel_behind(server, tmp_path):
    told = tmp_path / "pid"
    notebook = write_notebook(
        tmp_path / "slow.ipynb",
        f"import os, time; open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(300)",
    )
    environment = os.environ | server.environment
    client = subprocess.Popen(command(notebook, tmp_path / "out.ipynb"), env=environment)
    kernel = int(wait_for(lambda: told.exists() and told.read_text()))
    client.kill()
    wait_for(lambda: not psutil.pid_exists(kernel) or psutil.Process(kernel).status() == psutil.STATUS_ZOMBIE)


def test_a_killed_kernel_fails_its_job_with_a_sentence(server, tmp_path):
    notebook = write_notebook(tmp_path / "dies.ipynb", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    done = run(server, notebook, tmp_path / "out.ipynb")
    assert done.returncode == 2 and "died" in done.stderr.lower()


def wait_for(condition, seconds: float = 30.0):
    """The first true value of a condition; fails when none comes."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    pytest.fail("it did not happen in time")
