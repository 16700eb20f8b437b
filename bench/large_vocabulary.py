"""Part h: one PPO update with a vocabulary as large as Qwen2.5's, where logits and not the body take memory and time.

Policies of a tiny body, 8 episodes of 128 + 128 tokens in one minibatch that goes through the networks at once, in a
process of its own with one thread. Ours, which holds a tile of logits, against ours with all logits held, and against
the PPOTrainer of TRL 1.12.0. Memory is the most that a process held above what it held before the training, when the
networks were there: gradients and moments count on every side.
"""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from bench import micro
from bench.ppo_update import PROGRAMS, TRL_PYTHON, updates
from bench.report import Row, Skipped
from bench.timing import in_turn, middle

WORDS, EPISODES, TOKENS = 151_936, 8, 128
CONTESTANTS = {"ours": ("ours", {}), "whole": ("ours", {"whole_logits": True}), "trl": ("trl", {})}


def prepare(folder: Path, quick: bool) -> dict:
    """Write policy and reward model, and return the settings of both trainers."""
    _, tokenizer = micro.load("small")
    words = 5_000 if quick else WORDS
    config = LlamaConfig(
        vocab_size=words,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        tie_word_embeddings=True,
        num_labels=1,
        **{name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")},
    )
    torch.manual_seed(0)
    for name, kind in (("policy", LlamaForCausalLM), ("scorer", LlamaForSequenceClassification)):
        kind(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    prompts = torch.randint(len(tokenizer), words, (4 * EPISODES, TOKENS)).tolist()
    return {
        "policy": str(folder / "policy"),
        "scorer": str(folder / "scorer"),
        "prompts": prompts,
        "episodes": EPISODES,
        "minibatch": EPISODES,
        "epochs": 1,
        "limit": TOKENS,
        "learning_rate": 3e-4,
        "updates": 1,  # after the first, which is not counted
        "ends": False,
        "work": str(folder / "work"),
    }


def run(rounds: int, quick: bool) -> list[Row]:
    """Memory and time, of an update and of its step."""
    if not TRL_PYTHON.exists():
        raise Skipped("There is no .venv-trl: `python3 scripts/trl_environment.py` builds it.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = prepare(folder, quick)
        found = in_turn({one: partial(_measured, folder, spec, one) for one in CONTESTANTS}, rounds)
    return rows_of(found)


def _measured(folder: Path, spec: dict, name: str, number: int) -> dict[str, float]:
    """What a new process of one contestant needs: MiB, and mean seconds of an update and of its step."""
    program, more = CONTESTANTS[name]
    path = folder / f"{name}.json"
    path.write_text(json.dumps(spec | more | {"work": f"{spec['work']}-{name}"}))
    told = updates(PROGRAMS[program], path, number)
    means = {what: sum(told[what]) / len(told[what]) for what in ("seconds", "steps") if what in told}
    return means | {"memory": told["memory"]}


def rows_of(found: dict[str, list[dict[str, float]]]) -> list[Row]:
    """Shares of what the others need, each with the aim that it should be at most."""
    wanted = (
        ("memory above the networks", "memory", "whole", "all logits held", 25.0),
        ("time of the step", "steps", "whole", "all logits held", 100.0),
        ("time", "seconds", "whole", "all logits held", 100.0),
        ("memory above the networks", "memory", "trl", "TRL", 50.0),
        ("time", "seconds", "trl", "TRL", 50.0),
    )
    settings = (
        f"{EPISODES} episodes of {TOKENS} + {TOKENS} tokens at once, {WORDS:,} words, two layers of width 64; policy, "
        f"reference, value and reward model of one size; TRL 1.12.0 in .venv-trl with the study's other pins"
    )
    rows = []
    for what, measure, other, against, aim in wanted:
        ours, theirs = ([one[measure] for one in found[name]] for name in ("ours", other))
        shares = middle([100 * a / b for a, b in zip(ours, theirs, strict=True)])
        shown = [_shown(measure, middle(values)[0]) for values in (ours, theirs)]
        result = f"a PPO update, {WORDS:,} words: {what}, share of that with {against}"
        rows.append(Row("h", result, *shares, "%", aim, True, *shown, settings))
    return rows


def _shown(measure: str, value: float) -> str:
    return f"{value:,.0f} MiB" if measure == "memory" else f"{value:.2f} s"
