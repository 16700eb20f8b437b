"""A time limit for a function of pure Python, in any thread.

A signal would reach the main thread alone. Here a timer has an exception raised in the thread that computes, as soon
as it executes Python's own code again; what runs long inside of a single operation must be kept small beforehand.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any


class LateError(BaseException):
    """The time is over. No Exception, so that what computes does not take it for an error of its own."""


def within(seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns; LateError where that takes longer."""
    thread, lock, done = threading.get_ident(), threading.Lock(), False

    def interrupt() -> None:
        """Raise LateError in the thread that computes, unless it is done."""
        with lock:
            if not done:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(LateError))

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        return function(*arguments)
    finally:
        with lock:
            done = True
        timer.cancel()
