"""The numerical mode's matrix products: right for every layout and shape, torch's own elsewhere, told when missing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rdlib import numerics, products
from rdlib.engines import models  # noqa: F401 (which has torch multiply so)

pytestmark = pytest.mark.skipif(numerics.caveat() is not None, reason=f"not in the mode here: {numerics.caveat()}")

sizes = st.integers(0, 70)
layouts = st.sampled_from(["plain", "transposed", "columns apart", "rows apart", "one row, repeated"])


def matrix(rows: int, columns: int, layout: str, seed: int) -> torch.Tensor:
    """A matrix whose elements lie as `layout` says: whole numbers from -4 to 4, so that sums are exact in any order."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randint(-4, 5, shape, generator=generator).float()

    if layout == "transposed":
        return draw(columns, rows).t()
    if layout == "columns apart":
        return draw(rows, 2 * columns)[:, ::2]
    if layout == "rows apart":
        return draw(rows, columns + 3)[:, 1 : columns + 1]
    if layout == "one row, repeated":
        return draw(1, columns).expand(rows, columns)
    return draw(rows, columns)


@given(rows=sizes, inner=sizes, columns=sizes, of_a=layouts, of_b=layouts, seed=st.integers(0, 99))
@settings(max_examples=300, deadline=None)
def test_a_product_is_the_exact_one_in_every_layout(rows, inner, columns, of_a, of_b, seed):
    a, b = matrix(rows, inner, of_a, seed), matrix(inner, columns, of_b, seed + 1)
    torch.testing.assert_close(products.product(a, b), (a.double() @ b.double()).float(), rtol=0, atol=0)


def test_torch_multiplies_so_also_in_layers_and_backwards():
    x, w = torch.randn(500, 64), torch.randn(96, 64, requires_grad=True)
    y = torch.nn.functional.linear(x, w)
    assert torch.equal(y, products.product(x, w.detach().t()))
    y.square().sum().backward()
    assert torch.equal(w.grad, products.product(x.t(), (2 * y).detach()).t()) or torch.equal(
        w.grad, products.product((2 * y).detach().t(), x)
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64])
def test_other_types_are_torchs(dtype):
    a = torch.arange(12).reshape(3, 4).to(dtype)
    assert (a @ a.t()).tolist() == [[14, 38, 62], [38, 126, 214], [62, 214, 366]]


def test_what_does_not_fit_is_refused_in_torchs_words():
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        torch.mm(torch.ones(2, 3), torch.ones(2, 3))
    with pytest.raises(RuntimeError):
        torch.mm(torch.ones(2, 3), torch.ones(3, 2, dtype=torch.float64))


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(products, "PACKAGE", "no_such_package")
    with pytest.raises(Exception, match="no-such-package.*missing.*RDLIB_NUMERICS=native"):
        numerics.require()


def test_kernels_of_another_processor_are_refused(monkeypatch):
    monkeypatch.setattr(products, "KERNELS", "Zen")
    with pytest.raises(Exception, match="Haswell"):
        numerics.require()
