"""The one exception a user is meant to read, and what every command makes of errors."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, where, and what to do."""


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
    """Whether an error, or one behind it, says that a disk or a quota is full; some libraries say so in words alone."""
    full = (errno.ENOSPC, errno.EDQUOT)
    while error is not None:
        if getattr(error, "errno", None) in full or any(os.strerror(number) in str(error) for number in full):
            return True
        error = error.__cause__ or error.__context__
    return False
