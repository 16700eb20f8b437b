"""Part h: memory of a PPO update with adapters on one base, against a body for each network, for a student of 0.5B.

A model of Qwen2.5-0.5B's shape with random weights, a reward model that is an adapter on it, and one update with
gradient checkpointing, each time in a process of its own, without a GPU. Counted is the most memory that the process
held (VmHWM), less what one held that has imported the same and loaded nothing; and beside it the weights alone, each
tensor once. What remains beside them are the logits of a vocabulary, activations and the libraries' workspaces.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from bench.report import Row
from bench.timing import in_turn, middle, peak_memory
from rdlib.method import one_base, ppo, rl, scoring, training
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.settings import Lora, Model, Training
from rdlib.study.architectures import KNOWN, Shape

PAD, LORA = 0, Lora(r=16, alpha=32)
QUICK = Shape(64, 2, 4, 2, 16, 176, 2000, tied=True, qkv_bias=True)
CASES = {"whole": 1, "parts": 4}  # gradient accumulation: episodes of a minibatch that go through at once are fewer
WORDS = {"one": "one base", "apart": "separate bodies"}


def prepare(folder: Path, shape: Shape) -> None:
    """Write the base, and a reward model that is an adapter on it, as its stage does."""
    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder / "base")
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
    settings = Training(lora=LORA, gradient_checkpointing=True, gradient_accumulation=spec["accumulation"])
    source, scorer = Model(model=str(folder / "base")), folder / "reward"
    policy, reference, value_model, judge = rl.networks(source, scorer, PAD, settings, 1.0, mode == "one")
    held = {p.untyped_storage() for model in (policy, value_model, judge) for p in model.parameters()}
    weights = sum({storage.data_ptr(): storage.nbytes() for storage in held}.values())
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
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"bench.one_base {mode} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run(rounds: int, quick: bool) -> list[Row]:
    """Weights and peak of both, and how far their histories are apart; rounds after the first have the same peak."""
    spec = {"quick": quick, "episodes": 8, "minibatch": 8, "prompt": 128, "response": 64}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_a_process("prepare", folder, spec | {"accumulation": 1})
        return [row for case in CASES for row in _compare(folder, spec | {"accumulation": CASES[case]}, rounds)]


def _compare(folder: Path, spec: dict, rounds: int) -> list[Row]:
    idle = in_a_process("idle", folder, spec)["peak"]
    seen: dict[str, dict] = {}

    def above(mode: str, number: int) -> float:
        seen[mode] = in_a_process(mode, folder, spec)
        return seen[mode]["peak"] - idle

    found = in_turn({mode: partial(above, mode) for mode in WORDS}, rounds)
    at_once = spec["minibatch"] // spec["accumulation"]
    what = (
        f"a PPO update of a 0.5B student with LoRA, {at_once} episodes at once: {WORDS['one']} against {WORDS['apart']}"
    )
    settings = (
        f"Qwen2.5-0.5B's shape with random float32 weights, LoRA r {LORA.r} of all linear layers, {spec['episodes']} "
        f"episodes of {spec['prompt']} + {spec['response']} tokens, gradient checkpointing; above an idle process "
        f"({idle:.0f} MiB)"
    )
    ratios = middle([a / b for a, b in zip(found["one"], found["apart"], strict=True)])
    peaks = [f"{middle(found[mode])[0] / 1024:.2f} GiB" for mode in WORDS]
    rows = [Row("h", f"peak memory of {what}", *ratios, "as much", 0.4, True, *peaks, settings)]
    if spec["accumulation"] == 1:
        weights = [seen[mode]["weights"] for mode in WORDS]
        shown = [f"{w / 2**30:.2f} GiB" for w in weights]
        share = [weights[0] / weights[1]] * 3
        rows.insert(0, Row("h", f"weights held by {what}", *share, "as much", 0.4, True, *shown, settings))
    ours, apart = (seen[mode]["history"] for mode in WORDS)
    gap = max(abs(ours[n] - v) / max(abs(v), 1e-3) for n, v in apart.items() if isinstance(v, float))
    return [*rows, Row("h", f"largest relative gap of the histories: {what}", *[gap] * 3, "", 1e-2, True)]


if __name__ == "__main__":
    MODE, FOLDER, SPEC = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    RESULT: dict = {}
    if MODE == "prepare":
        prepare(FOLDER, QUICK if SPEC["quick"] else KNOWN["Qwen2.5-0.5B"])
    elif MODE in WORDS:
        RESULT = update(FOLDER, SPEC, MODE)
    print(json.dumps(RESULT | {"peak": peak_memory()}))
