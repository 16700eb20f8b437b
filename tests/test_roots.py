"""The numerical mode's square roots: those of IEEE 754 for every float32, torch's own kinds and gradients elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rdlib import roots


@pytest.fixture(autouse=True)
def installed() -> None:
    roots.install()
    roots.install()  # a second time is no harm


def test_every_root_from_one_to_four_is_the_float32_that_is_nearest_to_it():
    """All other roots are these times a power of two. A float64 holds the square of what lies between two float32."""
    for start in (1.0, 2.0):
        bits = np.float32(start).view(np.int32) + np.arange(2**23, dtype=np.int32)
        x = torch.from_numpy(bits.view(np.float32))
        found = x.sqrt().numpy()
        exact = x.numpy().astype(np.float64)
        half_below = (found.astype(np.float64) + np.nextafter(found, np.float32(0))) / 2
        half_above = (found.astype(np.float64) + np.nextafter(found, np.float32(9))) / 2
        assert (half_below**2 < exact).all() and (exact < half_above**2).all()


def test_a_root_is_torchs_in_all_but_rounding():
    odd = torch.tensor([0.0, -0.0, float("inf"), -1.0, float("nan")])
    assert torch.equal(odd.sqrt().nan_to_num(7.0, 8.0), torch.tensor([0.0, -0.0, 8.0, 7.0, 7.0]))
    assert torch.tensor(4.0).sqrt().shape == () and torch.zeros(0, 3).sqrt().shape == (0, 3)
    assert torch.tensor([4, 9]).sqrt().tolist() == [2.0, 3.0]
    apart = torch.arange(16.0).view(4, 4).square()[:, ::2].t()
    assert apart.sqrt().tolist() == [[0, 4, 8, 12], [2, 6, 10, 14]]
    for kind in (torch.float64, torch.bfloat16, torch.float16, torch.complex64):
        assert torch.tensor([4.0], dtype=kind).sqrt().dtype == kind
    x = torch.tensor([4.0], requires_grad=True)
    x.sqrt().backward()
    assert x.grad.item() == 0.25
