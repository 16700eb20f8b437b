"""Sampling by transformers' own `generate`, from models that keep more than keys and values of what they have read.

Mamba, Qwen3.5, LFM2, Granite 4 and others hold a state of each sequence that cannot be cut by rows, repeated or padded
as a cache of keys and values can. Here prompts of one length go together, each as often as it has samples, and no row
is dropped: slower, and the same tokens as `generate` gives for each prompt alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedConfig,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

ALONE = {"rwkv"}  # kinds of which transformers 5.17 samples several rows at once wrongly
# Kinds of models that were said to be sampled from more slowly, once a process
_said: set[str] = set()


def keeps_a_state(config: PreTrainedConfig) -> bool:
    """Whether a model of this configuration holds more of a sequence than keys and values."""
    try:
        layers = DynamicCache(config=config).layers
    except Exception:  # a kind of layer that transformers' own cache does not know
        return True
    return not all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def needs_generate(model: PreTrainedModel) -> bool:
    """Whether a model must be sampled from by `generate`."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    has_cache = "past_key_values" in inspect.signature(type(inner).forward).parameters
    return bool(getattr(inner, "_is_stateful", False)) or not has_cache or keeps_a_state(inner.config)


def say(kind: str) -> None:
    """Say once that a kind of model is sampled from more slowly."""
    if kind not in _said:
        _said.add(kind)
        print(f"Models of kind {kind} keep a state, so transformers' own generate samples from them, slower; or vLLM.")


class Picks(LogitsProcessor):
    """Leaves the token alone that `pick` chooses of each row, of logits [B, V]."""

    def __init__(self, pick: Callable[[Tensor], Tensor]):
        self.pick = pick

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Logits [B, V] of 0 for the token picked, and else of minus infinity."""
        return torch.full_like(scores, float("-inf")).scatter(1, self.pick(scores)[:, None], 0.0)


class Ends(StoppingCriteria):
    """Ends a row of a batch at the first token after which `ended` says so; `lengths` [B] are the tokens until then."""

    def __init__(self, start: int, rows: int, ended: Callable[[Tensor], Tensor]):
        self.start, self.ended, self.lengths = start, ended, torch.zeros(rows, dtype=torch.long)
        self.done = torch.zeros(rows, dtype=torch.bool)

    def __call__(self, input_ids: Tensor, scores: Tensor, **more) -> Tensor:
        """Whether each row has ended, [B]."""
        said = input_ids[:, self.start :]
        self.lengths = torch.where(self.done, self.lengths, said.shape[1])
        self.done = self.done | self.ended(said).cpu()
        return self.done.to(input_ids.device)


@contextmanager
def _plain_settings(model: PreTrainedModel) -> Iterator[None]:
    """A model without generation settings of its own, which `generate` would mix into those that it is given."""
    kept, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = kept


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    pad: int,
    max_tokens: int,
    pick: Callable[[Tensor], Tensor],
    ended: Callable[[Tensor], Tensor],
) -> tuple[list[list[int]], list[bool]]:
    """The tokens sampled after each of `prompts`, which have one length, and whether each ended.

    `pick` chooses tokens [B] of logits [B, V]; `ended` says of tokens so far [B, T] which rows [B] the last one ended.
    """
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # adapters are in its layers
    ids = torch.tensor(list(prompts), device=model.device)
    ends = Ends(ids.shape[1], len(ids), ended)
    settings = GenerationConfig(max_new_tokens=max_tokens, do_sample=False, pad_token_id=pad, use_cache=True)
    with _plain_settings(model):
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=settings,
            logits_processor=LogitsProcessorList([Picks(pick)]),
            stopping_criteria=StoppingCriteriaList([ends]),
        )
    said = output[:, ids.shape[1] :].tolist()
    return [row[:length] for row, length in zip(said, ends.lengths.tolist(), strict=True)], ends.done.tolist()
