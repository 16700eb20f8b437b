"""`python -m rdlib`: one handler of errors, one meaning of exit codes, and nothing slow before it is needed."""

from __future__ import annotations

import errno
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from rdlib import __main__ as command
from rdlib.errors import UserError


def call(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", *words], cwd=REPOSITORY, capture_output=True, text=True)


def raising(error: BaseException):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "code", "said"),
    [
        (lambda: None, 0, ""),
        (lambda: 1, 1, ""),
        (raising(UserError("Give a seed.")), 2, "error: Give a seed.\n"),
        (raising(OSError(errno.ENOSPC, "No space left on device")), 2, "error: The disk is full: make room, then "),
        (raising(KeyboardInterrupt()), 130, "Interrupted.\n"),
        (raising(KeyboardInterrupt("Interrupted: it goes on.")), 130, "Interrupted: it goes on.\n"),
    ],
)
def test_an_exit_code_means_the_same_for_every_command(work, code, said, capsys):
    assert command.status(work) == code
    error = capsys.readouterr().err
    assert error.startswith(said) and error.count("\n") == bool(said)


def test_an_error_that_is_not_for_users_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        command.status(lambda: 1 / 0)


def test_every_command_shows_its_options():
    for name in command.COMMANDS:
        with pytest.raises(SystemExit, match="0"):
            command.main([name, "--help"])


def test_the_overview_names_every_command(capsys):
    assert command.main(["--help"]) == 0 and command.main([]) == 2
    assert set(re.findall(r"^  ([a-z-]+) ", capsys.readouterr().out, re.MULTILINE)) == set(command.COMMANDS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rdlib.study.dag", "--profile", "x"), "error: `dag` is now `python -m rdlib study`.\n"),
        (("rdlib.study.batch", "read"), "error: `batch` is now `python -m rdlib batch`.\n"),
        (("rdlib", "compared"), "error: `compared` is now `python -m rdlib verify`.\n"),
        (("rdlib", "stduy"), "error: There is no command 'stduy': use one of study, figures, "),
        (("rdlib", "study", "--profile", "absent.yaml"), "error: There is no profile "),
    ],
)
def test_what_cannot_be_done_is_one_sentence(words, said):
    done = call(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said) and done.stderr.count("\n") == 1


def test_nothing_slow_is_imported_before_it_is_needed():
    check = (
        "import sys; from rdlib import __main__ as command; command.main(['--help']);"
        "import rdlib.study.warm; print({'torch', 'pandas', 'numpy', 'papermill', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.endswith("set()\n"), done.stdout + done.stderr
