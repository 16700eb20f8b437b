"""Environments apart from the study's `.venv`, for software that wants other versions of what it is pinned to.

Standard library only, like bootstrap.py, whose lock, stamp and log they use.
"""

import subprocess
import sys
import venv

import bootstrap


def pinned(names):
    """The study's own pins of these packages."""
    pins = dict(pin.split("==") for pin in bootstrap.pins((bootstrap.ROOT / "constraints.txt").read_text()))
    return [f"{name}=={pins[name]}" for name in names]


def bring_up(name, requirements, unwanted=(), alone=()):
    """Build the environment `name` if it is missing, unfinished or stale; one sentence and exit code 1 if that fails.

    `unwanted`: packages that come with the requirements and are taken out again. `alone`: what is installed after them,
    whatever it says that it requires.
    """
    bootstrap.VENV = bootstrap.ROOT / name
    bootstrap.STAMP = bootstrap.VENV / ".stamp"
    try:
        with bootstrap.only_one():
            wanted = " ".join([*requirements, *alone, sys.version, str(bootstrap.VENV)])
            if bootstrap.up_to_date(wanted):
                return
            print(f"Building {name} (2 to 10 minutes; {name}/pip-install.log grows) ...", flush=True)
            bootstrap.STAMP.unlink(missing_ok=True)
            venv.EnvBuilder(clear=True, with_pip=True, symlinks=True).create(bootstrap.VENV)
            bootstrap.pip("install", *requirements)
            if unwanted:
                bootstrap.pip("uninstall", "-y", *unwanted)
            if alone:
                bootstrap.pip("install", "--no-deps", *alone)
            bootstrap.STAMP.write_text(wanted)
            print(f"{name} is ready.", flush=True)
    except (subprocess.CalledProcessError, KeyboardInterrupt):
        sys.exit(f"Building {name} was not finished (pip's last lines are above); the next make starts it again.")
