#!/usr/bin/env bash
# Guess: a square root is one of the operations that IEEE 754 defines to the last bit, and every x86-64 processor has an
#   instruction for it. So torch.sqrt is correctly rounded, and torch's versions of AdamW, which differ in speed, take
#   the same roots. MKL_CBWR=COMPATIBLE, MKL's mode for equal results on all processors, is at least as exact.
# What happens: torch leaves roots to MKL's vector library, which is at times off by one in the last place. How often
#   depends on the instructions that it chooses: for float32, 0.6 % of roots with AVX-512, none with AVX2, and 19 % in
#   the compatible mode. For float64 it is about 1 % in all three. The plain AdamW takes these roots, the fused one not.
# Version: torch 2.13.0 for x86-64 (its packages on PyPI and for CPUs have MKL), against numpy 2.4.6.
# Why it matters: one seed trained on two processors drifts apart though neither has an error, and MKL's variable alone
#   makes roots worse. The fused AdamW takes the processor's own roots; roots outside it are better left to numpy.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat >"$folder/roots.py" <<'PYTHON'
import hashlib
import os
import sys

import numpy as np
import torch

COUNT = 1_000_000
torch.set_num_threads(1)
mode = os.environ["MKL_CBWR"]
print("torch", torch.__version__, "numpy", np.__version__, f"MKL_CBWR={mode}")
numbers = np.random.default_rng(0).random(COUNT)


def last_places(found, exact):
    """How many of the roots are not the exact ones, and by how many last places at most."""
    whole = np.int32 if exact.dtype == np.float32 else np.int64
    off = np.abs(found.view(whole) - exact.view(whole))
    return int((off > 0).sum()), int(off.max())


def first_step(**kind):
    """Weights after one step of AdamW from 0, with the numbers as gradients."""
    weights = torch.nn.Parameter(torch.zeros(COUNT))
    weights.grad = torch.from_numpy(numbers.astype(np.float32))
    torch.optim.AdamW([weights], lr=1e-3, **kind).step()
    return weights.detach()


single = numbers.astype(np.float32)
exact = np.sqrt(single.astype(np.float64)).astype(np.float32)  # twice the digits and two more: rounds as once
by_numpy = last_places(np.sqrt(single), exact)
by_torch = last_places(torch.from_numpy(single).sqrt().numpy(), exact)
double = last_places(torch.from_numpy(numbers).sqrt().numpy(), np.sqrt(numbers))
print(f"float32: {by_torch[0]} of {COUNT} roots of torch are wrong in the last place, {by_numpy[0]} of numpy's")
print(f"float64: {double[0]} of {COUNT} roots of torch are not numpy's, by {double[1]} in the last place")
plain, foreach, fused = (first_step(**kind) for kind in ({"foreach": False}, {"foreach": True}, {"fused": True}))
moved = int((plain != fused).sum())
print(f"AdamW: {moved} of {COUNT} weights differ between plain and fused after one step")
print("fused weights:", hashlib.sha256(fused.numpy().tobytes()).hexdigest()[:16])
same = by_numpy == (0, 0) and double[0] > 0 and double[1] == 1 and torch.equal(plain, foreach)
same &= by_torch[1] <= 1 and (moved > 0) == (by_torch[0] > 0)
if mode == "COMPATIBLE":
    same &= by_torch[0] > COUNT // 100
sys.exit(0 if same else "This behaviour has changed.")
PYTHON
for mode in AUTO AVX2 COMPATIBLE; do # some processors take AVX2 for AUTO
    MKL_CBWR=$mode "$folder/venv/bin/python" "$folder/roots.py" | tee -a "$folder/seen"
done
if [ "$(grep '^fused' "$folder/seen" | sort -u | wc -l)" != 1 ]; then
    echo "The fused AdamW now depends on MKL's mode." >&2
    exit 1
fi
