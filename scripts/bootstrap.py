"""Build `.venv` from the pinned constraints when it is missing, unfinished or stale; else do nothing.

`.venv/.stamp` is written last and holds a fingerprint of all that decides what gets installed, so an
interrupted build never counts as done, and a new file date alone (git checkout) rebuilds nothing.
Standard library only: this runs with the system's Python, before anything is installed.
"""

import contextlib
import hashlib
import json
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".stamp"
OLDEST = (3, 11)


def pins(text):
    """The pins in the text of a constraints file, without comments and blank lines."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return sorted(line for line in lines if line)


def fingerprint():
    """Hash of what the environment is made from: pins, requirements, Python and the folder's place.

    Of pyproject.toml only what pip reads counts, so that a new lint rule does not rebuild; the place
    counts because a virtual environment that was moved or copied points at its old folder.
    """
    import tomllib  # not in the Pythons that main() turns away

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    parts = {
        "pins": pins((ROOT / "constraints.txt").read_text(encoding="utf-8")),
        "build": project["build-system"],
        "project": project["project"],
        "setuptools": project["tool"]["setuptools"],
        "python": [platform.python_version(), platform.machine(), sys.base_prefix],
        "place": str(VENV),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def up_to_date(wanted):
    """Whether `.venv` was finished with this fingerprint and its interpreter is still there."""
    return (VENV / "bin" / "python").exists() and STAMP.is_file() and STAMP.read_text() == wanted


def pip(*words):
    """Run the environment's pip; its many lines go to a log, and its last ones are shown if it fails."""
    log = VENV / f"pip-{words[0]}.log"
    command = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", *words]
    with log.open("w+") as output:
        try:
            subprocess.run(command, cwd=ROOT, check=True, stdout=output, stderr=subprocess.STDOUT)
        except subprocess.CalledProcessError:
            output.seek(0)
            print("".join(output.readlines()[-12:]), end="", file=sys.stderr)
            raise


def build(wanted):
    """Make a new `.venv`, install the pinned packages and this one, check them, and stamp it."""
    import venv

    STAMP.unlink(missing_ok=True)
    venv.EnvBuilder(clear=True, with_pip=True, symlinks=True).create(VENV)
    pip("install", "-c", "constraints.txt", "-e", ".[dev]")
    pip("check")
    partial = STAMP.with_suffix(".partial")
    partial.write_text(wanted)
    partial.replace(STAMP)


@contextlib.contextmanager
def only_one():
    """Hold the lock that lets one build run at a time in this checkout."""
    import fcntl

    with (ROOT / ".venv.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main():
    """Bring `.venv` up to date; one sentence and exit code 1 if that can't be done."""
    if sys.version_info < OLDEST:
        found = platform.python_version()
        sys.exit(f"Python 3.11 or newer is needed, found {found}: run `make PYTHON=python3.11 ...`.")
    try:
        import ensurepip  # noqa: F401  (Debian ships it apart, in python3-venv)
    except ImportError:
        sys.exit("This Python can't make virtual environments: install its venv package (python3-venv).")
    with only_one():
        wanted = fingerprint()
        if up_to_date(wanted):
            return
        if VENV.is_symlink():
            sys.exit(
                f"{VENV} is a link to {VENV.resolve()}, whose environment was built for another folder or other pins, "
                "and building would empty it: remove the link, and the next make builds one here."
            )
        print(
            "Building .venv from constraints.txt (2 to 5 minutes; .venv/pip-install.log grows) ...",
            flush=True,
        )
        build(wanted)
        print(".venv is ready.", flush=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError:
        sys.exit("Building .venv failed: pip's last lines are above; the next make starts it again.")
    except KeyboardInterrupt:
        sys.exit("Building .venv was interrupted; the next make starts it again.")
