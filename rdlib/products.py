"""Matrix products of the portable numerical mode: OpenBLAS with one set of kernels, instead of torch's `mm`.

MKL gives the same bytes on every processor only by kernels that take more than twice as long. OpenBLAS lets its
caller name the kernels: those for Haswell run, and add in the same order, on every x86-64 processor with AVX2, and are
as fast as MKL's own choice. `scipy-openblas32` carries the library in a file of its own, so that it starts with the
mode's OPENBLAS_CORETYPE even where numpy has loaded another copy before. Products of batches, and those inside torch's
attention, stay MKL's. rdlib.numerics calls `install`; importing this module loads torch.
"""

from __future__ import annotations

import ctypes
import importlib.util
import warnings
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

PACKAGE, KERNELS = "scipy_openblas32", "Haswell"
ROW_MAJOR, PLAIN, TRANSPOSED = 101, 111, 112  # of CBLAS

_overrides: list[torch.library.Library] = []  # which end with the object that made them


def problem() -> str | None:
    """What keeps torch's products from being portable, as the beginning of a sentence; None where nothing does."""
    if _file() is None:
        return f"The package {PACKAGE.replace('_', '-')}, which multiplies matrices in the numerical mode, is missing"
    if (kernels := _library().scipy_openblas_get_corename().decode()) != KERNELS:
        return f"OpenBLAS took its kernels for {kernels}, the numerical mode has those for {KERNELS}"
    return None


def install() -> None:
    """Have torch multiply float32 matrices on the CPU by `product`, from now on and once a process."""
    if _overrides:
        return
    overrides = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there was a kernel before
        overrides.impl("mm", _mm, "CPU")
    _overrides.append(overrides)


def product(a: Tensor, b: Tensor) -> Tensor:
    """The product [M, N] of `a` [M, K] and `b` [K, N], float32 on the CPU."""
    (rows, inner), columns = a.shape, b.shape[1]
    out = a.new_empty(rows, columns)
    if not (rows and inner and columns):
        return out.zero_()
    (a, *of_a), (b, *of_b) = _layout(a), _layout(b)
    _library().scipy_cblas_sgemm(
        ROW_MAJOR, of_a[0], of_b[0], rows, columns, inner,
        1.0, a.data_ptr(), of_a[1], b.data_ptr(), of_b[1], 0.0, out.data_ptr(), columns,
    )  # fmt: skip
    return out


def _mm(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype == b.dtype == torch.float32 and a.ndim == b.ndim == 2 and a.shape[1] == b.shape[0]:
        return product(a, b)
    return torch.mm(a, b, out=a.new_empty(0))  # torch's own, also for what it refuses


def _layout(matrix: Tensor) -> tuple[Tensor, int, int]:
    """A matrix as CBLAS reads it, copied only where it must be: with the word for its order, and its stride."""
    (rows, columns), (down, across) = matrix.shape, matrix.stride()
    if across == 1 and down >= columns:
        return matrix, PLAIN, down
    if down == 1 and across >= rows:
        return matrix, TRANSPOSED, across
    return matrix.contiguous(), PLAIN, columns


def _file() -> Path | None:
    found = importlib.util.find_spec(PACKAGE)
    folder = Path(found.origin).parent / "lib" if found and found.origin else None
    return next(iter(sorted(folder.glob("libscipy_openblas*"))), None) if folder else None


@cache
def _library() -> ctypes.CDLL:
    """OpenBLAS; it reads OPENBLAS_CORETYPE and the number of threads here, and never again."""
    library = ctypes.CDLL(str(_file()))
    library.scipy_openblas_get_corename.restype = ctypes.c_char_p
    library.scipy_openblas_set_num_threads(1)
    whole, number, pointer = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
    gemm = library.scipy_cblas_sgemm
    gemm.restype, gemm.argtypes = None, [
        *[whole] * 6, number, pointer, whole, pointer, whole, number, pointer, whole,
    ]  # fmt: skip
    return library
