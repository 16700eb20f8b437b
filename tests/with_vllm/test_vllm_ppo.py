"""PPO with rollouts by vLLM: its weights follow the policy's, and both engines' probabilities agree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing

import pytest
import torch

from rdlib.engines import models, vllm_policy
from rdlib.engines.generation import Request
from rdlib.engines.transformers_engine import TransformersEngine
from rdlib.engines.vllm_policy import PolicyEngine, PolicyServer
from rdlib.errors import UserError
from rdlib.method.ppo_core import Batch, response_logprobs
from rdlib.study import launch
from tests.conftest import MODELS, REPOSITORY, copy_study, stage_in
from tests.tiny_models import prompt_texts
from tests.with_vllm.servers import policy_server

SMALL, LARGE = str(MODELS / "small"), str(MODELS / "large")
VLLM = {"ppo.sampler": "vllm"}
TWO = {"training.processes": 2}
GAP = 1e-5  # of the log-probabilities of both engines in float32; of weights an update old, 1e-3 and more


@pytest.fixture(scope="module")
def engine(small):
    with closing(PolicyEngine(*small, 60)) as engine:
        yield engine


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The address of a vLLM server with the shape of the smallest embedded model, and made-up weights."""
    with policy_server(SMALL, tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture
def server(small, url):
    with closing(PolicyServer(url, *small, 60)) as server:
        yield server


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


def logprobs_of(policy, prompt, response, temperature):
    """The policy's own log-probabilities of a response."""
    with torch.no_grad():
        return response_logprobs(policy, *Batch.collate([prompt], [response]).inputs, temperature)[0][0]


@pytest.mark.parametrize("change", [moved, with_adapter, lambda model: model])
def test_rollouts_are_those_of_the_policy(small, engine, server, prompts, change):
    """In this process and by the server: the same tokens, the policy's probabilities, and the policy as it was."""
    policy = change(models.load_causal_lm(SMALL))
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    with engine.awake(policy):
        assert greedy(engine, prompts) == greedy(TransformersEngine(policy, small[1], 64, 60), prompts)
    tokens, logprobs = engine.rollouts(policy, prompts, 0.7, seed=0)
    assert engine.rollouts(policy, prompts, 0.7, seed=0) == (tokens, logprobs)
    assert engine.rollouts(policy, prompts, 0.7, seed=1)[0] != tokens
    theirs, told = server.rollouts(policy, prompts, 0.7, seed=0)
    assert theirs == tokens
    for prompt, response, *given in zip(prompts, tokens, logprobs, told, strict=True):
        ours = logprobs_of(policy, prompt, response, 0.7)
        for one in given:
            assert torch.allclose(torch.tensor(one), ours, atol=1e-4)  # measured: 5e-6
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())


def test_it_sleeps_between_rollouts(small, engine, prompts):
    """vLLM for a CPU goes through the states of sleep and keeps its memory; asleep it samples nothing."""
    assert engine.llm.llm_engine.is_sleeping()
    with engine.awake(small[0]):
        assert not engine.llm.llm_engine.is_sleeping()
    assert engine.llm.llm_engine.is_sleeping()


def test_a_long_prompt_is_refused_before_the_training(small, engine, server):
    for sampler in (engine, server):
        with pytest.raises(UserError, match="do not fit into the model's context"):
            models.require_room(sampler.limit, 10_000, 60)


# ---- the stage


class KilledError(Exception):
    """What ends a run in the middle."""


def in_the_second_update(row):
    """Raise KilledError there, when the first one's checkpoint is written."""
    if row["update"] == 2:
        raise KilledError


def history_of(study, root, overrides, kill: bool = False):
    """The rows of the updates of the tiny PPO stage under overrides, and the stage; `kill`: it is run in two parts."""
    stage = stage_in(copy_study(study, root, "06_ppo", "07_evaluate"), "06_ppo").with_overrides(VLLM | overrides)
    if kill:
        with pytest.raises(KilledError):
            stage.run(on_update=in_the_second_update)
    stage.run_with_inputs()  # adapters are another warm-up and reward model, too
    return [json.loads(line) for line in (stage.folder / "history.jsonl").read_text().splitlines()][1:], stage


def assert_followed(history) -> None:
    """At every update vLLM sampled from the policy as it then was."""
    assert len(history) == 3
    for row in history:
        assert 0 <= row["sampler_log_ratio"] < GAP
        assert row["sampler_max_ratio"] == pytest.approx(1, abs=1e-3)


def test_the_stage_trains_on_rollouts_by_vllm(study, engine, tmp_path, monkeypatch):
    monkeypatch.setattr(vllm_policy, "PolicyEngine", lambda *settings: engine)
    monkeypatch.setattr(engine, "close", lambda: None)
    history, _ = history_of(study, tmp_path, {"ppo.sampler_ratio_cap": 2.0})
    assert_followed(history)


def test_weights_that_do_not_follow_show_in_the_gap(study, engine, small, tmp_path, monkeypatch):
    """What the tests here would see of a server whose weights are not the policy's."""
    monkeypatch.setattr(vllm_policy, "PolicyEngine", lambda *settings: engine)
    monkeypatch.setattr(engine, "close", lambda: None)
    first = {}
    held = vllm_policy.merged_weights

    def stale(policy):
        if not first:
            first.update({name: tensor.clone() for name, tensor in held(policy)})
        return iter(first.items())

    monkeypatch.setattr(vllm_policy, "merged_weights", stale)
    history, _ = history_of(study, tmp_path, {})
    assert history[0]["sampler_log_ratio"] < GAP
    assert history[1]["sampler_log_ratio"] > 100 * GAP and history[2]["sampler_log_ratio"] > 100 * GAP


@pytest.mark.parametrize("lora", [None, {"r": 4, "alpha": 8}])
def test_two_processes_each_with_vllm(study, tmp_path, lora):
    history, stage = history_of(study, tmp_path, TWO | {"training.lora": lora})
    assert_followed(history)
    assert models.load_causal_lm(stage.folder / "model").config.num_hidden_layers == 3


def test_the_group_of_the_processes_outlives_vllm():
    """What training does together afterwards, such as saving, still can."""
    words = ["--config_file", str(launch.CONFIGURATIONS / "cpu_gloo.yaml"), "--main_process_port", "0", "--multi_gpu"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *words, "--module", "tests.with_vllm.closing"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("together") == 2


def test_two_processes_and_one_server(study, url, tmp_path):
    """The same as with vLLM in each process and a kill in between, up to rounding: where it samples decides nothing."""
    history, stage = history_of(study, tmp_path / "server", TWO | {"ppo.sampler_server": url})
    assert_followed(history)
    apart, other = history_of(study, tmp_path / "engines", TWO, kill=True)
    assert stage.key == other.key and stage.folder.name == other.folder.name
    for row, same in zip(history, apart, strict=True):
        for name in ("reward", "response_length", "kl", "entropy"):
            assert row[name] == pytest.approx(same[name], abs=1e-3), name
