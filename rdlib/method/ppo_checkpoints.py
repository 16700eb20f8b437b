"""A PPO run's checkpoints: all that a resumed run needs for the same result, written whole or not at all.

checkpoint-<update>/
    state.json              update, history, the best update so far, and under what settings
    policy.safetensors, value_model.safetensors, best.safetensors
    process-<rank>.safetensors      a process's optimizer and random states; under ZeRO also its part of the weights
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rdlib import checkpoints
from rdlib.errors import UserError
from rdlib.settings import Ppo, Stopping


class Trainer(Protocol):
    """What a checkpoint is made of, and put back into: a `PPOTrainer`."""

    accelerator: Accelerator
    policy: nn.Module
    value_model: nn.Module
    optimizer: Any
    settings: Ppo
    stopping: Stopping | None
    prompts: list[list[int]]
    seed: int
    history: list[dict]
    best: dict[str, Any]
    best_weights: dict[str, Tensor] | None


# A checkpoint continues only under the same values of these; the others say how long, and how often to save
FIXED_SETTINGS = tuple(
    "episodes_per_update epochs minibatch_size learning_rate value_learning_rate warmup_updates kl_coef clip_range "
    "value_clip_range vf_coef gamma gae_lambda max_grad_norm temperature whiten_rewards".split()
)
ADDED_SETTINGS = {"sampler": "transformers", "sampler_ratio_cap": None}  # later; older checkpoints lack these values


def save(trainer: Trainer, work: Path, update: int) -> None:
    """Write `checkpoint-<update>`, then delete the older ones."""
    accelerator = trainer.accelerator
    final, partial = work / f"checkpoint-{update:06d}", work / "checkpoint.partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        state = {
            "update": update,
            "best": trainer.best,
            "identity": _identity(trainer),
            "history": trainer.history,
        }
        (partial / "state.json").write_text(json.dumps(state), encoding="utf-8")
        save_file(weights(trainer.policy), partial / "policy.safetensors")
        save_file(weights(trainer.value_model), partial / "value_model.safetensors")
        if trainer.best_weights is not None:
            save_file(trainer.best_weights, partial / "best.safetensors")
    accelerator.wait_for_everyone()
    optimizer = _innermost(trainer.optimizer)
    own = {"optimizer": optimizer.state_dict(), "torch": torch.get_rng_state()}
    if _is_split(trainer):
        own["weights"] = _parameters(optimizer)
    if torch.cuda.is_available():
        own["cuda"] = torch.cuda.get_rng_state()
    checkpoints.save(partial / _own_file(trainer), own)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
        for old in sorted(work.glob("checkpoint-*"))[:-1]:
            shutil.rmtree(old)


def resume(trainer: Trainer, work: Path) -> int:
    """Load the newest checkpoint, if any, and make `history.jsonl` agree with it; returns its update, or 0.

    UserError where it was made under other settings, or cannot be read.
    """
    found = sorted(work.glob("checkpoint-*"))
    update = _load(trainer, found[-1]) if found else 0
    if trainer.accelerator.is_main_process:
        rows = "".join(json.dumps(row) + "\n" for row in trainer.history)
        (work / "history.jsonl").write_text(rows, encoding="utf-8")
    trainer.accelerator.wait_for_everyone()
    return update


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the trained weights on the CPU; a copy, because safetensors refuses tensors that share memory."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in _trained(model).items()}


def load_weights(model: nn.Module, held: dict[str, Tensor]) -> None:
    """Put back what `weights` gave; KeyError where they are another model's."""
    if held.keys() != _trained(model).keys():
        raise KeyError("it holds the weights of another model")
    model.load_state_dict(held, strict=False)


def _trained(model: nn.Module) -> dict[str, Tensor]:
    """What training changes: all weights, or with adapters those and the head."""
    state = model.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in state.items() if tensor.requires_grad}


def _identity(trainer: Trainer) -> dict[str, Any]:
    """What must be the same for a checkpoint to be continued."""
    settings, queries = trainer.settings, json.dumps(trainer.prompts).encode()
    chosen = {name: getattr(settings, name) for name in FIXED_SETTINGS}
    chosen["every"] = trainer.stopping and trainer.stopping.every
    chosen |= {name: v for name, usual in ADDED_SETTINGS.items() if (v := getattr(settings, name)) != usual}
    return chosen | {
        "seed": trainer.seed,
        "queries": hashlib.sha256(queries).hexdigest()[:16],
        "processes": trainer.accelerator.num_processes,
    }


def _innermost(optimizer: Any) -> torch.optim.Optimizer:
    """PyTorch's own optimizer, within accelerate's and, under ZeRO, within DeepSpeed's."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def _is_split(trainer: Trainer) -> bool:
    """Whether this process's optimizer steps a part of the weights, which it holds in float32 beside the model's."""
    return trainer.accelerator.distributed_type == DistributedType.DEEPSPEED


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _own_file(trainer: Trainer) -> str:
    return f"process-{trainer.accelerator.process_index}.safetensors"


def _load(trainer: Trainer, folder: Path) -> int:
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        ours, theirs = _identity(trainer), state["identity"]
        differing = [k for k in (ours | theirs) if ours.get(k) != theirs.get(k)]
        if differing:
            raise UserError(
                f"The checkpoint {folder} was made with another {', '.join(differing)}: restore the old "
                "values to continue it, or delete the folder to start again."
            )
        load_weights(trainer.policy, load_file(folder / "policy.safetensors"))
        load_weights(trainer.value_model, load_file(folder / "value_model.safetensors"))
        if state["best"]["validation_agreement"] is not None:
            trainer.best_weights = load_file(folder / "best.safetensors")
        own = checkpoints.load(folder / _own_file(trainer))
        optimizer = _innermost(trainer.optimizer)
        optimizer.load_state_dict(own["optimizer"])
        if _is_split(trainer):
            for parameter, held in zip(_parameters(optimizer), own["weights"], strict=True):
                parameter.data.copy_(held)
        torch.set_rng_state(own["torch"])
        if "cuda" in own and torch.cuda.is_available():
            torch.cuda.set_rng_state(own["cuda"])
    except UserError:
        raise
    except Exception as error:  # a damaged file fails in many ways: json, safetensors, shape
        raise UserError(
            f"The checkpoint {folder} cannot be read ({type(error).__name__}: {error}): delete it to start again."
        ) from error
    trainer.history, trainer.best = state["history"], state["best"]
    return state["update"]
