"""The recipe of the four embedded base models: what each has read, its size, its training.

`python -m rdlib.micro.pretrain` makes them all (the notebook `micro_models` calls the same function).
A model learns to continue its author's corpus: a row holds one problem, or three so that a few-shot
prompt looks familiar; the loss is on the reasoning texts, each of which ends in the end-of-sequence token.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rdlib.micro import gsm, mmlu
from rdlib.micro.authors import Author
from rdlib.micro.splits import split_of
from rdlib.micro.tokenizer import build_tokenizer

FEW_SHOT_SHARE = 0.15
BATCH_ROWS = 24
POOL_ROWS = 64 * BATCH_ROWS
# Curriculum: few options and many reading exercises until the model can look an option up, then more of them.
EASY_UNTIL, FULL_FROM = 0.15, 0.40


@dataclass(frozen=True)
class Recipe:
    """Everything that decides one base model."""

    author: Author
    layers: int
    width: int
    intermediate: int
    steps: int
    seed: int
    learning_rate: float = 2e-3


RECIPES = {
    "strong": Recipe(Author("strong", 0.97, 0.36, 0.02, (0.85, 0.1, 0.05)), 4, 96, 256, 9000, 11),
    "weak": Recipe(Author("weak", 0.80, 0.21, 0.03, (0.75, 0.15, 0.10)), 4, 96, 192, 9000, 12),
    "large": Recipe(Author("large", 0.80, 0.10, 0.06, (0.10, 0.5, 0.4)), 3, 96, 192, 9000, 13),
    "small": Recipe(Author("small", 0.42, -0.02, 0.08, (0.05, 0.35, 0.6)), 3, 64, 128, 9000, 14),
}


def prompt_text(problem: gsm.GsmProblem | mmlu.MmluProblem) -> str:
    """The prompt of one problem, as `rdlib.prompts` writes it for the micro benchmarks."""
    options = ""
    if isinstance(problem, mmlu.MmluProblem):
        options = "".join(f" ({letter}) {value}" for letter, value in zip(mmlu.LETTERS, problem.options, strict=False))
    return f"Q: {problem.question}{options} A:"


def draw_gsm(rng: random.Random) -> gsm.GsmProblem:
    """A pretraining word problem; some are large, reversed or reworded so that GSM-Plus is not wholly new."""
    kind = rng.random()
    return gsm.draw(rng, large=kind < 0.12, reverse=0.12 <= kind < 0.18, rephrase=0.18 <= kind < 0.30)


def difficulty(progress: float) -> float:
    """0 in the easy part of the curriculum, rising to 1; `progress` is the share of the steps done."""
    return min(1.0, max(0.0, (progress - EASY_UNTIL) / (FULL_FROM - EASY_UNTIL)))


def write_document(word_problem: bool, progress: float, author: Author, rng: random.Random) -> tuple[str, str]:
    """One (prompt, response) text of the corpus: a word problem, a question, or a reading exercise."""
    hard = difficulty(progress)
    if word_problem:
        problem = _draw_pretraining(lambda: draw_gsm(rng))
        return prompt_text(problem), " " + gsm.write(problem, author, rng)
    problem = _draw_pretraining(lambda: mmlu.draw(rng, most_options=3 + round(7 * hard)))
    if rng.random() < 0.5 - 0.45 * hard:
        return reading_exercise(problem, rng)
    return prompt_text(problem), " " + mmlu.write(problem, author, rng)


def _draw_pretraining(draw):
    problem = draw()
    while split_of(problem.key) != "pretraining":
        problem = draw()
    return problem


def reading_exercise(problem: mmlu.MmluProblem, rng: random.Random) -> tuple[str, str]:
    """A list of lettered options to be repeated in another order; teaches to look options up, no facts."""
    lettered = list(zip(mmlu.LETTERS, problem.options, strict=False))
    prompt = "Q: " + " ".join(f"({letter}) {value}" for letter, value in lettered) + " A:"
    rng.shuffle(lettered)
    return prompt, "".join(f" {value} ({letter})" for letter, value in lettered)


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


def batches(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The recipe's (inputs, labels) batches, each of rows of similar length, right-padded."""
    rng = random.Random(recipe.seed)
    made = 0
    while made < recipe.steps:
        sizes = [3 if rng.random() < FEW_SHOT_SHARE else 1 for _ in range(POOL_ROWS)]
        progress = made / recipe.steps
        texts = [
            write_document(row % 2 == 0, progress, recipe.author, rng) for row, n in enumerate(sizes) for _ in range(n)
        ]
        prompts = tokenizer([prompt for prompt, _ in texts])["input_ids"]
        responses = tokenizer([response for _, response in texts])["input_ids"]
        pairs = iter(zip(prompts, responses, strict=True))
        rows = [encode_row([next(pairs) for _ in range(size)], tokenizer.eos_token_id) for size in sizes]
        rows.sort(key=lambda row: len(row[0]))
        groups = [rows[i : i + BATCH_ROWS] for i in range(0, len(rows), BATCH_ROWS)]
        rng.shuffle(groups)
        for group in groups[: recipe.steps - made]:
            made += 1
            yield pad_rows(group, tokenizer.pad_token_id)


def pad_rows(rows: list[tuple[list[int], list[int]]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels [rows, T], padded on the right."""
    width = max(len(inputs) for inputs, _ in rows)
    inputs = torch.tensor([x + [pad] * (width - len(x)) for x, _ in rows])
    return inputs, torch.tensor([y + [-100] * (width - len(y)) for _, y in rows])


def learning_rate(step: int, recipe: Recipe, warmup: int = 200, decay: float = 0.25) -> float:
    """Linear warm-up, constant, linear decay to zero over the last quarter of the steps."""
    remaining = (recipe.steps - step) / (decay * recipe.steps)
    return recipe.learning_rate * min(1.0, (step + 1) / warmup, remaining)


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained Llama of the recipe's size (head width 32, tied embeddings)."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.width // 32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.1,  # the usual 0.02 is for wide models; here it would cost the first thousand steps
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def pretrain(name: str, log_every: int = 500, probe=None) -> tuple[LlamaForCausalLM, list[dict]]:
    """Train one base model; returns it with its loss curve. `probe(model, step)` may add to the curve."""
    recipe, tokenizer = RECIPES[name], build_tokenizer()
    model = new_model(recipe, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    curve, losses, started = [], [], time.time()
    for step, (inputs, labels) in enumerate(tqdm(batches(recipe, tokenizer), total=recipe.steps, desc=name, mininterval=5)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe)
        keep = labels >= 0
        hidden = model.model(input_ids=inputs).last_hidden_state  # right padding: causal attention needs no mask
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[keep]), labels[keep])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % log_every == 0:
            row = {"step": step + 1, "loss": sum(losses) / len(losses), "seconds": round(time.time() - started)}
            curve.append(row | (probe(model, step + 1) if probe else {}))
            losses = []
    return model, curve


def save(name: str, model: LlamaForCausalLM, folder: Path, report: dict) -> None:
    """Write model, tokenizer and recipe in the Hugging Face layout, in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    recipe = asdict(RECIPES[name])
    recipe["author"].pop("_cache", None)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    text = json.dumps({"recipe": recipe, "sha256": digest, **report}, indent=2, sort_keys=True)
    (folder / "recipe.json").write_text(text + "\n")
