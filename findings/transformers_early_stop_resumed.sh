#!/usr/bin/env bash
# Guess: a training that EarlyStoppingCallback has ended is over. Called again with resume_from_checkpoint=True, as by a
#   queue that starts a job twice, it loads its last checkpoint, sees that its patience is used up, and returns.
# What happens: it trains on. Without the callback's state, which is the default, its whole patience begins anew. With
#   restore_callback_states_from_checkpoint=True the counter comes back at its limit, but is read only after the next
#   evaluation. So each call adds a round, and a better loss in one of them replaces the weights that were kept.
# Version: transformers 5.17.0 with accelerate 1.15.0 and torch 2.13.0.
# Why it matters: which weights are kept depends on how often a job was started. A pipeline that resumes whatever is not
#   marked as done trains past its own stopping rule, and a rerun of a finished training is not the same training.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check)
"${pip[@]}" install transformers==5.17.0 accelerate==1.15.0 torch==2.13.0 numpy==2.4.6
cat >"$folder/resume.py" <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

PATIENCE, STEPS = 3, 40
LOSSES = [5.0, 4.0, 4.1, 4.2, 4.3, 3.0] + [3.5] * STEPS  # at each evaluation: lower only after the stop
folder = Path(sys.argv[1])


class Weight(torch.nn.Module):
    """A model of one weight, which is 0 and moves with each step."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, labels):
        """A loss whose gradient is -1 in every step."""
        return {"loss": (labels - self.weight).sum()}


class GivenLosses(Trainer):
    """A Trainer whose evaluations give the losses above, by the step."""

    def evaluate(self, *args, **kwargs):
        """The loss of this step."""
        metrics = {"eval_loss": LOSSES[self.state.global_step - 1]}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def train(name, resume, restored):
    """Train or go on in a folder; the last step and the step of the weights that were kept."""
    arguments = TrainingArguments(
        output_dir=str(folder / name),
        per_device_train_batch_size=1,
        num_train_epochs=1,
        learning_rate=1.0,
        optim="sgd",
        lr_scheduler_type="constant",
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=restored,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    rows = [{"labels": torch.ones(1)}] * STEPS
    trainer = GivenLosses(
        Weight(), arguments, train_dataset=rows, eval_dataset=rows[:1], callbacks=[EarlyStoppingCallback(PATIENCE)]
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=resume)
    return trainer.state.global_step, round(trainer.model.weight.item())


print("transformers", version("transformers"), "accelerate", version("accelerate"), "torch", version("torch"))
print(f"patience {PATIENCE}, losses {LOSSES[:7]}, ...")
seen = {}
for name, restored in {"without": False, "with": True}.items():
    seen[name] = [train(name, call > 0, restored) for call in range(4)]
    for call, (last, kept) in enumerate(seen[name]):
        print(f"{name} the callback's state, call {call + 1}: ends at step {last}, keeps the weights of step {kept}")
if seen != {"without": [(5, 2), (9, 6), (12, 6), (15, 6)], "with": [(5, 2), (9, 6), (10, 6), (11, 6)]}:
    sys.exit("This behaviour has changed.")
PYTHON
"$folder/venv/bin/python" "$folder/resume.py" "$folder" 2>"$folder/log" || { tail -n 5 "$folder/log" >&2; exit 1; }
