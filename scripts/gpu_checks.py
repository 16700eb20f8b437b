"""Cheap checks of what a GPU might do otherwise than a CPU, for `scripts/gpu_check.py`; each is a number and its limit.

They are of one model in the precisions that its trainings have: that bf16 says what float32 says, that sampling many
prompts together is sampling each alone, that gradient checkpointing changes nothing, and that a training resumes from
its checkpoint as if it had not stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import torch

from rdlib.engines import models
from rdlib.engines.generation import Request
from rdlib.engines.transformers_engine import TransformersEngine
from rdlib.method import training
from rdlib.method.agreement import Agreement
from rdlib.settings import Training
from scripts import gpu_meters
from scripts.gpu_jobs import FAILED, GAP, Row, Work, check, first_line, logprobs_of, sft_trainer
from scripts.gpu_sizes import Texts

PRECISION = {
    "log p: bf16 autocast against float32": "float32",
    "log p: bfloat16 weights against float32": "bfloat16",
}
TOGETHER, CHECKPOINTING = "greedy tokens that differ, together and alone", "loss and gradient with checkpointing"
RESUMED = "SFT killed after two steps and gone on: losses"
ROWS = (*PRECISION, TOGETHER, CHECKPOINTING, RESUMED)
FEW = 24  # tokens that are sampled


def run(work: Work, at: Path) -> Iterator[Row]:
    """A row a check; one that fails leaves the others to go on."""
    asked: dict[str, tuple[Callable[[], float], float]] = {
        name: (lambda held=held: precision_gap(work, held), GAP) for name, held in PRECISION.items()
    }
    asked[TOGETHER] = lambda: batched_differences(work), 0.05
    asked[CHECKPOINTING] = lambda: checkpointing_gap(work), 1e-3
    asked[RESUMED] = lambda: resumed_gap(work, at), 1e-2
    for name, (measure, most) in asked.items():
        try:
            yield check(name, measure(), most)
        except Exception as error:
            yield {"row": name, "status": FAILED, "error": first_line(error)}


def loaded(work: Work, weights: str = "float32") -> tuple:
    """The model on its device with its weights so, and its tokenizer, with texts."""
    stage = work.stage("03_sft_warmup")
    source = stage.profile.model_of(stage.student)
    tokenizer = models.load_tokenizer(source)
    precision = "bf16" if weights == "bfloat16" else None
    settings = Training(weights=weights, attention=work.attention, precision=precision)
    model = models.load_causal_lm(source, settings).to(gpu_meters.device())
    return model, tokenizer, Texts(work.scale, stage, tokenizer, count=12)


def autocast(enabled: bool = True):
    """Training's bf16, or nothing."""
    return torch.autocast(gpu_meters.device().type, torch.bfloat16) if enabled else nullcontext()


def precision_gap(work: Work, held: str) -> float:
    """The mean distance of the log-probabilities of responses from those in float32, in nats."""
    exact, _, texts = loaded(work)
    pairs = [
        (texts.encode.prompts[key], texts.encode.response(texts.response(), True)) for key in texts.ids("train")[:4]
    ]
    wanted = [logprobs_of(exact, *pair) for pair in pairs]
    if held == "bfloat16":
        del exact
        exact, _, _ = loaded(work, held)
    with autocast(held == "float32"):
        given = [logprobs_of(exact, *pair) for pair in pairs]
    return torch.stack([(a - b).abs().mean() for a, b in zip(given, wanted, strict=True)]).mean().item()


def batched_differences(work: Work) -> float:
    """The share of greedily sampled tokens that are others when prompts of several lengths are sampled together."""
    model, tokenizer, texts = loaded(work)
    prompts = [texts.encode.prompts[key][5 * number :] for number, key in enumerate(texts.ids("train"))]
    engine = TransformersEngine(model, tokenizer, len(prompts), FEW)
    requests = [Request(prompt, 1, 0.0) for prompt in prompts]
    together = [group[0].tokens for group in engine.generate(requests, 0)]
    alone = [engine.generate([request], 0)[0][0].tokens for request in requests]
    pairs = [pair for a, b in zip(together, alone, strict=True) for pair in zip(a, b, strict=False)]
    return sum(a != b for a, b in pairs) / len(pairs)


def checkpointing_gap(work: Work) -> float:
    """The larger relative difference that gradient checkpointing makes: to the loss, or to the gradient's norm."""
    model, _, texts = loaded(work)
    key = texts.ids("train")[0]
    ids = torch.tensor([texts.encode(key, texts.response(), True) for _ in range(2)], device=model.device)

    def loss_and_norm() -> tuple[float, float]:
        model.train().zero_grad()
        with autocast():
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        norms = torch.stack([p.grad.float().norm() for p in model.parameters()])
        return loss.item(), norms.norm().item()

    plain = loss_and_norm()
    model.gradient_checkpointing_enable(training.NON_REENTRANT)
    return max(abs(a - b) / abs(a) for a, b in zip(plain, loss_and_norm(), strict=True))


def resumed_gap(work: Work, at: Path) -> float:
    """The largest relative difference of a loss of SFT when it resumes from its checkpoint of step 2, of 4 steps."""
    whole = four_steps(work, at / "whole")
    shutil.copytree(at / "whole" / training.CHECKPOINTS / "checkpoint-2", at / "resumed/checkpoints/checkpoint-2")
    resumed = four_steps(work, at / "resumed")
    pair = whole.set_index("step")["loss"].dropna(), resumed.set_index("step")["loss"].dropna()
    if list(pair[0].index) != [1, 2, 3, 4] or list(pair[1].index) != [1, 2, 3, 4]:
        raise ValueError(f"the losses are of the steps {list(pair[0].index)} and {list(pair[1].index)}")
    return float(((pair[0] - pair[1]).abs() / pair[0].abs()).max())


def four_steps(work: Work, at: Path) -> pd.DataFrame:
    """The history of four steps of SFT with evaluations and checkpoints after every second one."""
    stage = work.stage("03_sft_warmup").with_overrides({"stopping.every": 2, "stopping.patience": 20})
    trainer, texts = sft_trainer(work, stage, at, 4 * work.scale.rows)
    trainer.args.max_steps = 4
    few = stage.dataset_settings.model_copy(update={"max_tokens": FEW})
    asked = texts.questions[texts.questions["split"] == "validation"]
    labels = pd.DataFrame({"id": asked["id"], "pseudo_label": "1"})
    trainer.agreement = Agreement(asked, labels, trainer.processing_class, few, len(asked), stage.answer_kind)
    return training.train(trainer, at, stage)
