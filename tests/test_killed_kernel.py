"""A notebook whose kernel is killed ends in one sentence, however it was started."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import REPOSITORY

from rdlib.errors import UserError
from rdlib.study import execute, failures
from rdlib.study.forked_kernel import ForkingKernelManager

SAID = r"kernel of out.ipynb was killed in its code cell 3 \(import os, signal\), most likely because memory ran out"


@pytest.fixture
def notebook(tmp_path) -> Path:
    """A notebook that kills its kernel in the third of four cells."""
    cells = [
        nbformat.v4.new_code_cell("seed = 0", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_markdown_cell("A page."),
        nbformat.v4.new_code_cell("print('hi')"),
        nbformat.v4.new_code_cell("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"),
        nbformat.v4.new_code_cell("2"),
    ]
    made = nbformat.v4.new_notebook(cells=cells)
    made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, tmp_path / "killed.ipynb")
    return tmp_path / "killed.ipynb"


@pytest.mark.parametrize("manager", [None, ForkingKernelManager])
def test_a_killed_kernel_is_one_sentence_in_the_error_file(notebook, manager):
    output = notebook.with_name("out.ipynb")
    with pytest.raises(UserError, match=SAID) as caught:
        execute.execute(notebook, output, {}, manager)
    message = output.with_suffix(".error").read_text()
    assert message == f"{caught.value}\n" and message.count("\n") == 1
    assert "run this again" in message
    cells = [c for c in nbformat.read(output, as_version=4).cells if c.cell_type == "code"]
    assert [[o.output_type for o in cell.outputs] for cell in cells] == [[], ["stream"], ["error"], []]


def test_the_command_ends_in_that_sentence(notebook):
    words = [sys.executable, "-m", "rdlib", "execute", str(notebook), str(notebook.with_name("out.ipynb"))]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert re.search(f"^error: The {SAID}", done.stderr, re.MULTILINE)


def test_the_study_shows_the_sentence(notebook):
    class Job:
        executed, name = notebook.with_name("out.ipynb"), "06_ppo"

    failure = failures.Failure(Job())
    assert failure.reason().startswith("no message: its process was killed")
    Job.executed.with_suffix(".error").write_text("The kernel of out.ipynb was killed.\n")
    assert failure.reason() == "The kernel of out.ipynb was killed."
