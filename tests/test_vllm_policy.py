"""Rollouts by vLLM, as far as they go without it: the weights that are sent, a server's calls, and what is refused.

tests/with_vllm holds the rest to vLLM itself.
"""

from __future__ import annotations

import importlib.util
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from conftest import MODELS, REPOSITORY, make_root, refused, stage_in
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from rdlib.__main__ import main
from rdlib.engines import models, vllm_policy
from rdlib.engines.vllm_policy import PolicyServer, merged_weights
from rdlib.errors import UserError
from rdlib.settings import Vllm
from rdlib.study import requirements

SMALL, LARGE = str(MODELS / "small"), str(MODELS / "large")
UNTIED = {"tie_word_embeddings": False}


def adapted(**options):
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, **options)
    return get_peft_model(models.load_causal_lm(SMALL), config)


# ---- weights


@pytest.mark.parametrize("options", [{}, {"lora_alpha": 32, "use_rslora": True}])
def test_adapters_are_added_into_the_weights_and_the_policy_stays(options):
    policy = adapted(**options)
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    sent = {name: tensor.clone() for name, tensor in merged_weights(policy)}
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())
    expected = policy.merge_and_unload().state_dict()
    assert list(sent) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(sent[name], tensor)
    plain = models.load_causal_lm(SMALL).state_dict()
    assert any(not torch.equal(plain[name], tensor) for name, tensor in sent.items())


def test_adapters_on_bfloat16_weights_are_not_rounded_away():
    policy = adapted().bfloat16()
    name = "model.layers.0.self_attn.q_proj.weight"
    sent = dict(merged_weights(policy))[name]
    layer = policy.get_base_model().model.layers[0].self_attn.q_proj
    assert sent.dtype == torch.float32
    assert torch.equal(sent, layer.base_layer.weight.float() + layer.get_delta_weight("default").float())


# ---- a server


class Client:
    """TRL's client of a server that notes what it is asked, and answers each prompt with its own tokens."""

    def __init__(self, weight_transfer_config=None, failing: str | None = None):
        model = {"model": SMALL, "revision": None, "hf_overrides": UNTIED, "max_model_len": 1024}
        self.info = {"model_config": model | {"logprobs_mode": "processed_logprobs"}}
        self.info["weight_transfer_config"] = weight_transfer_config
        self.failing, self.calls, self.weights, self.asked = failing, [], {}, []
        self.session = SimpleNamespace(post=self.post, close=lambda: None)

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call == self.failing:
            raise ConnectionError(f"{call} was refused\nand more")

    def get_server_info(self):
        return self.info

    def post(self, address, json):
        self._note(json["method"])
        if json["method"] == "reload_weights":
            self.weights = load_file(Path(json["kwargs"]["weights_path"], "model.safetensors"))
        return SimpleNamespace(raise_for_status=lambda: None)

    def init_communicator(self, device):
        self._note("init_communicator")

    def update_named_params(self, metadata, named):
        self._note("update_named_params")
        self.weights = dict(named)
        assert metadata == [(n, str(t.dtype)[6:], list(t.shape)) for n, t in self.weights.items()]

    def reset_prefix_cache(self):
        self._note("reset_prefix_cache")

    def generate(self, prompts, **options):
        self._note("generate")
        self.asked.append((prompts[0], options))
        return {"completion_ids": prompts, "logprobs": [[[-float(token)] for token in prompts[0]]]}

    def close_communicator(self):
        self._note("close")


@pytest.fixture
def opened(small, monkeypatch):
    """A function that opens a PolicyServer on a stand-in of TRL's client."""

    def open_server(**options):
        client = Client(**options)
        monkeypatch.setattr(vllm_policy, "require_vllm", lambda: None)
        monkeypatch.setattr(vllm_policy, "_connect", lambda url: client)
        return held.enter_context(closing(PolicyServer("http://somewhere:8000/v1/", *small, 9))), client

    with ExitStack() as held:
        yield open_server


@pytest.mark.parametrize("transfer", [None, {"backend": "nccl"}])
def test_a_rollout_is_sampled_by_the_policys_weights_with_a_seed_each(small, opened, transfer):
    server, client = opened(weight_transfer_config=transfer)
    policy, prompts = adapted(), [[5, 6], [7], [5, 6]]
    assert server.url == "http://somewhere:8000"
    assert server.rollouts(policy, prompts, 0.7, seed=3) == (prompts, [[-5, -6], [-7], [-5, -6]])
    expected = dict(merged_weights(policy))
    assert client.weights.keys() == expected.keys()
    assert all(torch.equal(client.weights[name], tensor) for name, tensor in expected.items())
    again = [dict(asked[1]["generation_kwargs"]) for asked in client.asked]
    assert len({one["seed"] for one in again}) == 3  # also of equal prompts
    assert {tuple(one["stop_token_ids"]) for one in again} == {tuple(server.end_tokens)}
    assert {asked[1]["max_tokens"] for asked in client.asked} == {9}


@pytest.mark.parametrize("call", ["update_config", "reload_weights", "reset_prefix_cache", "generate"])
def test_a_server_that_fails_is_one_sentence(small, opened, call):
    with pytest.raises(UserError, match="http://somewhere:8000 failed .*was refused.*last checkpoint") as caught:
        opened(failing=call)[0].rollouts(small[0], [[5]], 1.0, seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": LARGE}, "holds .*large, whose weights have other names or shapes"),
        ({"hf_overrides": {**UNTIED, "num_hidden_layers": 4}}, "other names or shapes"),
        ({"hf_overrides": {}}, "ties the output layer"),
        ({"hf_overrides": None}, "ties the output layer"),
        ({"logprobs_mode": "raw_logprobs"}, "--logprobs-mode processed_logprobs"),
        ({"model": "not/here"}, "cannot be read from here"),
    ],
)
def test_a_server_of_another_kind_is_refused(small, changes, words):
    served = {"model": SMALL, "hf_overrides": UNTIED, "logprobs_mode": "processed_logprobs"}
    vllm_policy.require_same_model(served, small[0].config, "http://a")
    refused(words, lambda: vllm_policy.require_same_model(served | changes, small[0].config, "http://a"))


def test_what_is_no_vllm_server_is_refused_at_once(fake):
    for address in (fake.url, "http://127.0.0.1:1"):
        refused(f"No vLLM server answers at .*{address} .*docs/rollouts.md", vllm_policy._connect, address)


def test_one_server_samples_for_one_training_at_a_time(small, opened):
    server, _ = opened()
    refused("samples for another PPO run", opened)
    server.close()
    opened()


# ---- vLLM in the process


@pytest.mark.parametrize(("gpu", "sleeps"), [(True, True), (True, False), (False, True)])
def test_it_starts_without_weights_and_gives_its_memory_back_on_a_gpu_alone(small, monkeypatch, gpu, sleeps):
    """tests/with_vllm has the rollouts, the group of several processes, and the real states of sleep."""
    started, llm = {}, MagicMock()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(models, "device", lambda: torch.device("cpu"))
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")

    def start(self, model, max_tokens, settings, more):
        started.update(more)
        self.llm = llm

    monkeypatch.setattr(vllm_policy.VllmEngine, "__init__", start)
    engine = vllm_policy.PolicyEngine(*small, 9, Vllm(), sleeps)
    assert started["load_format"] == "dummy" and started.get("enable_sleep_mode", False) == (gpu and sleeps)
    with engine.awake(small[0]):
        assert llm.collective_rpc.call_args.args[0] == "reload_weights"
    assert llm.sleep.called == sleeps == llm.wake_up.called


def test_memory_that_runs_out_as_it_wakes_is_one_sentence(small):
    engine = vllm_policy.PolicyEngine.__new__(vllm_policy.PolicyEngine)
    engine.llm, engine.sleeps = MagicMock(), True
    engine.llm.wake_up.side_effect = RuntimeError("CUDA out of memory\n")
    words = r"\(CUDA out of memory\).*lower generation.vllm.gpu_memory_utilization"
    with pytest.raises(UserError, match=words), engine.awake(small[0]):
        pytest.fail("it was awake")


# ---- settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sampler_server": "http://localhost:8000"}, "sampler_server is for sampler vllm alone"),
        ({"sampler": "vllm", "sampler_server": "localhost:8000"}, "ppo.sampler_server"),
        ({"sampler": "sglang"}, "ppo.sampler"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, settings, words):
    root = make_root(tmp_path, ppo=settings)
    with pytest.raises(UserError, match=words):
        _ = stage_in(root, "06_ppo").profile


def test_where_vllm_samples_decides_no_result(tmp_path):
    stage = stage_in(make_root(tmp_path, ppo={"sampler": "vllm"}), "06_ppo")
    for changes in ({"ppo.sampler_server": "http://localhost:8000"}, {"ppo.sampler_sleep": False}):
        other = stage.with_overrides(changes)
        assert (other.recipe, other.folder) == (stage.recipe, stage.folder)
    assert stage.with_overrides({"ppo.sampler": "transformers"}).recipe != stage.recipe


@pytest.mark.parametrize(
    ("settings", "samples"),
    [
        ({"ppo": {"sampler": "vllm"}}, "06_ppo"),
        ({"generation": {"engine": "vllm"}}, "04_student_responses"),
        ({"teachers": {"strong": {"model": "models/strong", "engine": "vllm"}}}, "01_teacher_responses"),
    ],
)
def test_without_vllm_nothing_is_computed(tmp_path, at_root, monkeypatch, capsys, settings, samples):
    """Not by a stage, and not by a study, in which it is hours away."""
    root = at_root(make_root(tmp_path, **settings))
    (root / "notebooks").symlink_to(REPOSITORY / "notebooks")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "vllm" else found(name, *more))
    assert main(["study", "--profile", "tiny.yaml"]) == 2
    error = capsys.readouterr().err
    assert "needs vLLM, which is not installed here" in error and len(error.strip().splitlines()) == 1
    assert {path.name for path in (root / "runs").rglob("*")} == {"tiny", ".lock"}
    stage = stage_in(root, samples)
    refused("needs vLLM", lambda: stage._make({}))
    requirements.check_sampler(stage.at("06_ppo").with_overrides({"ppo.sampler": "transformers"}))
    requirements.check_sampler(stage.at("05_reward_model"))
