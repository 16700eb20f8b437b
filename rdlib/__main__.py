"""The project's one command: `python -m rdlib COMMAND ...`. `python -m rdlib --help` lists the commands.

A command is a module with `add_arguments(parser)` and `run(options)`; it is imported when it is called. Errors are
handled here and nowhere else, and an exit code means the same for every command:

    0    done
    1    done, but something failed or differs: a notebook of the study, or an artifact that was compared
    2    not done, for the reason in the sentence on standard error
    130  interrupted by Ctrl-C
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from rdlib.errors import UserError, exit_code
from rdlib.study import FORMER

COMMANDS = {
    "study": ("rdlib.study.dag", "run a study or some experiments: notebooks, tables and figures"),
    "figures": ("rdlib.study.figures", "redraw tables and figures from result tables, without training"),
    "verify": ("rdlib.study.verify", "compare a run with the released results, artifact by artifact"),
    "collect": ("rdlib.study.results", "gather the result tables of finished runs"),
    "release": ("rdlib.study.release", "make the seeds of a run the released ones"),
    "publish": ("rdlib.study.publish", "write the executed notebooks of one cell beside the released figures"),
    "crate": ("rdlib.study.crate", "write an RO-Crate of a run or of released results, for an archive"),
    "site": ("rdlib.study.site", "build results, gallery, notebooks, documents and API as web pages"),
    "batch": ("rdlib.study.batch", "get a teacher's answers from a provider's batch service"),
    "execute": ("rdlib.study.warm", "run one notebook by papermill"),
    "documents": ("rdlib.evidence.documents", "fill README.md and docs/*.md from result files"),
    "memory": ("rdlib.study.estimate", "write docs/memory.csv: GPU memory of every stage"),
    "pretrain": ("rdlib.study.pretrain", "pretrain the micro models in models/"),
    "worker": ("rdlib.study.worker", "one process of a training stage (used by stages)"),
}


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    words = sys.argv[1:] if words is None else list(words)
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if words else 2
    return exit_code(lambda: run(words[0], words[1:]))


def run(name: str, words: Sequence[str]) -> int | None:
    """Run a command with these words; UserError where it cannot be done."""
    if name not in COMMANDS:
        raise UserError(instead_of(name))
    module, summary = COMMANDS[name]
    command = importlib.import_module(module)
    parser = argparse.ArgumentParser(prog=f"python -m rdlib {name}", description=f"{summary[0].upper()}{summary[1:]}.")
    command.add_arguments(parser)
    return command.run(parser.parse_args(list(words)))


def overview() -> str:
    """The commands, a line each."""
    lines = [f"  {name:<13} {summary}" for name, (_, summary) in COMMANDS.items()]
    head = "usage: python -m rdlib COMMAND ...\n\nCommands (`python -m rdlib COMMAND --help` shows the options of one):"
    return "\n".join([head, *lines])


def instead_of(name: str) -> str:
    """What to say of a command that is not one (any more)."""
    if (new := FORMER.get(name, name)).split()[0] in COMMANDS:
        return f"`{name}` is now `python -m rdlib {new}`."
    return f"There is no command {name!r}: use one of {', '.join(COMMANDS)}."


if __name__ == "__main__":
    sys.exit(main())
