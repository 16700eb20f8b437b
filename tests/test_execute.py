"""One notebook run by papermill, cold or in a fork of a warm process: the same results, sentences and files."""

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

from rdlib.__main__ import main
from rdlib.errors import UserError
from rdlib.study import execute, warm, workflow

linux = pytest.mark.skipif(sys.platform != "linux", reason="notebooks start warm on Linux alone")
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
LOOK = """
import json, os, sys, torch, matplotlib.pyplot as plt
seen = {"torch": torch.rand(3).tolist(), "folder": os.getcwd(), "name": os.environ.get("WARM_TEST"),
        "threads": torch.get_num_threads(), "backend": plt.get_backend(), "word": word}
print(json.dumps(seen))
plt.plot([1, 2]);
"""
KILLED = (
    r"The kernel of out.ipynb was killed in its code cell 3 \(import os, signal\), most likely because memory ran out"
)


def write(path: Path, *cells: str) -> Path:
    """A notebook with a parameter `word` and these cells."""
    first = nbformat.v4.new_code_cell("word = 'none'", metadata={"tags": ["parameters"]})
    nbformat.write(
        nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, cells)], metadata=KERNEL), path
    )
    return path


def outputs(path: Path) -> list[list]:
    """The outputs of each code cell of an executed notebook."""
    return [cell.outputs for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


# ---- in this process


@pytest.mark.parametrize(("notebook", "parameters", "sentence"), [
    ("absent.ipynb", "{}", "There is no notebook absent.ipynb"),
    ("text.ipynb", "{}", "text.ipynb is not a notebook"),
    ("fine.ipynb", "{'word': 1}", "The parameters are not a JSON dictionary"),
    ("fine.ipynb", "[1]", "The parameters are not a JSON dictionary"),
    ("fine.ipynb", '{"wrod": 1}', "fine.ipynb has no parameter 'wrod': did you mean 'word'?"),
    ("fine.ipynb", '{"colour": 1}', "fine.ipynb has no parameter 'colour': it declares word."),
])  # fmt: skip
def test_what_cannot_be_run_is_one_sentence(tmp_path, monkeypatch, capsys, notebook, parameters, sentence):
    monkeypatch.chdir(tmp_path)
    Path("text.ipynb").write_text("this is text")
    write(Path("fine.ipynb"), "1 + 1")
    assert main(["execute", notebook, "out.ipynb", parameters]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(f"error: {sentence}")
    assert not Path("out.ipynb").exists()


def test_a_failing_notebook_leaves_its_message_until_it_succeeds(tmp_path, capsys):
    cells = ["from rdlib.errors import UserError", "if word == 'none': raise UserError('Lower the learning rate.')"]
    notebook, output = write(tmp_path / "n.ipynb", *cells), tmp_path / "runs" / "out.ipynb"
    assert main(["execute", str(notebook), str(output)]) == 2
    assert capsys.readouterr().err.strip().endswith("error: Lower the learning rate.")
    assert output.with_suffix(".error").read_text() == "Lower the learning rate.\n"
    assert output.exists() and str(tmp_path) not in json.dumps(nbformat.read(output, as_version=4).metadata)
    assert main(["execute", str(notebook), str(output), '{"word": "given"}']) == 0
    assert not output.with_suffix(".error").exists()


@pytest.mark.parametrize("manager", [None, execute.ForkingKernelManager])
def test_a_killed_kernel_is_one_sentence_in_the_error_file_and_in_the_study(tmp_path, manager):
    """However the notebook was started: by itself (None) or by a study (a fork)."""
    kill = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    notebook, output = write(tmp_path / "killed.ipynb", "print('hi')", kill, "2"), tmp_path / "out.ipynb"
    with pytest.raises(UserError, match=KILLED) as caught:
        execute.execute(notebook, output, {}, manager)
    assert output.with_suffix(".error").read_text() == f"{caught.value}\n" and str(caught.value).count("\n") == 0
    assert "run this again" in str(caught.value)
    assert [[one.output_type for one in cell] for cell in outputs(output)] == [[], ["stream"], ["error"], []]

    class Job:
        executed, name = output, "06_ppo"

    assert workflow.Failure(Job()).reason() == str(caught.value)
    output.with_suffix(".error").unlink()
    assert workflow.Failure(Job()).reason().startswith("no message: its process was killed")


# ---- in a fork of a warm process


@pytest.fixture(scope="module")
def server():
    with warm.server(keep=1) as variables:
        yield variables


def command(notebook: Path, output: Path, **parameters) -> list[str]:
    return [sys.executable, "-m", "rdlib", "execute", str(notebook), str(output), json.dumps(parameters)]


def run(address: dict[str, str], notebook: Path, output: Path, **parameters) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != warm.ADDRESS}
    environment |= {"OMP_NUM_THREADS": "1", "WARM_TEST": "yes"} | address
    return subprocess.run(command(notebook, output, **parameters), env=environment, capture_output=True, text=True)


@linux
def test_a_fork_does_what_a_new_process_does(server, tmp_path):
    """The same numbers, folder, environment and backend, and then the same failure."""
    notebook = write(
        tmp_path / "look.ipynb", "import torch; torch.manual_seed(0);", LOOK, "raise ValueError('the end')"
    )
    seen = {}
    for name, address in (("warm", server), ("cold", {warm.ADDRESS: "rdlib-nobody-listens"})):
        done = run(address, notebook, tmp_path / f"{name}.ipynb", word="given")
        assert done.returncode == 2 and "error: ValueError: the end\n" in done.stderr
        assert ("so it starts cold" in done.stdout) == (name == "cold")
        assert (tmp_path / f"{name}.error").read_text() == "ValueError: the end\n"
        text, picture = next(cell for cell in outputs(tmp_path / f"{name}.ipynb") if len(cell) == 2)
        seen[name] = json.loads(text["text"])
        assert "image/png" in picture["data"]
    assert seen["warm"] == seen["cold"]
    expected = {"word": "given", "name": "yes", "folder": str(tmp_path), "threads": 1}
    assert expected.items() <= seen["warm"].items()


@linux
def test_a_killed_job_leaves_no_kernel_behind(server, tmp_path):
    told = tmp_path / "pid"
    slow = f"import os, time; open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(300)"
    words = command(write(tmp_path / "slow.ipynb", slow), tmp_path / "out.ipynb")
    client = subprocess.Popen(words, env=os.environ | server)
    kernel = int(wait_for(lambda: told.exists() and told.read_text()))
    client.kill()
    wait_for(lambda: not psutil.pid_exists(kernel) or psutil.Process(kernel).status() == psutil.STATUS_ZOMBIE)


def wait_for(condition, seconds: float = 30.0):
    """The first true value of a condition; fails when none comes."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.1)
    pytest.fail("it did not happen in time")
