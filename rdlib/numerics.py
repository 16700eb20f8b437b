"""The numerical mode, in which float32 results are the same bytes on every x86-64 processor with AVX2.

    import rdlib    # sets the variables of MODE; torch and its libraries read them once, so import it first

torch, MKL, oneDNN and OpenBLAS choose their kernels by the processor, and kernels that add in another order give other
last digits. MODE pins that choice to what every processor with AVX2 can do; `settle` has torch multiply matrices by the
one of them that is fast so (rdlib.products). A profile that says `numerics: portable`
computes in this mode alone: a stage refuses a variable that contradicts it. RDLIB_NUMERICS=native leaves the choice to
the libraries: faster, and other bytes on another processor. docs/portable.md says what was compared, and the price.
"""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from pathlib import Path
from typing import Any

from rdlib.errors import UserError

SWITCH = "RDLIB_NUMERICS"
PORTABLE, NATIVE = "portable", "native"
THREADS = {"OMP_NUM_THREADS": "1"}  # several threads add in another order, and tiny models are fastest with one
MODE = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
    "MKL_CBWR": "COMPATIBLE",  # products that are left to MKL, whose AVX2 is another on AMD than on Intel
    "OPENBLAS_CORETYPE": "Haswell",  # all other products
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    **THREADS,
}
# What overrules one of these where it is set, and the value that does no harm
OVERRULING = {"MKL_NUM_THREADS": "1", "DNNL_MAX_CPU_ISA": "AVX2"}
CPUINFO = Path("/proc/cpuinfo")
SHOWN_SETS = ("avx2", "fma", "avx512", "amx")

_torch_came_first = False


def enter() -> None:
    """Set what is not set of MODE, unless RDLIB_NUMERICS is native or the processor cannot; threads in any case."""
    global _torch_came_first
    wanted = MODE if _switch() != NATIVE and why_not_here() is None else THREADS
    missing = {name: value for name, value in wanted.items() if name not in os.environ}
    _torch_came_first = _torch_came_first or ("torch" in sys.modules and bool(missing))
    os.environ.update(missing)


def settle() -> None:
    """Have torch, where it is loaded, multiply matrices as the mode does, if this process is in it.

    Called by what loads models, and by `require`.
    """
    if "torch" in sys.modules and caveat() is None and _contradiction() is None:
        from rdlib import products  # it loads torch

        products.install()


def require() -> None:
    """UserError, with the name of what is in the way, where this process should be in the mode and is not.

    It should not where RDLIB_NUMERICS is native, and cannot for the reasons of `caveat`.
    """
    if _switch() not in (PORTABLE, NATIVE):
        raise UserError(f"{SWITCH} is {_switch()!r}: set it to {PORTABLE} or {NATIVE}, or unset it.")
    problem = None if caveat() else _contradiction()
    settle()
    if problem:
        raise UserError(
            f"{problem}, so the results would be of this processor alone: correct that, or set {SWITCH}={NATIVE} to "
            f"have them nevertheless."
        )


def caveat() -> str | None:
    """Why results of this process differ from those of the mode though nobody is to blame; None where they do not."""
    if _switch() == NATIVE:
        return f"{SWITCH} is {NATIVE}, so its bytes are of this processor alone."
    reason = why_not_here()
    return reason and f"{reason}, so its bytes differ from those of x86-64 processors with AVX2."


def why_not_here() -> str | None:
    """Why this machine cannot compute in the mode; None where it can. It looks for a GPU only once torch is loaded."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"This machine is {platform.machine()}"
    if not {"avx2", "fma"} <= set(processor()["instruction_sets"]):
        return "This processor has no AVX2, or does not tell"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return "A GPU computes here"
    return None


def _switch() -> str:
    return os.environ.get(SWITCH, PORTABLE)


def _contradiction() -> str | None:
    """What keeps this process out of the mode, as the beginning of a sentence; None where nothing does."""
    for name, value in MODE.items():
        if os.environ.get(name) != value:
            return f"The environment has {name}={os.environ.get(name, '')}, the numerical mode {name}={value}"
    for name, value in OVERRULING.items():
        if os.environ.get(name, value) != value:
            return f"The environment has {name}={os.environ[name]}, which overrules the numerical mode"
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    if _torch_came_first or torch.backends.cpu.get_cpu_capability() != "AVX2":
        return "torch was imported before rdlib set the numerical mode"
    if torch.get_num_threads() != 1:
        return f"torch works with {torch.get_num_threads()} threads, the numerical mode with one"
    from rdlib import products

    return products.problem()


def record() -> dict[str, Any]:
    """For a manifest: the mode that this process is in, the processor's name and instruction sets, torch's kernels."""
    in_mode = caveat() is None and _contradiction() is None
    torch = sys.modules.get("torch")
    kernels = {"torch_kernels": torch.backends.cpu.get_cpu_capability()} if torch is not None else {}
    return {"numerics": PORTABLE if in_mode else NATIVE, **processor(), **kernels}


def computes_bfloat16() -> bool:
    """Whether a GPU or this processor computes with bfloat16 faster than with float32; never in the mode."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    kept_out = {"ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"} & os.environ.keys()
    return not kept_out and bool({"avx512_bf16", "amx_bf16"} & set(processor()["instruction_sets"]))


@cache
def processor() -> dict[str, Any]:
    """The name of the processor and those of its instruction sets that matter here, as far as the system tells."""
    described: dict[str, str] = {}
    if CPUINFO.exists():
        with CPUINFO.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if not line.strip():  # the end of the first core's part
                    break
                name, _, value = line.partition(":")
                described[name.strip()] = value.strip()
    sets = [flag for flag in described.get("flags", "").split() if flag.startswith(SHOWN_SETS)]
    return {"processor": described.get("model name") or platform.processor(), "instruction_sets": sets}
