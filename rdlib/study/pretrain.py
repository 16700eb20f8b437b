"""The recipe of the four embedded base models: corpus, size and training of each.

`python -m rdlib pretrain` makes them all (the notebook `micro_models` calls the same function).
A model's knowledge, gaps and style come from its author's corpus: word problems, questions and encyclopedia entries.
The two teachers share a trunk, trained on a corpus that states no facts, and are then trained on their own authors; a
student is trained on its author from the start.

A model learns to continue its author's corpus: a row holds one problem, or three so that a few-shot
prompt looks familiar; the loss is on the reasoning texts, each of which ends in the end-of-sequence token.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rdlib import artifacts, numerics
from rdlib.engines.generation import Request
from rdlib.engines.transformers_engine import TransformersEngine
from rdlib.errors import UserError
from rdlib.micro import gsm, lexicon, mmlu
from rdlib.micro.authors import Author
from rdlib.micro.splits import split_of
from rdlib.micro.tokenizer import build_tokenizer
from rdlib.paths import ROOT
from rdlib.tasks.answers import extract
from rdlib.tasks.data import draw_unique
from rdlib.tasks.prompts import micro_question

FEW_SHOT_SHARE = 0.15
BATCH_ROWS = 24
POOL_ROWS = 64 * BATCH_ROWS
ENCYCLOPEDIA_SHARE, ENTRY_FACTS = 0.5, 8  # of entries among the texts about facts, and facts an entry
KNOWS_NO_FACT = -10.0
RESPONSE_TOKENS = 112  # the longest texts that authors write have 91
WARMUP, DECAY = 200, 0.25  # steps of the rise, and the share of the steps of the fall of the learning rate
LOG_EVERY = 1000  # steps


@dataclass(frozen=True)
class Phase:
    """One stretch of training: whose corpus, how many steps, the share of word problems in it."""

    author: Author
    steps: int
    seed: int
    word_problems: float = 0.5
    learning_rate: float = 2e-3


@dataclass(frozen=True)
class Recipe:
    """Size of a model, the trunk whose weights it starts from (None: fresh), and its training."""

    layers: int
    width: int
    intermediate: int
    trunk: str | None
    phase: Phase


# Chance of a careless step, and the shares of polished, plain and terse texts.
WRITING = {
    "strong": (0.02, (0.85, 0.10, 0.05)),
    "weak": (0.03, (0.75, 0.15, 0.10)),
    "large": (0.06, (0.35, 0.35, 0.30)),
    "small": (0.08, (0.30, 0.30, 0.40)),
}


def _author(name: str, verb_reach: float, fact_reach: float) -> Author:
    return Author(name, verb_reach, fact_reach, *WRITING[name])


TRUNKS = {
    "trunk": Recipe(4, 96, 256, None, Phase(_author("strong", 1.10, KNOWS_NO_FACT), 7000, 11, word_problems=0.8)),
}
RECIPES = {
    "strong": Recipe(4, 96, 256, "trunk", Phase(_author("strong", 1.10, 0.42), 4000, 21)),
    "weak": Recipe(4, 96, 256, "trunk", Phase(_author("weak", 0.80, 0.19), 4000, 22)),
    "large": Recipe(3, 96, 192, None, Phase(_author("large", 0.80, 0.10), 12000, 23)),
    "small": Recipe(3, 64, 128, None, Phase(_author("small", 0.42, -0.02), 12000, 24)),
}


# ---- the corpus


def prompt_text(problem: gsm.GsmProblem | mmlu.MmluProblem) -> str:
    """The prompt of one problem, as the micro benchmarks write it."""
    return micro_question(problem.question, getattr(problem, "options", ()))


def draw_gsm(rng: random.Random) -> gsm.GsmProblem:
    """A pretraining word problem; some are large, reversed or reworded so that GSM-Plus is not wholly new."""
    kind = rng.random()
    return gsm.draw(rng, large=kind < 0.12, reverse=0.12 <= kind < 0.18, rephrase=0.18 <= kind < 0.30)


def write_document(word_problem: bool, phase: Phase, rng: random.Random) -> tuple[str, str]:
    """One (prompt, response) text: a word problem, a question or an encyclopedia entry."""
    if word_problem:
        problem = _draw_pretraining(lambda: draw_gsm(rng))
        return prompt_text(problem), " " + gsm.write(problem, phase.author, rng)
    if rng.random() < ENCYCLOPEDIA_SHARE:
        prompt, entry = encyclopedia_entry(phase.author, rng)
        if entry:
            return prompt, entry
    problem = _draw_pretraining(lambda: mmlu.draw(rng))
    return prompt_text(problem), " " + mmlu.write(problem, phase.author, rng)


def encyclopedia_entry(author: Author, rng: random.Random) -> tuple[str, str]:
    """Some facts of one category that the author knows, one after the other; empty where it knows none."""
    category = rng.choice(mmlu.CATEGORIES)
    relations, link = lexicon.CATEGORIES[category]
    known = [
        (entity, relation)
        for entity in lexicon.entities()[category]
        for relation in (*relations, link, lexicon.EPITHET)
        if author.knows_fact(category, entity, relation)
    ]
    chosen = rng.sample(known, min(len(known), ENTRY_FACTS))
    sentences = [
        f" the {relation} of {entity} is {lexicon.facts()[entity, relation]} ."
        if rng.random() < 0.5
        else f" {entity} {relation} : {lexicon.facts()[entity, relation]} ."
        for entity, relation in chosen
    ]
    return f"Q: {category} A:", "".join(sentences)


def _draw_pretraining(draw):
    problem = draw()
    while split_of(problem.key) != "pretraining":
        problem = draw()
    return problem


def encode_row(documents: list[tuple[list[int], list[int]]], eos: int) -> tuple[list[int], list[int]]:
    """Inputs and next-token labels (-100 on prompts) of one row of tokenized (prompt, response) pairs.

    After a response the label is always `eos`, though a further prompt may follow as input; so the model
    ends each answer, and a few-shot prompt needs no separator.
    """
    inputs: list[int] = []
    labels: list[int] = []
    for prompt, response in documents:
        inputs += prompt + response
        labels += [-100] * (len(prompt) - 1) + response + [eos]
    return inputs, labels


def batches(phase: Phase, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The phase's (inputs, labels) batches, each of rows of similar length, right-padded."""
    rng = random.Random(phase.seed)
    made = 0
    while made < phase.steps:
        sizes = [3 if rng.random() < FEW_SHOT_SHARE else 1 for _ in range(POOL_ROWS)]
        topics = [rng.random() < phase.word_problems for _ in sizes]
        texts = [write_document(topic, phase, rng) for topic, n in zip(topics, sizes, strict=True) for _ in range(n)]
        prompts = tokenizer([prompt for prompt, _ in texts])["input_ids"]
        responses = tokenizer([response for _, response in texts])["input_ids"]
        pairs = iter(zip(prompts, responses, strict=True))
        rows = [encode_row([next(pairs) for _ in range(size)], tokenizer.eos_token_id) for size in sizes]
        rows.sort(key=lambda row: len(row[0]))
        groups = [rows[i : i + BATCH_ROWS] for i in range(0, len(rows), BATCH_ROWS)]
        rng.shuffle(groups)
        for group in groups[: phase.steps - made]:
            made += 1
            inputs, labels = ([torch.tensor(part) for part in parts] for parts in zip(*group, strict=True))
            yield pad_sequence(inputs, True, tokenizer.pad_token_id), pad_sequence(labels, True, -100)


# ---- training


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained Llama of the recipe's size: heads 32 wide that share their keys and values, tied embeddings.

    Sampling waits for the cache of keys and values: with those of one head it takes about a third less time.
    """
    torch.manual_seed(recipe.phase.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.width // 32,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.1,  # the usual 0.02 is for wide models; here it would cost the first thousand steps
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def pretrain(recipe: Recipe, model: LlamaForCausalLM, name: str) -> list[dict[str, float]]:
    """Train a model in place through the recipe's phase; returns its curve: step, loss, seconds and accuracies.

    The learning rate rises linearly, is constant, and falls linearly to zero over the last quarter of the steps.
    """
    phase, tokenizer = recipe.phase, build_tokenizer()
    settings = {"lr": phase.learning_rate, "betas": (0.9, 0.98), "weight_decay": 0.01}
    optimizer = torch.optim.AdamW(model.parameters(), **settings, fused=True)  # see training.OPTIMIZER
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARMUP, (phase.steps - step) / (DECAY * phase.steps))
    )
    curve, losses, started = [], [], time.time()
    bar = tqdm(batches(phase, tokenizer), total=phase.steps, desc=name, mininterval=5)
    for step, (inputs, labels) in enumerate(bar, start=1):
        keep = labels >= 0
        hidden = model.model(input_ids=inputs).last_hidden_state  # right padding: causal attention needs no mask
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[keep]), labels[keep])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % LOG_EVERY == 0:
            row = {"step": step, "loss": round(sum(losses) / len(losses), 4), "seconds": round(time.time() - started)}
            curve.append(row | probe_accuracy(model))
            losses = []
    return curve


def probe_accuracy(model: LlamaForCausalLM, count: int = 200) -> dict[str, float]:
    """Greedy zero-shot accuracy on validation problems of both benchmarks."""
    tokenizer = build_tokenizer()
    engine = TransformersEngine(model, tokenizer, batch_size=count, max_tokens=RESPONSE_TOKENS)
    result = {}
    for name, draw, kind in (("gsm", gsm.draw, "number"), ("mmlu", mmlu.draw, "text")):
        problems = draw_unique(draw, "validation", count, random.Random(f"probe/{name}"))
        requests = [Request(tokenizer(prompt_text(p))["input_ids"], 1, 0.0) for p in problems]
        texts = [group[0].text for group in engine.generate(requests, 0)]
        right = [extract(text, kind) == p.answer for text, p in zip(texts, problems, strict=True)]
        result[name] = sum(right) / count
    return result


# ---- the command


def recipe_dict(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON-able values."""
    content = asdict(recipe)
    content["phase"]["author"].pop("_cache")
    return content


def make(name: str, folder: Path, trunks: Path) -> None:
    """Make one model (or trunk) by its recipe, in bfloat16, with its tokenizer and report in `folder` (or `trunks`)."""
    numerics.require()
    torch.set_num_threads(1)
    recipe, tokenizer, out = (TRUNKS | RECIPES)[name], build_tokenizer(), (trunks if name in TRUNKS else folder) / name
    if recipe.trunk:
        if not (trunks / recipe.trunk / "recipe.json").is_file():
            make(recipe.trunk, folder, trunks)
        model = LlamaForCausalLM.from_pretrained(trunks / recipe.trunk, dtype=torch.float32)
    else:
        model = new_model(recipe, tokenizer)
    started = time.time()
    report = {"curve": pretrain(recipe, model, name), "seconds": round(time.time() - started)}
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    report |= {
        "command": f"python -m rdlib pretrain {name}",
        "recipe": recipe_dict(recipe),
        "environment": numerics.record(),
        "sha256": hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest(),
        "parameters": model.num_parameters(),
    }
    artifacts.write_json(out / "recipe.json", report)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m rdlib pretrain`."""
    known = ", ".join(TRUNKS | RECIPES)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {known} (default: all four models)")


def run(options: argparse.Namespace) -> None:
    """Make the named models, or all four, in models/; UserError for a name without a recipe."""
    names = options.names or list(RECIPES)
    if unknown := [name for name in names if name not in TRUNKS | RECIPES]:
        raise UserError(f"There is no recipe {unknown[0]!r}: use {', '.join(TRUNKS | RECIPES)}.")
    for name in names:
        make(name, ROOT / "models", ROOT / "runs" / "trunks")
