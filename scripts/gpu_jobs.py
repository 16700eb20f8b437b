"""What `scripts/gpu_check.py` measures, each in a process of its own: this project's own trainings and rollouts.

A job gives rows. A row of a training has the seconds of an optimizer step and its peak of memory, both after a step
that is not counted, and beside them what the dry run says of the same stage (`rdlib.study.memory`, and the
operations of `rdlib.evidence.ledger`).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import EarlyStoppingCallback

from rdlib.engines import models
from rdlib.evidence import ledger
from rdlib.method import one_base, reward_model, rl, sft, training
from rdlib.method.ppo import PPOTrainer
from rdlib.method.ppo_core import response_logprobs
from rdlib.settings import Model, Training, Vllm
from rdlib.study import memory as m
from rdlib.study.stage import Stage
from rdlib.tasks import answers
from scripts import gpu_meters, gpu_sizes
from scripts.gpu_sizes import SCALES, Scale, Texts, stage_of

OK, FAILED, MISSING, TOO_LARGE = "ok", "failed", "not installed", "does not fit"
STEPS, UPDATES = 3, 2  # the first of each is not counted
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


@dataclass(frozen=True)
class Work:
    """One job: its kind, the model, how its numbers are held, its attention, and where and what it runs on.

    `folder` holds the models; `card` is what `gpu_meters.facts` found.
    """

    kind: str
    model: str
    numbers: str
    attention: str
    scale_name: str
    folder: Path
    card: dict[str, Any]

    @property
    def scale(self) -> Scale:
        """The sizes of everything."""
        return SCALES[self.scale_name]

    @property
    def of(self) -> Row:
        """The columns of a row that say what it is of."""
        return {"model": self.model, "numbers": self.numbers, "attention": self.attention}

    @property
    def parameters(self) -> float:
        """Those of the model."""
        return float(self.scale.shapes[self.model].parameters)

    @property
    def weights(self) -> Path:
        """The folder of the model, which lies in that of a stage."""
        return self.folder / self.model / "model"

    def stage(self, name: str) -> Stage:
        """A stage of this job's profile."""
        hardware = {"gpu_memory_gib": self.card["memory_gib"], "gpu_tflops": self.card["peak_tflops"]}
        given = (self.scale, self.model, self.numbers, self.attention)
        return stage_of(name, gpu_sizes.write_profile(self.folder / "profile.yaml", *given, hardware, self.weights))


# ---- what the dry run says


def predicted_memory(stage: Stage, sampling: bool = False) -> m.Memory:
    """The account's peak of a stage's passes, or of where it samples: that has a cache."""
    lasting, phases = m.TRAINED[stage.name](m.Setup(stage))
    wanted = [phase for phase in phases if bool(phase["cache"]) == sampling]
    return lasting + max(wanted, key=m.Memory.total) + m.Memory(runtime=m.RUNTIME)


def require_room(stage: Stage) -> None:
    """TooLarge where the dry run says that the stage does not fit on the card."""
    found = m.footprint(stage)
    if not found.fits:
        raise TooLarge(f"the account says {found.memory.total() / m.GIB:.0f} GiB: {found.advice}")


def measured_row(work: Work, name: str, stage: Stage, found: gpu_meters.Measured, **counts: float) -> Row:
    """A row of what was measured beside what the dry run says; `counts` are tokens generated, trained and read."""
    tokens = {"generated": 0.0, "trained": 0.0, "read": 0.0} | counts
    done = tokens["generated"] + tokens["trained"] + tokens["read"] / rl.READERS
    sampling, hardware = tokens["generated"] > 0, stage.profile.hardware
    flops = ledger.flops(stage.name, work.parameters, **tokens)
    peak = hardware.gpu_tflops * 1e12
    share = hardware.sampling_utilisation if sampling else hardware.training_utilisation
    account = predicted_memory(stage, sampling)
    return {
        "row": name,
        "status": OK,
        "tokens": done,
        "seconds": found.seconds,
        "predicted_seconds": flops / (peak * share),
        "tokens_per_second": done / found.seconds,
        "tflops": flops / found.seconds / 1e12,
        "share_of_peak": flops / found.seconds / peak,
        "predicted_share": share,
        "memory_gib": found.allocated,
        "predicted_gib": (account.total() - account["runtime"]) / m.GIB,
        "reserved_gib": found.reserved,
        "card_gib": found.card,
        "predicted_card_gib": account.total() / m.GIB,
    }


# ---- the trainings


def only_steps(trainer, steps: int) -> gpu_meters.StepMeter:
    """Have a trainer do so many steps and nothing else, no evaluation and no checkpoint; returns what measures them."""
    arguments = trainer.args
    arguments.max_steps, arguments.eval_strategy, arguments.save_strategy = steps, "no", "no"
    arguments.eval_on_start = arguments.load_best_model_at_end = False
    for callback in (training.EvaluateLast, EarlyStoppingCallback):
        trainer.remove_callback(callback)
    meter = gpu_meters.StepMeter()
    trainer.add_callback(meter)
    return meter


def sft_trainer(work: Work, stage: Stage, at: Path, count: int):
    """The trainer of SFT, as the stage makes it, on `count` made-up responses; and its texts."""
    source = stage.profile.model_of(stage.student)
    tokenizer = models.load_tokenizer(source)
    texts = Texts(work.scale, stage, tokenizer, count=12)
    chosen = {"train": texts.responses("train", count), "validation": texts.responses("validation", 4)}
    return sft.make_trainer(stage, at, source, tokenizer, chosen, texts.prompts), texts


def run_sft(work: Work, at: Path) -> Iterator[Row]:
    """Steps of SFT."""
    stage, scale = work.stage("03_sft_warmup"), work.scale
    require_room(stage)
    trainer, _ = sft_trainer(work, stage, at, STEPS * scale.rows)
    meter = only_steps(trainer, STEPS)
    history = training.train(trainer, at, stage)
    row = measured_row(work, SFT_STEP, stage, meter.each, trained=scale.rows * scale.length)
    yield row | {"settings": f"{scale.rows} responses of {scale.length} tokens", "loss": finite(history["loss"])}


def run_reward_model(work: Work, at: Path) -> Iterator[Row]:
    """Steps of the reward model."""
    stage, scale = work.stage("05_reward_model"), work.scale
    require_room(stage)
    source, settings = stage.profile.model_of(stage.student), stage.profile.reward_model
    tokenizer = models.load_tokenizer(source)
    texts = Texts(scale, stage, tokenizer, count=4 + STEPS * scale.queries)
    model = models.load_scorer(source, tokenizer.pad_token_id, stage.profile.training)
    trainer = reward_model.RewardModelTrainer(  # as reward_model.train_member makes it, which saves it too
        training.with_adapters(model, stage.profile.training, "SEQ_CLS"),
        args=reward_model.configuration(stage, at),
        train_dataset=reward_model.training_rows(texts.examples(STEPS * scale.queries), texts.encode),
        eval_dataset=[{}],
        processing_class=tokenizer,
        data_collator=lambda rows: reward_model.collate(rows, tokenizer.pad_token_id),
        settings=settings,
        validation=pd.DataFrame(),
    )
    meter = only_steps(trainer, STEPS)
    history = training.train(trainer, at, stage)
    responses = scale.queries * 3 * scale.samples
    row = measured_row(work, REWARD_MODEL_STEP, stage, meter.each, trained=responses * scale.length)
    words = f"{responses} responses of {scale.queries} queries, {scale.length} tokens each"
    yield row | {"settings": words, "loss": finite(history["loss"])}


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
    stage, scale = work.stage("06_ppo"), work.scale
    require_room(stage)
    phases, rows = gpu_meters.Phases(), []

    def on_update(row: dict) -> None:
        rows.append(row)
        if row["update"] == UPDATES:
            raise Enough

    trainer = ppo_trainer(work, stage, phases, on_update)
    with suppress(Enough):
        trainer.train(at)
    whole, sampled = scale.episodes * scale.length, scale.episodes * rows[-1]["response_length"]
    counts = {SAMPLING: {"generated": sampled}, EVALUATION: {"read": rl.READERS * whole}, UPDATE: {"trained": whole}}
    words = f"{scale.episodes} episodes of {scale.length} tokens, minibatches of {scale.minibatch}"
    told = {"settings": words, "loss": finite(pd.Series([row["policy_loss"] for row in rows[1:]]))}
    for name, found in phases.found.items():
        yield measured_row(work, name, stage, found, **counts[name]) | told
    yield check(AT_START, abs(rows[1]["kl"]), 0.01)


def ppo_trainer(work: Work, stage: Stage, phases: gpu_meters.Phases, on_update: Callable[[dict], None]) -> MeteredPPO:
    """PPO as the stage puts it together, on made-up queries, with `phases` told of what begins."""
    profile, scale = stage.profile, work.scale
    source = profile.model_of(stage.student)
    tokenizer = models.load_tokenizer(source)
    pad = tokenizer.pad_token_id
    texts = Texts(scale, stage, tokenizer, count=4 + scale.episodes)
    queries = [texts.encode.prompts[key] for key in texts.ids("train")]
    accelerator = training.new_accelerator(profile.training)
    write_adapter(work, source, profile.training, pad)
    policy, reference, value_model, judge = rl.networks(source, work.weights.parent, pad, profile.training)
    judge = judge.to(accelerator.device)
    read = lambda _, text: answers.extract(text, "math")  # noqa: E731
    reward = rl.RewardFunction(judge, [None] * len(queries), read, profile.reward, pad)
    given = rl.sampler(tokenizer, profile.generation.batch_size, scale.response, profile.ppo.temperature)

    def sample(*arguments):
        phases.enter(SAMPLING)
        found = given(*arguments)
        phases.enter(EVALUATION)
        return found

    size = profile.training.forward_size(profile.ppo.minibatch_size)
    trainer = MeteredPPO(
        *(policy, reference, value_model, tokenizer, profile.ppo, queries, sample, reward),
        on_update=on_update,
        accelerator=accelerator,
        forward_size=size,
    )
    trainer.phases = phases
    return trainer


def write_adapter(work: Work, source: Model, settings: Training, pad: int) -> None:
    """Beside the weights an untrained reward model's adapter, by which PPO's networks share one base."""
    if settings.lora is not None:
        scorer = training.with_adapters(models.load_scorer(source, pad, settings), settings, "SEQ_CLS")
        one_base.save(scorer, work.weights.parent)


# ---- rollouts by vLLM


def run_vllm(work: Work, at: Path) -> Iterator[Row]:
    """Rollouts by vLLM in this process, which sleeps between them: memory awake and asleep, time, and probabilities."""
    require("vllm")
    from rdlib.engines.vllm_policy import PolicyEngine

    stage, scale, share = work.stage("06_ppo"), work.scale, 0.5
    source = stage.profile.model_of(stage.student)
    tokenizer = models.load_tokenizer(source)
    plain = models.load_causal_lm(source, stage.profile.training)
    policy = training.with_adapters(plain, stage.profile.training, "CAUSAL_LM").to(gpu_meters.device())
    texts = Texts(scale, stage, tokenizer, count=4 + scale.episodes)
    queries = [texts.encode.prompts[key] for key in texts.ids("train")]
    without = gpu_meters.used()
    settings = Vllm(gpu_memory_utilization=share, max_model_len=2 * scale.length)
    with closing(PolicyEngine(policy, tokenizer, scale.response, settings)) as engine:
        for seed in range(UPDATES):
            meter = gpu_meters.Meter()
            tokens, logprobs = engine.rollouts(policy, queries, 1.0, seed)
            found = meter.read()
        asleep = gpu_meters.used() - without
        with engine.awake(policy):
            awake = gpu_meters.used() - without
    sampled = sum(map(len, tokens))
    row = measured_row(work, ROLLOUTS, stage, found, generated=sampled)
    awake_told = {"memory_gib": awake, "predicted_gib": share * work.card["memory_gib"], "predicted_card_gib": None}
    yield row | awake_told | {"settings": f"{len(queries)} episodes; {awake:.1f} GiB awake, {asleep:.1f} asleep"}
    if gpu_meters.device().type == "cuda":
        yield check(SLEEP, asleep / awake, ASLEEP)
    yield check(ENGINES, gap_of(policy, queries, tokens, logprobs), GAP)


def gap_of(policy, queries: list[list[int]], tokens: list[list[int]], given: list[list[float]]) -> float:
    """The mean distance of a sampler's log-probabilities of its tokens from the policy's own."""
    gaps = []
    for query, response, theirs in list(zip(queries, tokens, given, strict=True))[:16]:
        ours = logprobs_of(policy, query, response)
        gaps.append((ours - torch.tensor(theirs, device=ours.device)).abs().mean().item())
    return sum(gaps) / len(gaps)


@torch.no_grad()
def logprobs_of(policy, query: list[int], response: list[int]) -> torch.Tensor:
    """The policy's log-probabilities [T] of one response, as PPO computes them."""
    ids = torch.tensor([query + response], device=policy.device)
    given = ids[:, len(query) :]
    lengths, mask = torch.tensor([len(query)], device=policy.device), torch.ones_like(given, dtype=torch.bool)
    return response_logprobs(policy, ids, lengths, given, mask)[0][0]


# ---- rows that are no training's


def run_weights(work: Work, at: Path) -> Iterator[Row]:
    """The model itself, which the other jobs load."""
    meter = gpu_meters.Meter()
    count = gpu_sizes.write_weights(work.weights, work.scale.shapes[work.model], gpu_meters.device())
    found = meter.read()
    told = f"{count:,} random parameters in {found.seconds:.1f} s"
    yield {"row": WEIGHTS_MADE, "status": OK, "settings": told, "parameters": count}


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
