"""How weights are held, which attention computes, and torch.compile: each does what its setting says."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace

import pytest
import torch
from conftest import MODELS, stage_in
from safetensors.torch import load_file
from test_adapters import again  # noqa: F401
from test_baselines import start_of
from test_ppo import PROMPTS, Words, llama, sampler, settings, share_of
from test_resume import METHODS
from transformers import LlamaForSequenceClassification

from rdlib import engines, numerics
from rdlib.engines import models
from rdlib.method import baselines, ppo, training
from rdlib.settings import Training

BF16 = {"training.weights": "bfloat16"}
LORA = {"training.lora": {"r": 2, "alpha": 4.0}}
STAGES = ["03_sft_warmup", "06_ppo"]


def losses(stage) -> list[float]:
    """The first losses of a stage's history."""
    if stage.name == "06_ppo":
        return stage.jsonl("history")["policy_loss"].dropna().head(1).tolist()
    return stage.table("history")["loss"].dropna().head(6).tolist()


def test_why_weights_are_float32_by_default():
    """At PPO's and SFT's learning rates most Adam steps are below half of what bfloat16 resolves, and are lost."""
    assert Training().weights == "float32"
    weights = models.load_causal_lm(MODELS / "small").model.layers[0].mlp.up_proj.weight.detach()
    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        for rate in (1e-6, 1e-5):
            weight = torch.nn.Parameter(weights.to(dtype))
            before = weight.detach().clone()
            weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)).to(dtype)
            torch.optim.AdamW([weight], lr=rate, weight_decay=0.0).step()
            moved[dtype, rate] = (weight.detach() != before).float().mean().item()
    assert min(moved[torch.float32, rate] for rate in (1e-6, 1e-5)) > 0.95
    assert moved[torch.bfloat16, 1e-6] < 0.02 and moved[torch.bfloat16, 1e-5] < 0.1


# ---- how weights are held


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_a_stage_in_bfloat16_has_the_losses_of_float32_and_writes_what_it_held(study, again, tmp_path, name):  # noqa: F811
    """The losses to eight bits: they are around 0.1 (SFT) and 1 (reward model), PPO's advantages are whitened."""
    stage = again(tmp_path, name, BF16).run()
    held = load_file(stage.folder / "model/model.safetensors")
    assert {tensor.dtype for tensor in held.values()} == {torch.bfloat16}
    assert losses(stage) == pytest.approx(losses(stage_in(study, name, METHODS.get(name, "ours"))), abs=0.05)


@pytest.mark.slow
def test_adapters_on_bfloat16_weights_are_merged_into_float32(again, tmp_path):  # noqa: F811
    """As they are held: tests/test_one_base.py."""
    stage = again(tmp_path, "05_reward_model", BF16 | LORA).run()
    merged = load_file(stage.folder / "model/model.safetensors")
    assert {tensor.dtype for tensor in merged.values()} == {torch.float32}


# ---- attention


@pytest.fixture
def loaded(monkeypatch) -> list[dict]:
    """The options of every model that is loaded, configurations and tokenizers left out."""
    found, load = [], models._load

    def spy(loader, source, **options):
        if "dtype" in options:
            found.append(options)
        return load(loader, source, **options)

    monkeypatch.setattr(models, "_load", spy)
    return found


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_attention_is_the_one_named(attention):
    given = Training(attention=attention)
    for model in (models.load_causal_lm(MODELS / "small", given), models.load_scorer(MODELS / "small", 0, given)):
        assert model.config._attn_implementation == attention
    assert models.load_causal_lm(MODELS / "small").config._attn_implementation == "sdpa"  # transformers' choice


@pytest.mark.slow
def test_every_network_of_ppo_has_the_attention_named_and_the_same_losses(study, again, tmp_path, loaded):  # noqa: F811
    """The key is the same, too."""
    stage, plain = again(tmp_path, "06_ppo", {"training.attention": "eager"}), stage_in(study, "06_ppo")
    assert stage.folder.name == plain.folder.name and stage.key == plain.key
    stage.run()
    assert [options["attn_implementation"] for options in loaded] == ["eager"] * 4
    assert losses(stage) == pytest.approx(losses(plain), abs=1e-5)


@pytest.mark.slow
def test_a_baselines_networks_are_held_so_too(again, tmp_path, loaded):  # noqa: F811
    stage = again(tmp_path, "13_baseline", BF16 | {"training.attention": "eager"})
    stage = replace(stage, method="dpo")
    trainer = baselines.TRAINERS["dpo"](stage, tmp_path, start_of(stage))
    held = [(options["attn_implementation"], options["dtype"]) for options in loaded]
    assert held == [("eager", torch.bfloat16)] * 2 and trainer.args.bf16


@pytest.mark.parametrize("fast", [True, False])
def test_auto_is_bfloat16_where_the_machine_computes_with_it(study, monkeypatch, fast):
    monkeypatch.setattr(models.numerics, "computes_bfloat16", lambda: fast)
    expected = torch.bfloat16 if fast else torch.float32
    assert models.dtype_of("auto") is expected and models.dtype_of("bfloat16") is torch.bfloat16
    assert models.load_causal_lm(MODELS / "small").dtype is torch.float32
    assert models.load_causal_lm(MODELS / "small", Training(weights="auto")).dtype is expected
    assert training.in_bf16(Training(weights="auto")) is fast
    stage = stage_in(study, "04_student_responses").with_overrides({"generation.weights": "auto"})
    with closing(engines.open_engine(stage, stage.profile.model_of("small"))) as engine:
        assert engine.model.dtype is expected  # which a study samples with


@pytest.mark.parametrize(
    ("variables", "sets", "expected"),
    [
        ({}, ["avx2", "amx_bf16"], True),
        ({}, ["avx2", "avx512f", "avx512_bf16"], True),
        ({}, ["avx2", "avx512f"], False),
        ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, ["avx2", "amx_bf16"], False),  # as in the portable mode
    ],
)
def test_a_processor_computes_with_bfloat16_if_it_has_the_instructions_and_may_use_them(
    monkeypatch, variables, sets, expected
):
    for name in numerics.MODE:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(numerics, "processor", lambda: {"instruction_sets": sets})
    assert numerics.computes_bfloat16() is expected


# ---- torch.compile, by its graphs without their code generation, which takes a minute and is torch's own


class Graphs:
    """A backend of torch.compile that runs a graph as it is and counts them."""

    seen = 0

    def __call__(self, graph, inputs):
        self.seen += 1
        return graph.forward


@pytest.mark.slow
def test_ppo_compiled_computes_what_it_does_without(monkeypatch):
    """Where the setting says so."""
    graphs, statistics, compile_ = Graphs(), {}, torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: compile_(self, backend=graphs, **options))
    for compiled in (False, True):
        config = settings(episodes_per_update=6, minibatch_size=6, epochs=1)
        networks = (llama(), llama(), llama(LlamaForSequenceClassification, seed=1))
        one = ppo.PPOTrainer(*networks, Words(), config, PROMPTS, sampler(), share_of(5), compiled=compiled)
        batch, scores, _ = one._rollout(1)
        batch = one._advantages(one._evaluate_rollouts(batch), scores)
        statistics[compiled] = {name: float(value) for name, value in one.optimise(batch, 1).items()}
        assert (graphs.seen > 0) == compiled
    assert statistics[True] == pytest.approx(statistics[False], abs=1e-5)
    torch.compiler.reset()


@pytest.mark.slow
def test_the_trainers_passes_are_compiled_and_later_trainings_are_not(study, again, tmp_path, monkeypatch):  # noqa: F811
    graphs, compile_ = Graphs(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **options: compile_(model, backend=graphs))
    stage = again(tmp_path, "03_sft_warmup", {"training.compile": True}).run()
    assert graphs.seen > 0 and "ACCELERATE_DYNAMO_BACKEND" not in os.environ
    assert losses(stage) == pytest.approx(losses(stage_in(study, stage.name, stage.method)), abs=1e-5)
    torch.compiler.reset()
    training.new_accelerator(Training())  # which forgets that it compiles
