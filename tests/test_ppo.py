"""PPO: the core functions by hand-computed cases and TRL's numbers; the trainer by TRL's weights, exact resume, and
a task that it must learn; samplers with probabilities of their own; what ends a run."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import refused
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from rdlib.errors import UserError
from rdlib.method import ppo, ppo_schedule
from rdlib.method import ppo_core as core
from rdlib.method.rollout_guard import RolloutGuard, shares
from rdlib.method.token_logprobs import entropy_from_logits, selective_logprobs
from rdlib.settings import Ppo, Stopping

torch.set_num_threads(1)
EOS, PAD = 1, 0
# float32 sums in another order: measured differences are below 1e-6
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def settings(**changes) -> Ppo:
    base = {"total_updates": 4, "episodes_per_update": 8, "epochs": 2, "minibatch_size": 4, "checkpoint_every": 1}
    base |= {"learning_rate": 3e-3, "value_learning_rate": 3e-3, "warmup_updates": 0, "max_grad_norm": 1.0}
    base |= {"kl_coef": 0.1, "kl_coef_without_warmup": 0.1, "clip_range": 0.2, "value_clip_range": 0.2, "vf_coef": 0.1}
    return Ppo(**base | {"gamma": 1.0, "gae_lambda": 0.95, "temperature": 1.0, "whiten_rewards": False} | changes)


def llama(kind=LlamaForCausalLM, seed=0, vocabulary=24, width=16, **changes):
    torch.manual_seed(seed)
    config = {"vocab_size": vocabulary, "hidden_size": width, "intermediate_size": 24, "num_hidden_layers": 2}
    config |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "num_labels": 1}
    config |= {"initializer_range": 0.4, "pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": None}
    return kind(LlamaConfig(**config | changes))


def left_padded(prompts):
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(p)) + p for p in prompts])
    lengths = torch.tensor([[len(p)] for p in prompts])
    return ids, (torch.arange(width) >= width - lengths).long()


class Words:
    """The part of a tokenizer that the trainer uses."""

    def batch_decode(self, responses, skip_special_tokens):
        return [" ".join(map(str, response)) for response in responses]


# ---- core functions


def mask_of(lengths: list[int], width: int) -> torch.Tensor:
    return torch.arange(width) < torch.tensor(lengths).unsqueeze(1)


def test_masked_mean_and_whitening():
    values = torch.tensor([[1.0, 2.0, math.nan], [3.0, math.inf, math.nan]])
    mask = mask_of([2, 1], 3)
    assert core.masked_mean(values, mask) == 2.0
    assert core.masked_var(values, mask) == 1.0
    torch.testing.assert_close(core.masked_whiten(values, mask), torch.tensor([[-1.0, 0, 0], [1, 0, 0]]))
    kept = core.masked_whiten(values, mask, shift_mean=False)
    torch.testing.assert_close(kept, torch.tensor([[1.0, 2, 0], [3, 0, 0]]))


def test_response_mask_ends_with_the_first_eos():
    responses = torch.tensor([[5, 6, EOS, 7, EOS], [EOS, 5, 5, 5, 5], [5, 6, 7, 8, 9], [5, PAD, PAD, PAD, PAD]])
    assert core.response_mask(responses, EOS, PAD).sum(1).tolist() == [3, 1, 5, 1]
    shared = torch.tensor([[5, EOS, EOS], [5, 6, 7]])
    assert core.response_mask(shared, EOS, EOS).sum(1).tolist() == [2, 3]


def test_score_lands_on_the_last_real_token_and_kl_on_every_one():
    mask = mask_of([3, 1], 3)
    logprobs, reference = torch.full((2, 3), -1.0), torch.full((2, 3), -1.5)
    rewards = core.kl_penalised_rewards(torch.tensor([2.0, -5.0]), logprobs, reference, mask, kl_coef=0.2)
    torch.testing.assert_close(rewards, torch.tensor([[-0.1, -0.1, 1.9], [-5.1, 0, 0]]))


def test_k3_is_never_negative_and_agrees_with_k1_in_the_mean():
    torch.manual_seed(0)
    p, q = torch.randn(7).log_softmax(0), torch.randn(7).log_softmax(0)
    tokens = torch.multinomial(p.exp(), 40_000, replacement=True)
    mask = torch.ones(1, 40_000, dtype=torch.bool)
    k1, k3 = (core.token_kl(p[tokens][None], q[tokens][None], mask, name) for name in ("k1", "k3"))
    exact = (p.exp() * (p - q)).sum()
    assert (k3 >= 0).all() and k3.var() < k1.var()
    torch.testing.assert_close(k1.mean(), exact, rtol=0.03, atol=0.02)
    torch.testing.assert_close(k3.mean(), exact, rtol=0.03, atol=0.02)
    far = core.token_kl(torch.zeros(1, 1), torch.full((1, 1), 400.0), torch.ones(1, 1, dtype=torch.bool), "k3")
    assert torch.isfinite(far).all()


def test_gae_by_hand():
    rewards, values = torch.tensor([[0.0, 0.0, 1.0, 9.0]]), torch.tensor([[0.5, 0.6, 0.8, 9.0]])
    advantages, returns = core.gae(rewards, values, mask_of([3], 4), gamma=0.5, lam=0.5)
    # deltas: 0.5*0.6-0.5, 0.5*0.8-0.6, 1-0.8
    torch.testing.assert_close(advantages, torch.tensor([[-0.2375, -0.15, 0.2, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[0.2625, 0.45, 1.0, 0.0]]))
    advantages, returns = core.gae(rewards, values, mask_of([3], 4), gamma=1.0, lam=1.0)
    torch.testing.assert_close(advantages, torch.tensor([[0.5, 0.4, 0.2, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[1.0, 1.0, 1.0, 0.0]]))


def test_clipped_tokens_have_no_gradient():
    logprobs = torch.tensor([[0.5, -0.5, 0.5, -0.5]], requires_grad=True)
    advantages = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    loss, share = core.policy_loss(logprobs, torch.zeros(1, 4), advantages, torch.ones(1, 4, dtype=torch.bool), 0.2)
    loss.backward()
    assert share == 0.5
    assert (logprobs.grad != 0).tolist() == [[False, True, True, False]]


def test_value_loss_is_clipped_around_the_old_values():
    values, old, returns = torch.tensor([[1.0, 0.1]]), torch.zeros(1, 2), torch.ones(1, 2)
    loss, share = core.value_loss(values, old, returns, torch.ones(1, 2, dtype=torch.bool), 0.2)
    torch.testing.assert_close(loss, torch.tensor(0.5 * (0.8**2 + 0.9**2) / 2))
    assert share == 0.5


def test_entropy_and_explained_variance():
    torch.testing.assert_close(entropy_from_logits(torch.zeros(1, 1, 8)).item(), math.log(8))
    assert entropy_from_logits(torch.tensor([[[200.0, 0.0, -200.0]]])).item() == 0
    returns, mask = torch.tensor([[1.0, 2.0, 3.0, 99.0]]), mask_of([3], 4)
    assert core.explained_variance(returns, returns, mask) == 1
    assert core.explained_variance(torch.zeros(1, 4), returns, mask) == 0
    assert core.explained_variance(torch.zeros(1, 4), torch.ones(1, 4), mask) == 0


# ---- TRL's numbers


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(Path(__file__).parent / "golden" / "ppo_golden.npz", allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def part(golden, prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in golden.items() if name.startswith(prefix)}


@pytest.mark.parametrize("case", ["full", "ragged"])
def test_rollout_phase_agrees_with_trl(golden, case):
    trl, numbers = part(golden, "settings/"), part(golden, f"{case}/")
    # TRL's score and last value stand one position after the last token where there is room: a longer mask
    mask, mask_p1 = numbers["mask"], numbers["mask_p1"]
    rewards = core.kl_penalised_rewards(
        numbers["scores"], numbers["logprobs"], numbers["ref_logprobs"], mask_p1, float(trl["kl_coef"])
    )
    torch.testing.assert_close(rewards, numbers["rewards"], **CLOSE)
    advantages, returns = core.gae(rewards, numbers["values"], mask_p1, float(trl["gamma"]), float(trl["lam"]))
    torch.testing.assert_close(returns, numbers["returns"], **CLOSE)
    torch.testing.assert_close(core.masked_whiten(advantages, mask), numbers["whitened"], **CLOSE)
    if case == "ragged":
        assert torch.equal(core.response_mask(numbers["responses"], EOS, PAD), mask)


@pytest.mark.parametrize("case", ["full", "ragged"])
def test_losses_agree_with_trl(golden, case):
    trl, numbers = part(golden, "settings/"), part(golden, f"{case}/")
    for step in range(4):
        inside = part(numbers, f"step{step}/")
        rows = inside["micro_batch_inds"]
        mask, mask_p1 = numbers["mask"][rows], numbers["mask_p1"][rows]
        old, old_values = numbers["logprobs"][rows], numbers["values"][rows]
        logprobs = selective_logprobs(inside["logits"], numbers["responses"][rows])
        torch.testing.assert_close(logprobs[mask], inside["new_logprobs"][mask], **CLOSE)
        loss, clipped = core.policy_loss(logprobs, old, numbers["whitened"][rows], mask, float(trl["cliprange"]))
        torch.testing.assert_close(loss, inside["pg_loss"], **CLOSE)
        torch.testing.assert_close(clipped, numbers["statistics/pg_clipfrac"][step], **CLOSE)
        loss, clipped = core.value_loss(
            inside["vpred"], old_values, numbers["returns"][rows], mask_p1, float(trl["cliprange_value"])
        )
        torch.testing.assert_close(loss, inside["vf_loss"], **CLOSE)
        torch.testing.assert_close(clipped, numbers["statistics/vf_clipfrac"][step], **CLOSE)
        # TRL averages these two over the padding as well
        entropy = entropy_from_logits(inside["logits"]).mean()
        torch.testing.assert_close(entropy, numbers["statistics/entropy"][step], **CLOSE)
        share = mask.float().mean()
        kl = core.approximate_kl(logprobs, old, mask) * share
        torch.testing.assert_close(kl, numbers["statistics/approxkl"][step], **CLOSE)


def golden_trainer(golden, monkeypatch, case):
    """Our trainer on TRL's networks, rollouts, scores and minibatches."""
    numbers, trl = part(golden, f"{case}/"), {k: v.item() for k, v in part(golden, "settings/").items()}
    networks = {"policy": llama(), "reference": llama(), "value_model": llama(LlamaForSequenceClassification)}
    for name, model in networks.items():
        model.load_state_dict(part(golden, f"before/{name}/"))
    prompts = [[t for t in row if t != PAD] for row in numbers["queries"].tolist()]
    responses = [row[:n] for row, n in zip(numbers["responses"].tolist(), numbers["mask"].sum(1).tolist(), strict=True)]
    parts = iter([numbers[f"step{step}/micro_batch_inds"] for step in range(4)])
    monkeypatch.setattr(ppo, "query_order", lambda number, *_: list(range(number)))
    monkeypatch.setattr(ppo, "minibatches", lambda *_: [next(parts), next(parts)])
    names = {"clip_range": "cliprange", "value_clip_range": "cliprange_value", "gae_lambda": "lam"}
    same = {ours: trl[theirs] for ours, theirs in names.items()} | {"value_learning_rate": trl["learning_rate"]}
    same |= {name: trl[name] for name in ("learning_rate", "kl_coef", "vf_coef", "gamma", "temperature")}
    config = settings(total_updates=1, max_grad_norm=1e9, **same)  # TRL's PPOTrainer does not clip gradients
    given = {"sample": lambda *_: responses, "score": lambda *_: (numbers["scores"], {})}
    return ppo.PPOTrainer(*networks.values(), Words(), config, prompts, **given), numbers


def test_trainer_reaches_trls_weights(golden, monkeypatch, tmp_path):
    trainer, numbers = golden_trainer(golden, monkeypatch, "full")
    trainer.train(tmp_path)
    for name, model in (("policy", trainer.policy), ("value_model", trainer.value_model)):
        before, after = part(golden, f"before/{name}/"), part(numbers, f"after/{name}/")
        for key, value in model.state_dict().items():
            # Adam's first steps have the size of the learning rate whatever the gradient's, so rounding shows
            # where there is almost no gradient: differences up to 2e-6 (1.4e-5 with other padding), changes
            # up to 1e-2
            torch.testing.assert_close(value, after[key], rtol=0, atol=5e-5, msg=lambda m, k=key: f"{k}: {m}")
        assert max((after[k] - before[k]).abs().max() for k in after) > 5e-3
    row = trainer.history[-1]
    statistics = {"policy_loss": "pg_loss", "value_loss": "vf_loss", "entropy": "entropy", "approx_kl": "approxkl"}
    statistics |= {"clip_fraction": "pg_clipfrac", "value_clip_fraction": "vf_clipfrac"}
    for ours, theirs in statistics.items():
        assert row[ours] == pytest.approx(numbers[f"statistics/{theirs}"].mean().item(), abs=1e-5), ours
    assert row["kl"] == pytest.approx(numbers["metrics/objective/kl"].item(), abs=1e-5)
    assert row["reward"] == pytest.approx(numbers["metrics/objective/scores"].item(), abs=1e-5)


def test_trainer_evaluates_ragged_rollouts_as_trl_does(golden, monkeypatch):
    trainer, numbers = golden_trainer(golden, monkeypatch, "ragged")
    batch, scores, _ = trainer._rollout(1)
    batch = trainer._evaluate_rollouts(batch)
    width = batch.mask.shape[1]
    mask = numbers["mask"][:, :width]
    assert torch.equal(batch.mask, mask)
    for name in ("logprobs", "ref_logprobs", "values"):
        torch.testing.assert_close(getattr(batch, name)[mask], numbers[name][:, :width][mask], **CLOSE)


@pytest.mark.parametrize("forward_size", [1, 2, 8])
def test_splitting_a_minibatch_keeps_its_gradient(forward_size, tmp_path):
    trainer = trainer_for(settings(episodes_per_update=7, minibatch_size=7, max_grad_norm=1e9, epochs=1))
    batch, scores, _ = trainer._rollout(1)
    batch = trainer._advantages(trainer._evaluate_rollouts(batch), scores)
    loss, _ = trainer._loss(batch)
    expected = torch.autograd.grad(loss, trainer.parameters)
    seen = []
    trainer.forward_size = forward_size
    trainer.optimizer.step = lambda: seen.extend(p.grad.clone() for p in trainer.parameters)
    statistics = trainer._step(batch)
    torch.testing.assert_close(statistics["policy_loss"] + 0.1 * statistics["value_loss"], loss.detach(), **CLOSE)
    for gradient, whole in zip(seen, expected, strict=True):
        torch.testing.assert_close(gradient, whole, **CLOSE)


# ---- the trainer


def sampler(max_new_tokens=6):
    """Samples with transformers' generate; what follows the EOS is cut."""

    def sample(policy, prompts, seed):
        torch.manual_seed(seed)
        queries, attention_mask = left_padded(prompts)
        options = {"max_new_tokens": max_new_tokens, "do_sample": True, "top_k": 0}
        options |= {"pad_token_id": PAD, "eos_token_id": EOS, "attention_mask": attention_mask}
        out = policy.generate(input_ids=queries, **options)[:, queries.shape[1] :]
        # pad id -1: a sampled pad token is a token like any other until the EOS
        lengths = core.response_mask(out, EOS, -1).sum(1).tolist()
        return [row[:n] for row, n in zip(out.tolist(), lengths, strict=True)]

    return sample


def share_of(token):
    """Reward: the share of `token` in the response."""

    def score(indices, texts, sequences):
        shares = [text.split().count(str(token)) / len(text.split()) for text in texts]
        rewards = torch.tensor(shares)
        agreement = rewards.clone()
        agreement[::2] = math.nan
        return rewards, {"rm_score": rewards, "extractable": rewards > 0, "agreement": agreement}

    return score


PROMPTS = [[2 + i % 7] * (1 + i % 3) for i in range(12)]


def trainer_for(config, seed=0, prompts=PROMPTS, sample=None, score=None, validate=None, **options):
    """A trainer of tiny Llamas; options that the trainer does not have are those of the models."""
    own = {name: options.pop(name) for name in ("accelerator", "forward_size", "stopping") if name in options}
    policy, value_model = llama(**options), llama(LlamaForSequenceClassification, seed=1, **options)
    given = (sample or sampler(), score or share_of(5), validate, seed)
    return ppo.PPOTrainer(
        policy, deepcopy(policy), value_model, Words(), config, prompts, *given, **{"forward_size": 32} | own
    )


def first_logit(policy) -> float:
    """A stand-in for the validation agreement that changes with every update."""
    with torch.no_grad():
        return policy(torch.tensor([[2, 3]])).logits.softmax(-1)[0, -1, 5].item()


def state_bytes(folder: Path, update: int) -> dict[str, bytes]:
    checkpoint = folder / f"checkpoint-{update:06d}"
    return {path.name: path.read_bytes() for path in checkpoint.glob("*.safetensors")}


class KilledError(Exception):
    """Stands for a kill."""


def killed_in(call: int):
    """A sampler that does not return from its call of this number."""
    calls = []

    def sample(*arguments):
        calls.append(1)
        if len(calls) == call:
            raise KilledError
        return sampler()(*arguments)

    return sample


@pytest.mark.parametrize("checkpoint_every, dies_in", [(1, 3), (3, 2)])
def test_a_killed_run_continues_exactly_and_a_finished_one_trains_no_more(tmp_path, checkpoint_every, dies_in):
    config = settings(checkpoint_every=checkpoint_every, warmup_updates=2)
    straight = trainer_for(config, validate=first_logit)
    straight_result = straight.train(tmp_path / "straight")
    with pytest.raises(KilledError):
        trainer_for(config, sample=killed_in(dies_in), validate=first_logit).train(tmp_path / "killed")
    torch.manual_seed(99)
    for sample in (None, lambda *_: pytest.fail("sampled again")):
        resumed = trainer_for(config, sample=sample, validate=first_logit)
        assert resumed.train(tmp_path / "killed") == straight_result
        assert all(map(torch.equal, straight.policy.parameters(), resumed.policy.parameters()))
    assert state_bytes(tmp_path / "killed", 4) == state_bytes(tmp_path / "straight", 4)
    lines = (tmp_path / "killed" / "history.jsonl").read_text()
    assert lines == (tmp_path / "straight" / "history.jsonl").read_text()
    history = [json.loads(line) for line in lines.splitlines()]
    assert [row["update"] for row in history] == [0, 1, 2, 3, 4]
    assert set(history[1]) == set(ppo.HISTORY_COLUMNS)


@pytest.mark.parametrize(
    ("agreements", "patience", "updates", "best"),
    [
        ([0.2, 0.5, 0.9, 0.4, 0.9, 0.3], 12, 5, 2),
        # Patience is counted from the best that training reached; a start that is never beaten is kept
        ([0.9, 0.1, 0.2, 0.3, 0.4, 0.4, 0.3], 8, 6, 0),
    ],
)
def test_the_best_policy_is_kept_and_patience_ends_the_run(tmp_path, agreements, patience, updates, best):
    given, seen = iter(agreements), []

    def validate(policy):
        seen.append(deepcopy(policy.state_dict()))
        return next(given)

    stopping = Stopping(every=4, patience=patience, warmup_steps=0)  # an update takes four steps
    trainer = trainer_for(settings(total_updates=50), validate=validate, stopping=stopping)
    result = trainer.train(tmp_path)
    assert result == {"updates": updates, "best_update": best, "validation_agreement": 0.9, "stopped_early": True}
    assert all(torch.equal(value, seen[best][key]) for key, value in trainer.policy.state_dict().items())


def test_settings_without_a_warm_up():
    usual = settings(learning_rate=1e-4, kl_coef=0.2, kl_coef_without_warmup=0.1)
    assert usual.without_warmup() == settings(learning_rate=1e-4, kl_coef=0.1, kl_coef_without_warmup=0.1)
    own = usual.model_copy(update={"learning_rate_without_warmup": 3e-4}).without_warmup()
    assert (own.learning_rate, own.kl_coef) == (3e-4, 0.1)


FAULTS = {
    "loss": lambda trainer: trainer.value_model.score.weight.data.fill_(math.inf),
    "gradient": lambda trainer: trainer.parameters[0].register_hook(lambda gradient: gradient * math.inf),
    "reward": lambda trainer: setattr(trainer, "score", lambda *_: (torch.full((8,), math.inf), {})),
    "response": lambda trainer: setattr(trainer, "sample", lambda _, prompts, seed: [[] for _ in prompts]),
}


@pytest.mark.parametrize("what", FAULTS)
def test_what_is_not_finite_or_empty_stops_the_run_which_goes_on_from_its_checkpoint(tmp_path, what):
    """No step was taken, and what failed is kept."""
    straight, broken = (trainer_for(settings(total_updates=2)) for _ in "ab")
    straight.train(tmp_path / "straight")
    before, update = [], broken._update

    def breaking(number):
        if number == 2:
            FAULTS[what](broken)
            before.extend(p.detach().clone() for p in broken.parameters)
        return update(number)

    broken._update = breaking
    with pytest.raises(
        UserError, match="no response" if what == "response" else f"update 2: the {what} is NaN or infinite"
    ):
        broken.train(folder := tmp_path / "broken")
    assert all(map(torch.equal, before, broken.parameters))
    assert what == "response" or load_file(folder / "failed_update_2.safetensors")["sequences"].ndim == 2
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-000001"]
    trainer_for(settings(total_updates=2)).train(folder)
    assert state_bytes(folder, 2) == state_bytes(tmp_path / "straight", 2)


def test_query_order_is_endless_shuffled_epochs():
    order = ppo_schedule.query_order(7, 0, 21, seed=3)
    assert all(sorted(order[i : i + 7]) == list(range(7)) for i in (0, 7, 14))
    assert order[:7] != order[7:14]
    assert [i for start in range(0, 21, 3) for i in ppo_schedule.query_order(7, start, 3, seed=3)] == order
    assert ppo_schedule.query_order(7, 5, 9, seed=3) == order[5:14]


def test_the_value_model_has_a_learning_rate_of_its_own(tmp_path):
    """Advantages are taken before the first step, so after one update only the value models differ."""
    after = {}
    for rate in (1e-5, 1e-2):
        trainer = trainer_for(settings(total_updates=1, value_learning_rate=rate, max_grad_norm=1e9))
        before = trainer.value_model.score.weight.clone()
        trainer.train(tmp_path / str(rate))
        moved = (trainer.value_model.score.weight - before).abs().max().item()
        after[rate] = ({k: v.clone() for k, v in trainer.policy.state_dict().items()}, moved)
    assert all(torch.equal(after[1e-5][0][k], after[1e-2][0][k]) for k in after[1e-5][0])
    assert 0 < after[1e-5][1] < 1e-4 < 1e-3 < after[1e-2][1]


def test_training_raises_the_reward(tmp_path):
    sizes = {"total_updates": 20, "episodes_per_update": 32, "minibatch_size": 16}
    trainer = trainer_for(settings(**sizes, learning_rate=5e-3, kl_coef=0.01), initializer_range=0.1)
    trainer.train(tmp_path)
    rewards = [row["reward"] for row in trainer.history[1:]]
    assert sum(rewards[:3]) / 3 < 0.15
    assert sum(rewards[-3:]) / 3 > 0.5
    assert trainer.history[-1]["kl"] > 0


def test_architectures_that_change_their_logits_are_refused():
    class Capped(LlamaForCausalLM):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = output.logits.tanh()
            return output

    networks = (llama(), llama(Capped), llama(LlamaForSequenceClassification))
    refused("Capped", lambda: ppo.PPOTrainer(*networks, Words(), settings(), PROMPTS, sampler(), share_of(5)))


# ---- samplers that tell their own log-probabilities


def telling_sampler(shift: float = 0.0, error: float = 0.0):
    """A sampler that also gives its log-probabilities: the policy's, off by `shift`, and by `error` on first tokens."""
    plain = sampler()

    def sample(policy, prompts, seed):
        responses = plain(policy, prompts, seed)
        logprobs = []
        for prompt, response in zip(prompts, responses, strict=True):
            with torch.no_grad():
                found, _ = core.response_logprobs(policy, *core.Batch.collate([prompt], [response]).inputs)
            own = found[0] - shift
            own[0] -= error
            logprobs.append(own.tolist())
        return responses, logprobs

    return sample


def test_weights_of_a_sampler_by_hand():
    logprobs, sampled = torch.tensor([[0.0, -1.0, 9.0]]), torch.tensor([[-math.log(3), -1.0, 0.0]])
    mask = torch.tensor([[True, True, False]])
    torch.testing.assert_close(core.sampler_ratio(logprobs, sampled, mask), torch.tensor([[3.0, 1.0, 1.0]]))
    weights = core.sampler_weights(logprobs, sampled, mask, cap=2.0)
    torch.testing.assert_close(weights, torch.tensor([[2.0, 1.0, 1.0]]))
    ones, advantages = torch.ones(1, 3), torch.tensor([[1.0, 4.0, 7.0]])
    loss, _ = core.policy_loss(ones, ones, advantages, mask, 0.2, weights)
    assert loss.item() == pytest.approx(-(2 * 1 + 1 * 4) / 2)


def test_the_gap_of_a_sampler_is_in_the_history_and_weighs_tokens_under_a_cap_alone(tmp_path):
    cap, samplers = {"sampler_ratio_cap": 2.0}, {"plain": sampler(), "agreeing": telling_sampler()}
    samplers |= {"shifted": telling_sampler(0.1), "differing": telling_sampler(error=0.5)}
    history, weights = {}, {}
    for name, changes in (("plain", {}), ("agreeing", {}), ("shifted", {}), ("differing", {}), ("differing", cap)):
        trainer = trainer_for(settings(total_updates=2, **changes), sample=samplers[name])
        trainer.train(folder := tmp_path / f"{name}{len(changes)}")
        history[name], weights[folder.name] = trainer.history[1:], state_bytes(folder, 2)["policy.safetensors"]
    assert weights["plain0"] == weights["agreeing0"] == weights["differing0"] != weights["differing1"]
    assert set(history["plain"][0]) == set(ppo.HISTORY_COLUMNS)
    for name, gap in (("agreeing", 0.0), ("shifted", 0.1)):
        for row in history[name]:
            assert row["sampler_log_ratio"] == pytest.approx(gap, rel=1e-3, abs=1e-5)
            assert row["sampler_max_ratio"] == pytest.approx(math.exp(gap), rel=1e-3)


@pytest.mark.parametrize("changes", [{"kl_coef": 0.3}, {"sampler_ratio_cap": 2.0}, {"sampler": "vllm"}])
def test_foreign_and_damaged_checkpoints_are_refused(tmp_path, changes):
    trainer_for(settings(total_updates=1)).train(tmp_path)
    refused(f"another {next(iter(changes))}, seed", lambda: trainer_for(settings(**changes), seed=1).train(tmp_path))
    (tmp_path / "checkpoint-000001" / "policy.safetensors").write_bytes(b"broken")
    refused("cannot be read", lambda: trainer_for(settings()).train(tmp_path))


# ---- rollouts of no use

GOOD, READ = [f"Step {n} of the plan gives\n#### {n}" for n in range(10)], [str(n) for n in range(10)]
ENDED, CUT = [[1, 2, 0]] * 10, [[1, 2, 3]] * 10


def guard(learns_form: bool = False) -> RolloutGuard:
    return RolloutGuard("mine/ours/06_ppo", {0}, 64, learns_form)


def test_shares_by_hand():
    texts = ["a b c d e", "a b c d e", "", "#### 4"]
    found = shares(texts, ["1", None, None, "4"], [True, True, False, True])
    assert found == {"cut": 0.25, "empty": 0.25, "unreadable": 0.5, "equal": 0.5}
    assert shares(["#### 4"] * 4, ["4"] * 4, [True] * 4)["equal"] == 0  # short answers may be equal


@pytest.mark.parametrize(
    ("texts", "given", "sequences", "words"),
    [
        (GOOD, READ, CUT, r"100% of the rollouts were cut at max_tokens \(64\): raise the dataset's max_tokens"),
        ([""] * 10, [None] * 10, ENDED, "are empty: raise ppo.kl_coef"),
        (GOOD, [None] * 10, ENDED, "hold no answer that can be read"),
        (["it is so and so for all"] * 10, READ, ENDED, "are one text, whatever the question"),
    ],
)
def test_three_bad_updates_in_a_row_end_it(texts, given, sequences, words):
    watching = guard()
    for bad in (True, True, False, True, True):
        watching(*(texts, given, sequences) if bad else (GOOD, READ, ENDED))
    refused(f"mine/ours/06_ppo: in 3 updates in a row .*{words}", watching, texts, given, sequences)


def test_without_a_warm_up_the_form_may_be_learnt_first_and_nine_of_ten_are_not_nearly_all():
    learning, watching = guard(learns_form=True), guard()
    for _ in range(9):
        learning(GOOD, [None] * 10, CUT)
        watching(GOOD, READ, [*CUT[:9], ENDED[0]])
    with pytest.raises(UserError, match="empty"):
        for _ in range(3):
            learning([""] * 10, [None] * 10, CUT)
