"""The losses against plain second implementations in float64, their gradients by finite differences, and the edges:
padding, batches, sharp policies, single tokens, equal rewards, empty classes, and numbers that are none.

The plain implementations read one sequence at a time, without padding, and compute with Python's own numbers.
"""

from __future__ import annotations

import math
import random
from dataclasses import fields
from pathlib import Path
from types import MethodType

import pandas as pd
import pytest
import torch
from conftest import MODELS, copy_study, make_root, stage_in
from datasets import Dataset
from hypothesis import example, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from test_adapters import adapted_trainer
from test_ppo import CLOSE, EOS, llama, mask_of, trainer_for
from test_ppo import settings as ppo_settings
from tiny_models import make_model
from torch import Tensor, nn
from trl.trainer.utils import add_fused_lm_head

from rdlib.artifacts import hash_files
from rdlib.engines import models
from rdlib.errors import UserError
from rdlib.method import labelled_positions, reward_model, sft, token_logprobs, training
from rdlib.method import ppo_core as core
from rdlib.method.ppo import PPOTrainer
from rdlib.method.reward_model import STUDENT_NEGATIVE, STUDENT_POSITIVE, TEACHER_POSITIVE
from rdlib.method.token_logprobs import logprobs_and_entropy

EXACT = {"rtol": 1e-9, "atol": 1e-11}  # float64 in another order of summation
FLOAT32 = {"rtol": 1e-4, "atol": 1e-5}  # the same of float32


# ---- the plain implementations


def plain_logprob(logits: list[float], token: int) -> float:
    """log softmax(logits)[token]."""
    top = max(logits)
    return logits[token] - top - math.log(math.fsum(math.exp(x - top) for x in logits))


def plain_logprobs(model: nn.Module, prompt: list[int], response: list[int], temperature: float = 1.0) -> list[float]:
    """log p(y_t | x, y_<t) of each token of a response."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0].div(temperature).tolist()
    return [plain_logprob(logits[len(prompt) + t - 1], token) for t, token in enumerate(response)]


def plain_states(model: nn.Module, ids: list[int]) -> list[float]:
    """w . h_t at every token: the head of a scorer on its final embeddings."""
    with torch.no_grad():
        states = getattr(model, model.base_model_prefix)(input_ids=torch.tensor([ids])).last_hidden_state[0].tolist()
    weights = model.score.weight[0].tolist()
    return [math.fsum(w * h for w, h in zip(weights, state, strict=True)) for state in states]


def plain_softplus(x: float) -> float:
    """-log sigmoid(-x)."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def plain_reward_model_loss(scores: list[float], kinds: list[int], queries: list[int], lam: float) -> float:
    """Eq. 4-6: lam L_cls + (1 - lam) L_pref, each preference a mean over the pairs of a query."""
    negative = [kind == STUDENT_NEGATIVE for kind in kinds]
    classification = [plain_softplus(r if bad else -r) for r, bad in zip(scores, negative, strict=True)]
    preference = 0.0
    for better, worse in ((STUDENT_POSITIVE, STUDENT_NEGATIVE), (TEACHER_POSITIVE, STUDENT_POSITIVE)):
        terms = [
            plain_softplus(scores[j] - scores[i])
            for i in range(len(scores))
            for j in range(len(scores))
            if queries[i] == queries[j] and (kinds[i], kinds[j]) == (better, worse)
        ]
        preference += math.fsum(terms) / len(terms) if terms else 0.0
    return lam * math.fsum(classification) / len(classification) + (1 - lam) * preference


def plain_targets(
    scores: list[float],
    logprobs: list[list[float]],
    reference: list[list[float]],
    values: list[list[float]],
    kl_coef: float,
    gamma: float,
    lam: float,
) -> tuple[list[list[float]], list[list[float]]]:
    """Whitened advantages and returns of each episode: A_t = sum_k (gamma lam)^k delta_{t+k}."""
    advantages, returns = [], []
    for score, log_p, log_q, value in zip(scores, logprobs, reference, values, strict=True):
        last = len(log_p) - 1
        rewards = [-kl_coef * (p - q) + (score if t == last else 0) for t, (p, q) in enumerate(zip(log_p, log_q))]  # noqa: B905
        following = [*value[1:], 0.0]
        deltas = [r + gamma * after - v for r, after, v in zip(rewards, following, value, strict=True)]
        raw = [math.fsum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, last + 1)) for t in range(last + 1)]
        advantages.append(raw)
        returns.append([a + v for a, v in zip(raw, value, strict=True)])
    flat = [a for row in advantages for a in row]
    mean = math.fsum(flat) / len(flat)
    variance = math.fsum((a - mean) ** 2 for a in flat) / max(len(flat) - 1, 1)
    whitened = [[(a - mean) / math.sqrt(variance + 1e-8) for a in row] for row in advantages]
    return whitened, returns


def plain_ppo_loss(new: dict, old: dict, advantages, returns, clip: float, value_clip: float, vf_coef: float) -> float:
    """Eq. 8 over all tokens of all episodes; `new` and `old` hold logprobs and values, a list an episode."""
    policy, value = [], []
    for e, row in enumerate(advantages):
        for t, advantage in enumerate(row):
            ratio = math.exp(new["logprobs"][e][t] - old["logprobs"][e][t])
            policy.append(-min(advantage * ratio, advantage * min(max(ratio, 1 - clip), 1 + clip)))
            v, v_old, target = new["values"][e][t], old["values"][e][t], returns[e][t]
            near = min(max(v, v_old - value_clip), v_old + value_clip)
            value.append(max((v - target) ** 2, (near - target) ** 2) / 2)
    return math.fsum(policy) / len(policy) + vf_coef * math.fsum(value) / len(value)


def in_float64(model: nn.Module) -> nn.Module:
    """A model that computes in float64 from end to end; transformers' norm layers would go through float32."""

    def norm(self, states: Tensor) -> Tensor:
        return self.weight * states * torch.rsqrt(states.square().mean(-1, keepdim=True) + self.variance_epsilon)

    for module in model.double().modules():
        if hasattr(module, "variance_epsilon"):
            module.forward = MethodType(norm, module)
    return model


def assert_gradient(loss: Tensor, plain, parameters: list[Tensor], step: float = 1e-6, rtol: float = 1e-5) -> None:
    """Hold the gradient of `loss` to central differences of `plain()`, in random directions through `parameters`."""
    gradients = torch.autograd.grad(loss, parameters)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
        slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, d in zip(parameters, direction, strict=True):
                    p.add_(d, alpha=sign * step)
                ends.append(plain())
                for p, d in zip(parameters, direction, strict=True):
                    p.sub_(d, alpha=sign * step)
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope.item(), rel=rtol, abs=1e-6)


# ---- SFT (Eq. 2)

SENTENCES = [
    ([5, 6, 7], [8, 9, 10, 2]),
    ([5, 6, 7, 8, 9, 10, 11], [2]),  # nothing but the end
    ([12], [13, 14, 15, 16, 17, 18, 19, 2]),
    ([7, 7], [9, 2]),
]


@pytest.fixture(scope="module")
def sft_trainer(tmp_path_factory):
    """SFT's trainer on SENTENCES, its model in float64."""
    folder = tmp_path_factory.mktemp("numerics")
    stage = stage_in(make_root(folder), "03_sft_warmup", "ours_wo_r")
    rows = [sft.mask_prompt(prompt, response, 512) for prompt, response in SENTENCES]
    data = Dataset.from_list(rows)
    model, tokenizer = in_float64(models.load_causal_lm(MODELS / "small")), models.load_tokenizer(MODELS / "small")
    arguments = sft.configuration(stage, folder)
    return sft.AgreementSFTTrainer(
        model.eval(), args=arguments, train_dataset=data, eval_dataset=data, processing_class=tokenizer
    )


TOKENS = sum(len(response) for _, response in SENTENCES)


def sft_loss(trainer, rows: list[int]) -> Tensor:
    batch = trainer.data_collator([trainer.train_dataset[i] for i in rows])
    return trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(TOKENS))


def test_the_sft_loss_is_the_plain_one_so_is_its_gradient_and_batches_do_not_change_it(sft_trainer):
    """transformers computes this loss in float32 even for a model in float64."""

    def plain() -> float:
        return -math.fsum(v for pair in SENTENCES for v in plain_logprobs(sft_trainer.model, *pair)) / TOKENS

    loss = sft_loss(sft_trainer, [0, 1, 2, 3])
    assert loss.item() == pytest.approx(plain(), rel=1e-6)
    assert_gradient(loss, plain, list(sft_trainer.model.parameters()), rtol=1e-4)
    for parts in ([[3, 1, 0, 2]], [[2], [0], [3], [1]], [[1, 2], [3, 0]]):
        torch.testing.assert_close(sum(sft_loss(sft_trainer, rows) for rows in parts), loss, rtol=1e-6, atol=0)


# ---- the reward model (Eq. 4-6)

QUERIES = [
    {"sequences": [[5, 6, 7, 8], [5, 6, 9], [5, 6, 10, 11, 12, 2]], "kinds": [0, 1, 2]},
    {"sequences": [[7, 2], [7, 13, 14, 2], [7, 15, 2], [7, 16, 17, 18, 2]], "kinds": [0, 0, 1, 2]},
    {"sequences": [[9, 9, 9], [9, 2], [9, 2], [9, 2]], "kinds": [1, 2, 0, 0]},  # one text of two kinds
]


@pytest.fixture(scope="module")
def scorer():
    """A scorer in float64 whose head is not zero."""
    model = in_float64(models.load_scorer(MODELS / "small", 0))
    torch.manual_seed(0)
    nn.init.normal_(model.score.weight)
    return model


@pytest.fixture(scope="module")
def rm_trainer(scorer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rm")
    stage = stage_in(make_root(folder), "05_reward_model")
    return reward_model.RewardModelTrainer(
        scorer,
        args=reward_model.configuration(stage, folder),
        eval_dataset=[{}],
        settings=stage.profile.reward_model.model_copy(update={"lam": 0.3, "form": "convex"}),
        validation=pd.DataFrame(),
    )


def rm_loss(trainer, queries: list[dict], counts: Tensor | None = None) -> Tensor:
    return trainer.compute_loss(trainer.model, reward_model.collate(queries, 0), num_items_in_batch=counts)


def test_the_reward_models_loss_is_the_plain_one_so_is_its_gradient_and_batches_do_not_change_it(rm_trainer):
    """Parts are given what the whole batch counts; a row that only fills up changes nothing."""
    kinds = [kind for query in QUERIES for kind in query["kinds"]]
    numbers = [i for i, query in enumerate(QUERIES) for _ in query["kinds"]]

    def plain() -> float:
        scores = [plain_states(rm_trainer.model, ids)[-1] for query in QUERIES for ids in query["sequences"]]
        return plain_reward_model_loss(scores, kinds, numbers, 0.3)

    loss = rm_loss(rm_trainer, QUERIES)
    assert loss.item() == pytest.approx(plain(), rel=1e-11)
    assert_gradient(loss, plain, list(rm_trainer.model.parameters()))
    for parts in ([[2, 0, 1]], [[0], [1], [2]], [[1], [2, 0]]):
        filled = [[*(QUERIES[i] for i in rows), reward_model.RewardModelTrainer.blank] for rows in parts]
        batches = [reward_model.collate(part, 0) for part in filled]
        counts = sum(reward_model.count_terms(batch["kinds"], batch["queries"]) for batch in batches)
        torch.testing.assert_close(sum(rm_loss(rm_trainer, part, counts) for part in filled), loss, **EXACT)


@pytest.mark.parametrize("kinds", [[0, 2, 2], [1, 1, 1], [2, 2, 2], [0, 0, 0]])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_a_batch_without_a_class_and_scores_of_any_size_have_a_loss_and_a_gradient(kinds, scale):
    scores = (torch.tensor([1.0, -1.0, 0.5]) * scale).requires_grad_()
    numbers = torch.zeros(3, dtype=torch.long)
    loss = reward_model.reward_model_loss(scores, torch.tensor(kinds), numbers, 0.5, "convex")
    loss.backward()
    assert loss.item() == pytest.approx(plain_reward_model_loss(scores.tolist(), kinds, [0, 0, 0], 0.5), rel=1e-6)
    assert torch.isfinite(scores.grad).all()


# ---- PPO (Eq. 8)


def double(batch: core.Batch) -> core.Batch:
    """A batch with its numbers in float64."""
    columns = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return core.Batch(**{n: t.double() if t is not None and t.is_floating_point() else t for n, t in columns.items()})


def ppo_case(**changes) -> tuple[PPOTrainer, core.Batch, Tensor]:
    """A trainer, its evaluated episodes of several lengths, and their scores."""
    config = ppo_settings(temperature=0.8, kl_coef=0.2, gamma=0.9, gae_lambda=0.7, **changes)
    rng = random.Random(0)
    trainer = trainer_for(
        config, sample=lambda _, prompts, seed: [rng.choices(range(2, 24), k=1 + i % 5) for i, _ in enumerate(prompts)]
    )
    move(trainer.policy, 0.02)  # so that log p and log p_ref differ
    batch, scores, _ = trainer._rollout(1)
    return trainer, trainer._evaluate_rollouts(batch), scores


@torch.no_grad()
def move(model: nn.Module, size: float) -> None:
    """Take a random step with all weights."""
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        weight.add_(size * torch.randn(weight.shape, generator=generator, dtype=weight.dtype))


def episodes(batch: core.Batch) -> list[tuple[list[int], list[int]]]:
    """(prompt, response) of each row."""
    rows = zip(batch.sequences.tolist(), batch.query_lengths.tolist(), batch.mask.sum(1).tolist(), strict=True)
    return [(ids[:start], ids[start : start + length]) for ids, start, length in rows]


def rows_of(tensor: Tensor, mask: Tensor) -> list[list[float]]:
    return [row[:length].tolist() for row, length in zip(tensor, mask.sum(1).tolist(), strict=True)]


def plain_numbers(trainer: PPOTrainer, batch: core.Batch) -> dict[str, list[list[float]]]:
    """Log-probabilities and values of every episode by plain forward passes."""
    pairs = episodes(batch)
    values = [plain_states(trainer.value_model, p + r)[len(p) - 1 : len(p) + len(r) - 1] for p, r in pairs]
    return {"logprobs": [plain_logprobs(trainer.policy, *pair, 0.8) for pair in pairs], "values": values}


def test_the_ppo_loss_is_the_plain_one_and_so_is_its_gradient():
    trainer, batch, scores = ppo_case(episodes_per_update=12)
    assert len(set(batch.mask.sum(1).tolist())) > 2
    in_float64(trainer.both)
    batch, scores = double(batch), scores.double()
    old = {"logprobs": rows_of(batch.logprobs, batch.mask), "values": rows_of(batch.values, batch.mask)}
    reference = rows_of(batch.ref_logprobs, batch.mask)
    advantages, returns = plain_targets(scores.tolist(), old["logprobs"], reference, old["values"], 0.2, 0.9, 0.7)
    batch = trainer._advantages(batch, scores)
    for ours, plain in ((batch.advantages, advantages), (batch.returns, returns)):
        flat = torch.tensor([v for row in plain for v in row], dtype=torch.float64)
        torch.testing.assert_close(ours[batch.mask], flat, rtol=1e-7, atol=1e-9)
    move(trainer.both, 0.05)  # as after some minibatches: ratios on both sides of the clip range

    def plain() -> float:
        return plain_ppo_loss(plain_numbers(trainer, batch), old, advantages, returns, 0.2, 0.2, 0.1)

    loss, statistics = trainer._loss(batch)
    assert 0.05 < statistics["clip_fraction"] < 0.95 and 0.05 < statistics["value_clip_fraction"] < 0.95
    assert loss.item() == pytest.approx(plain(), rel=1e-8)
    assert_gradient(loss, plain, trainer.parameters)


@pytest.mark.parametrize("forward_size", [1, 3])
def test_batch_size_and_order_do_not_change_what_ppo_evaluates(forward_size):
    trainer, batch, _ = ppo_case()
    plain = plain_numbers(trainer, batch)
    order = torch.randperm(len(batch.mask), generator=torch.Generator().manual_seed(0))
    trainer.forward_size = forward_size
    shuffled = trainer._evaluate_rollouts(batch.take(order))
    for name, rows in plain.items():
        for place, row in enumerate(order.tolist()):
            found = getattr(shuffled, name)[place, : len(rows[row])]
            torch.testing.assert_close(found, torch.tensor(rows[row]), **FLOAT32)


numbers = st.floats(-5, 5, width=16)
an_episode = st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=6)


@settings(max_examples=40)
@given(st.lists(st.tuples(an_episode, numbers), min_size=1, max_size=5), st.floats(0, 1), st.floats(0, 1))
@example([([(-1.0, -1.0, 0.0)], -5.0)] * 3, 1.0, 0.95)  # single tokens, all rewards equal
@example([([(0.0, 0.0, 0.0)], 1.0)], 1.0, 1.0)  # one token in all
def test_advantages_and_returns_are_the_plain_ones(drawn, gamma, lam):
    lengths = [len(tokens) for tokens, _ in drawn]
    mask = mask_of(lengths, max(lengths))
    columns = torch.full((3, *mask.shape), math.nan, dtype=torch.float64)  # NaN: what is padding must not matter
    for row, (tokens, _) in enumerate(drawn):
        columns[:, row, : len(tokens)] = torch.tensor(tokens, dtype=torch.float64).T
    logprobs, reference, values = columns
    scores = torch.tensor([score for _, score in drawn], dtype=torch.float64)
    rewards = core.kl_penalised_rewards(scores, logprobs, reference, mask, 0.2)
    advantages, returns = core.gae(rewards, values, mask, gamma, lam)
    plain = plain_targets(scores.tolist(), *(rows_of(c, mask) for c in columns), 0.2, gamma, lam)
    for ours, theirs in zip((core.masked_whiten(advantages, mask), returns), plain, strict=True):
        flat = torch.tensor([v for row in theirs for v in row], dtype=torch.float64)
        torch.testing.assert_close(ours[mask], flat, rtol=1e-6, atol=1e-6)
        assert (ours[~mask] == 0).all()


@pytest.mark.parametrize("sharpness", [1.0, 1e4])
@pytest.mark.parametrize("responses", ["one token", "several"])
def test_sharp_policies_single_tokens_and_equal_rewards_train_to_finite_weights(tmp_path, sharpness, responses):
    """Probabilities of 0 and 1, log ratios of thousands, advantages without any variance."""
    lengths = {"one token": [1], "several": [1, 2, 4]}[responses]
    trainer = trainer_for(
        ppo_settings(total_updates=2, kl_coef=0.0, whiten_rewards=True),
        sample=lambda policy, prompts, seed: [
            [7] * (lengths[i % len(lengths)] - 1) + [EOS] for i in range(len(prompts))
        ],
        score=lambda indices, texts, sequences: (torch.full((len(texts),), -5.0), {}),
    )
    with torch.no_grad():
        trainer.policy.get_output_embeddings().weight.mul_(sharpness)
    trainer.train(tmp_path)
    assert all(torch.isfinite(p).all() for p in trainer.parameters)
    assert trainer.history[-1]["reward"] == -5


# ---- log-probabilities in tiles of the vocabulary; how much they hold at once: tests/test_memory.py

WORDS, WIDTH = 83, 5  # a last tile that is narrower than the others


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


def by_definition(state: Tensor, head: nn.Linear, token: int, temperature: float) -> tuple[float, float]:
    """log p of a token and the entropy, in Python's floats."""
    logits = head(state).div(temperature).tolist()
    logprobs = [plain_logprob(logits, word) for word in range(WORDS)]
    return logprobs[token], -math.fsum(math.exp(p) * p for p in logprobs)


def gradients(states, head, tokens, mask):
    """Log-probabilities, entropies, and gradients of a weighted sum of the former over `mask`."""
    wanted = [t for t in (states, head.weight, head.bias) if t is not None and t.requires_grad]
    logprobs, entropies = logprobs_and_entropy(states, head, tokens, mask, 1.0)
    weights = torch.linspace(-1, 2, mask.numel()).view(mask.shape)
    found = torch.autograd.grad((logprobs * weights).masked_fill(~mask, 0).sum(), wanted)
    return logprobs.masked_fill(~mask, 0), entropies.masked_fill(~mask, 0), *found


def whole(monkeypatch):
    """All logits at once, as where they fit into a tile."""
    monkeypatch.setattr(token_logprobs, "CPU_TILE", 10**12)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("bias", [True, False])
def test_tiles_are_the_definition_and_nothing_is_computed_for_padding(tiles, bias, temperature):
    states, head, tokens, mask = case(bias=bias)
    logprobs, entropies = logprobs_and_entropy(states, head, tokens, mask, temperature)
    for row in range(3):
        for place in range(4):
            expected = (0.0, 0.0)
            if mask[row, place]:
                expected = by_definition(states[row, place], head, int(tokens[row, place]), temperature)
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
    torch.manual_seed(0)
    model = get_peft_model(llama(), LoraConfig(target_modules=["lm_head"], r=2, init_lora_weights=False))
    batch = core.Batch.collate([[5, 6]], [[4, 5, EOS]])
    found, _ = core.response_logprobs(model, *batch.inputs)
    logits = model(input_ids=batch.sequences).logits[:, 1:-1]
    torch.testing.assert_close(found, token_logprobs.selective_logprobs(logits, batch.responses), **CLOSE)
    found.sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if "lora_B" in name)


@pytest.mark.parametrize("kind", ["plain", "tied", "adapters"])
def test_a_step_in_tiles_is_the_step_of_whole_logits(tiles, monkeypatch, kind):
    config = ppo_settings(episodes_per_update=7, minibatch_size=7, max_grad_norm=1e9, temperature=0.8)
    make = adapted_trainer if kind == "adapters" else trainer_for
    found = {}
    for name in ("tiles", "whole"):
        trainer = make(config, **({"tie_word_embeddings": True} if kind == "tied" else {}))
        batch, scores, _ = trainer._rollout(1)
        batch = trainer._advantages(trainer._evaluate_rollouts(batch), scores)
        loss, statistics = trainer._loss(batch)
        numbers = [batch.logprobs[batch.mask], batch.ref_logprobs[batch.mask], loss, *statistics.values()]
        found[name] = [*numbers, *torch.autograd.grad(loss, trainer.parameters)]
        whole(monkeypatch)
    for ours, theirs in zip(found["tiles"], found["whole"], strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize("kind", ["llama", "adapters", "cap"])
def test_sft_computes_logits_of_labelled_positions_alone(tiles, monkeypatch, kind):
    """Prompts and padding, whose logits TRL computes on a CPU, are left out; all numbers stay TRL's."""
    model = make_model("gemma2" if kind == "cap" else "llama")
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    if kind == "adapters":
        model = get_peft_model(model, LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights=False))
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
    whole(monkeypatch)
    step()
    assert len(counted) <= 1  # so are logits that fit into a tile, as the micro world's do


# ---- a loss or gradient that is NaN or infinite


def broken(function, step: int, how: str):
    """`compute_loss`, whose call of this number gives a NaN, or a loss whose gradient is infinite."""
    calls = 0

    def compute_loss(self, model, inputs, *args, **kwargs):
        nonlocal calls
        calls += model.training  # the evaluation asks for losses too
        loss = function(self, model, inputs, *args, **kwargs)
        if calls != step or not model.training:
            return loss
        if how == "loss":
            return loss * math.nan
        weight = next(p for p in model.parameters() if p.requires_grad).sum()
        return loss + (weight - weight.detach()).sqrt()  # 0, of infinite slope

    return compute_loss


@pytest.mark.slow
@pytest.mark.parametrize(("name", "how"), [("03_sft_warmup", "gradient"), ("05_reward_model", "loss")])
def test_a_training_stops_at_what_is_not_finite_and_goes_on_from_its_last_checkpoint(
    study, tmp_path, monkeypatch, name, how
):
    """As PPO does: tests/test_ppo.py."""
    method, kind = {
        "03_sft_warmup": ("ours_wo_r", sft.AgreementSFTTrainer),
        "05_reward_model": ("ours", reward_model.RewardModelTrainer),
    }[name]
    stage = stage_in(copy_study(study, tmp_path, name), name, method)
    last = stage_in(study, name, method).table("history")["step"].max()
    with monkeypatch.context() as patch:
        patch.setattr(kind, "compute_loss", broken(kind.compute_loss, last, how))
        with pytest.raises(UserError, match=f"step {last}: the {how} is NaN or infinite") as caught:
            stage.run()
    partial = stage.folder.with_name(stage.folder.name + ".partial")
    (saved,) = partial.rglob("failed_*.safetensors")
    assert str(saved) in str(caught.value)
    assert load_file(saved)["input_ids"].ndim == 2
    checkpoint = training.last_whole_checkpoint(partial / training.CHECKPOINTS)
    weights = load_file(Path(checkpoint) / "model.safetensors")
    assert all(torch.isfinite(w).all() for w in weights.values())
    stage.run()
    assert hash_files(stage.folder) == hash_files(stage_in(study, name, method).folder)
