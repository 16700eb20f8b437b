"""What SFT and reward model share: training arguments, resuming, progress, and the history as a table."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_model
from tqdm import tqdm
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from rdlib.errors import UserError

CHECKPOINTS = "checkpoints"


def common_arguments(work: Path, seed: int, save_strategy: str) -> dict[str, Any]:
    """Arguments for TRL and transformers trainers that do not depend on the method."""
    cuda = torch.cuda.is_available()
    return {
        "output_dir": str(work / CHECKPOINTS),
        "seed": seed,
        "use_cpu": not cuda,
        "bf16": cuda,
        "gradient_checkpointing": False,
        "save_strategy": save_strategy,
        "save_total_limit": 2,
        "logging_steps": 1,  # a mean over several steps would differ after a resume in between
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": cuda,
    }


class ProgressBar(TrainerCallback):
    """A plain tqdm bar, and an error when the loss is no longer a number."""

    def __init__(self, name: str):
        self.name, self.bar = name, None

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Open the bar."""
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.name)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Advance the bar."""
        self.bar.update(1)

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Show the loss; UserError when it is NaN or infinite."""
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise UserError(
                f"{self.name} diverged: the loss is {loss} at step {state.global_step}. Lower the learning rate."
            )
        self.bar.set_postfix({k: round(v, 3) for k, v in (logs or {}).items() if k in SHOWN})

    def on_train_end(self, args, state, control, **kwargs) -> None:
        """Close the bar."""
        self.bar.close()


# Timing, and totals that the trainers count anew after a resume.
UNSTABLE = ("runtime", "step_time", "per_second", "total_flos", "num_tokens", "train_loss")
SHOWN = ("loss", "eval_loss", "eval_agreement", "eval_pos_neg_auc")


def train(trainer: Trainer, work: Path) -> pd.DataFrame:
    """Train, going on from the last whole checkpoint if there is one; returns the history, a row a log."""
    trainer.remove_callback(PrinterCallback)
    last = last_whole_checkpoint(work / CHECKPOINTS)
    if last and stopped_early(trainer, last):
        restore_best(trainer, last)  # resuming would train on, past the early stop
    else:
        trainer.train(resume_from_checkpoint=last)
    return history_table(trainer.state.log_history)


def stopped_early(trainer: Trainer, checkpoint: str) -> bool:
    """Whether the run that wrote this checkpoint had lost its patience there."""
    callbacks = [c for c in trainer.callback_handler.callbacks if isinstance(c, EarlyStoppingCallback)]
    state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
    kept = state.stateful_callbacks.get(EarlyStoppingCallback.__name__)
    if not callbacks or not kept:
        return False
    return kept["attributes"]["early_stopping_patience_counter"] >= callbacks[0].early_stopping_patience


def restore_best(trainer: Trainer, checkpoint: str) -> None:
    """Give a trainer the state of a finished run and the weights of its best checkpoint."""
    trainer.state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
    best = Path(checkpoint).with_name(Path(trainer.state.best_model_checkpoint).name)
    load_model(trainer.model, best / "model.safetensors")


def drop_checkpoints(work: Path) -> None:
    """Remove the trainer's checkpoints: a stage's last step, so that until then a crash costs no training."""
    shutil.rmtree(work / CHECKPOINTS, ignore_errors=True)


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end; cut ones are removed."""
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        if (path / "trainer_state.json").is_file():  # the file that the trainer writes last
            return str(path)
        shutil.rmtree(path)
    return None


def history_table(log: list[dict]) -> pd.DataFrame:
    """The trainer's log by step: loss and evaluation metrics side by side, timing left out."""
    rows: dict[int, dict] = {}
    for entry in log:
        row = rows.setdefault(entry["step"], {"step": entry["step"], "epoch": round(entry["epoch"], 4)})
        for key, value in entry.items():
            if key not in {"step", "epoch"} and not key.endswith(UNSTABLE):
                row[key.removeprefix("eval_") if key != "eval_loss" else key] = value
    frame = pd.DataFrame(sorted(rows.values(), key=lambda row: row["step"]))
    return frame[["step", "epoch", *sorted(set(frame.columns) - {"step", "epoch"})]]
