"""Processes on the CPU in the place of GPUs, which accelerate shards over, and what each of them then holds.

`python -m tests.with_deepspeed.sharing JOB` is `python -m rdlib worker` in such a process.
"""

# ruff: noqa: I001
from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

import rdlib  # noqa: F401 (before torch: it sets the numerical mode)
import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from transformers import TrainerCallback

from rdlib.method import training
from rdlib.method.ppo import PPOTrainer
from rdlib.study import worker

SEEN = "RDLIB_TEST_SEEN"  # the folder where a process says what it holds


def take_processes_for_gpus() -> None:
    """Have accelerate see a GPU where this process is, and compute on the CPU, by gloo in NCCL's place."""
    training.on_cpu = lambda: False
    PartialState._prepare_backend = lambda *arguments, **options: ("gloo", DistributedType.MULTI_GPU)
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        backend = importlib.import_module("deepspeed.comm.torch")  # a name that DeepSpeed gives to PyTorch as well
        backend.build_shm_op = lambda: None  # of CPUs alone; it would be compiled at the first start


def tell(accelerator, model: torch.nn.Module, optimizer) -> None:
    """Write what this process holds, after a step, into <rank>.json in the folder SEEN."""
    states = [state for one in _innermost(optimizer).state.values() for state in one.values()]
    seen = {
        "distributed_type": accelerator.distributed_type.value,
        "parameters": sum(_held(parameter) for parameter in model.parameters()),
        "of_parameters": sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters()),
        "optimizer": sum(_held(state) for state in states if state.dim()),
    }
    (Path(os.environ[SEEN]) / f"{accelerator.process_index}.json").write_text(json.dumps(seen))


def _held(tensor: torch.Tensor) -> int:
    """The elements of a tensor that are in this process: of ZeRO-3's and of FSDP's its part."""
    tensor = getattr(tensor, "ds_tensor", tensor)
    return (tensor.to_local() if hasattr(tensor, "to_local") else tensor).numel()


def _innermost(optimizer):
    while hasattr(optimizer, "optimizer"):  # accelerate's, DeepSpeed's, and then torch's own
        optimizer = optimizer.optimizer
    return optimizer


class Tell(TrainerCallback):
    """Tells after each step."""

    def __init__(self, trainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs) -> None:
        """Tell."""
        tell(self.trainer.accelerator, model, optimizer)


def tell_after_steps() -> None:
    """Have SFT, reward model and PPO tell."""
    train, optimise = training.train, PPOTrainer.optimise

    def train_and_tell(trainer, *arguments):
        trainer.add_callback(Tell(trainer))
        return train(trainer, *arguments)

    def optimise_and_tell(trainer, *arguments):
        statistics = optimise(trainer, *arguments)
        tell(trainer.accelerator, trainer.both, trainer.optimizer)
        return statistics

    training.train, PPOTrainer.optimise = train_and_tell, optimise_and_tell


if __name__ == "__main__":
    take_processes_for_gpus()
    tell_after_steps()
    worker.run(argparse.Namespace(job=sys.argv[1]))
