"""Adapters, precision and gradient checkpointing: what is trained, what is kept, and that the losses are the same."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from conftest import copy_study, stage_in
from safetensors.torch import load_file
from test_ppo import CLOSE, PROMPTS, Words, llama, sampler, settings, share_of, trainer_for
from test_resume import METHODS, interrupt
from transformers import LlamaForSequenceClassification

from rdlib.artifacts import hash_files
from rdlib.method import ppo, training
from rdlib.method import ppo_core as core
from rdlib.settings import Lora, Training
from rdlib.study.stage import Stage

ADAPTED = Training(lora=Lora(r=2, alpha=4.0))
LORA = {"training.lora": {"r": 2, "alpha": 4.0}}


def adapted_trainer(config):
    """A PPO trainer whose policy and value model have adapters, and whose reference is the policy without them."""
    policy = training.with_adapters(llama(), ADAPTED, "CAUSAL_LM")
    value_model = training.with_adapters(llama(LlamaForSequenceClassification, seed=1), ADAPTED, "SEQ_CLS")
    return ppo.PPOTrainer(policy, None, value_model, Words(), config, PROMPTS, sampler(), share_of(5))


def test_ppo_trains_adapters_and_head_against_the_base_as_reference(tmp_path):
    trainer, base = adapted_trainer(settings(total_updates=2)), llama().eval()
    before = {k: v.clone() for k, v in trainer.both.state_dict().items()}
    trainer.train(tmp_path)
    changed = {k for k, v in trainer.both.state_dict().items() if not torch.equal(v, before[k])}
    assert changed and all("lora_" in k or "score.modules_to_save" in k for k in changed)
    assert any("policy" in k for k in changed) and any("score" in k for k in changed)
    batch, _, _ = trainer._rollout(3)
    batch = trainer._evaluate_rollouts(batch)
    expected, _ = core.response_logprobs(base, *batch.inputs)
    torch.testing.assert_close(batch.ref_logprobs[batch.mask], expected[batch.mask], **CLOSE)
    assert not torch.allclose(batch.logprobs[batch.mask], expected[batch.mask])
    assert trainer.history[2]["kl"] != 0


def test_a_checkpoint_with_adapters_is_none_without(tmp_path):
    from rdlib.errors import UserError

    adapted_trainer(settings(total_updates=1)).train(tmp_path)
    with pytest.raises(UserError, match="weights of another model"):
        trainer_for(settings(total_updates=1)).train(tmp_path)


@pytest.mark.parametrize("kind", ["CAUSAL_LM", "SEQ_CLS"])
def test_the_merged_model_computes_what_the_adapted_one_does(kind):
    base = llama() if kind == "CAUSAL_LM" else llama(LlamaForSequenceClassification)
    model = training.with_adapters(deepcopy(base), ADAPTED, kind).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
        ids = torch.tensor([[2, 3, 4, 5]])
        adapted, plain = model(input_ids=ids).logits, base.eval()(input_ids=ids).logits
        merged = training.merged(model)
        torch.testing.assert_close(merged(input_ids=ids).logits, adapted, **CLOSE)
    assert not torch.allclose(adapted, plain, atol=1e-2)
    assert merged.state_dict().keys() == base.state_dict().keys()
    assert training.merged(base) is base


# ---- stages


@pytest.fixture
def again(study, monkeypatch):
    """A function that gives a stage to be run under other settings on the finished study's own inputs."""

    def use(root, name, overrides):
        method = METHODS.get(name, "ours")
        stage = stage_in(copy_study(study, root, name), name, method).with_overrides(overrides)
        roots.add(stage.root)
        return stage

    roots, original = set(), Stage.inputs.func

    def inputs(stage):
        found = original(stage)
        if stage.root in roots:
            found = {key: stage_in(study, other.name, other.method) for key, other in found.items()}
        return found

    monkeypatch.setattr(Stage, "inputs", property(inputs))
    return use


@pytest.mark.slow
def test_a_stage_with_adapters_writes_a_plain_model_and_goes_on_exactly(again, tmp_path, monkeypatch):
    """Only the layers that have adapters differ from what it started from, and the head."""
    overrides = LORA | {"reward_model.learning_rate": 0.01}
    stage = again(tmp_path / "whole", "05_reward_model", overrides)
    start = stage.input("warmup") / "model"
    stage.run()
    before, after = (load_file(folder / "model.safetensors") for folder in (start, stage.folder / "model"))
    changed = {key for key in after if key not in before or not torch.equal(before[key].float(), after[key])}
    assert changed and all("proj" in key or key == "score.weight" for key in changed)
    broken = again(tmp_path / "broken", "05_reward_model", overrides)
    interrupt(broken, monkeypatch, training.ProgressBar, "on_step_end", 5)
    broken.run()
    assert hash_files(broken.folder) == hash_files(stage.folder)


# bfloat16 has eight bits of mantissa; the losses of the tiny study are around 0.1 (SFT) and 1 (reward model)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "overrides", "most"),
    [
        ("05_reward_model", {"training.precision": "bf16"}, 0.02),
        ("03_sft_warmup", {"training.gradient_checkpointing": True}, 1e-5),
    ],
)
def test_precision_and_checkpointing_keep_the_losses(study, again, tmp_path, name, overrides, most):
    stage = again(tmp_path, name, overrides).run()
    expected = stage_in(study, name, stage.method).table("history")["loss"].dropna().head(8)
    assert stage.table("history")["loss"].dropna().head(8).tolist() == pytest.approx(expected.tolist(), abs=most)


@pytest.mark.parametrize(
    ("changes", "tolerance"), [({"gradient_checkpointing": True}, 1e-5), ({"precision": "bf16"}, 0.05)]
)
def test_ppo_in_bf16_and_with_checkpointing(changes, tolerance):
    """The gradients of one minibatch, relative to the largest."""
    gradients = {}
    for name, given in (("plain", Training()), ("changed", Training(**changes))):
        config = settings(episodes_per_update=6, minibatch_size=6, max_grad_norm=1e9)
        trainer = trainer_for(config, accelerator=training.new_accelerator(given))
        if given.gradient_checkpointing:
            for model in (trainer.policy, trainer.value_model):
                model.gradient_checkpointing_enable(training.NON_REENTRANT)
                model.train()
        batch, scores, _ = trainer._rollout(1)
        batch = trainer._advantages(trainer._evaluate_rollouts(batch), scores)
        if name == "plain":
            same = batch
        loss, _ = trainer._loss(same)
        gradients[name] = torch.cat([g.flatten() for g in torch.autograd.grad(loss, trainer.parameters)])
    largest = gradients["plain"].abs().max()
    assert (gradients["changed"] - gradients["plain"]).abs().max() < tolerance * largest
    training.new_accelerator(Training())  # leave no precision behind


def test_episodes_in_a_forward_pass():
    assert Training().forward_size(64) == Training(processes=2).forward_size(8) == 16
    assert Training(processes=2, gradient_accumulation=4).forward_size(64) == 8
