"""TRL's side of part b, run by the Python of .venv-trl: prints the seconds of each update but the first, and
the MiB that it held at most above what it held before the training, as JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer

from bench.timing import clock, memory_now, peak_memory


class Clock(TrainerCallback):
    """Notes when each update ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Called by PPOTrainer after an update."""
        self.ends.append(clock())


def main(spec: dict, seed: int) -> dict:
    """Train, and return the seconds of each update but the first, and the memory."""
    tokenizer = AutoTokenizer.from_pretrained(spec["policy"], padding_side="left")
    config = PPOConfig(
        output_dir=str(Path(spec["work"]) / f"trl-{seed}-{spec['ends']}"),
        seed=seed,
        # Without accumulation a minibatch is one optimizer step, and goes through the networks at once
        per_device_train_batch_size=spec["episodes"],
        gradient_accumulation_steps=1,
        num_mini_batches=spec["episodes"] // spec["minibatch"],
        num_ppo_epochs=spec["epochs"],
        total_episodes=spec["episodes"] * (spec["updates"] + 1),
        local_rollout_forward_batch_size=spec["minibatch"],
        response_length=spec["limit"],
        stop_token="eos" if spec["ends"] else None,
        temperature=1.0,
        learning_rate=spec["learning_rate"],
        kl_coef=0.2,
        vf_coef=0.1,
        gamma=1.0,
        lam=1.0,
        missing_eos_penalty=None,
        num_sample_generations=0,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )

    def scorer():
        return AutoModelForSequenceClassification.from_pretrained(spec["scorer"], dtype=torch.float32, num_labels=1)

    def causal():
        return AutoModelForCausalLM.from_pretrained(spec["policy"], dtype=torch.float32)

    dataset, watch = Dataset.from_dict({"input_ids": spec["prompts"]}), Clock()
    trainer = PPOTrainer(
        config,
        tokenizer,
        causal(),
        causal(),
        scorer(),
        dataset,
        scorer(),
        eval_dataset=dataset.select(range(1)),
        callbacks=[watch],
    )
    before = memory_now()
    trainer.train()
    seconds = [end - start for start, end in zip(watch.ends, watch.ends[1:], strict=False)]
    return {"seconds": seconds, "memory": peak_memory() - before}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2]))))
