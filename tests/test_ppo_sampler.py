"""PPO with a sampler that tells its own log-probabilities: the gap in the history, and truncated importance weights."""

from __future__ import annotations

import math

import pytest
import torch
from test_ppo import first_logit, sampler, settings, state_bytes, trainer_for

from rdlib.errors import UserError
from rdlib.method import ppo
from rdlib.method import ppo_core as core


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


def trained(folder, sample, **changes):
    trainer = trainer_for(settings(total_updates=2, **changes), sample=sample, validate=first_logit)
    trainer.train(folder)
    return trainer


def test_weights_by_hand():
    logprobs, sampled = torch.tensor([[0.0, -1.0, 9.0]]), torch.tensor([[-math.log(3), -1.0, 0.0]])
    mask = torch.tensor([[True, True, False]])
    torch.testing.assert_close(core.sampler_ratio(logprobs, sampled, mask), torch.tensor([[3.0, 1.0, 1.0]]))
    weights = core.sampler_weights(logprobs, sampled, mask, cap=2.0)
    torch.testing.assert_close(weights, torch.tensor([[2.0, 1.0, 1.0]]))
    ones, advantages = torch.ones(1, 3), torch.tensor([[1.0, 4.0, 7.0]])
    loss, _ = core.policy_loss(ones, ones, advantages, mask, 0.2, weights)
    assert loss.item() == pytest.approx(-(2 * 1 + 1 * 4) / 2)


def test_a_sampler_that_agrees_changes_nothing_and_its_gap_is_zero(tmp_path):
    plain = trained(tmp_path / "plain", sampler())
    told = trained(tmp_path / "told", telling_sampler())
    assert state_bytes(tmp_path / "told", 2) == state_bytes(tmp_path / "plain", 2)
    assert set(plain.history[1]) == set(ppo.HISTORY_COLUMNS)
    assert told.history[1]["sampler_log_ratio"] == pytest.approx(0, abs=1e-5)
    assert told.history[1]["sampler_max_ratio"] == pytest.approx(1, abs=1e-5)


def test_the_gap_is_measured(tmp_path):
    told = trained(tmp_path / "told", telling_sampler(0.1))
    for row in told.history[1:]:
        assert row["sampler_log_ratio"] == pytest.approx(0.1, rel=1e-3)
        assert row["sampler_max_ratio"] == pytest.approx(math.exp(0.1), rel=1e-3)


def test_the_cap_weighs_the_tokens(tmp_path):
    trained(tmp_path / "plain", sampler())
    trained(tmp_path / "agreeing", telling_sampler(), sampler_ratio_cap=2.0)
    trained(tmp_path / "differing", telling_sampler(error=0.5), sampler_ratio_cap=2.0)
    trained(tmp_path / "uncapped", telling_sampler(error=0.5))
    weights = [state_bytes(tmp_path / name, 2)["policy.safetensors"] for name in ("plain", "differing", "uncapped")]
    assert weights[0] == weights[2] != weights[1]


def test_a_checkpoint_goes_on_only_with_the_same_sampler(tmp_path):
    trained(tmp_path, sampler())
    for changes in ({"sampler_ratio_cap": 2.0}, {"sampler": "vllm"}):
        with pytest.raises(UserError, match=f"another {next(iter(changes))}"):
            trained(tmp_path, telling_sampler(), **changes)
