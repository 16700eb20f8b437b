"""Curves of a training while it runs, in TensorBoard, W&B or trackio: only where `training.report_to` names them.

    runs/<profile>/gsm/strong/small/ours/seed0/06_ppo                  the stage's artifacts, sealed when it ends
    runs/<profile>/gsm/strong/small/ours/seed0/tensorboard/06_ppo      its curves: tensorboard --logdir runs/<profile>

The curves lie beside the artifacts and are none of them: they hold times, so no two runs write the same bytes. A run
that was killed goes on in the same curves: TensorBoard hides what it had drawn past the checkpoint, W&B continues the
run of the stage's key and refuses steps that it has, trackio continues it and shows such steps, with equal values,
twice. The writers are accelerate's.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback
from transformers.integrations.integration_utils import rewrite_logs

from rdlib.errors import UserError

TENSORBOARD = "tensorboard"


def folder_of(stage) -> Path:
    """Where a stage's TensorBoard files lie."""
    return stage.folder.parent / TENSORBOARD / stage.folder.name


class Watch:
    """Gives rows of numbers to the writers that a stage's `training.report_to` names; they open with the first row."""

    def __init__(self, stage):
        self.stage, self.writers = stage, None

    def open(self, step: int) -> None:
        """Open the writers for rows from `step` on; UserError where one cannot start, as W&B without a login."""
        self.writers = []
        PartialState()  # which the writers ask for
        for name in self.stage.profile.training.report_to:
            writer = _writer(name, self.stage, step)
            try:
                writer.start()
            except Exception as error:  # of a library that may ask a network: it raises what it likes
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
                raise UserError(
                    f"{self.stage.label}: {name} cannot start ({reason}): log in to it, or take it out of "
                    f"training.report_to."
                ) from None
            self.writers.append(writer)

    def __call__(self, row: dict[str, Any], step: int) -> None:
        """Write the numbers of a row; what is none (None, text) is left out."""
        if self.writers is None:
            self.open(step)
        numbers = {name: value for name, value in rewrite_logs(row).items() if isinstance(value, Real)}
        for writer in self.writers:
            writer.log(numbers, step=step)

    def of_updates(self, then: Callable[[dict], None] | None) -> Callable[[dict], None]:
        """A PPO run's `on_update`: writes the row of an update and passes it on."""

        def on_update(row: dict[str, Any]) -> None:
            """Write a row, then pass it on."""
            self({name: value for name, value in row.items() if name != "update"}, row["update"])
            if then is not None:
                then(row)

        return on_update

    def close(self) -> None:
        """Write what is still held back."""
        for writer in self.writers or ():
            writer.finish()
        self.writers = None


def _writer(name: str, stage, step: int):
    from accelerate import tracking

    if name == TENSORBOARD:
        folder = folder_of(stage)
        return tracking.TensorBoardTracker(folder.name, folder.parent, purge_step=step)
    settings = {section: stage.settings[section] for section in stage.spec.sections}
    run = {"name": stage.label, "config": settings, "resume": "allow"}
    if name == "wandb":
        return tracking.WandBTracker(stage.profile.name, id=stage.key[:16], **run)
    return tracking.TrackioTracker(stage.profile.name, **run)


class Curves(TrainerCallback):
    """Gives a Trainer's log to a `Watch`."""

    def __init__(self, watch: Watch):
        self.watch = watch

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Open, before anything is computed; a resumed run has steps up to its checkpoint already."""
        if state.is_world_process_zero:
            self.watch.open(state.global_step and state.global_step + 1)

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Write a row."""
        if state.is_world_process_zero:
            self.watch(logs or {}, state.global_step)

    def on_train_end(self, args, state, control, **kwargs) -> None:
        """Close."""
        self.watch.close()
