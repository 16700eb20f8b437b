"""`python -m rdlib`: one handler of errors, one meaning of exit codes, and nothing slow before it is needed."""

from __future__ import annotations

import errno
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from rdlib import __main__ as command
from rdlib import errors
from rdlib.errors import UserError


def call(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", *words], cwd=REPOSITORY, capture_output=True, text=True)


def raising(error: BaseException):
    def work():
        raise error

    return work


@pytest.mark.parametrize(("work", "code", "said"), [
    (lambda: None, 0, ""),
    (lambda: 1, 1, ""),
    (raising(UserError("Give a seed.")), 2, "error: Give a seed.\n"),
    (raising(OSError(errno.ENOSPC, "No space left on device")), 2, "error: The disk is full: make room, then "),
    (raising(KeyboardInterrupt()), 130, "Interrupted.\n"),
    (raising(KeyboardInterrupt("Interrupted: it goes on.")), 130, "Interrupted: it goes on.\n"),
])  # fmt: skip
def test_an_exit_code_means_the_same_for_every_command(work, code, said, capsys):
    assert errors.exit_code(work) == code
    error = capsys.readouterr().err
    assert error.startswith(said) and error.count("\n") == bool(said)


def test_an_error_that_is_not_for_users_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        errors.exit_code(lambda: 1 / 0)


def test_every_command_shows_its_options():
    for name in command.COMMANDS:
        with pytest.raises(SystemExit, match="0"):
            command.main([name, "--help"])


def test_the_overview_names_every_command(capsys):
    assert command.main(["--help"]) == 0 and command.main([]) == 2
    assert set(re.findall(r"^  ([a-z-]+) ", capsys.readouterr().out, re.MULTILINE)) == set(command.COMMANDS)


@pytest.mark.parametrize(("words", "said"), [
    (("rdlib.study.dag", "--profile", "x"), "error: `dag` is now `python -m rdlib study`.\n"),
    (("rdlib.study.batch", "read"), "error: `batch` is now `python -m rdlib batch`.\n"),
    (("rdlib", "compared"), "error: `compared` is now `python -m rdlib verify`.\n"),
    (("rdlib", "stduy"), "error: There is no command 'stduy': use one of study, figures, "),
])  # fmt: skip
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


# ---- make


def make(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(["make", *words], cwd=REPOSITORY, capture_output=True, text=True)


def test_make_has_few_targets_and_help_lists_them():
    listed = re.findall(r"^  make ([a-z-]+) ", make("help").stdout, re.MULTILINE)
    assert {"study", "test", "figures", "verify", "check", "crate", "findings"} <= set(listed) and len(listed) <= 16


# Targets of the Makefile of 1.0.0, as its documents showed them, and what replaced some
REPLACED = {
    "reference": 'make study PROFILE=params/reference.yaml EXPERIMENTS="study ablations questions" SEEDS=0',
    "retrain NAME=table_4": "make study NAME=table_4",
    "compare": "make verify",
    "crash-test": "make check KIND=crash",
    "format": "make lint FIX=yes",
    "gpu-check": "make check KIND=gpu",
}
NAMES = "trials open-ends rounding portable-test slurm-test real-test own-test vllm-test sharded-test fuzz figure pins"


@pytest.mark.parametrize("target", [*REPLACED, *NAMES.split(), "distclean"])
def test_a_target_of_version_1_says_what_replaced_it(target):
    done = make("-s", *target.split())
    said = f"`make {target.split()[0]}` is now `{REPLACED.get(target, '')}"
    assert done.returncode == 2 and done.stderr.startswith(said), done.stderr


def test_a_value_that_make_does_not_know_is_answered_with_those_that_it_does():
    done = make("-n", "check", "KIND=speed")
    assert done.returncode == 2 and 'KIND="speed": give one of ' in done.stderr


@pytest.mark.parametrize(("words", "command"), [
    (["study"], "-m rdlib study --profile params/micro.yaml --jobs 2 "),
    (["study", "SEEDS=0 1"], "-m rdlib study --profile params/micro.yaml --jobs 2 --seeds 0 1 "),
    (["study", "NAME=table_4"], "study --profile params/reference.yaml --jobs 2 --seeds 0 --for table_4"),
    (["study", "EXPERIMENTS=study R1"], "-m rdlib study  --jobs 2  --experiments study R1"),
    (["figures", "NAME=table_4"], "-m rdlib figures figures/results figures --name table_4\n"),
    (["verify", "SEEDS=1"], "-m rdlib verify --seeds 1 \n"),
    (["crate"], "-m rdlib crate figures build/crate\n"),
    (["crate", "FROM=runs/micro", "CRATE=out"], "-m rdlib crate runs/micro out\n"),
    (["lint"], "ruff format --check ."),
    (["lint", "FIX=yes"], "ruff check --fix ."),
])  # fmt: skip
def test_make_passes_its_variables_on(words, command):
    assert command in make("-n", *words).stdout


# ---- findings


def test_findings_end_with_those_that_hold_no_longer(tmp_path):
    (tmp_path / "a_holds.sh").write_text("echo seen\n")
    (tmp_path / "b_changed.sh").write_text("exit 3\n")
    program = "import sys, pathlib; sys.path.insert(0, 'scripts'); import findings; "
    program += f"sys.exit(findings.main([], pathlib.Path({str(tmp_path)!r})))"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.endswith("---- 1 of 2 findings still hold.\n  no longer: b_changed.sh\n")


def test_each_finding_has_a_line_and_says_guess_fact_version_and_why():
    listed = (REPOSITORY / "findings/README.md").read_text(encoding="utf-8")
    scripts = sorted((REPOSITORY / "findings").glob("*.sh"))
    assert len(scripts) >= 6
    for path in scripts:
        assert f"- `{path.name}`: " in listed
        text = path.read_text(encoding="utf-8")
        assert all(f"# {part}:" in text for part in ("Guess", "What happens", "Version", "Why it matters")), path
        assert "set -euo pipefail" in text
