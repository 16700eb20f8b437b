"""Write the exact versions installed in this environment to constraints.txt and environment.yml.

To move to newer releases: edit the floors in pyproject.toml or delete pins in constraints.txt, run
`make test`, then `.venv/bin/python scripts/pins.py`.
"""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent

CONSTRAINTS_HEAD = """\
# The exact versions of the whole environment (Python 3.11, Linux, CPU); written by `.venv/bin/python scripts/pins.py`.
"""

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


def main():
    """Write both files from what is installed."""
    versions = installed_closure("rdlib", ("dev",))
    versions.pop("rdlib")
    pins = [f"{name}=={version}" for name, version in sorted(versions.items())]
    (ROOT / "constraints.txt").write_text(CONSTRAINTS_HEAD + "\n".join(pins) + "\n")
    environment = ENVIRONMENT_HEAD + "".join(f"      - {pin}\n" for pin in pins)
    (ROOT / "environment.yml").write_text(environment)
    print(f"Wrote {len(pins)} pins to constraints.txt and environment.yml.")


if __name__ == "__main__":
    main()
