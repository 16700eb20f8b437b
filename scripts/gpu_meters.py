"""Time and memory of one device, for `scripts/gpu_check.py`, and what its card could do at most.

On a CPU "memory" is the most that the process held, its libraries included: enough to try the measuring itself.
"""

from __future__ import annotations

import contextlib
import platform
import subprocess
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.benchmark import Timer
from transformers import TrainerCallback

from bench.timing import peak_memory

GIB = 2**30
# Dense bf16 TFLOP/s by the vendors' datasheets; the first name that is part of the card's own counts.
PEAKS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}


def device() -> torch.device:
    """The first GPU, or the CPU where there is none."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


@dataclass(frozen=True)
class Measured:
    """Seconds, and peak GiB of tensors and gone of the card."""

    seconds: float
    tensors: float
    card: float


class Meter:
    """Measures from its making to `read`."""

    def __init__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        else:
            with contextlib.suppress(OSError):  # resets the peak that the kernel counts
                Path("/proc/self/clear_refs").write_text("5")
        self.start = time.perf_counter()

    def read(self) -> Measured:
        """What was measured since."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds, card = time.perf_counter() - self.start, used()
        return Measured(seconds, torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else card, card)


def used() -> float:
    """GiB of the card that are not free, CUDA's own included; of a CPU the process's peak."""
    if not torch.cuda.is_available():
        return peak_memory() / 1024
    free, total = torch.cuda.mem_get_info()
    return (total - free) / GIB


class StepMeter(TrainerCallback):
    """Measures a Trainer's optimizer steps, but for the first `warmup`; `each` is their mean, with the peak of all."""

    def __init__(self, warmup: int = 1) -> None:
        self.warmup, self.steps = warmup, 0
        self.meter: Meter | None = None
        self.each: Measured | None = None

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        """Begin where the warm-up ends."""
        if self.meter is None and state.global_step >= self.warmup:
            self.meter = Meter()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Read what was measured so far."""
        if self.meter is not None:
            self.steps += 1
            found = self.meter.read()
            self.each = replace(found, seconds=found.seconds / self.steps)


@dataclass
class Phases:
    """Measures phases that follow each other: `enter` ends the one before; of a name the last time counts."""

    found: dict[str, Measured] = field(default_factory=dict)
    name: str | None = None
    meter: Meter | None = None

    def enter(self, name: str | None) -> None:
        """End the present phase and begin another one, or none."""
        if self.name is not None:
            self.found[self.name] = self.meter.read()
        self.name, self.meter = name, Meter() if name else None


# ---- the card


def facts() -> dict[str, Any]:
    """What the device is and can do: name, memory, driver, and TFLOP/s by its datasheet and measured."""
    measured = measured_tflops()
    if not torch.cuda.is_available():
        own = {"kind": "cpu", "name": f"CPU, {platform.machine()}", "memory_gib": 64.0, "driver": None}
        return own | {"datasheet_tflops": None, "measured_tflops": measured, "peak_tflops": measured}
    name, (_, total) = torch.cuda.get_device_name(), torch.cuda.mem_get_info()
    known = next((peak for card, peak in PEAKS.items() if card in name), None)
    own = {"kind": "cuda", "name": name, "memory_gib": total / GIB, "driver": driver()}
    own |= {"bf16": torch.cuda.is_bf16_supported(), "cuda": torch.version.cuda}
    return own | {"datasheet_tflops": known, "measured_tflops": measured, "peak_tflops": known or measured}


def driver() -> str | None:
    """The version of NVIDIA's driver; None where nvidia-smi does not tell."""
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True).stdout.split()
        return said[0] if said else None
    return None


def measured_tflops() -> float:
    """TFLOP/s of a product of random matrices, in bf16 on a GPU: the median of a second."""
    size, dtype = (8192, torch.bfloat16) if torch.cuda.is_available() else (512, torch.float32)
    matrices = {name: torch.randn(size, size, device=device(), dtype=dtype) for name in "ab"}
    return 2 * size**3 / Timer("a @ b", globals=matrices).blocked_autorange(min_run_time=1).median / 1e12
