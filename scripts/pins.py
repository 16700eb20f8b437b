"""Write the exact versions installed in this environment to constraints.txt, environment.yml and requirements.lock.

To move to newer releases: edit the floors in pyproject.toml or delete pins in constraints.txt, run
`make test`, then `.venv/bin/python scripts/pins.py`. With `--lock` only requirements.lock is written, from
constraints.txt.

The lock has the hash of every file that the package index publishes of each release. uv writes it, in `.venv-uv`. It is
no pylock.toml (PEP 751), since that names for each file the host that it was found on.
"""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent

CONSTRAINTS_HEAD = """\
# The exact versions of the whole environment (Python 3.11, Linux, CPU); written by `.venv/bin/python scripts/pins.py`.
"""

LOCK_HEAD = """\
# The pins of constraints.txt with the hashes of all their published files; written by
# `.venv/bin/python scripts/pins.py`. docs/running.md says how to install by them.
"""
UV = "uv==0.13.9"

ENVIRONMENT_HEAD = """\
# For conda users: `conda env create -f environment.yml`. The pins are those of constraints.txt.
name: rdlib
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python=3.11
  - pip
  - pip:
      - -e .[dev]
"""


def installed_closure(name, extras=()):
    """Map every installed distribution that `name` with its extras needs, directly or not, to its version.

    Names are canonical; local version parts (`+cpu`) are cut, since they say where a build came from.
    """
    found, todo = {}, [(name, frozenset(extras))]
    seen = set(todo)
    while todo:
        name, extras = todo.pop()
        try:
            dist = distribution(name)
        except PackageNotFoundError:
            continue  # needed only on another system or by an extra that is not installed
        found[canonicalize_name(name)] = Version(dist.version).public
        for text in dist.requires or []:
            need = Requirement(text)
            applies = [need.marker is None or need.marker.evaluate({"extra": e}) for e in ("", *extras)]
            if any(applies):
                item = (canonicalize_name(need.name), frozenset(need.extras))
                if item not in seen:
                    seen.add(item)
                    todo.append(item)
    return found


def locked(constraints):
    """The text of requirements.lock for a file of pins."""
    import apart  # beside this file

    apart.bring_up(".venv-uv", [UV])
    options = ["--no-deps", "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url"]
    words = [ROOT / ".venv-uv" / "bin" / "uv", "pip", "compile", constraints, *options, "--quiet"]
    return LOCK_HEAD + subprocess.run(words, check=True, capture_output=True, text=True).stdout


def main(words=()):
    """Write the files from what is installed; with `--lock` the lock alone, from constraints.txt."""
    if "--lock" not in words:
        versions = installed_closure("rdlib", ("dev",))
        versions.pop("rdlib")
        pins = [f"{name}=={version}" for name, version in sorted(versions.items())]
        (ROOT / "constraints.txt").write_text(CONSTRAINTS_HEAD + "\n".join(pins) + "\n")
        environment = ENVIRONMENT_HEAD + "".join(f"      - {pin}\n" for pin in pins)
        (ROOT / "environment.yml").write_text(environment)
        print(f"Wrote {len(pins)} pins to constraints.txt and environment.yml.")
    (ROOT / "requirements.lock").write_text(locked(ROOT / "constraints.txt"))
    print("Wrote their hashes to requirements.lock.")


if __name__ == "__main__":
    main(sys.argv[1:])
