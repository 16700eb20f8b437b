"""What the trainers share: arguments, devices and processes, adapters, resuming, progress, and the history as a table.

A stage's batch sizes are those of an optimizer step. `training.processes` share a batch, each in
`training.gradient_accumulation` parts, and the losses are sums divided by the counts of the whole batch, so that any
split gives the same gradient up to rounding.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    GradientAccumulationPlugin,
    gather_object,
)
from tqdm import tqdm
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
)
from transformers.trainer import TRAINER_STATE_NAME

from rdlib.engines import endings, models
from rdlib.errors import UserError
from rdlib.method import watching
from rdlib.settings import Stopping, Training

CHECKPOINTS = "checkpoints"
# The fused AdamW takes exact square roots. The plain one has them from MKL, whose last digit is the processor's own.
OPTIMIZER = "adamw_torch_fused"
SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)  # they split the optimizer, and keep its state themselves
ROUTER = 0.0  # weight of a mixture's router in losses: none of the paper's has that term, which TRL's would add
NON_REENTRANT = {"use_reentrant": False}  # the kind of gradient checkpointing that works with frozen inputs and DDP


def in_bf16(settings: Training) -> bool:
    """Whether forward passes are computed in bfloat16; UserError where the GPU has none."""
    cuda = torch.cuda.is_available()
    asked = settings.precision == "bf16" or models.dtype_of(settings.weights) is torch.bfloat16
    if asked and cuda and not torch.cuda.is_bf16_supported():
        raise UserError("training.precision is bf16, which this GPU does not have: set it to fp32.")
    return asked or (cuda and settings.precision is None)


def on_cpu() -> bool:
    """Whether accelerate has to compute on the CPU, where it silently leaves out DeepSpeed and FSDP."""
    return not torch.cuda.is_available()


def common_arguments(stage, work: Path) -> dict[str, Any]:
    """Arguments for TRL and transformers trainers that do not depend on the method."""
    cuda, settings = torch.cuda.is_available(), stage.profile.training
    return {
        "output_dir": str(work / CHECKPOINTS),
        "seed": stage.seed,
        "use_cpu": on_cpu(),
        "bf16": in_bf16(settings),
        "optim": OPTIMIZER,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "gradient_checkpointing_kwargs": NON_REENTRANT,
        "torch_compile": settings.compile,
        "save_total_limit": 2,
        "logging_steps": 1,  # a mean over several steps would differ after a resume in between
        "report_to": "none",  # `watching` sends the curves, of these trainers and of PPO alike
        "disable_tqdm": True,
        "dataloader_pin_memory": cuda,
        "ddp_find_unused_parameters": False,
        "ddp_broadcast_buffers": False,  # no model here changes its buffers, and processes may differ in their passes
    }


def stopping_arguments(settings: Stopping, metric: str) -> dict[str, Any]:
    """Arguments of the one rule by which the trainings end, for a Trainer whose evaluation gives this metric."""
    return {
        "lr_scheduler_type": {"constant": "constant_with_warmup"}.get(settings.schedule, settings.schedule),
        "warmup_steps": settings.warmup_steps,
        "eval_strategy": "steps",
        "eval_steps": settings.every,
        "save_strategy": "steps",
        "save_steps": settings.every,
        "metric_for_best_model": metric,
        "load_best_model_at_end": True,
        "restore_callback_states_from_checkpoint": True,  # the patience already used up is kept over a resume
    }


def stopping_callbacks(settings: Stopping) -> list[TrainerCallback]:
    """What carries the rule out: the stop, and an evaluation after the last step."""
    return [EvaluateLast(), EarlyStoppingCallback(settings.evaluations)]


def outcome(trainer: Trainer) -> dict[str, Any]:
    """How a training ended: its best validation value, at which step, after how many, and whether its patience did."""
    state = trainer.state
    return {
        "best": state.best_metric,
        "best_step": state.best_global_step,
        "steps": state.global_step,
        "stopped_early": out_of_patience(trainer, state),
    }


def batch_arguments(settings: Training, batch: int) -> dict[str, int]:
    """How a batch of an optimizer step is shared: this process's part of it, and in how many passes."""
    return {
        "per_device_train_batch_size": batch // (settings.processes * settings.gradient_accumulation),
        "gradient_accumulation_steps": settings.gradient_accumulation,
    }


def lora_config(settings: Training, task: str):
    """The adapters of a "CAUSAL_LM" or "SEQ_CLS" model, whose head is trained whole; None where all weights are."""
    from peft import LoraConfig

    lora = settings.lora
    if lora is None:
        return None
    return LoraConfig(
        task_type=task,
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        modules_to_save=["score"] if task == "SEQ_CLS" else None,
    )


def with_adapters(model: PreTrainedModel, settings: Training, task: str) -> PreTrainedModel:
    """A model with new adapters, which change nothing yet; the model itself where all weights are trained.

    What is trained of an adapted model is float32, whatever holds the rest.
    """
    from peft import get_peft_model

    config = lora_config(settings, task)
    if config is None:
        return model
    adapted = get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


# ---- several processes


def new_accelerator(settings: Training) -> Accelerator:
    """The accelerator of a training loop of our own."""
    AcceleratorState._reset_state()  # an earlier trainer in this process may have set another precision
    return Accelerator(
        cpu=on_cpu(),
        mixed_precision="bf16" if in_bf16(settings) else "no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # DeepSpeed's files say "auto"
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )


def is_main() -> bool:
    """Whether this process writes the artifacts: the only one, or the first of several."""
    return PartialState().is_main_process


def share(items: list, accelerator: Accelerator) -> list:
    """This process's share of a list; all shares have the same length, for which some items come twice.

    Under FSDP each share is the whole list: there the forward passes of all processes must be the same.
    """
    parts = _shares(accelerator)
    length = -(-len(items) // parts)
    first = accelerator.process_index % parts
    return [items[i % len(items)] for i in range(first, length * parts, parts)]


def gather(results: list, count: int, accelerator: Accelerator) -> list:
    """The results of all `count` items, in their order, from each process's results of its `share`."""
    if _shares(accelerator) == 1:
        return results
    parts = gather_object([results])
    return [parts[i % len(parts)][i // len(parts)] for i in range(count)]


def _shares(accelerator: Accelerator) -> int:
    return 1 if accelerator.distributed_type == DistributedType.FSDP else accelerator.num_processes


def splits_weights(accelerator: Accelerator) -> bool:
    """Whether each process holds a part of the weights, so that a forward pass is work of all of them together."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return accelerator.state.deepspeed_plugin.zero_stage == 3
    return accelerator.distributed_type == DistributedType.FSDP


def keeps_in_step(accelerator: Accelerator) -> bool:
    """Whether forward and backward passes must go over the weights in the same order in every process.

    ZeRO-2 fills the buffers that it adds up in the order in which a process has its gradients, and does not look whose.
    """
    return accelerator.distributed_type in SHARDED


@contextmanager
def whole_model(trainer: Trainer):
    """The trained model without its distributed wrapper; where ZeRO-3 splits the weights, they are gathered."""
    plugin = trainer.accelerator.state.deepspeed_plugin if trainer.is_deepspeed_enabled else None
    if plugin is None or plugin.zero_stage != 3:
        yield trainer.model
        return
    from trl.models.utils import unwrap_model_for_generation

    with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model:
        yield model


# ---- the whole of a training


def save_model(trainer: Trainer, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the trained model and its tokenizer; all processes take part, the main one writes.

    Adapters are merged into the model: whatever reads it (sampling by any engine, the next training) finds a plain
    model, at the price of its size on disk. The trainer's own model is used up by that.
    """
    weights = _gathered_by_fsdp(trainer) if trainer.accelerator.distributed_type == DistributedType.FSDP else None
    with whole_model(trainer) as model:
        if trainer.accelerator.is_main_process:
            endings.agree(model, tokenizer)
            merged(model).save_pretrained(folder, state_dict=weights)
            tokenizer.save_pretrained(folder)
    trainer.accelerator.wait_for_everyone()


def _gathered_by_fsdp(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The whole weights, in the main process; each once, though a tied one comes under both its names."""
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return {name: weight for name, weight in weights.items() if name not in trainer.model.all_tied_weights_keys}


def merged(model: PreTrainedModel) -> PreTrainedModel:
    """A model with its adapters added into its weights; the model itself where it has none.

    The sum is float32: in bfloat16 it would round most of what the adapters learned away.
    """
    if not hasattr(model, "merge_and_unload"):
        return model
    split = any(hasattr(parameter, "ds_id") for parameter in model.parameters())  # by ZeRO-3, which holds its own types
    return (model if split else model.float()).merge_and_unload()


class EvaluateLast(TrainerCallback):
    """Evaluates after the last step too, wherever it falls."""

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Ask for the evaluation."""
        control.should_evaluate |= state.global_step >= state.max_steps


class ProgressBar(TrainerCallback):
    """A plain tqdm bar."""

    def __init__(self, name: str):
        self.name, self.bar = name, None

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Open the bar."""
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.name)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Advance the bar."""
        self.bar.update(1)

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Show the loss."""
        self.bar.set_postfix({k: round(v, 3) for k, v in (logs or {}).items() if k in SHOWN}, refresh=False)

    def on_train_end(self, args, state, control, **kwargs) -> None:
        """Close the bar."""
        self.bar.close()


# Timing, and totals that the trainers count from 0 after a resume.
UNSTABLE = ("runtime", "step_time", "per_second", "total_flos", "num_tokens", "train_loss")
SHOWN = ("loss", "eval_loss", "eval_agreement", "eval_pos_neg_auc")


def train(trainer: Trainer, work: Path, stage) -> pd.DataFrame:
    """Train, from the last whole checkpoint if there is one; returns the history, a row a log."""
    from peft.helpers import disable_input_dtype_casting

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(BestIsHere())
    if stage.profile.training.report_to:
        trainer.add_callback(watching.Curves(watching.Watch(stage)))
    os.environ.pop("ACCELERATE_DYNAMO_BACKEND", None)  # `torch_compile` set it, for every training of this process
    drop_cut_checkpoints(work / CHECKPOINTS)
    last = last_whole_checkpoint(work / CHECKPOINTS)
    if last and out_of_patience(trainer, TrainerState.load_from_json(str(Path(last) / TRAINER_STATE_NAME))):
        trainer.args.num_train_epochs = 0  # resuming would train on, past the early stop: now it only loads the best
    # Under autocast, which casts to bfloat16 itself, PEFT's cast to the adapters' float32 would be undone at once
    with disable_input_dtype_casting(trainer.model, active=trainer.args.bf16):
        trainer.train(resume_from_checkpoint=last)
    return history_table(trainer.state.log_history)


def out_of_patience(trainer: Trainer, state: TrainerState) -> bool:
    """Whether a training, of which this is the state in its last checkpoint, had lost its patience there."""
    callbacks = [c for c in trainer.callback_handler.callbacks if isinstance(c, EarlyStoppingCallback)]
    kept = state.stateful_callbacks.get(EarlyStoppingCallback.__name__)
    if not callbacks or not kept:
        return False
    return kept["attributes"]["early_stopping_patience_counter"] >= callbacks[0].early_stopping_patience


class BestIsHere(TrainerCallback):
    """Lets a resumed run find its best checkpoint in its own folder, which may have been moved since."""

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Set the folder again; the Trainer has forgotten one that it did not find."""
        if state.best_global_step:
            state.best_model_checkpoint = str(Path(args.output_dir) / f"checkpoint-{state.best_global_step}")


def drop_checkpoints(work: Path) -> None:
    """Remove the trainer's checkpoints: a stage's last step, so that until then a crash costs no training."""
    shutil.rmtree(work / CHECKPOINTS, ignore_errors=True)


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end."""
    whole = [path for path in folder.glob("checkpoint-*") if _is_whole(path)]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def drop_cut_checkpoints(folder: Path) -> None:
    """Remove the checkpoints that were not written to their end; all processes wait for that."""
    if is_main():
        for path in folder.glob("checkpoint-*"):
            if not _is_whole(path):
                shutil.rmtree(path)
    PartialState().wait_for_everyone()


def _is_whole(checkpoint: Path) -> bool:
    """Whether the file is there, to its end, that the trainer writes last."""
    try:
        TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    except (OSError, ValueError):
        return False
    return True


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
