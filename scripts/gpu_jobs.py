"""What `scripts/gpu_check.py` measures, each in a process of its own: this project's own trainings and rollouts.

A job gives rows. A row of a training has the seconds of an optimizer step and its peak of memory, both after a step
that is not counted, and beside them what the dry run says of the same stage (`rdlib.study.memory`, and the
operations of `rdlib.evidence.ledger`). A check is a number and the most that it may be, of what a GPU might do
otherwise than a CPU.
"""

from __future__ import annotations

import importlib
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import EarlyStoppingCallback

from rdlib.engines import models
from rdlib.engines.generation import Request
from rdlib.engines.transformers_engine import TransformersEngine
from rdlib.evidence import ledger
from rdlib.method import one_base, reward_model, rl, sft, training
from rdlib.method.agreement import Agreement
from rdlib.method.ppo import PPOTrainer
from rdlib.method.ppo_core import response_logprobs
from rdlib.settings import Training, Vllm
from rdlib.study import memory as m
from rdlib.study.stage import Stage
from rdlib.tasks import answers
from scripts import gpu_meters, gpu_sizes
from scripts.gpu_sizes import Texts, Work

OK, FAILED, MISSING, TOO_LARGE = "ok", "failed", "not installed", "does not fit"
STEPS, UPDATES = 3, 2  # the first of each is not counted
FEW = 24  # tokens that a check samples
GAP = 0.1  # nats, of log-probabilities by two engines or in two precisions: 0.02 on a CPU, 0.7 where nothing fits
ASLEEP = 0.2  # of what vLLM holds awake, the largest share that it may hold asleep
WEIGHTS_MADE, SFT_STEP, REWARD_MODEL_STEP = "weights made", "SFT step", "reward model step"
SAMPLING, EVALUATION, UPDATE = "PPO: sampling", "PPO: evaluation of rollouts", "PPO: update"
AT_START = "PPO: KL to its start in the first update"
ROLLOUTS, SLEEP, ENGINES = "vLLM rollouts", "vLLM: memory asleep, of that awake", "vLLM: |log p - log p of vLLM|"

Row = dict[str, Any]


class Missing(Exception):  # noqa: N818 (nothing went wrong)
    """A package is not installed."""


class TooLarge(Exception):  # noqa: N818 (nothing went wrong)
    """The card has not the memory that the account asks for."""


class Enough(Exception):  # noqa: N818 (nothing went wrong)
    """All has been measured."""


# ---- what jobs have in common


def prepared(work: Work, name: str, count: int = 12):
    """A stage, its model's tokenizer, and `count` made-up questions; TooLarge where the dry run says so."""
    stage = work.stage(name)
    found = m.footprint(stage)
    if not found.fits:
        raise TooLarge(f"the account says {found.memory.total() / m.GIB:.0f} GiB: {found.advice}")
    tokenizer = models.load_tokenizer(work.source)
    return stage, tokenizer, Texts(work.scale, stage, tokenizer, count)


def measured_row(work: Work, name: str, stage: Stage, found: gpu_meters.Measured, **counts: float) -> Row:
    """A row of what was measured beside what the dry run says; `counts` are tokens generated, trained and read."""
    tokens = {"generated": 0.0, "trained": 0.0, "read": 0.0} | counts
    done = tokens["generated"] + tokens["trained"] + tokens["read"] / rl.READERS
    sampling, hardware = tokens["generated"] > 0, stage.profile.hardware
    flops, peak = ledger.flops(stage.name, work.parameters, **tokens), hardware.gpu_tflops * 1e12
    share = hardware.sampling_utilisation if sampling else hardware.training_utilisation
    lasting, phases = m.TRAINED[stage.name](m.Setup(stage))
    account = lasting + max((one for one in phases if bool(one["cache"]) == sampling), key=m.Memory.total)
    return {
        "row": name,
        "status": OK,
        "tokens": done,
        "seconds": found.seconds,
        "predicted_seconds": flops / (peak * share),
        "tokens_per_second": done / found.seconds,
        "tflops": flops / found.seconds / 1e12,
        "share_of_peak": flops / found.seconds / peak,
        "memory_gib": found.tensors,
        "predicted_gib": account.total() / m.GIB,
        "card_gib": found.card,
        "predicted_card_gib": (account.total() + m.RUNTIME) / m.GIB,
    }


def check(name: str, value: float, most: float) -> Row:
    """A row that says whether a number is at most so large."""
    held = math.isfinite(value) and value <= most
    more = {} if held else {"error": f"{value:.3g} is more than {most:g}"}
    return {"row": name, "status": OK if held else FAILED, "value": value, "at_most": most} | more


def finite(values: pd.Series) -> float:
    """The last of a training's losses; ValueError where one is none."""
    kept = [float(value) for value in values.dropna()]
    if not kept or not all(map(math.isfinite, kept)):
        raise ValueError(f"the losses are not all finite: {kept}")
    return kept[-1]


def require(package: str) -> None:
    """Missing where a package cannot be imported."""
    try:
        importlib.import_module(package)
    except Exception as error:  # a build for another torch fails in many ways
        raise Missing(f"{package}: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """What an error says, cut to a line."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said}"[:240] if said else type(error).__name__


@torch.no_grad()
def logprobs_of(policy, query: list[int], response: list[int]) -> torch.Tensor:
    """The policy's log-probabilities [T] of one response, as PPO computes them."""
    ids = torch.tensor([query + response], device=policy.device)
    given = ids[:, len(query) :]
    lengths, mask = torch.tensor([len(query)], device=policy.device), torch.ones_like(given, dtype=torch.bool)
    return response_logprobs(policy, ids, lengths, given, mask)[0][0]


# ---- the model and the trainings


def run_weights(work: Work, at: Path) -> Iterator[Row]:
    """The model itself, which the other jobs load."""
    meter = gpu_meters.Meter()
    count = gpu_sizes.write_weights(work.weights, work.scale.shapes[work.model], gpu_meters.device())
    words = f"{count:,} random parameters in {meter.read().seconds:.1f} s"
    yield {"row": WEIGHTS_MADE, "status": OK, "settings": words, "parameters": count}


def steps_row(work: Work, at: Path, name: str, stage: Stage, trainer, responses: int) -> Row:
    """Have a trainer do some steps and nothing else, no evaluation and no checkpoint, and measure them.

    `responses` of a step have the scale's length.
    """
    arguments = trainer.args
    arguments.max_steps, arguments.eval_strategy, arguments.save_strategy = STEPS, "no", "no"
    arguments.eval_on_start = arguments.load_best_model_at_end = False
    for callback in (training.EvaluateLast, EarlyStoppingCallback):
        trainer.remove_callback(callback)
    meter, length = gpu_meters.StepMeter(), work.scale.length
    trainer.add_callback(meter)
    history = training.train(trainer, at, stage)
    row = measured_row(work, name, stage, meter.each, trained=responses * length)
    return row | {"settings": f"{responses} responses of {length} tokens", "loss": finite(history["loss"])}


def run_sft(work: Work, at: Path) -> Iterator[Row]:
    """Steps of SFT."""
    stage, tokenizer, texts = prepared(work, "03_sft_warmup")
    trainer = sft_trainer(work, at, stage, tokenizer, texts, STEPS * work.scale.rows)
    yield steps_row(work, at, SFT_STEP, stage, trainer, work.scale.rows)


def sft_trainer(work: Work, at: Path, stage: Stage, tokenizer, texts: Texts, count: int):
    """The trainer of SFT, as the stage makes it, on `count` made-up responses."""
    chosen = {"train": texts.responses("train", count), "validation": texts.responses("validation", 4)}
    return sft.make_trainer(stage, at, work.source, tokenizer, chosen, texts.prompts)


def run_reward_model(work: Work, at: Path) -> Iterator[Row]:
    """Steps of the reward model."""
    scale = work.scale
    stage, tokenizer, texts = prepared(work, "05_reward_model", 4 + STEPS * scale.queries)
    model = models.load_scorer(work.source, tokenizer.pad_token_id, stage.profile.training)
    trainer = reward_model.RewardModelTrainer(  # as reward_model.train_member makes it, which saves it too
        training.with_adapters(model, stage.profile.training, "SEQ_CLS"),
        args=reward_model.configuration(stage, at),
        train_dataset=reward_model.training_rows(texts.examples(STEPS * scale.queries), texts.encode),
        eval_dataset=[{}],
        processing_class=tokenizer,
        data_collator=lambda rows: reward_model.collate(rows, tokenizer.pad_token_id),
        settings=stage.profile.reward_model,
        validation=pd.DataFrame(),
    )
    yield steps_row(work, at, REWARD_MODEL_STEP, stage, trainer, scale.queries * 3 * scale.samples)


class MeteredPPO(PPOTrainer):
    """PPOTrainer that tells a meter where its passes with gradient begin and end."""

    phases: gpu_meters.Phases

    def optimise(self, batch, update: int) -> dict[str, torch.Tensor]:
        """The clipped updates, measured."""
        self.phases.enter(UPDATE)
        found = super().optimise(batch, update)
        self.phases.enter(None)
        return found


def run_ppo(work: Work, at: Path) -> Iterator[Row]:
    """Updates of PPO: sampling, the scores and log-probabilities of the rollouts, and the passes with gradient."""
    scale, phases, rows = work.scale, gpu_meters.Phases(), []
    stage, tokenizer, texts = prepared(work, "06_ppo", 4 + scale.episodes)

    def on_update(row: dict) -> None:
        rows.append(row)
        if row["update"] == UPDATES:
            raise Enough

    trainer = ppo_trainer(work, stage, tokenizer, texts.queries, phases, on_update)
    with suppress(Enough):
        trainer.train(at)
    whole, sampled = scale.episodes * scale.length, scale.episodes * rows[-1]["response_length"]
    counts = {SAMPLING: {"generated": sampled}, EVALUATION: {"read": rl.READERS * whole}, UPDATE: {"trained": whole}}
    words = f"{scale.episodes} episodes of {scale.length} tokens, minibatches of {scale.minibatch}"
    told = {"settings": words, "loss": finite(pd.Series([row["policy_loss"] for row in rows[1:]]))}
    for name, found in phases.found.items():
        yield measured_row(work, name, stage, found, **counts[name]) | told
    yield check(AT_START, abs(rows[1]["kl"]), 0.01)


def ppo_trainer(
    work: Work, stage: Stage, tokenizer, queries: list, phases: gpu_meters.Phases, on_update: Callable[[dict], None]
) -> MeteredPPO:
    """PPO as the stage puts it together, on made-up queries, with `phases` told of what begins."""
    profile, pad = stage.profile, tokenizer.pad_token_id
    accelerator = training.new_accelerator(profile.training)
    if profile.training.lora is not None:  # an untrained reward model's adapter, by which the networks share one base
        scorer = models.load_scorer(work.source, pad, profile.training)
        one_base.save(training.with_adapters(scorer, profile.training, "SEQ_CLS"), work.weights.parent)
    policy, reference, value_model, judge = rl.networks(work.source, work.weights.parent, pad, profile.training)
    read = lambda _, text: answers.extract(text, "math")  # noqa: E731
    reward = rl.RewardFunction(judge.to(accelerator.device), [None] * len(queries), read, profile.reward, pad)
    given = rl.sampler(tokenizer, profile.generation.batch_size, work.scale.response, profile.ppo.temperature)

    def sample(*arguments):
        phases.enter(SAMPLING)
        found = given(*arguments)
        phases.enter(EVALUATION)
        return found

    trainer = MeteredPPO(
        *(policy, reference, value_model, tokenizer, profile.ppo, queries, sample, reward),
        on_update=on_update,
        accelerator=accelerator,
        forward_size=profile.training.forward_size(profile.ppo.minibatch_size),
    )
    trainer.phases = phases
    return trainer


# ---- rollouts by vLLM


def run_vllm(work: Work, at: Path) -> Iterator[Row]:
    """Rollouts by vLLM in this process, which sleeps between them: memory awake and asleep, time, and probabilities."""
    require("vllm")
    from rdlib.engines.vllm_policy import PolicyEngine

    scale, share = work.scale, 0.5
    stage, tokenizer, texts = prepared(work, "06_ppo", 4 + scale.episodes)
    plain = models.load_causal_lm(work.source, stage.profile.training)
    policy = training.with_adapters(plain, stage.profile.training, "CAUSAL_LM").to(gpu_meters.device())
    without = gpu_meters.used()
    settings = Vllm(gpu_memory_utilization=share, max_model_len=2 * scale.length)
    with closing(PolicyEngine(policy, tokenizer, scale.response, settings)) as engine:
        for seed in range(UPDATES):
            meter = gpu_meters.Meter()
            tokens, logprobs = engine.rollouts(policy, texts.queries, 1.0, seed)
            found = meter.read()
        asleep = gpu_meters.used() - without
        with engine.awake(policy):
            awake = gpu_meters.used() - without
    row = measured_row(work, ROLLOUTS, stage, found, generated=sum(map(len, tokens)))
    row |= {"memory_gib": awake, "predicted_gib": share * work.card["memory_gib"], "predicted_card_gib": None}
    yield row | {"settings": f"{len(texts.queries)} episodes; {awake:.1f} GiB awake, {asleep:.1f} asleep"}
    if gpu_meters.device().type == "cuda":
        yield check(SLEEP, asleep / awake, ASLEEP)
    yield check(ENGINES, gap_of(policy, texts.queries, tokens, logprobs), GAP)


def gap_of(policy, queries: list[list[int]], tokens: list[list[int]], given: list[list[float]]) -> float:
    """The mean distance of a sampler's log-probabilities of its tokens from the policy's own, in 16 responses."""
    gaps = []
    for query, response, theirs in list(zip(queries, tokens, given, strict=True))[:16]:
        ours = logprobs_of(policy, query, response)
        gaps.append((ours - torch.tensor(theirs, device=ours.device)).abs().mean().item())
    return sum(gaps) / len(gaps)


# ---- checks


def run_checks(work: Work, at: Path) -> Iterator[Row]:
    """A row a check; one that fails leaves the others to go on."""
    for name, (measure, most) in CHECKED.items():
        try:
            yield check(name, measure(work, at), most)
        except Exception as error:
            yield {"row": name, "status": FAILED, "error": first_line(error)}


def loaded(work: Work, weights: str = "float32"):
    """The model on its device with its weights so, and its tokenizer, with texts."""
    _, tokenizer, texts = prepared(work, "03_sft_warmup")
    precision = "bf16" if weights == "bfloat16" else None
    settings = Training(weights=weights, attention=work.attention, precision=precision)
    return models.load_causal_lm(work.source, settings).to(gpu_meters.device()), tokenizer, texts


def autocast():
    """Training's bf16."""
    return torch.autocast(gpu_meters.device().type, torch.bfloat16)


def precision_gap(work: Work, held: str) -> float:
    """The mean distance of the log-probabilities of responses from those in float32, in nats."""
    model, _, texts = loaded(work)
    keys = texts.ids("train")[:4]
    pairs = [(texts.encode.prompts[key], texts.encode.response(texts.response(), True)) for key in keys]
    wanted = [logprobs_of(model, *pair) for pair in pairs]
    if held == "bfloat16":
        del model
        model, _, _ = loaded(work, held)
    with autocast() if held == "float32" else nullcontext():
        given = [logprobs_of(model, *pair) for pair in pairs]
    return torch.stack([(a - b).abs().mean() for a, b in zip(given, wanted, strict=True)]).mean().item()


def batched_differences(work: Work, at: Path) -> float:
    """The share of greedily sampled tokens that are others when prompts of several lengths are sampled together."""
    model, tokenizer, texts = loaded(work)
    prompts = [prompt[5 * number :] for number, prompt in enumerate(texts.queries)]
    engine = TransformersEngine(model, tokenizer, len(prompts), FEW)
    requests = [Request(prompt, 1, 0.0) for prompt in prompts]
    together = [group[0].tokens for group in engine.generate(requests, 0)]
    alone = [engine.generate([request], 0)[0][0].tokens for request in requests]
    pairs = [pair for a, b in zip(together, alone, strict=True) for pair in zip(a, b, strict=False)]
    return sum(a != b for a, b in pairs) / len(pairs)


def checkpointing_gap(work: Work, at: Path) -> float:
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
    if not list(whole.index) == list(resumed.index) == [1, 2, 3, 4]:
        raise ValueError(f"the losses are of the steps {list(whole.index)} and {list(resumed.index)}")
    return float(((whole - resumed).abs() / whole.abs()).max())


def four_steps(work: Work, at: Path) -> pd.Series:
    """The loss by step, of four steps of SFT with evaluations and checkpoints after every second one."""
    stage, tokenizer, texts = prepared(work, "03_sft_warmup")
    stage = stage.with_overrides({"stopping.every": 2, "stopping.patience": 20})
    trainer = sft_trainer(work, at, stage, tokenizer, texts, 4 * work.scale.rows)
    trainer.args.max_steps = 4
    few = stage.dataset_settings.model_copy(update={"max_tokens": FEW})
    asked = texts.questions[texts.questions["split"] == "validation"]
    labels = pd.DataFrame({"id": asked["id"], "pseudo_label": "1"})
    trainer.agreement = Agreement(asked, labels, trainer.processing_class, few, len(asked), stage.answer_kind)
    return training.train(trainer, at, stage).set_index("step")["loss"].dropna()


# By name: what measures it, and the most that it may be
CHECKED: dict[str, tuple[Callable[[Work, Path], float], float]] = {
    "log p: bf16 autocast against float32": (lambda work, at: precision_gap(work, "float32"), GAP),
    "log p: bfloat16 weights against float32": (lambda work, at: precision_gap(work, "bfloat16"), GAP),
    "greedy tokens that differ, together and alone": (batched_differences, 0.05),
    "loss and gradient with checkpointing": (checkpointing_gap, 1e-3),
    "SFT killed after two steps and gone on: losses": (resumed_gap, 1e-2),
}
# Each kind of job, with the rows that it gives where all goes well
JOBS: dict[str, tuple[Callable[[Work, Path], Iterator[Row]], tuple[str, ...]]] = {
    "weights": (run_weights, (WEIGHTS_MADE,)),
    "checks": (run_checks, tuple(CHECKED)),
    "sft": (run_sft, (SFT_STEP,)),
    "reward_model": (run_reward_model, (REWARD_MODEL_STEP,)),
    "ppo": (run_ppo, (SAMPLING, EVALUATION, UPDATE, AT_START)),
    "vllm": (run_vllm, (ROLLOUTS, SLEEP, ENGINES)),
}
CHECKS = {*CHECKED, AT_START, SLEEP, ENGINES}
