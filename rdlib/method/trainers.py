"""What the study's Trainers do beside transformers': global batches, checkpoints without pickle, and a stop at NaN.

Each is a class to inherit from: GlobalBatches and FiniteSteps before the Trainer, PlainCheckpoints after it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, Dataset
from transformers import Trainer
from transformers.trainer import TRAINING_ARGS_NAME

from rdlib import checkpoints
from rdlib.errors import UserError
from rdlib.method.training import SHARDED

OPTIMIZER, RANDOM = "optimizer.safetensors", "random-{}.safetensors"  # a checkpoint's; the latter is a process's own


# ---- global batches


class WithBlank(Dataset):
    """A dataset and, after its last row, one that carries no loss."""

    def __init__(self, rows: Any, blank: dict[str, Any]):
        self.rows, self.blank = rows, blank

    def __len__(self) -> int:
        return len(self.rows) + 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index] if index < len(self.rows) else self.blank


class FilledBatches(BatchSampler):
    """Batches of an epoch, filled up with the row `blank` until each process has as many whole ones as the others.

    (accelerate would fill up with rows of the epoch's beginning, which then count twice.)
    """

    def __init__(self, batches: BatchSampler, processes: int, blank: int):
        super().__init__(batches.sampler, batches.batch_size, drop_last=False)
        self.processes, self.blank = processes, blank

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            yield batch + [self.blank] * (self.batch_size - len(batch))
        for _ in range(len(self) - super().__len__()):
            yield [self.blank] * self.batch_size

    def __len__(self) -> int:
        return -(-super().__len__() // self.processes) * self.processes


class GlobalBatches:
    """A Trainer that sees the batches of a single process, however many processes share them.

    `blank`: a row without loss.
    """

    blank: dict[str, Any]

    def get_train_dataloader(self):
        """The loader of this process's shares."""
        processes = self.accelerator.num_processes
        if processes == 1:
            return super().get_train_dataloader()
        loader = self._get_dataloader(
            WithBlank(self.train_dataset, self.blank),
            "Training",
            self._train_batch_size,
            sampler_fn=lambda _: self._get_train_sampler(self.train_dataset),
            is_training=True,
        )
        shares = loader.batch_sampler
        shares.batch_sampler = FilledBatches(shares.batch_sampler, processes, len(self.train_dataset))
        return loader


# ---- checkpoints


class PlainCheckpoints(Trainer):
    """A Trainer that writes and reads its checkpoints without pickle, by `rdlib.checkpoints`; last of a class's bases.

    Where FSDP or DeepSpeed splits the optimizer, its part of a checkpoint is theirs, in their own format.
    """

    @property
    def _optimizer_is_split(self) -> bool:
        return self.accelerator.distributed_type in SHARDED

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        (Path(output_dir or self.args.output_dir) / TRAINING_ARGS_NAME).unlink()  # a pickle, which nothing reads

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._optimizer_is_split:
            super()._save_optimizer_and_scheduler(output_dir)
        elif self.args.should_save:
            states = {"optimizer": self.optimizer.state_dict(), "scheduler": self.lr_scheduler.state_dict()}
            checkpoints.save(Path(output_dir) / OPTIMIZER, states)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self._optimizer_is_split:
            super()._load_optimizer_and_scheduler(checkpoint)
        elif checkpoint is not None:
            states = checkpoints.load(Path(checkpoint) / OPTIMIZER)
            self.optimizer.load_state_dict(states["optimizer"])
            self.lr_scheduler.load_state_dict(states["scheduler"])

    def _save_rng_state(self, output_dir: str) -> None:
        states = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}
        if torch.cuda.is_available():
            states["cuda"] = torch.cuda.get_rng_state()
        Path(output_dir).mkdir(parents=True, exist_ok=True)  # this process may come before the first one
        checkpoints.save(Path(output_dir) / RANDOM.format(self.args.process_index), states)
        self.accelerator.wait_for_everyone()  # what the first one writes next says that the checkpoint is whole

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        states = checkpoints.load(Path(checkpoint) / RANDOM.format(self.args.process_index))
        random.setstate(states["python"])
        np.random.set_state(states["numpy"])
        torch.set_rng_state(states["torch"])
        if "cuda" in states and torch.cuda.is_available():
            torch.cuda.set_rng_state(states["cuda"])


# ---- numbers that are none


class FiniteSteps:
    """A Trainer that stops at a loss or a gradient that is NaN or infinite, and keeps the batch that it came from.

    (transformers' own Trainer leaves such a loss out of its log and trains on; its history then says 0.)
    """

    def _prepare_inputs(self, inputs):
        self._batch = super()._prepare_inputs(inputs)  # what the loss is computed from, sampled or not
        return self._batch

    def training_step(self, *args, **kwargs):
        """The loss of a batch; UserError when it is NaN or infinite."""
        loss = super().training_step(*args, **kwargs)
        self._require_finite(loss, "loss")
        return loss

    def _clip_grad_norm(self, model):
        norm = super()._clip_grad_norm(model)
        if norm is not None:  # DeepSpeed may keep it to itself
            self._require_finite(torch.as_tensor(norm), "gradient")
        return norm

    def _require_finite(self, number: torch.Tensor, what: str) -> None:
        if torch.isfinite(number).all():
            return
        step, folder = self.state.global_step + 1, Path(self.args.output_dir)  # with the checkpoints, until the end
        name = f"failed_step_{step}_{self.accelerator.process_index}.safetensors"
        path = checkpoints.save_batch(folder / name, self._batch)
        raise UserError(
            f"Training stopped in step {step}: the {what} is NaN or infinite. Its batch is in {path}: look at it, and "
            f"lower the learning rate; the last checkpoint holds the weights from before."
        )
