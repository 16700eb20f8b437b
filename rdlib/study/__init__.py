"""The study: its stages, and the code that runs, stores and resumes them."""

import sys

# What commands and modules were called in version 1.0
FORMER = {
    "dag": "study",
    "retrain": "study --for NAME",
    "compared": "verify",
    "warm": "execute",
    "published": "publish",
    "memory_table": "memory",
    "trials": "study --experiments params/trials.yaml",
    "open_ends": "study --experiments params/followups.yaml",
    "same_rate": "study --experiments same_rate",
    "rounding": "study --experiments rounding",
    "remake": "study --experiments questions",
}

if sys.argv[:1] == ["-m"]:  # `python -m rdlib.study.NAME`, as commands were given up to version 1.0
    asked = next((word for word in sys.orig_argv if word.startswith("rdlib.study.")), "").rpartition(".")[2]
    print(f"error: `{asked}` is now `python -m rdlib {FORMER.get(asked, asked)}`.", file=sys.stderr)
    sys.exit(2)
