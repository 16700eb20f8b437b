"""Which jobs `scripts/gpu_check.py` does in which order, what each will take, and each in a process of its own.

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
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from scripts import gpu_checks, gpu_jobs, gpu_meters
from scripts.gpu_jobs import STEPS, UPDATES, Row, Work, first_line
from scripts.gpu_sizes import FLASH, FLOAT32, LLAMA, LORA, QWEN, SDPA

# Each kind of job, with the rows that it gives where all goes well
JOBS: dict[str, tuple[Callable[[Work, Path], Iterator[Row]], tuple[str, ...]]] = {
    "weights": (gpu_jobs.run_weights, (gpu_jobs.WEIGHTS_MADE,)),
    "checks": (gpu_checks.run, gpu_checks.ROWS),
    "sft": (gpu_jobs.run_sft, (gpu_jobs.SFT_STEP,)),
    "reward_model": (gpu_jobs.run_reward_model, (gpu_jobs.REWARD_MODEL_STEP,)),
    "ppo": (gpu_jobs.run_ppo, (gpu_jobs.SAMPLING, gpu_jobs.EVALUATION, gpu_jobs.UPDATE, gpu_jobs.AT_START)),
    "vllm": (gpu_jobs.run_vllm, (gpu_jobs.ROLLOUTS, gpu_jobs.SLEEP, gpu_jobs.ENGINES)),
}
TRAININGS = ("ppo", "sft", "reward_model")
# What is worth most comes first: the kinds of job, and what they are of
ORDER = (
    (("weights", "ppo", "sft", "reward_model", "checks"), (QWEN, FLOAT32, SDPA)),
    (("weights", "ppo", "sft", "reward_model"), (LLAMA, LORA, SDPA)),
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
# For estimates: seconds that a kind of job takes beside its work, models that it loads, and rates; ours, rough
BEGINNING = {"weights": 6.0, "sft": 8.0, "reward_model": 8.0, "ppo": 10.0, "checks": 20.0, "vllm": 80.0}
LOADS = {"weights": 2, "sft": 1, "reward_model": 1, "ppo": 4, "checks": 6, "vllm": 2}
PARAMETERS_A_SECOND, SHARE_OF_PEAK, SECONDS_A_TOKEN = 8e8, 0.2, 0.04
LONGEST, AT_LEAST = 4.0, 120.0  # a job is ended after so many times its estimate, and not before so many seconds
NOT_REACHED, FAILED = "not reached", gpu_jobs.FAILED
CHECKS = {*gpu_checks.ROWS, gpu_jobs.AT_START, gpu_jobs.SLEEP, gpu_jobs.ENGINES}


def works(scale: str, folder: Path, card: dict[str, Any], only: list[str] | None = None) -> list[Work]:
    """All jobs in their order; with `only` those of these kinds, and the models that they load."""
    wanted = {*only, "weights"} if only else set(JOBS)
    return [Work(kind, *of, scale, folder, card) for kinds, of in ORDER for kind in kinds if kind in wanted]


def estimate(work: Work) -> float:
    """The seconds that a job may take on its card."""
    scale, n = work.scale, work.parameters
    sft = 6 * n * STEPS * scale.rows * scale.length
    episodes = scale.episodes * scale.length
    flops = {
        "sft": sft,
        "reward_model": 6 * n * STEPS * scale.queries * 3 * scale.samples * scale.length,
        "ppo": UPDATES * 20 * n * episodes,
        "checks": 3 * sft,
    }
    tokens = {"ppo": UPDATES * scale.response, "checks": 20 * gpu_checks.FEW, "vllm": scale.response}
    computing = flops.get(work.kind, 0.0) / (work.card["peak_tflops"] * 1e12 * SHARE_OF_PEAK)
    waiting = LOADS[work.kind] * n / PARAMETERS_A_SECOND + tokens.get(work.kind, 0) * SECONDS_A_TOKEN
    return BEGINNING[work.kind] + computing + waiting


# ---- in the process of a job


def rows_of(work: Work, at: Path) -> Iterator[Row]:
    """The rows of a job; where it fails, each that is missing says in a sentence why."""
    run, names = JOBS[work.kind]
    left = list(names)
    try:
        if work.attention == FLASH:
            gpu_jobs.require("flash_attn")
        for row in run(work, at):
            left = [name for name in left if name != row["row"]]
            yield work.of | row
        return
    except gpu_jobs.Missing as error:
        status, said = gpu_jobs.MISSING, str(error)
    except gpu_jobs.TooLarge as error:
        status, said = gpu_jobs.TOO_LARGE, str(error)
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


@dataclass
class Budget:
    """The time there is, and how far jobs so far were from their estimates."""

    seconds: float
    began: float = field(default_factory=time.monotonic)
    estimated: float = 0.0
    taken: float = 0.0

    @property
    def left(self) -> float:
        """Seconds."""
        return self.seconds - (time.monotonic() - self.began)

    def of(self, work: Work) -> float:
        """The estimate of a job, corrected by what the earlier ones took: by half of it to twice it."""
        factor = self.taken / self.estimated if self.estimated else 1.0
        return estimate(work) * min(2.0, max(0.5, factor))

    def note(self, work: Work, seconds: float) -> None:
        """Take a finished job into account."""
        self.estimated, self.taken = self.estimated + estimate(work), self.taken + seconds


def measure(work: Work, budget: Budget, method: str) -> Iterator[Row]:
    """The rows of a job, or of each why it is not there."""
    names, wanted = list(JOBS[work.kind][1]), budget.of(work)
    if package := absent(work):
        yield from missing_rows(work, names, gpu_jobs.MISSING, f"{package} is not installed here")
        return
    if wanted > budget.left:
        said = f"it takes about {wanted:.0f} s, and {max(0, budget.left):.0f} were left"
        yield from missing_rows(work, names, NOT_REACHED, said)
        return
    at, began = work.folder / "work", time.monotonic()
    allowed = min(budget.left, max(AT_LEAST, LONGEST * wanted))
    status, said = NOT_REACHED if allowed == budget.left else FAILED, ""
    try:
        for row in in_a_process(rows_of, work, at, allowed, method):
            names = [name for name in names if name != row["row"]]
            yield row
        budget.note(work, time.monotonic() - began)
        return
    except TimeoutError as error:
        said = str(error)
    except RuntimeError as error:
        status, said = FAILED, str(error)
    finally:
        shutil.rmtree(at, ignore_errors=True)
    yield from missing_rows(work, names, status, said)
