"""Which jobs `scripts/gpu_check.py` does in which order, each in a process of its own.

A process is forked from one that has imported everything and never looked at the card, so it starts at once, and what
fails in it (memory, an illegal access, vLLM) is over with it. Where CUDA does not work in a fork, a new one is started.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from scripts import gpu_jobs, gpu_meters
from scripts.gpu_jobs import CHECKS, FAILED, JOBS, MISSING, TOO_LARGE, Row, first_line
from scripts.gpu_sizes import FLASH, FLOAT32, LLAMA, LORA, QWEN, SDPA, Work

TRAININGS = ("ppo", "sft", "reward_model")
# What is worth most comes first: the kinds of job, and what they are of
ORDER = (
    (("weights", *TRAININGS, "checks"), (QWEN, FLOAT32, SDPA)),
    (("weights", *TRAININGS), (LLAMA, LORA, SDPA)),
    (("vllm",), (QWEN, LORA, SDPA)),
    (TRAININGS, (LLAMA, FLOAT32, SDPA)),
    (TRAININGS, (QWEN, LORA, FLASH)),
    (TRAININGS, (QWEN, LORA, SDPA)),
    (("vllm",), (LLAMA, LORA, SDPA)),
    (TRAININGS, (LLAMA, LORA, FLASH)),
    (TRAININGS, (QWEN, FLOAT32, FLASH)),
    (TRAININGS, (LLAMA, FLOAT32, FLASH)),
    (("checks",), (LLAMA, FLOAT32, SDPA)),
)
# Seconds that a kind of job needs to begin with (rough), and after which any job is ended
AT_LEAST = {"weights": 5, "sft": 10, "reward_model": 10, "ppo": 25, "checks": 25, "vllm": 80}
AT_MOST = 150.0
NOT_REACHED = "not reached"


def works(scale: str, folder: Path, card: dict[str, Any], only: list[str] | None = None) -> list[Work]:
    """All jobs in their order; with `only` those of these kinds, and the models that they load."""
    wanted = {*only, "weights"} if only else set(JOBS)
    return [Work(kind, *of, scale, folder, card) for kinds, of in ORDER for kind in kinds if kind in wanted]


# ---- in the process of a job


def rows_of(work: Work, at: Path) -> Iterator[Row]:
    """The rows of a job; where it fails, each that is missing says in a sentence why."""
    run, names = JOBS[work.kind]
    left = list(names)
    try:
        if work.attention == FLASH:
            gpu_jobs.require("flash_attn")
        for row in run(work, at):
            left.remove(row["row"])
            yield work.of | row
        return
    except gpu_jobs.Missing as error:
        status, said = MISSING, str(error)
    except gpu_jobs.TooLarge as error:
        status, said = TOO_LARGE, str(error)
    except Exception as error:
        status, said = FAILED, first_line(error)
    yield from missing_rows(work, left, status, said)


def absent(work: Work) -> str | None:
    """What a job needs and is not there at all; None where it can be tried."""
    needed = {"vllm": work.kind == "vllm", "flash_attn": work.attention == FLASH}
    return next((name for name, wanted in needed.items() if wanted and importlib.util.find_spec(name) is None), None)


def missing_rows(work: Work, names: list[str], status: str, said: str) -> list[Row]:
    """A row for each name that says why there is none."""
    return [work.of | {"row": name, "check": name in CHECKS, "status": status, "error": said} for name in names]


def facts_of(work: None, at: Path) -> Iterator[Row]:
    """The card, as the only row."""
    yield gpu_meters.facts()


def child(connection: Connection, function: Callable[..., Iterator[Row]], work: Work | None, at: Path) -> None:
    """Send the rows of a job, then None; ends with every process that the job started."""
    os.setsid()
    try:
        for row in function(work, at):
            connection.send(row)
            gc.collect()
        connection.send(None)
    finally:
        connection.close()


# ---- in the process that measures nothing


def in_a_process(
    function: Callable[..., Iterator[Row]], work: Work | None, at: Path, seconds: float, method: str
) -> Iterator[Row]:
    """The rows of a job in a process of its own; TimeoutError after so many seconds, RuntimeError where it dies."""
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(theirs, function, work, at))
    end = time.monotonic() + seconds
    process.start()
    theirs.close()
    try:
        while True:
            if not ours.poll(max(0.0, end - time.monotonic())):
                raise TimeoutError(f"it was ended after {seconds:.0f} s")
            row = ours.recv()
            if row is None:
                return
            yield row
    except EOFError:
        process.join(5)
        raise RuntimeError(f"its process died with exit status {process.exitcode}") from None
    finally:
        stop(process)
        ours.close()


def stop(process: multiprocessing.process.BaseProcess) -> None:
    """End a process, and those that it started."""
    process.join(2)
    with contextlib.suppress(ProcessLookupError, PermissionError):  # its group, of which it may be the last or gone
        os.killpg(process.pid, signal.SIGKILL)
    if process.is_alive():
        process.kill()
    process.join()


def measure(work: Work, end: float, method: str) -> Iterator[Row]:
    """The rows of a job, or of each why it is not there; all is over at `end`, by time.monotonic."""
    names, left, at = list(JOBS[work.kind][1]), end - time.monotonic(), work.folder / "work"
    if package := absent(work):
        yield from missing_rows(work, names, MISSING, f"{package} is not installed here")
        return
    if left < AT_LEAST[work.kind]:
        yield from missing_rows(work, names, NOT_REACHED, f"{max(0, left):.0f} s were left")
        return
    try:
        for row in in_a_process(rows_of, work, at, min(left, AT_MOST), method):
            names.remove(row["row"])
            yield row
        return
    except TimeoutError as error:
        status, said = NOT_REACHED if left < AT_MOST else FAILED, str(error)
    except RuntimeError as error:
        status, said = FAILED, str(error)
    finally:
        shutil.rmtree(at, ignore_errors=True)
    yield from missing_rows(work, names, status, said)
