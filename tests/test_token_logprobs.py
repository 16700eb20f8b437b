"""Log-probabilities in tiles: held to the definition in float64 and to whole logits, and how much they hold at once."""

from __future__ import annotations

import math

import pytest
import torch
from test_adapters import adapted_trainer
from test_memory import Peak
from test_ppo import CLOSE, EOS, llama, settings, trainer_for
from tiny_models import make_model
from torch import nn
from trl.trainer.utils import add_fused_lm_head

from rdlib.method import labelled_positions, token_logprobs
from rdlib.method import ppo_core as core
from rdlib.method.token_logprobs import logprobs_and_entropy

WORDS, WIDTH = 83, 5  # a last tile that is narrower than the others
REAL_WORDS = 151_936  # Qwen2.5's


@pytest.fixture
def tiles(monkeypatch):
    """Eight columns of the vocabulary at once, of any number of positions."""
    monkeypatch.setattr(token_logprobs, "CPU_TILE", 1)
    monkeypatch.setattr(token_logprobs, "ALIGNED", 8)


def case(dtype=torch.float64, bias: bool = True, seed: int = 0):
    """States [3, 4, WIDTH], an output layer, tokens and a ragged mask."""
    torch.manual_seed(seed)
    head = nn.Linear(WIDTH, WORDS, bias=bias).to(dtype)
    states = torch.randn(3, 4, WIDTH, dtype=dtype, requires_grad=True)
    tokens = torch.randint(WORDS, (3, 4))
    tokens[0, 0], tokens[1, 0] = 0, WORDS - 1
    return states, head, tokens, torch.arange(4) < torch.tensor([4, 1, 3]).unsqueeze(1)


def by_definition(state: list[float], head: nn.Linear, token: int, temperature: float) -> tuple[float, float]:
    """log p of a token and the entropy, in Python's floats."""
    offsets = [0.0] * WORDS if head.bias is None else head.bias.tolist()
    rows = zip(head.weight.tolist(), offsets, strict=True)
    logits = [(sum(w * s for w, s in zip(row, state, strict=True)) + b) / temperature for row, b in rows]
    total = math.fsum(map(math.exp, logits))
    chances = [math.exp(z) / total for z in logits]
    return math.log(chances[token]), -math.fsum(p * math.log(p) for p in chances)


def gradients(states, head, tokens, mask, temperature=1.0, weights=None):
    """Log-probabilities, entropies, and gradients of a weighted sum of the former over `mask`."""
    wanted = [t for t in (states, head.weight, head.bias) if t is not None and t.requires_grad]
    logprobs, entropies = logprobs_and_entropy(states, head, tokens, mask, temperature)
    weights = torch.linspace(-1, 2, mask.numel()).view(mask.shape) if weights is None else weights
    found = torch.autograd.grad((logprobs * weights).masked_fill(~mask, 0).sum(), wanted)
    return logprobs.masked_fill(~mask, 0), entropies.masked_fill(~mask, 0), *found


def whole(monkeypatch):
    """All logits at once, as where they fit into a tile."""
    monkeypatch.setattr(token_logprobs, "CPU_TILE", 10**12)


# ---- numbers


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("bias", [True, False])
def test_tiles_are_the_definition_and_nothing_is_computed_for_padding(tiles, bias, temperature):
    states, head, tokens, mask = case(bias=bias)
    logprobs, entropies = logprobs_and_entropy(states, head, tokens, mask, temperature)
    for row in range(3):
        for place in range(4):
            expected = (0.0, 0.0)
            if mask[row, place]:
                expected = by_definition(states[row, place].tolist(), head, int(tokens[row, place]), temperature)
            found = logprobs[row, place].item(), entropies[row, place].item()
            assert found == pytest.approx(expected, abs=1e-12)
    assert logprobs.dtype == torch.float64 and not entropies.requires_grad


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_gradients_by_finite_differences(tiles, temperature):
    states, head, tokens, mask = case()

    def logprobs(*_):
        return logprobs_and_entropy(states, head, tokens, mask, temperature)[0]

    assert torch.autograd.gradcheck(logprobs, (states, head.weight, head.bias))


@pytest.mark.parametrize("held", [torch.float32, torch.bfloat16])
def test_bfloat16_is_as_near_to_float64_as_with_whole_logits(tiles, monkeypatch, held):
    """Under autocast, and of weights in bfloat16: the sums are in float32, gradients have their tensors' types."""
    states, head, tokens, mask = case(held)
    exact = gradients(states.detach().double().requires_grad_(), head.double(), tokens, mask)
    head = head.to(held)

    def error(found) -> list[float]:
        pairs = [(a.detach().double(), b.detach()) for a, b in zip(found, exact, strict=True)]
        return [float((a - b).abs().max() / b.abs().max()) for a, b in pairs]

    with torch.autocast("cpu", torch.bfloat16, enabled=held == torch.float32):
        in_tiles = gradients(states, head, tokens, mask)
        whole(monkeypatch)
        together = gradients(states, head, tokens, mask)
    assert [t.dtype for t in in_tiles] == [torch.float32] * 2 + [held] * 3 == [t.dtype for t in together]
    for ours, theirs in zip(error(in_tiles), error(together), strict=True):
        assert ours < max(1.5 * theirs, 1e-3)


def test_words_that_cannot_be_said_and_sure_policies_are_defined(tiles):
    states, head, tokens, mask = case(torch.float32)
    with torch.no_grad():
        head.bias[8:24] = -math.inf  # two whole tiles
        head.bias[1] = 300.0
    tokens = torch.ones_like(tokens)
    logprobs, entropies, *found = gradients(states, head, tokens, mask)
    assert torch.isfinite(logprobs).all() and all(torch.isfinite(g).all() for g in found)
    torch.testing.assert_close(entropies, torch.zeros_like(entropies), rtol=0, atol=1e-6)


def test_an_adapter_of_the_output_layer_is_not_passed_by(tiles):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = peft.get_peft_model(llama(), peft.LoraConfig(target_modules=["lm_head"], r=2, init_lora_weights=False))
    batch = core.Batch.collate([[5, 6]], [[4, 5, EOS]])
    found, _ = core.response_logprobs(model, *batch.inputs)
    logits = model(input_ids=batch.sequences).logits[:, 1:-1]
    torch.testing.assert_close(found, token_logprobs.selective_logprobs(logits, batch.responses), **CLOSE)
    found.sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if "lora_B" in name)


# ---- in PPO


def rollouts(trainer):
    batch, scores, _ = trainer._rollout(1)
    return trainer._advantages(trainer._evaluate_rollouts(batch), scores)


@pytest.mark.parametrize("kind", ["plain", "tied", "adapters"])
def test_a_step_in_tiles_is_the_step_of_whole_logits(tiles, monkeypatch, kind):
    config = settings(episodes_per_update=7, minibatch_size=7, max_grad_norm=1e9, temperature=0.8)
    make = adapted_trainer if kind == "adapters" else trainer_for
    found = {}
    for name in ("tiles", "whole"):
        trainer = make(config, **({"tie_word_embeddings": True} if kind == "tied" else {}))
        batch = rollouts(trainer)
        loss, statistics = trainer._loss(batch)
        numbers = [batch.logprobs[batch.mask], batch.ref_logprobs[batch.mask], loss, *statistics.values()]
        found[name] = [*numbers, *torch.autograd.grad(loss, trainer.parameters)]
        whole(monkeypatch)
    for ours, theirs in zip(found["tiles"], found["whole"], strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


# ---- in SFT


@pytest.mark.parametrize("kind", ["llama", "adapters", "cap"])
def test_sft_computes_logits_of_labelled_positions_alone(tiles, monkeypatch, kind):
    """Prompts and padding, whose logits TRL computes on a CPU, are left out; all numbers stay TRL's."""
    peft = pytest.importorskip("peft")
    model = make_model("gemma2" if kind == "cap" else "llama")
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    if kind == "adapters":
        model = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights=False))
    ids = torch.randint(model.config.vocab_size, (3, 9), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, :4], labels[1, 6:] = labelled_positions.IGNORED, labelled_positions.IGNORED

    def step():
        model.zero_grad()
        found = model(input_ids=ids, labels=labels, fused_lm_head=True)
        found.loss.backward()
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        return [found.loss, found.log_probs, found.entropy, found.is_top1, found.label_mask, *grads]

    of_trl = step()
    counted = []
    in_tiles = token_logprobs.in_tiles
    monkeypatch.setattr(
        token_logprobs,
        "in_tiles",
        lambda states, head, tokens, mask: counted.append(int(mask.sum())) or in_tiles(states, head, tokens, mask),
    )
    labelled_positions.score_alone(model)
    for ours, theirs in zip(step(), of_trl, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert counted == ([] if kind == "cap" else [5 + 2 + 5])  # capped logits are left to TRL
    monkeypatch.setattr(token_logprobs, "CPU_TILE", 10**12)
    step()
    assert len(counted) <= 1  # so are logits that fit into a tile, as the micro world's do


# ---- what is held


@pytest.mark.slow
def test_the_peak_of_an_update_is_at_most_a_quarter_of_that_with_whole_logits(monkeypatch):
    """Of a tiny body with a real vocabulary."""

    def sample(policy, prompts, seed):
        return [[2 + seed % 7 + i] * 31 + [EOS] for i in range(len(prompts))]

    config = settings(episodes_per_update=8, minibatch_size=8, total_updates=1, epochs=1)
    peaks = []
    for _ in range(2):
        trainer = trainer_for(config, sample=sample, vocabulary=REAL_WORDS, width=8, tie_word_embeddings=True)
        with Peak() as peak:
            trainer._update(1)
        peaks.append(peak.most)
        whole(monkeypatch)
    assert peaks[0] < peaks[1] / 4, peaks
