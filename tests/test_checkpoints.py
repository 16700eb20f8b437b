"""Checkpoints: what goes in comes out, and nothing is pickled, neither there nor in models."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from rdlib import checkpoints


def trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A model after three steps of AdamW with momentum in its state."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(3):
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model.weight.detach().clone()


def test_an_optimizer_goes_on_where_it_was(tmp_path):
    (model, optimizer), (other, _) = trained(), trained()
    checkpoints.save(tmp_path / "o.safetensors", optimizer.state_dict())
    fresh = torch.optim.AdamW(other.parameters(), lr=9.0)
    fresh.load_state_dict(checkpoints.load(tmp_path / "o.safetensors"))
    assert torch.equal(step(model, optimizer), step(other, fresh))


def test_random_states_go_on_where_they_were(tmp_path):
    states = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}
    checkpoints.save(tmp_path / "r.safetensors", states)
    drawn = random.random(), np.random.rand(), torch.rand(1)
    loaded = checkpoints.load(tmp_path / "r.safetensors")
    random.setstate(loaded["python"])
    np.random.set_state(loaded["numpy"])
    torch.set_rng_state(loaded["torch"])
    assert (random.random(), np.random.rand(), torch.rand(1)) == drawn


def test_plain_values_come_back_as_they_were(tmp_path):
    plain = {"a": (1, [2.5, None], "text"), 3: True, (1, 2): {"nested": []}}
    for content in ({}, [], plain, [1e-300, -0.0, math.inf, 2**70, "λ\n\0"]):
        checkpoints.save(tmp_path / "c.safetensors", content)
        assert repr(checkpoints.load(tmp_path / "c.safetensors")) == repr(content)


def test_tensors_that_share_memory_and_kinds_of_numbers(tmp_path):
    whole = torch.arange(6.0).reshape(2, 3)
    content = [whole, whole.T, whole[0], torch.tensor(3), whole.to(torch.bfloat16), np.arange(3, dtype=np.uint32)]
    checkpoints.save(tmp_path / "c.safetensors", content)
    found = checkpoints.load(tmp_path / "c.safetensors")
    for a, b in zip(content[:-1], found[:-1], strict=True):
        assert torch.equal(a, b) and a.dtype == b.dtype
    assert np.array_equal(content[-1], found[-1]) and found[-1].dtype == np.uint32


def test_other_objects_are_refused_and_leave_no_file(tmp_path):
    with pytest.raises(TypeError, match="cannot hold a Linear"):
        checkpoints.save(tmp_path / "c.safetensors", {"model": torch.nn.Linear(1, 1)})
    assert not list(tmp_path.iterdir())
