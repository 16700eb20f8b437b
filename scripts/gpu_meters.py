"""Time and memory of one device, for `scripts/gpu_check.py`, and what its card could do at most.

On a CPU "memory" is the most that the process held, its libraries included: enough to try the measuring itself.
"""

from __future__ import annotations

import contextlib
import platform
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

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
PRODUCT = 8192  # rows and columns of the matrices that are multiplied to measure a card


def device() -> torch.device:
    """The first GPU, or the CPU where there is none."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def wait() -> None:
    """Wait until the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Measured:
    """Seconds, and peak GiB: of tensors (`allocated`), held for them (`reserved`), and gone of the card."""

    seconds: float
    allocated: float
    reserved: float
    card: float


class Meter:
    """Measures from its making to `read`."""

    def __init__(self) -> None:
        wait()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        else:
            with contextlib.suppress(OSError):  # resets the peak that the kernel counts
                Path("/proc/self/clear_refs").write_text("5")
        self.start = time.perf_counter()

    def read(self) -> Measured:
        """What was measured since."""
        wait()
        seconds = time.perf_counter() - self.start
        if not torch.cuda.is_available():
            return Measured(seconds, *[peak_of_process()] * 3)
        allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        return Measured(seconds, allocated / GIB, reserved / GIB, used())


def peak_of_process() -> float:
    """The most GiB that this process held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 2**20


def used() -> float:
    """GiB of the card that are not free, CUDA's own included; of a CPU the process's peak."""
    if not torch.cuda.is_available():
        return peak_of_process()
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
            self.each = Measured(found.seconds / self.steps, found.allocated, found.reserved, found.card)


@dataclass
class Phases:
    """Measures phases that follow each other: `enter` ends the one before; of a name the last time counts."""

    found: dict[str, Measured] = field(default_factory=dict)
    name: str | None = None
    meter: Meter | None = None

    def enter(self, name: str | None) -> None:
        """End the present phase and begin another one, or none."""
        if self.name is not None and self.meter is not None:
            self.found[self.name] = self.meter.read()
        self.name, self.meter = name, Meter() if name else None


# ---- the card


def facts() -> dict[str, Any]:
    """What the device is and can do: name, memory, driver, and TFLOP/s by its datasheet and measured."""
    measured = measured_tflops()
    if not torch.cuda.is_available():
        own = {"kind": "cpu", "name": f"CPU, {platform.machine()}", "memory_gib": 64.0, "driver": None, "bf16": True}
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
    """TFLOP/s of a product of random matrices, in bf16 on a GPU: the best of ten after three."""
    cuda = torch.cuda.is_available()
    size, dtype = (PRODUCT, torch.bfloat16) if cuda else (512, torch.float32)
    a, b = (torch.randn(size, size, device=device(), dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(13):
        wait()
        start = time.perf_counter()
        a @ b
        wait()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds[3:]) / 1e12
