"""Run the scripts of findings/, one after the other, and say which still hold: `make findings`.

    python3 scripts/findings.py              # all
    python3 scripts/findings.py math llama   # those whose names have one of these words

Each prints what it saw and fails once the software has changed, so a failure is news and no error of this project. They
download packages and are no part of CI. Exit code 1 where one failed, 2 where no name has the words.
"""

import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "findings"


def scripts(words, folder=FOLDER):
    """The scripts whose names have one of the words; all without words."""
    return [path for path in sorted(folder.glob("*.sh")) if not words or any(word in path.name for word in words)]


def passes(path):
    """Run one script, which prints what it sees, and print PASS or FAIL with its seconds; whether it passed."""
    print(f"---- {path.name}", flush=True)
    started = time.time()
    code = subprocess.run(["bash", str(path)]).returncode
    print(f"{'FAIL' if code else 'PASS'} {path.name} ({time.time() - started:.0f} s)", flush=True)
    return code == 0


def main(words, folder=FOLDER):
    """Run what the words choose; returns the exit code."""
    found = scripts(words, folder)
    if not found:
        print(f"No script of {folder.name}/ has {' or '.join(words) or 'a name'}: see its README.md.", file=sys.stderr)
        return 2
    failed = [path.name for path in found if not passes(path)]
    print(f"---- {len(found) - len(failed)} of {len(found)} findings still hold.", *failed, sep="\n  no longer: ")
    return int(bool(failed))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
