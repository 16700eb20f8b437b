"""Part i: memory of a PPO update with adapters on one base, against a body for each network, for a student of 0.5B.

A model of Qwen2.5-0.5B's shape with random weights, a reward model that is an adapter on it, and one update with
gradient checkpointing, each time in a process of its own, without a GPU. Counted is the most memory that the process
held during the update (VmHWM), less what one holds that has imported the same and loaded nothing; and beside it the
weights alone, each tensor once. As on a GPU weights are copies of the files, not views of them, and what is freed is
given back at once (MALLOC_MMAP_THRESHOLD_): else glibc's fragments would outweigh what is measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from transformers import Qwen2ForCausalLM

from bench.report import Row
from bench.timing import in_turn, middle, peak_memory
from rdlib.method import one_base, ppo, rl, scoring, training
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.settings import Lora, Model, Training
from rdlib.study.memory import KNOWN, Shape, configuration

PAD, LORA = 0, Lora(r=16, alpha=32)
QUICK = Shape(64, 2, 4, 2, 16, 176, 2000, tied=True, qkv_bias=True)
MODES = ("one", "apart")
SPEC = {"episodes": 4, "minibatch": 4, "prompt": 64, "response": 64}
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}


def prepare(folder: Path, shape: Shape) -> None:
    """Write the base, and a reward model that is an adapter on it, as its stage does."""
    torch.manual_seed(0)
    Qwen2ForCausalLM(configuration(shape)).save_pretrained(folder / "base")
    settings = Training(lora=LORA)
    model = training.with_adapters(rl.models.load_scorer(folder / "base", PAD), settings, "SEQ_CLS")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.02)
    one_base.save(model, folder / "reward")
    training.merged(model).save_pretrained(folder / "reward" / "model")


class Texts:
    """The part of a tokenizer that the trainer uses."""

    def batch_decode(self, responses, skip_special_tokens: bool) -> list[str]:
        """Nothing reads them here."""
        return [""] * len(responses)


def update(folder: Path, spec: dict, mode: str) -> dict:
    """One PPO update; bytes of the weights, each tensor once, and the update's row of the history."""
    torch.manual_seed(0)
    settings = Training(lora=LORA, gradient_checkpointing=True)
    source, scorer = Model(model=str(folder / "base")), folder / "reward"
    policy, reference, value_model, judge = rl.networks(source, scorer, PAD, settings, 1.0, mode == "one")
    held = {id(p): p for model in (policy, value_model, judge) for p in model.parameters()}
    for parameter in held.values():
        parameter.data = parameter.data.clone()
    weights = sum(parameter.nbytes for parameter in held.values())
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    generator = torch.Generator().manual_seed(0)
    size = (spec["episodes"], spec["prompt"])
    prompts = torch.randint(1, policy.config.vocab_size, size, generator=generator).tolist()

    def sample(policy, prompts: list[list[int]], seed: int) -> list[list[int]]:
        torch.manual_seed(seed)
        ids = torch.tensor(prompts)
        told = {"max_new_tokens": spec["response"], "do_sample": True, "top_k": 0, "eos_token_id": None}
        out = policy.generate(input_ids=ids, attention_mask=torch.ones_like(ids), pad_token_id=PAD, **told)
        return out[:, ids.shape[1] :].tolist()

    def score(indices, texts, sequences):
        scores = scoring.score(judge, sequences, PAD)
        return scores, {"rm_score": scores}

    given = {"total_updates": 1, "episodes_per_update": spec["episodes"], "minibatch_size": spec["minibatch"]}
    config = load_profile(ROOT / "params/single_gpu.yaml").ppo.model_copy(update=given)
    trainer = ppo.PPOTrainer(
        policy,
        reference,
        value_model,
        Texts(),
        config,
        prompts,
        sample,
        score,
        accelerator=training.new_accelerator(settings),
        forward_size=settings.forward_size(config.minibatch_size),
    )
    with tempfile.TemporaryDirectory() as work:
        trainer.train(Path(work))
    return {"weights": weights, "history": trainer.history[1]}


def in_a_process(mode: str, folder: Path, spec: dict) -> dict:
    """What a new process reports: its peak in MiB, and what `update` found."""
    words = [sys.executable, "-m", "bench.one_base", mode, str(folder), json.dumps(spec)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=os.environ | GIVE_BACK)
    if done.returncode:
        raise RuntimeError(f"bench.one_base {mode} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run(rounds: int, quick: bool) -> list[Row]:
    """Weights and peak of both, and how far their histories are apart."""
    spec = SPEC | {"quick": quick}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_a_process("prepare", folder, spec)
        idle = in_a_process("idle", folder, spec)["peak"]
        seen: dict[str, dict] = {}

        def above(mode: str, number: int) -> float:
            seen[mode] = in_a_process(mode, folder, spec)
            return seen[mode]["peak"] - idle

        found = in_turn({mode: partial(above, mode) for mode in MODES}, rounds)
    what = "a PPO update with LoRA, 0.5B student: one base against separate bodies"
    settings = (
        f"Qwen2.5-0.5B's shape with random float32 weights, LoRA r {LORA.r} of all linear layers, {spec['episodes']} "
        f"episodes of {spec['prompt']} + {spec['response']} tokens at once, gradient checkpointing; above an idle "
        f"process ({idle:.0f} MiB)"
    )
    ratios = middle([a / b for a, b in zip(found["one"], found["apart"], strict=True)])
    peaks = [f"{middle(found[mode])[0] / 1024:.2f} GiB" for mode in MODES]
    weights = [seen[mode]["weights"] for mode in MODES]
    held, share = [f"{w / 2**30:.2f} GiB" for w in weights], weights[0] / weights[1]
    ours, apart = (seen[mode]["history"] for mode in MODES)
    gap = max(abs(ours[n] - v) / max(abs(v), 1e-3) for n, v in apart.items() if isinstance(v, float))
    return [
        Row("i", f"weights of {what}", *[share] * 3, "as much", 0.4, True, *held, settings),
        Row("i", f"peak memory of {what}", *ratios, "as much", 0.4, True, *peaks, settings),
        Row("i", f"largest relative gap of the histories of {what}", *[gap] * 3, "", 1e-2, True),
    ]


def main(mode: str, folder: Path, spec: dict) -> dict:
    """What a process does in a mode, and its peak in MiB."""
    found: dict = {}
    if mode == "prepare":
        prepare(folder, QUICK if spec["quick"] else KNOWN["Qwen2.5-0.5B"])
    elif mode in MODES:
        found = update(folder, spec, mode)
    return found | {"peak": peak_memory()}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))))
