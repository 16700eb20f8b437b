"""Our side of part b, in a process of its own: prints the seconds of each update but the first, those of its steps
alone, the mean length of a response in tokens, and the MiB that it held at most above what it held before the training,
as JSON; where the spec says `profile`, also what torch's profiler saw the time go into. `whole_logits` has all logits
computed and held at once, as the micro world's few are, and all were in release 1.0.0."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from bench.timing import clock, memory_now, peak_memory
from rdlib.engines import generation, models
from rdlib.engines.transformers_engine import TransformersEngine
from rdlib.method import token_logprobs
from rdlib.method.ppo import PPOTrainer
from rdlib.method.rl import RewardFunction, sampler
from rdlib.paths import ROOT
from rdlib.profile import load_profile
from rdlib.tasks import answers


def endless(tokenizer, limit: int):
    """The `sample` callable of PPOTrainer, but no token ends a response."""

    def sample(policy, prompts: list[list[int]], seed: int) -> list[list[int]]:
        engine = TransformersEngine(policy, tokenizer, 512, limit)
        engine.end_tokens = engine.end_tokens[:0]
        return [group[0].tokens for group in engine.generate([generation.Request(p, 1, 1.0) for p in prompts], seed)]

    return sample


def main(spec: dict, seed: int) -> dict:
    """Train, and return the seconds of each update but the first, the mean length of a response, and the memory."""
    if spec.get("whole_logits"):
        token_logprobs.CPU_TILE = sys.maxsize
    study = load_profile(ROOT / "params/micro.yaml")
    settings = study.ppo.model_copy(
        update={
            "total_updates": spec["updates"] + 1,
            "episodes_per_update": spec["episodes"],
            "minibatch_size": spec["minibatch"],
            "epochs": spec["epochs"],
            "learning_rate": spec["learning_rate"],
            "value_learning_rate": spec["learning_rate"],
            "checkpoint_every": 10**6,
        }
    )
    tokenizer = models.load_tokenizer(spec["policy"])
    pad = tokenizer.pad_token_id
    scorer = models.load_scorer(spec["scorer"], pad)
    labels = [None] * len(spec["prompts"])  # TRL has no pseudo-labels either
    ends: list[float] = []
    steps: list[float] = []
    trainer = PPOTrainer(
        models.load_causal_lm(spec["policy"]),
        models.load_causal_lm(spec["policy"]),
        models.load_scorer(spec["scorer"], pad),
        tokenizer,
        settings,
        spec["prompts"],
        sampler(tokenizer, 512, spec["limit"], 1.0) if spec["ends"] else endless(tokenizer, spec["limit"]),
        RewardFunction(scorer, labels, lambda _, text: answers.extract(text, "number"), study.reward, pad),
        seed=seed,
        on_update=lambda row: ends.append(clock()),
    )
    optimise = trainer.optimise

    def timed(*arguments):
        start = clock()
        statistics = optimise(*arguments)
        steps.append(clock() - start)
        return statistics

    trainer.optimise = timed
    before = memory_now()
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) if spec.get("profile") else nullcontext() as seen:
        trainer.train(Path(spec["work"]) / f"ours-{seed}-{spec['ends']}")
    lengths = [row["response_length"] for row in trainer.history[1:]]  # row 0 is before the training
    seconds = [end - start for start, end in zip(ends[1:], ends[2:], strict=False)]
    found = {"seconds": seconds, "steps": steps[1:], "length": sum(lengths) / len(lengths)}
    return found | {"memory": peak_memory() - before} | (spending(seen) if seen else {})


PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm")


def spending(seen: profile) -> dict[str, float]:
    """Shares of the time (0 to 1) in matrix products and in attention, and the FLOPs a second of the products."""
    spent, flops = dict.fromkeys(("products", "attention", "other"), 0.0), 0.0
    for event in seen.key_averages():
        kind = "products" if event.key in PRODUCTS else "attention" if "attention" in event.key else "other"
        spent[kind] += event.self_cpu_time_total / 1e6
        flops += event.flops if kind == "products" else 0
    total = sum(spent.values())
    return {name: spent[name] / total for name in ("products", "attention")} | {"flops": flops / spent["products"]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2]))))
