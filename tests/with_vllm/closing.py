"""A process that samples with vLLM, stops it, and then meets the others: for test_vllm_ppo, by `accelerate launch`."""

from __future__ import annotations

from contextlib import closing

import torch
from accelerate import Accelerator

import rdlib  # noqa: F401 (before torch: it sets the numerical mode)
from rdlib.engines import models
from rdlib.engines.vllm_policy import PolicyEngine
from tests.conftest import MODELS


def main() -> None:
    """Each process asks for another number of responses."""
    accelerator = Accelerator(cpu=True)
    count = 1 + accelerator.process_index
    policy, tokenizer = models.load_causal_lm(MODELS / "small"), models.load_tokenizer(MODELS / "small")
    with closing(PolicyEngine(policy, tokenizer, 9)) as engine:
        tokens, _ = engine.rollouts(policy, [[5, 6, 7]] * count, 1.0, seed=count)
    del engine
    assert len(tokens) == count
    accelerator.wait_for_everyone()
    if accelerator.reduce(torch.tensor(count)).item() == 3:
        print("together", flush=True)


if __name__ == "__main__":
    main()
