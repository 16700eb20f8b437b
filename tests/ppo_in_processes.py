"""PPO runs on given responses, for test_distributed: `accelerate launch tests/ppo_in_processes.py WORK`.

The responses depend on the prompt and the update alone, so that any number of processes optimises on the same ones.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import test_one_base
import torch
from safetensors.torch import save_file
from test_ppo import EOS, PROMPTS, Words, first_logit, settings, share_of, trainer_for
from tiny_models import make_model

from rdlib.method import ppo, token_logprobs, training
from rdlib.settings import Training

KINDS = ("plain", "tiles", "adapters")  # logits in tiles of eight columns; networks that are adapters on one base


class GivenResponses:
    """A `sample` whose responses of one to six tokens are drawn by prompt and update."""

    def __init__(self) -> None:
        self.update = 0

    def __call__(self, policy, prompts, seed):
        self.update += 1
        return [self.response(prompt) for prompt in prompts]

    def response(self, prompt: list[int]) -> list[int]:
        """Token ids; most end with the end token."""
        generator = torch.Generator().manual_seed(1000 * self.update + 10 * prompt[0] + len(prompt))
        length = int(torch.randint(1, 7, (), generator=generator))
        return [*torch.randint(2, 20, (length - 1,), generator=generator).tolist(), EOS]


def run(work: Path, kind: str = "plain") -> None:
    """Two updates with whitened rewards; the main process writes history.json and weights.safetensors."""
    config = settings(total_updates=2, whiten_rewards=True, max_grad_norm=0.5)
    given = {
        "sample": GivenResponses(),
        "score": share_of(5),
        "validate": first_logit,
        "accelerator": training.new_accelerator(Training()),
        "forward_size": 2,
    }
    with pytest.MonkeyPatch.context() as patch:
        if kind == "tiles":
            patch.setattr(token_logprobs, "CPU_TILE", 1)
            patch.setattr(token_logprobs, "ALIGNED", 8)
        if kind == "adapters":
            policy, reference, value_model, _ = networks_on_one_base(work, given["accelerator"])
            trainer = ppo.PPOTrainer(policy, reference, value_model, Words(), config, PROMPTS, **given)
        else:
            trainer = trainer_for(config, **given)
        trainer.train(work / "run")
    if trainer.accelerator.is_main_process:
        (work / "history.json").write_text(json.dumps(trainer.history))
        save_file({k: v.clone() for k, v in trainer.both.state_dict().items()}, work / "weights.safetensors")


def networks_on_one_base(folder: Path, accelerator) -> tuple:
    """PPO's networks, of files that the main process writes."""
    if accelerator.is_main_process:
        make_model("qwen2").save_pretrained(folder / "base")
        test_one_base.trained(folder / "reward", folder / "base")
    accelerator.wait_for_everyone()
    return test_one_base.networks(folder / "base", folder / "reward")


if __name__ == "__main__":
    for kind in KINDS:
        run(Path(sys.argv[1]) / kind, kind)
