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
from collections.abc import Callable, Sequence

from rdlib.errors import UserError

COMMANDS = {
    "study": ("rdlib.study.dag", "run a study: every notebook, table and figure"),
    "figures": ("rdlib.study.figures", "redraw tables and figures from result tables, without training"),
    "verify": ("rdlib.study.verify", "compare a run with the released results, artifact by artifact"),
    "collect": ("rdlib.study.results", "gather the result tables of finished runs"),
    "release": ("rdlib.study.release", "make the seeds of a run the released ones"),
    "publish": ("rdlib.study.published", "keep the executed notebooks of one cell"),
    "site": ("rdlib.study.site", "write the report, the gallery and the documents as web pages"),
    "batch": ("rdlib.study.batch", "get a teacher's answers from a provider's batch service"),
    "execute": ("rdlib.study.execute", "run one notebook by papermill"),
    "documents": ("rdlib.evidence.documents", "fill README.md and docs/*.md from result files"),
    "memory": ("rdlib.study.memory_table", "write docs/memory.csv: GPU memory of every stage"),
    "pretrain": ("rdlib.study.pretrain", "pretrain the micro models in models/"),
    "trials": ("rdlib.study.trials", "run the trials by which settings were chosen"),
    "open-ends": ("rdlib.study.open_ends", "run the follow-up experiments at the end of notebook 13"),
    "same-rate": ("rdlib.study.same_rate", "train SFT of released seeds with the warm-up's learning rate"),
    "rounding": ("rdlib.study.rounding", "compute released seeds in torch's own numerics"),
    "architecture": ("rdlib.study.architecture", "draw which module imports which, into docs/"),
    "warm": ("rdlib.study.warm", "run one notebook in a fork of the study's warm process (used by studies)"),
    "worker": ("rdlib.study.worker", "one process of a training stage (used by stages)"),
}
# What commands and modules were called in version 1.0
FORMER = {
    "dag": "study",
    "retrain": "study --for NAME",
    "compared": "verify",
    "published": "publish",
    "memory_table": "memory",
    "open_ends": "open-ends",
    "same_rate": "same-rate",
}


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    words = sys.argv[1:] if words is None else list(words)
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if words else 2
    return status(lambda: run(words[0], words[1:]))


def run(name: str, words: Sequence[str]) -> int | None:
    """Run a command with these words; UserError where it cannot be done."""
    if name not in COMMANDS:
        raise UserError(instead_of(name))
    module, summary = COMMANDS[name]
    command = importlib.import_module(module)
    parser = argparse.ArgumentParser(prog=f"python -m rdlib {name}", description=f"{summary[0].upper()}{summary[1:]}.")
    command.add_arguments(parser)
    return command.run(parser.parse_args(list(words)))


def status(work: Callable[[], int | None]) -> int:
    """The exit code of some work, after its error, if it is one for users, was printed in a sentence."""
    try:
        return work() or 0
    except UserError as error:
        return _say(f"error: {error}")
    except KeyboardInterrupt as interrupt:
        _say(str(interrupt) or "Interrupted.")
        return 130
    except Exception as error:
        from rdlib import artifacts  # late, like all that is slow to import

        if not artifacts.is_disk_full(error):
            raise
        return _say("error: The disk is full: make room, then give the same command again.")


def _say(sentence: str) -> int:
    print(sentence, file=sys.stderr, flush=True)
    return 2


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
