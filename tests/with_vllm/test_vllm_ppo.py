"""PPO with rollouts by vLLM: its weights follow the policy's, and both engines' probabilities agree."""

from __future__ import annotations

import json
from contextlib import closing

import pytest
import torch

from rdlib.engines import models
from rdlib.engines.generation import Request
from rdlib.engines.transformers_engine import TransformersEngine
from rdlib.engines.vllm_engine import PolicyEngine
from rdlib.method.ppo_core import response_logits, selective_logprobs
from rdlib.method.rl import VllmSampler
from tests.conftest import MODELS, copy_study, stage_in
from tests.test_generation import prompt_texts

SMALL = str(MODELS / "small")


@pytest.fixture(scope="module")
def engine(small):
    with closing(PolicyEngine(*small, 60)) as engine:
        yield engine


@pytest.fixture(scope="module")
def prompts(small):
    return small[1](prompt_texts())["input_ids"]


def moved(model, size: float = 0.02):
    """A model with every weight moved a little, as by an update."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return model


def greedy(engine, prompts):
    return engine.generate([Request(prompt, 1, 0.0) for prompt in prompts], 0)


def with_adapter(model):
    """A model with a LoRA adapter that changes it."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False))
    return model.eval()


@pytest.mark.parametrize("change", [moved, with_adapter, lambda model: model])
def test_rollouts_are_those_of_the_policy(small, engine, prompts, change):
    policy = change(models.load_causal_lm(SMALL))
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    engine.load_weights(policy)
    expected = greedy(TransformersEngine(policy, small[1], 64, 60), prompts)
    assert greedy(engine, prompts) == expected
    tokens, logprobs = engine.rollouts(prompts, 0.7, seed=0)
    assert (tokens, logprobs) == engine.rollouts(prompts, 0.7, seed=0)
    for prompt, response, given in zip(prompts, tokens, logprobs, strict=True):
        with torch.no_grad():
            ids, length = torch.tensor([prompt + response]), torch.tensor([len(prompt)])
            ours = selective_logprobs(
                response_logits(policy, ids, length, len(response)) / 0.7, torch.tensor([response])
            )
        assert torch.allclose(torch.tensor(given), ours[0], atol=1e-4)  # measured: 5e-6
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())


def test_the_stage_trains_on_rollouts_by_vllm(small, engine, prompts, study, tmp_path, monkeypatch):
    """The tiny PPO stage with `ppo.sampler` vllm; after the run the sampler's greedy output is the policy's."""
    monkeypatch.setattr("rdlib.engines.vllm_engine.PolicyEngine", lambda *settings: engine)
    monkeypatch.setattr(engine, "close", lambda: None)
    root = copy_study(study, tmp_path, "06_ppo", "07_evaluate")
    stage = stage_in(root, "06_ppo").with_overrides({"ppo.sampler": "vllm", "ppo.sampler_ratio_cap": 2.0})
    seen = []
    call = VllmSampler.__call__

    def watched(self, policy, token_prompts, seed):
        sampled = call(self, policy, token_prompts, seed)
        model = TransformersEngine(policy, small[1], 64, 60)
        seen.append(greedy(engine, token_prompts) == greedy(model, token_prompts))
        return sampled

    monkeypatch.setattr(VllmSampler, "__call__", watched)
    stage.run()
    assert seen == [True] * 3
    history = [json.loads(line) for line in (stage.folder / "history.jsonl").read_text().splitlines()][1:]
    for row in history:
        assert 0 <= row["sampler_log_ratio"] < 1e-5
        assert row["sampler_max_ratio"] == pytest.approx(1, abs=1e-3)
