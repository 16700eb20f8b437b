"""Keep the verdicts of a release beside those to come: `python scripts/earlier_verdicts.py 0.1.0 8d15625`.

Reads the claims' table as it was at a revision, from git, and adds it to rdlib/evidence/earlier_verdicts.csv, in place
of what is there of that release. Each row names the commit that last changed the table by then.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
TABLE = "figures/claims.csv"
KEPT = ROOT / "rdlib" / "evidence" / "earlier_verdicts.csv"
COLUMNS = ["claim", "verdict", "mean_difference", "low", "high", "unit", "cells_holding", "cells", "criterion"]


def git(*words: str) -> str:
    """What git says; a sentence in place of a traceback where it refuses."""
    found = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        sys.exit(f"error: `git {' '.join(words)}` failed ({found.stderr.strip()}): name a revision that has {TABLE}.")
    return found.stdout


def verdicts(release: str, revision: str) -> pd.DataFrame:
    """The verdicts of a release as its claims' table has them: release, commit and `COLUMNS`, all as text."""
    table = pd.read_csv(io.StringIO(git("show", f"{revision}:{TABLE}")), dtype=str, keep_default_na=False)
    commit = git("log", "-1", "--format=%H", revision, "--", TABLE).strip()
    found = table[COLUMNS]
    found.insert(0, "release", release)
    found.insert(1, "commit", commit)
    return found


def main() -> None:
    """Add a release's verdicts to the file of earlier ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", help="its version, as CHANGELOG.md has it")
    parser.add_argument("revision", help="a commit or tag of that release")
    arguments = parser.parse_args()
    found = verdicts(arguments.release, arguments.revision)
    if KEPT.is_file():
        kept = pd.read_csv(KEPT, dtype=str, keep_default_na=False)
        found = pd.concat([kept[kept["release"] != arguments.release], found])
    found.sort_values(["release", "claim"]).to_csv(KEPT, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
