"""The one exception a user is meant to read, and what every command makes of errors."""

from __future__ import annotations

import difflib
import errno
import os
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Something the user can correct: the message says what is wrong, where, and what to do."""


def hint(name: str, known: Iterable[str], otherwise: str, cutoff: float = 0.6) -> str:
    """The end of a sentence about a name that there is not: the nearest of those known, or else what to do."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return f"did you mean {close[0]!r}?" if close else otherwise


def exit_code(work: Callable[[], int | None]) -> int:
    """The exit code of some work, after its error, if it is one for users, was printed in a sentence."""
    try:
        return work() or 0
    except UserError as error:
        return _say(f"error: {error}")
    except KeyboardInterrupt as interrupt:
        _say(str(interrupt) or "Interrupted.")
        return 130
    except Exception as error:
        if not is_disk_full(error):
            raise
        return _say("error: The disk is full: make room, then give the same command again.")


def _say(sentence: str) -> int:
    print(sentence, file=sys.stderr, flush=True)
    return 2


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, says that a disk or a quota is full; some say so in words alone."""
    full = (errno.ENOSPC, errno.EDQUOT)
    while error is not None:
        if getattr(error, "errno", None) in full or any(os.strerror(number) in str(error) for number in full):
            return True
        error = error.__cause__ or error.__context__
    return False
