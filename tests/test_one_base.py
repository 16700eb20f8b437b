"""PPO with adapters on one base: what it computes, what it holds, and which reward models are put onto the base."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_adapters import LORA, again  # noqa: F401
from test_ppo import CLOSE, KilledError, Words, first_logit, killed_in, sampler, settings, state_bytes
from tiny_models import make_model
from transformers import AutoModelForSequenceClassification

from rdlib.engines import models
from rdlib.method import one_base, ppo, rl, scoring, training
from rdlib.settings import Lora, Model, Training
from rdlib.study.stage import Stage

ADAPTED = Training(lora=Lora(r=2, alpha=4.0))
CHECKPOINTED = Training(lora=Lora(r=2, alpha=4.0), gradient_checkpointing=True)
BF16 = Training(lora=Lora(r=2, alpha=4.0), weights="bfloat16", gradient_checkpointing=True)
PAD = 2
PROMPTS = [[5 + (3 * i + j) % 300 for j in range(1 + i % 3)] for i in range(12)]


def trained(folder: Path, base: Path, given: Training = ADAPTED, seed: int = 3) -> Path:
    """A reward model on `base` with adapters that change it, saved as its stage does."""
    torch.manual_seed(seed)
    model = training.with_adapters(models.load_scorer(base, PAD, given), given, "SEQ_CLS")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    one_base.save(model, folder)
    training.merged(model).save_pretrained(folder / "model")
    return folder


@pytest.fixture(autouse=True)
def no_precision_is_left_behind():
    """Of an accelerator, which is a process's own: a later trainer would compute in it."""
    yield
    training.new_accelerator(Training())


@pytest.fixture
def base(tmp_path) -> Path:
    """The folder of a policy to start from, one with biases."""
    make_model("qwen2").save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def networks(base: Path, scorer: Path, given: Training = ADAPTED, shares: bool = True, seed: int = 0) -> tuple:
    """PPO's networks, with the same new adapters however they hold the base."""
    torch.manual_seed(seed)
    return rl.networks(Model(model=str(base)), scorer, PAD, given, 1.5, shares)


def trainer(found: tuple, config, given: Training = ADAPTED, sample=None) -> ppo.PPOTrainer:
    """A PPO trainer of these networks, with the reward model's scores for rewards."""
    policy, reference, value_model, judge = found

    def score(indices, texts, sequences):
        scores = scoring.score(judge, sequences, PAD)
        return scores, {"rm_score": scores}

    accelerator = training.new_accelerator(given)
    more = {"accelerator": accelerator, "forward_size": 4}
    return ppo.PPOTrainer(
        policy, reference, value_model, Words(), config, PROMPTS, sample or sampler(), score, first_logit, **more
    )


def tensors(found: tuple) -> dict[int, int]:
    """Bytes of each storage that networks hold for their parameters."""
    held = {}
    for model in found:
        for parameter in model.parameters() if model is not None else ():
            held[parameter.untyped_storage().data_ptr()] = parameter.untyped_storage().nbytes()
    return held


def frozen(model) -> dict[int, int]:
    """The same of what is no adapter and no head."""
    named = {n: p for n, p in model.named_parameters() if "lora_" not in n and "score" not in n}
    return {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in named.values()}


def test_ppo_on_one_base_has_the_history_of_separate_bodies(tmp_path, base):
    given = CHECKPOINTED
    scorer, histories = trained(tmp_path / "reward", base), []
    for shares in (True, False):
        one = trainer(networks(base, scorer, given, shares), settings(total_updates=3), given)
        one.train(tmp_path / str(shares))
        histories.append(one.history)
    for ours, apart in zip(*histories, strict=True):
        assert ours.keys() == apart.keys() and ours["update"] == apart["update"]
        for name, value in apart.items():
            assert ours[name] == (value if value is None else pytest.approx(value, rel=1e-3, abs=2e-4)), name
    assert histories[0][3]["kl"] != 0 and histories[0][3]["value_loss"] != histories[0][1]["value_loss"]


@pytest.mark.parametrize("given", [ADAPTED, BF16], ids=["float32", "bfloat16"])
def test_the_networks_start_as_separate_ones_do(tmp_path, base, given):
    """In bfloat16 as nearly as its eight bits allow."""
    scorer = trained(tmp_path / "reward", base, given)
    ids = torch.tensor(PROMPTS[2:12:3])
    near = CLOSE if given is ADAPTED else {"rtol": 0.05, "atol": 0.15}
    outputs = []
    for shares in (True, False):
        policy, reference, value_model, judge = networks(base, scorer, given, shares)
        assert reference is None
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=given is BF16):
            outputs.append([model(input_ids=ids).logits.float() for model in (policy, value_model)])
        with torch.no_grad():
            outputs[-1].append(scoring.score(judge, ids.tolist(), PAD))
    for ours, apart in zip(*outputs, strict=True):
        torch.testing.assert_close(ours, apart, **near)


@pytest.mark.parametrize("given", [ADAPTED, BF16], ids=["float32", "bfloat16"])
def test_the_base_is_held_once_and_what_is_trained_is_float32(tmp_path, base, given):
    scorer = trained(tmp_path / "reward", base, given)
    found = networks(base, scorer, given)
    policy, _, value_model, judge = found
    body = sum(frozen(policy).values())
    assert body == sum(p.nbytes for p in models.load_causal_lm(base, given).parameters())
    assert frozen(value_model).keys() | frozen(judge).keys() <= frozen(policy).keys()
    adapters = {n: p for n, p in policy.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in adapters)
    size = sum(p.nbytes for p in adapters.values())  # the adapter of the reward model is held once, too
    width = policy.config.hidden_size
    assert sum(tensors(found).values()) == body + 3 * size + 4 * width + judge.score.weight.nbytes
    trained_values = {n: p for n, p in value_model.named_parameters() if p.requires_grad}
    assert len(trained_values) == len(adapters) + 1 and "score.weight" in trained_values
    assert all(one_base.VALUE in name or name == "score.weight" for name in trained_values)
    assert {p.dtype for p in (*adapters.values(), *trained_values.values())} == {torch.float32}
    assert not any(p.requires_grad for p in judge.parameters())
    apart = [frozen(model).keys() for model in networks(base, scorer, given, shares=False) if model is not None]
    assert not (apart[0] & apart[1] or apart[0] & apart[2] or apart[1] & apart[2])


def test_a_killed_run_goes_on_exactly_from_what_is_trained(tmp_path, base):
    scorer, config = trained(tmp_path / "reward", base, BF16), settings(total_updates=3)
    straight = trainer(networks(base, scorer, BF16), config, BF16)
    result = straight.train(tmp_path / "straight")
    with pytest.raises(KilledError):
        trainer(networks(base, scorer, BF16), config, BF16, killed_in(3)).train(tmp_path / "killed")
    resumed = trainer(networks(base, scorer, BF16, seed=9), config, BF16)  # whose adapters the checkpoint replaces
    assert resumed.train(tmp_path / "killed") == result
    assert state_bytes(tmp_path / "killed", 3) == state_bytes(tmp_path / "straight", 3)
    policy, values = (
        load_file(tmp_path / f"straight/checkpoint-000003/{name}.safetensors") for name in ("policy", "value_model")
    )
    assert all("lora_" in name for name in policy)
    assert all(one_base.VALUE in name or name == "score.weight" for name in values)
    assert sum(t.numel() for t in (*policy.values(), *values.values())) == sum(p.numel() for p in straight.parameters)
    merged = training.merged(resumed.policy)
    assert merged.state_dict().keys() == models.load_causal_lm(base).state_dict().keys()


# ---- which reward models are put onto the base


def test_what_the_stage_saves_is_an_adapter_that_peft_reads(tmp_path, base):
    from peft import PeftModel

    scorer = trained(tmp_path / "reward", base)
    plain = models.load_scorer(scorer / "model", PAD)
    ours = scoring.score(PeftModel.from_pretrained(models.load_scorer(base, PAD), scorer / "adapter"), PROMPTS, PAD)
    torch.testing.assert_close(ours, scoring.score(plain, PROMPTS, PAD), **CLOSE)
    text = (scorer / "adapter/adapter_config.json").read_text()
    assert str(tmp_path) not in text and '"base_model_name_or_path": null' in text
    assert isinstance(plain, AutoModelForSequenceClassification._model_mapping[type(plain.config)])


@pytest.mark.parametrize("other", ["base", "reward model trained whole"])
def test_a_reward_model_of_another_base_is_a_body_of_its_own_that_the_value_model_shares(tmp_path, base, capsys, other):
    """One weight that differs is another base; an adapter on it would score something else without a word."""
    model = models.load_causal_lm(base)
    if other == "base":
        with torch.no_grad():
            model.model.layers[1].mlp.up_proj.weight[0, 0] += 1e-3
    model.save_pretrained(tmp_path / "other")
    scorer = trained(tmp_path / "reward", tmp_path / "other")
    if other != "base":
        shutil.rmtree(scorer / "adapter")
    policy, _, value_model, judge = networks(base, scorer)
    assert "PPO holds reward as a body of its own" in capsys.readouterr().out
    assert not frozen(judge).keys() & frozen(policy).keys() and frozen(value_model).keys() == frozen(judge).keys()
    assert_scores(scorer, judge, value_model)
    assert judge.score.weight.data_ptr() != value_model.score.weight.data_ptr()


def assert_scores(scorer: Path, judge, value_model) -> None:
    """The judge scores as the reward model that is loaded alone, and the value model starts from its scores."""
    expected = scoring.score(scoring.load(scorer, PAD), PROMPTS, PAD)
    near = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(scoring.score(judge, PROMPTS, PAD), expected, **near)
    if value_model is not None:
        torch.testing.assert_close(scoring.score(value_model, PROMPTS, PAD), expected / 1.5, **near)


def test_several_reward_models_have_their_adapters_on_one_base(tmp_path, base):
    scorer = trained(tmp_path / "reward", base)
    trained(scoring.member_folder(scorer, 1), base, seed=4)
    policy, _, value_model, judge = networks(base, scorer)
    assert isinstance(judge, scoring.MeanScorer) and len(judge.members) == 2
    assert frozen(judge).keys() <= frozen(policy).keys()
    assert_scores(scorer, judge, None)
    first = scoring.score(models.load_scorer(scorer / "model", PAD), [PROMPTS[2]], PAD)
    value = value_model(input_ids=torch.tensor([PROMPTS[2]])).logits.item()
    assert value == pytest.approx(first.item() / 1.5, abs=1e-5)


NAMES = ["q_proj", "v_proj", "qkv_proj", "c_attn", "in_proj"]
KINDS = ["gpt2", "granite", "phi3", "olmoe", "lfm2", "gemma4_text"]


@pytest.mark.parametrize(("kind", "targets"), [("qwen2", "all-linear"), *((kind, NAMES) for kind in KINDS)])
def test_architectures_share_their_body_whatever_adapters_ppo_has(tmp_path, kind, targets):
    """Also those whose scorers are made of their own parts, as transformers has none."""
    make_model(kind).save_pretrained(tmp_path / "base")
    given = Training(lora=Lora(r=2, alpha=4.0, target_modules=targets))
    others = Training(lora=Lora(r=3, alpha=4.0, target_modules=NAMES))
    scorer = trained(tmp_path / "reward", tmp_path / "base", others)
    policy, _, value_model, judge = networks(tmp_path / "base", scorer, given)
    assert frozen(value_model).keys() | frozen(judge).keys() <= frozen(policy).keys()
    assert_scores(scorer, judge, value_model)


# ---- stages


@pytest.mark.slow
def test_the_stages_hold_one_base(again, tmp_path, monkeypatch):  # noqa: F811
    """The reward model's stage writes its adapter, and PPO's stage loads one model."""
    judge = again(tmp_path / "judge", "05_reward_model", LORA).run()
    files = ["adapter_config.json", "adapter_model.safetensors", "base.json"]
    assert sorted(path.name for path in (judge.folder / "adapter").iterdir()) == files
    loaded, load = [], models._load

    def spy(loader, source, **options):
        loaded.extend([loader.__name__] if "dtype" in options else [])
        return load(loader, source, **options)

    read = Stage.input
    monkeypatch.setattr(
        Stage, "input", lambda stage, name: judge.folder if name == "reward_model" else read(stage, name)
    )
    monkeypatch.setattr(models, "_load", spy)
    again(tmp_path / "one", "06_ppo", LORA).run()
    assert loaded == ["AutoModelForCausalLM"]
