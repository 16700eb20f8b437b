"""The study: its stages, and what runs them, keeps them and starts them again."""

import sys

if sys.argv[:1] == ["-m"]:  # `python -m rdlib.study.NAME`, as commands were given up to version 1.0
    from rdlib import __main__ as command

    asked = next((word for word in sys.orig_argv if word.startswith("rdlib.study.")), "rdlib.study.")
    print(f"error: {command.instead_of(asked.removeprefix('rdlib.study.'))}", file=sys.stderr)
    sys.exit(2)
