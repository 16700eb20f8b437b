"""Scores against a model that reads one sequence at a time: padding, parts, and prompts that are read once."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import MODELS
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, MistralConfig, Qwen2Config

from rdlib.engines import models
from rdlib.method import scoring
from rdlib.method.scoring import pad_right, reads_prefixes, score, score_by_query, score_whole


@pytest.fixture(scope="module")
def scorer():
    """(model, tokenizer): the base model with a head that is not zero."""
    tokenizer = models.load_tokenizer(MODELS / "small")
    model = models.load_scorer(MODELS / "small", tokenizer.pad_token_id)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.score.weight, std=0.1)
    return model, tokenizer


@pytest.fixture(scope="module")
def sequences(scorer):
    texts = [f"Q: tom has {n} apples . {'tom buys 5 apples . ' * (n % 4)} A: #### {n}" for n in range(30)]
    eos = scorer[1].eos_token_id
    return [ids + [eos] * (i % 2) for i, ids in enumerate(scorer[1](texts)["input_ids"])]


def plain(model, sequences) -> torch.Tensor:
    """The score of each sequence alone."""
    with torch.no_grad():
        return torch.tensor([model(input_ids=torch.tensor([s])).logits[0, 0].item() for s in sequences])


@pytest.mark.parametrize("queries", [None, [i % 7 for i in range(30)], ["one"] * 30, list(range(30))])
def test_scores_equal_an_unbatched_loop(scorer, sequences, queries, monkeypatch):
    model, tokenizer = scorer
    alone = plain(model, sequences)
    for size in (1, 7, 256):
        monkeypatch.setattr(scoring, "SCORED_SIZE", size)
        monkeypatch.setattr(scoring, "GROUP_SIZE", 3 * size)
        assert torch.allclose(score(model, sequences, tokenizer.pad_token_id, queries), alone, atol=1e-4)
    assert alone.std() > 0.1


def test_padding_on_the_right_does_not_change_a_score(scorer, sequences):
    tokenizer = scorer[1]
    model = copy.deepcopy(scorer[0]).double()  # float32 would hide a small dependence in its rounding
    ids, mask = pad_right(sequences, tokenizer.pad_token_id)
    wider = torch.nn.functional.pad(ids, (0, 17), value=tokenizer.pad_token_id)
    with torch.no_grad():
        first = model(input_ids=ids, attention_mask=mask).logits
        second = model(input_ids=wider, attention_mask=torch.nn.functional.pad(mask, (0, 17))).logits
    assert torch.allclose(first, second, rtol=0, atol=1e-10)


def with_gradient(model, scores: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Scores, and the gradient of a weighted sum of them in every trained parameter."""
    weights = torch.arange(1.0, len(scores) + 1, dtype=scores.dtype)
    trained = [p for p in model.parameters() if p.requires_grad]
    return scores.detach(), list(torch.autograd.grad((scores * weights).sum(), trained))


@pytest.mark.parametrize("size", [1, 7])
def test_scores_in_parts_and_their_gradient_are_those_of_the_whole(scorer, sequences, size):
    model, tokenizer = scorer
    ids, mask = pad_right(sequences, tokenizer.pad_token_id)
    whole, gradients = with_gradient(model, model(input_ids=ids, attention_mask=mask).logits[:, 0])
    parts, other = with_gradient(model, score_whole(model, ids, mask, size))
    assert torch.allclose(parts, whole, atol=1e-4)
    assert all(torch.allclose(b, a, rtol=1e-3, atol=1e-3) for a, b in zip(gradients, other, strict=True))


@pytest.mark.parametrize("queries", [None, [*range(30), *range(30)]])
def test_equal_sequences_have_equal_scores_whatever_is_beside_them(scorer, sequences, queries, monkeypatch):
    """Else the AUCs would take a response that teacher and student both gave for a better and a worse one."""
    monkeypatch.setattr(scoring, "SCORED_SIZE", 7)
    twice = score(scorer[0], [*sequences, *sequences], scorer[1].pad_token_id, queries)
    assert torch.equal(twice[:30], twice[30:])
    assert len(twice.unique()) == len(set(map(tuple, sequences)))


# ---- prompts that are read once

QUERIES = [
    [[5, 6, 7, 8, 9], [5, 6, 7, 10, 11, 12, 13], [5, 6, 7, 14]],  # three tokens in common
    [[20, 21, 22, 23, 24, 25, 26], [20, 21], [20, 21, 22]],  # one is the beginning of the others
    [[30, 31, 32]],  # alone
    [[40, 41], [40, 41]],  # the same twice
    [[50, 51, 52], [60, 61]],  # nothing in common
    [[9]],  # the row that fills up a process's share
]


def batch_of(groups: list[list[list[int]]], order: list[int], pad: int = 0):
    """Ids, mask and queries of all sequences in an order."""
    rows = [(sequence, number) for number, group in enumerate(groups) for sequence in group]
    ids, mask = pad_right([rows[i][0] for i in order], pad)
    return ids, mask, torch.tensor([rows[i][1] for i in order])


def small_model(config_class, **options):
    """An untrained scorer in float64 of another architecture."""
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "pad_token_id": 0}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = config_class(**sizes, **heads, num_labels=1, **options)
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config).double().eval()


@pytest.mark.parametrize("adapters", [False, True])
@given(order=st.permutations(range(12)), size=st.integers(1, 13))
@settings(max_examples=20, deadline=None)
def test_prompts_read_once_give_the_scores_and_the_gradient_of_whole_sequences(adapters, order, size):
    model = small_model(Qwen2Config)
    if adapters:
        lora = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        model = get_peft_model(model, lora).double().eval()
    assert reads_prefixes(model)
    ids, mask, queries = batch_of(QUERIES, order)
    whole, gradients = with_gradient(model, score_whole(model, ids, mask, 1000))
    shared, others = with_gradient(model, score_by_query(model, ids, mask, queries, size))
    torch.testing.assert_close(shared, whole, rtol=1e-5, atol=1e-6)  # the norms go through float32
    for a, b in zip(gradients, others, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4)


def test_each_prompt_goes_through_the_model_once(scorer, monkeypatch):
    """Counted in tokens: a query's prompt, and what follows it of each response."""
    model = copy.deepcopy(scorer[0])
    seen = []
    forward = model.model.embed_tokens.forward
    monkeypatch.setattr(model.model.embed_tokens, "forward", lambda ids: seen.append(ids) or forward(ids))
    prompt = list(range(5, 25))
    ids, mask = pad_right([[*prompt, n, 1] for n in range(30, 38)], 0)
    scoring.score_batch(model, ids, mask, torch.zeros(8, dtype=torch.long))
    assert [tokens.numel() for tokens in seen] == [20, 8 * 2]


def test_models_that_cannot_go_on_from_a_prompt_read_whole_sequences():
    sliding = small_model(MistralConfig, sliding_window=4)
    ids, mask, queries = batch_of(QUERIES, list(range(12)))
    torch.testing.assert_close(
        scoring.score_batch(sliding, ids, mask, queries), score_whole(sliding, ids, mask, 24), rtol=0, atol=0
    )
    assert not reads_prefixes(sliding)
    checkpointed = small_model(Qwen2Config)
    checkpointed.gradient_checkpointing_enable()
    assert not reads_prefixes(checkpointed)
