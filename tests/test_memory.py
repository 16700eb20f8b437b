"""Memory formulas: parameters as transformers counts them, activations as autograd keeps them, peaks as they occur."""

from __future__ import annotations

import weakref

import pytest
import torch
import trl.trainer.utils
from tiny_models import make_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)
from trl.trainer.utils import add_fused_lm_head

from rdlib.engines.transformers_engine import new_cache, pick_tokens
from rdlib.method import ppo_core as core
from rdlib.method import reward_model, scoring, token_logprobs, training
from rdlib.paths import ROOT
from rdlib.settings import Lora, Model, Training
from rdlib.study import architectures
from rdlib.study import memory as m
from rdlib.study.architectures import KNOWN, Shape

SMALL = Shape(64, 4, 4, 2, 16, 176, 512)
NUMBERS = {"fp32": m.FP32, "autocast": m.AUTOCAST, "bf16": m.BF16}


def build(loader, shape: Shape, numbers: m.Numbers = m.FP32, attention: str = "sdpa", checkpointing: bool = False):
    """A model of a shape, with random weights, in training mode."""
    config = architectures.configuration(shape, num_labels=1, pad_token_id=0)
    model = loader.from_config(config, attn_implementation=attention).train()
    if numbers.weight == 2:
        model = model.to(torch.bfloat16)
    if checkpointing:
        model.gradient_checkpointing_enable(training.NON_REENTRANT)
    return model


def computing(numbers: m.Numbers):
    """The autocast that trainings in bf16 run under."""
    return torch.autocast("cpu", torch.bfloat16, enabled=numbers.compute == 2)


# ---- parameters

PUBLISHED = {  # the model cards' numbers, in billions
    "Llama-3-8B": 8.03,
    "Llama-3.1-8B": 8.03,
    "Llama-3-70B": 70.6,
    "Llama-3.1-70B": 70.6,
    "Llama-3.2-1B": 1.24,
    "Llama-3.2-3B": 3.21,
    "Qwen2.5-0.5B": 0.494,
    "Qwen2.5-7B": 7.62,
}


@pytest.mark.parametrize("name", KNOWN)
def test_parameters_are_those_of_transformers_own_classes(name):
    shape = KNOWN[name]
    with torch.device("meta"):
        language, scorer = (build(c, shape) for c in (AutoModelForCausalLM, AutoModelForSequenceClassification))
    assert language.num_parameters() == shape.parameters
    assert scorer.num_parameters() == shape.scorer_parameters
    assert shape.parameters / 1e9 == pytest.approx(PUBLISHED[name], rel=0.005)


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
def test_parameters_of_adapters_are_pefts(targets):
    model = build(AutoModelForCausalLM, SMALL)
    adapted = training.with_adapters(model, Training(lora=Lora(r=4, alpha=8, target_modules=targets)), "CAUSAL_LM")
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert trained == SMALL.adapter_parameters(4, targets)


@pytest.mark.parametrize(
    ("name", "shape", "source"),
    [
        ("meta-llama/Meta-Llama-3-70B-Instruct", "Llama-3-70B", "kept in rdlib"),
        ("meta-llama/Llama-3.2-1B", "Llama-3.2-1B", "kept in rdlib"),
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen2.5-7B", "kept in rdlib"),
        ("somebody/else-1.5B", "Llama-3.2-1B", "a guess: somebody/else-1.5B counts as Llama-3.2-1B"),
    ],
)
def test_a_shape_comes_from_a_name_or_is_called_a_guess(name, shape, source):
    found, where = architectures.of(Model(model=name), ROOT, 1.5e9)
    assert found == KNOWN[shape] and source in where


@pytest.mark.parametrize("name", ["small", "strong"])
def test_a_folder_tells_its_shape_itself(name):
    from rdlib.engines import models

    shape, source = architectures.of(Model(model=f"models/{name}"), ROOT)
    assert shape.parameters == models.parameter_count(ROOT / "models" / name) and source == f"models/{name}/config.json"


# ---- what autograd keeps


def kept_bytes(model, ids, mask, numbers: m.Numbers) -> int:
    """Bytes of the tensors that a forward pass saves beside the weights, each storage once."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), computing(numbers):
        model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", NUMBERS)
def test_kept_activations_are_what_autograd_saves(kind, checkpointing, attention, padded):
    """To 2 %: left out are the tables of the positions and the ids, which all layers share."""
    numbers, rows, length = NUMBERS[kind], 3, 40
    model = build(AutoModelForCausalLM, SMALL, numbers, attention, checkpointing)
    ids = torch.randint(1, SMALL.vocabulary, (rows, length))
    mask = torch.ones_like(ids)
    mask[0, -5:] = 0
    found = kept_bytes(model, ids, mask if padded else None, numbers)
    expected = m.kept_activations(SMALL, numbers, rows, length, checkpointing, attention, padded)
    if not checkpointing:
        expected += m.casts(SMALL, numbers, m.Sharding()).weights
    assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_activations_of_adapters_are_near_the_formula(kind):
    """Norms whose weight is frozen keep less, by less than a quarter; casts for float32 adapters keep a tenth more."""
    model = build(AutoModelForCausalLM, SMALL, NUMBERS[kind])
    adapted = training.with_adapters(model, Training(lora=Lora(r=2, alpha=4)), "CAUSAL_LM").get_base_model()
    ids = torch.randint(1, SMALL.vocabulary, (8, 64))
    found = kept_bytes(adapted, ids, None, NUMBERS[kind])
    assert 0.75 < found / m.kept_activations(SMALL, NUMBERS[kind], 8, 64) < 1.1


# ---- peaks


class Peak(TorchDispatchMode):
    """The most bytes that tensors made inside held at once."""

    def __init__(self):
        super().__init__()
        self.live = self.most = 0
        self.sizes: dict[int, int] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(result):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage._cdata not in given | self.sizes.keys():
                self.sizes[storage._cdata] = storage.nbytes()
                self.live += storage.nbytes()
                weakref.finalize(storage, self._free, storage._cdata)
        self.most = max(self.most, self.live)
        return result

    def _free(self, key: int) -> None:
        self.live -= self.sizes.pop(key, 0)


def test_the_peak_counts_what_is_held_at_once():
    with Peak() as peak:
        first = torch.zeros(1000)
        second = first + 1
        del first
        third = second * 2
        fourth = third.view(10, 100)  # no new memory
    assert peak.most == 8000 and fourth.shape == (10, 100)


def sft_step(shape, numbers, checkpointing, rows, length):
    """A backward pass of TRL's loss, as the SFT trainer calls it; returns its peak and the formula's."""
    model = build(AutoModelForCausalLM, shape, numbers, checkpointing=checkpointing)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    ids = torch.randint(1, shape.vocabulary, (rows, length))
    with Peak() as peak:
        with computing(numbers):
            output = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids, fused_lm_head=True)
        (-output.log_probs.sum()).backward()
    tile = m.tiled_head(shape, numbers, rows * length)
    return peak.most, m.training_activations(shape, numbers, rows, length, checkpointing) + tile, [model]


def reward_model_step(shape, numbers, checkpointing, rows, length):
    """A backward pass of Eq. 6 over responses padded on the right."""
    model = build(AutoModelForSequenceClassification, shape, numbers, checkpointing=checkpointing)
    ids = torch.randint(1, shape.vocabulary, (rows, length))
    mask = torch.ones_like(ids)
    ids[0, -3:] = mask[0, -3:] = 0
    kinds, queries = torch.arange(rows) % 3, torch.zeros(rows)
    with Peak() as peak:
        with computing(numbers):
            scores = scoring.score_whole(model, ids, mask, rows).float()
        reward_model.reward_model_loss(scores, kinds, queries, 0.5, "convex").backward()
    return peak.most, m.training_activations(shape, numbers, rows, length, checkpointing, padded=True), [model]


def ppo_step(shape, numbers, checkpointing, rows, length):
    """A backward pass of Eq. 8 and the value loss, with the entropy, as PPOTrainer computes them."""
    loaders = (AutoModelForCausalLM, AutoModelForSequenceClassification)
    both = core.PolicyAndValue(*(build(loader, shape, numbers, checkpointing=checkpointing) for loader in loaders))
    response = length // 2
    ids = torch.randint(1, shape.vocabulary, (rows, length))
    old, advantages, values, returns = torch.randn(4, rows, response)
    mask = torch.ones(rows, response, dtype=torch.bool)

    def loss():
        inputs = (ids, torch.full((rows,), length - response), ids[:, -response:], mask)
        with computing(numbers):
            logprobs, entropies, now = both(*inputs, 1.0)
        core.masked_mean(entropies, mask)
        policy = core.policy_loss(logprobs, old, advantages, mask, 0.2)[0]
        return policy + 0.1 * core.value_loss(now, values, returns, mask, 0.2)[0]

    with Peak() as peak:
        loss().backward()
    passes = m.training_activations(shape, numbers, rows, length, checkpointing)
    kept = m.kept_activations(shape, numbers, rows, length, checkpointing)
    return peak.most, passes + kept + m.tiled_logprobs(shape, numbers, rows * response), [both]


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("step", [sft_step, reward_model_step, ppo_step])
def test_the_peak_of_a_training_step_is_near_the_formula_and_below_it(monkeypatch, step, kind, checkpointing):
    """The formula adds all gradients to the peak of a pass, when few are there: in so small a model up to a half.

    TRL's tile is narrow here, as folding it takes float32 copies of it on a CPU, which Triton's kernel does not make.
    """
    monkeypatch.setattr(m, "TILE", (4096, 32))
    monkeypatch.setattr(m, "PPO_TILE", 2**18)
    monkeypatch.setattr(token_logprobs, "CPU_TILE", 2**18)
    monkeypatch.setattr(trl.trainer.utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", 32)
    numbers, shape = NUMBERS[kind], Shape(64, 4, 4, 2, 16, 176, 2000)
    peak, passes, models = step(shape, numbers, checkpointing, rows=24, length=128)
    gradients = sum(p.grad.nbytes for model in models for p in model.parameters())
    casts = (2 if step is ppo_step else 1) * m.casts(shape, numbers, m.Sharding()).weights
    assert 0.97 < (passes + gradients + casts) / peak < 1.5


@pytest.mark.parametrize("tile", [2**20, 2**24])
@pytest.mark.parametrize("kind", NUMBERS)
def test_ppo_holds_two_copies_of_a_tile_of_logits_or_four_of_all(monkeypatch, kind, tile):
    """Where nothing but logits counts; whole ones of 5 million."""
    monkeypatch.setattr(token_logprobs, "CPU_TILE", tile)
    monkeypatch.setattr(m, "PPO_TILE", tile)
    shape = Shape(4, 1, 1, 1, 4, 4, 20_000)
    peak, _, _ = ppo_step(shape, NUMBERS[kind], False, rows=8, length=64)
    assert peak == pytest.approx(m.tiled_logprobs(shape, NUMBERS[kind], 8 * 32), rel=0.05)


def test_sampling_holds_the_cache_and_the_copies_of_a_steps_logits():
    rows, prompt, response = 6, 30, 40
    model = build(AutoModelForCausalLM, SMALL).eval()
    with torch.no_grad(), Peak() as peak:
        cache = new_cache(model.config)
        for width in (prompt, *[1] * response):
            ids = torch.ones(rows, width, dtype=torch.long)
            model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    layers = sum(buffer.nbytes for layer in cache.layers for buffer in layer.buffers)
    exact = m.kv_cache(SMALL, rows, prompt + response, 4)
    assert exact <= layers <= m.kv_cache(SMALL, rows, prompt + response + 32, 4)  # BufferedLayer.room
    reading = m.passing_activations(SMALL, m.FP32, rows * prompt)
    assert 0.7 < (exact + reading) / peak.most < 1.3
    logits, temperature = torch.randn(8, 50_000), torch.ones(8)
    with Peak() as peak:
        pick_tokens(logits, temperature, torch.Generator().manual_seed(0))
    assert peak.most + logits.nbytes == pytest.approx(m.whole_logits(Shape(1, 1, 1, 1, 1, 1, 50_000), 8, 3.25), rel=0.1)


# ---- what lasts


@pytest.mark.parametrize(
    ("numbers", "sharding", "bytes_each"),
    [
        (m.FP32, m.Sharding(), (4, 4, 8)),
        (m.AUTOCAST, m.Sharding(), (4, 4, 8)),
        (m.BF16, m.Sharding(), (2, 2, 4)),
        (m.AUTOCAST, m.Sharding("ddp", 4), (4, 8, 8)),  # DDP's buckets are a second copy of the gradients
        (m.BF16, m.Sharding("fsdp", 4), (2 / 4, 2 / 4, 4 / 4)),
        (m.FP32, m.Sharding("fsdp", 4), (1, 1, 2)),
    ],
)
def test_bytes_of_a_trained_parameter(numbers, sharding, bytes_each):
    found = m.states(1e9, 0, numbers, sharding)
    assert (found.weights, found.gradients, found.optimizer) == pytest.approx(tuple(1e9 * b for b in bytes_each))


def test_zero_splits_what_its_paper_says():
    """Rajbhandari et al. 2020: 2 + (2 + 12) / N bytes at stage 2, 16 / N at stage 3; and buffers."""
    n, count = 4, 3e9
    two, three = (m.states(count, 0, m.BF16, m.Sharding(kind, n)) for kind in ("zero2", "zero3"))
    bucket, live = 2 * m.DEEPSPEED_BUCKET, 2 * m.DEEPSPEED_LIVE
    assert two.total == pytest.approx(count * (2 + 14 / n) + bucket)
    assert three.total == pytest.approx(count * 16 / n + bucket + live)


def test_optimizer_states_are_adams():
    for dtype, numbers in ((torch.float32, m.FP32), (torch.bfloat16, m.BF16)):
        weight = torch.nn.Parameter(torch.randn(500, 200).to(dtype))
        weight.grad = torch.ones_like(weight)
        optimizer = torch.optim.AdamW([weight])
        optimizer.step()
        held = sum(t.nbytes for t in optimizer.state[weight].values() if t.ndim)
        expected = m.states(weight.numel(), 0, numbers, m.Sharding())
        assert (held, weight.nbytes, weight.grad.nbytes) == (
            expected.optimizer,
            expected.weights,
            expected.gradients,
        )


def test_adapters_are_float32_on_weights_of_either_kind():
    for numbers in (m.AUTOCAST, m.BF16):
        found = m.states(1e6, 1e9, numbers, m.Sharding(), adapters=True)
        assert found.weights == 4e6 + 1e9 * numbers.weight and found.optimizer == 8e6


# ---- other architectures


@pytest.mark.parametrize("kind", ["gpt2", "qwen3", "olmoe", "lfm2", "mamba", "granitemoehybrid", "gemma3_text", "phi3"])
def test_the_parameters_of_any_architecture_are_counted_and_the_rest_is_called_a_guess(tmp_path, kind):
    model = make_model(kind)
    model.config.save_pretrained(tmp_path / "model")
    shape, source = architectures.of(Model(model="model"), tmp_path)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert source == f"model/config.json; activations and cache of {kind} are a guess, as Llama's"
    assert 0 < shape.scorer_parameters <= shape.parameters + shape.hidden


@pytest.mark.parametrize("config", ['{"model_type": "of_somebody"}', "{}", '{"model_type": "gpt2", "n_embd": "x"}'])
def test_a_configuration_that_transformers_does_not_know_is_a_guess(tmp_path, config):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(config)
    shape, source = architectures.of(Model(model="model"), tmp_path, 0.5e9)
    assert shape == KNOWN["Qwen2.5-0.5B"] and source == "a guess: model counts as Qwen2.5-0.5B"
