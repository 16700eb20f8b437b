"""Square roots of the portable numerical mode: the correctly rounded ones, instead of torch's `sqrt`.

torch leaves a tensor's roots to MKL's vector library, which rounds one in five of them to the other neighbour on some
processors, and not on others. The processor's own instruction, which numpy takes, is correctly rounded everywhere
(IEEE 754), as are the roots inside torch's optimizers, norms and standard deviations. MKL_CBWR=COMPATIBLE, which the
mode sets for products, is no help: it is the setting in which 19 % of float32 roots are wrong
(findings/torch_square_roots.sh). Code that trains with `Tensor.sqrt` calls `install` once; for a single tensor take
`root`. Of all trainings here only GRPO's calls `sqrt` (TRL's standard deviation of a group's rewards);
tests/test_portable.py watches that no other does. Importing this module loads torch.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

ROUNDED = (torch.float32, torch.float64)

_overrides: list[torch.library.Library] = []  # which end with the object that made them


def install() -> None:
    """Have torch take roots on the CPU by `root`, from now on and once a process."""
    if _overrides:
        return
    overrides = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there was a kernel before
        overrides.impl("sqrt", _sqrt, "CPU")
    _overrides.append(overrides)


def root(x: Tensor) -> Tensor:
    """The correctly rounded square roots of `x`, of any shape, float32 or float64 on the CPU; NaN below zero."""
    with np.errstate(invalid="ignore"):
        return torch.from_numpy(np.asarray(np.sqrt(x.detach().numpy())))


def _sqrt(x: Tensor) -> Tensor:
    if x.dtype in ROUNDED:
        return root(x)
    if not x.dtype.is_floating_point and not x.dtype.is_complex:
        return root(x.to(torch.get_default_dtype()))
    return torch.sqrt(x, out=x.new_empty(0))  # torch's own
