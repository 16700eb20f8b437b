"""What architectures of real models do: states beside the cache, heads, end tokens, settings of generation."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import refused
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import make_model, make_tokenizer, save_settings
from transformers import AutoModelForCausalLM, GenerationConfig

from rdlib.engines import endings, models, stateful
from rdlib.engines.generation import Request
from rdlib.engines.transformers_engine import TransformersEngine
from rdlib.method import scoring

PROMPTS = [[5, 6, 7, 9, 11], [8, 9], [5, 7, 7, 9, 12], [11, 12, 13, 14, 15, 16, 17, 18, 19], [20, 21]]
ENDS = [1, 7, 30, 50, 60, 70, 80]
STATES = ["qwen3_5_text", "granitemoehybrid", "mamba", "rwkv"]


def greedy(model, prompt: list[int], limit: int) -> list[int]:
    """What transformers' own generate says to one prompt."""
    ids = torch.tensor([prompt])
    settings = {"max_new_tokens": limit, "do_sample": False, "pad_token_id": 2, "eos_token_id": ENDS}
    return model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, len(prompt) :].tolist()


# ---- states


@pytest.mark.parametrize("kind", [*STATES, "qwen2", "gemma3_text"])
def test_sampling_in_batches_is_generate_of_each_prompt(kind, capsys):
    model, tokenizer = make_model(kind), make_tokenizer()
    model.generation_config.eos_token_id = ENDS
    expected = [greedy(model, prompt, 12) for prompt in PROMPTS]
    model.generation_config.update(do_sample=True, temperature=0.1, repetition_penalty=5.0)
    stateful._said.clear()
    engine = TransformersEngine(model, tokenizer, 8, 12)
    assert engine.by_generate == (kind in STATES)
    assert ("slower" in capsys.readouterr().out) == (kind in STATES)
    groups = engine.generate([Request(prompt, 2, 0.0) for prompt in PROMPTS], seed=0)
    assert [[c.tokens for c in group] for group in groups] == [[tokens] * 2 for tokens in expected]
    for group in groups:
        assert all((c.finish_reason == "stop") == (c.tokens[-1] in ENDS) for c in group)
    hot = [[[c.tokens for c in g] for g in engine.generate([Request(p, 3, 1.0) for p in PROMPTS], 1)] for _ in "ab"]
    assert hot[0] == hot[1] and len({tuple(tokens) for group in hot[0] for tokens in group}) > 10
    assert model.generation_config.repetition_penalty == 5.0


def test_a_model_with_a_state_stops_at_strings_and_samples_with_adapters():
    model, tokenizer = make_model("qwen3_5_text"), make_tokenizer()
    plain = TransformersEngine(model, tokenizer, 8, 12).generate([Request([5, 6], 1, 0.0)], 0)[0][0]
    stop = tokenizer.decode(plain.tokens[4:5])
    cut = TransformersEngine(model, tokenizer, 8, 12, stop=[stop]).generate([Request([5, 6], 1, 0.0)], 0)[0][0]
    assert cut.finish_reason == "stop" and stop not in cut.text and len(cut.tokens) <= 5
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))
    again = TransformersEngine(adapted, tokenizer, 8, 12).generate([Request([5, 6], 1, 0.0)], 0)[0][0]
    assert again.tokens == plain.tokens


# ---- heads


@pytest.mark.parametrize("kind", ["qwen2", "gpt2", "granite", "olmoe", "lfm2"])
def test_a_head_is_trained_saved_and_loaded_again(tmp_path, kind):
    """Also where transformers has no classification class; with adapters: tests/test_one_base.py."""
    make_model(kind).save_pretrained(tmp_path / "base")
    torch.manual_seed(0)
    model = models.load_scorer(tmp_path / "base", 2).train()
    rows = [[5, 6, 7, 2], [5, 6, 8, 9, 10, 11], [5, 6]]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    before = scoring.score(model, rows, 2)
    for _ in range(2):
        ids, mask = scoring.pad_right(rows, 2)
        optimizer.zero_grad()
        scoring.score_batch(model, ids, mask, torch.tensor([0, 0, 0])).sum().neg().backward()
        optimizer.step()
    trained = scoring.score(model, rows, 2)
    assert (trained != before).all()
    model.save_pretrained(tmp_path / "reward")
    again = models.load_scorer(tmp_path / "reward", 2)
    assert torch.allclose(scoring.score(again, rows, 2), trained, atol=1e-4)
    assert json.loads((tmp_path / "reward/config.json").read_text())["architectures"] == [type(again).__name__]


@pytest.mark.parametrize("kind", ["qwen2", "gpt2", "granite"])
def test_a_score_is_read_at_the_last_token_whatever_it_is(tmp_path, kind):
    """A rollout of Qwen2.5's may end with the token that its configuration pads with."""
    body = make_model(kind)
    body.save_pretrained(tmp_path)
    model = models.load_scorer(tmp_path, 2)
    torch.nn.init.normal_(model.score.weight)
    rows = [[5, 6, 7], [5, 6, 7, 2], [5, 6, 7, 2, 2], [5, 6, 7, 8, 9, 10, 2]]
    with torch.no_grad():
        states = [getattr(body, body.base_model_prefix)(torch.tensor([row])).last_hidden_state[0, -1] for row in rows]
        right = (torch.stack(states) @ model.score.weight.T)[:, 0]
    for scores in (scoring.score(model, rows, 2), scoring.score(model, rows, 2, ["q"] * 4)):
        assert torch.allclose(scores, right, atol=1e-4)
    assert right[:3].unique().numel() == 3


def test_what_one_architecture_can_be_told_is_its_own(tmp_path):
    """A scorer of another one, loaded after it, takes no positions; prompts are still read once for all responses."""
    for kind, reads in (("qwen2", True), ("mamba", False)):
        make_model(kind).save_pretrained(tmp_path / kind)
        assert scoring.reads_prefixes(models.load_scorer(tmp_path / kind, 2)) is reads
    assert scoring.reads_prefixes(models.load_scorer(tmp_path / "qwen2", 2))


def test_an_architecture_without_a_body_of_its_own_is_refused(tmp_path):
    make_model("ctrl", dff=48).save_pretrained(tmp_path)
    refused("no linear head", models.load_scorer, tmp_path, 2)


# ---- checkpoints


RENAMED = [
    ("layers.1.mlp.up_proj", None, "lack model.layers.1.mlp.up_proj.weight .1 missing in all."),
    ("lm_head", None, "lack lm_head.weight"),
    ("model.", "base_model.model.model.", "lack model.embed_tokens.weight .26 missing"),
    ("", "_orig_mod.", "lack lm_head.weight .27 missing"),
]


@pytest.mark.parametrize(("part", "other", "said"), RENAMED)
def test_weights_that_a_checkpoint_lacks_are_never_random(tmp_path, part, other, said):
    """As those are that were saved in part, from a wrapper of torch.compile or PEFT, or without an output layer."""
    make_model("qwen2").save_pretrained(tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    kept = {n.replace(part, other, 1) if other else n: w for n, w in found.items() if other or part not in n}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    refused(said, models.load_causal_lm, tmp_path)
    if part == "lm_head":
        models.load_scorer(tmp_path, 2)  # which needs none
    else:
        refused("would be random", models.load_scorer, tmp_path, 2)


def test_an_adapter_is_no_model(tmp_path):
    make_model("qwen2").save_pretrained(tmp_path / "base")
    base = models.load_causal_lm(tmp_path / "base")
    get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])).save_pretrained(tmp_path / "a")
    for load in (models.load_config, models.load_causal_lm, models.load_scorer):
        refused("is an adapter .PEFT., no whole model: merge it", load, tmp_path / "a")


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_a_mixture_that_asks_for_its_routers_loss_is_sampled(tmp_path, kind):
    """As checkpoints do that were trained with that loss; transformers cannot compute it beside a cache."""
    make_model(kind, output_router_logits=True).save_pretrained(tmp_path)
    model, tokenizer = models.load_causal_lm(tmp_path), make_tokenizer()
    model.generation_config.eos_token_id = ENDS
    groups = TransformersEngine(model, tokenizer, 8, 12).generate([Request(p, 1, 0.0) for p in PROMPTS], 0)
    assert [group[0].tokens for group in groups] == [greedy(model, prompt, 12) for prompt in PROMPTS]


# ---- ends


SETTINGS = [
    {"temperature": 0.6},
    {"do_sample": False, "temperature": 1e-6, "top_p": 0.9},
    {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.1},
    {"no_repeat_ngram_size": 3, "min_new_tokens": 4, "max_length": 20, "num_beams": 4, "suppress_tokens": [5]},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_of_generation_settings_the_tokens_alone_are_kept_and_saved(tmp_path, settings):
    make_model("qwen2").save_pretrained(tmp_path)
    save_settings(tmp_path, "generation_config.json", eos_token_id=ENDS, bos_token_id=0, **settings)
    model = models.load_causal_lm(tmp_path)
    model.save_pretrained(tmp_path / "saved")
    saved = GenerationConfig.from_pretrained(tmp_path / "saved").to_diff_dict()
    assert {n: v for n, v in saved.items() if n.endswith("token_id")} == {"eos_token_id": ENDS, "bos_token_id": 0}
    assert not settings.keys() & saved.keys()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    ids = torch.tensor([PROMPTS[0]])
    written = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12)[0, 5:].tolist()
    engine = TransformersEngine(model, make_tokenizer(), 8, 12)
    assert written == engine.generate([Request(PROMPTS[0], 1, 0.0)], 0)[0][0].tokens


@pytest.mark.parametrize(("own", "saved"), [(0, [0, 1]), ([0, 5], [0, 1, 5]), (1, 1), (None, 1)])
def test_a_saved_model_ends_where_it_was_sampled_to_end(own, saved):
    """A base model's settings do not know the end that its chat template writes."""
    model, tokenizer = make_model("qwen2"), make_tokenizer()
    model.generation_config.eos_token_id = own
    ends = models.end_tokens(model, tokenizer)
    endings.agree(model, tokenizer)
    assert model.generation_config.eos_token_id == saved
    assert ends == models.end_tokens(model, tokenizer) == endings.of_settings(model.generation_config)
