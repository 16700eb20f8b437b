"""Reward and value models: a language model's body and a linear head of one output, read at a sequence's last token.

The last token is the mask's: an end token that also serves as padding would be passed over where tokens are compared.
transformers has no such class for half of its causal architectures; these get one made of its own parts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutputWithPast

from rdlib.errors import UserError


def last_places(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Where each row of hidden states [B, T, H] has its last real token, [B]; `mask` [B, >= T] covers a cache too."""
    rows, length = hidden.shape[:2]
    if mask is None:
        return torch.full((rows,), length - 1, device=hidden.device)
    places = torch.arange(length, device=hidden.device, dtype=torch.int32)
    return (places * mask[:, -length:].to(hidden.device, torch.int32)).argmax(-1)


def _forward(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **more: Any):
    """The score of each row, as `logits` [B, labels], at its last real token."""
    more = {name: value for name, value in more.items() if value is not None and name != "labels"}
    output = getattr(self, self.base_model_prefix)(input_ids, attention_mask=attention_mask, **more)
    logits = self.score(output.last_hidden_state)
    rows = torch.arange(len(logits), device=logits.device)
    return SequenceClassifierOutputWithPast(
        logits=logits[rows, last_places(logits, attention_mask)],
        past_key_values=getattr(output, "past_key_values", None),
        hidden_states=getattr(output, "hidden_states", None),
        attentions=getattr(output, "attentions", None),
    )


def _told_as(known: Callable) -> Callable:
    """`_forward` as a new function with the signature of `known`, which says what arguments the body takes."""

    @functools.wraps(known)
    def forward(self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **more: Any):
        """The score of each row at its last real token; see `_forward`."""
        return _forward(self, input_ids, attention_mask, **more)

    forward.reads_by_mask = True
    return forward


@functools.cache
def reading_by_mask(kind: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """A class of scorers, under its own name, whose score is read where the mask ends."""
    if getattr(kind.forward, "reads_by_mask", False):
        return kind
    return type(kind.__name__, (kind,), {"forward": _told_as(kind.forward), "__module__": kind.__module__})


def read_by_mask(model: PreTrainedModel, source: str) -> PreTrainedModel:
    """The scorer, read where the mask ends; UserError where it has not one linear head on a body."""
    if not has_head(model):
        raise UserError(
            f"The model {source} ({type(model).__name__}) has no linear head that a score could be read from: take a "
            f"decoder-only student of another architecture."
        )
    model.__class__ = reading_by_mask(type(model))
    return model


def class_for(config: PreTrainedConfig | None) -> Any:
    """What loads a scorer of this architecture: transformers' own class by its name, or the one that is `made_for` it.

    The former too for an unknown architecture (None), whose error it is to say what is wrong.
    """
    if config is None or type(config) in AutoModelForSequenceClassification._model_mapping:
        return AutoModelForSequenceClassification
    return made_for(type(config)) or AutoModelForSequenceClassification


def can_be_made(config: PreTrainedConfig) -> bool:
    """Whether a model of this configuration can carry a head, tried without weights.

    True also of one that cannot be built so, of which the stage that loads it knows more.
    """
    kind = class_for(config)
    if type(config) not in AutoModelForCausalLM._model_mapping:
        return False
    try:
        with torch.device("meta"):
            causal = AutoModelForCausalLM.from_config(deepcopy(config))
            known = kind is AutoModelForSequenceClassification
            scorer = kind.from_config(deepcopy(config)) if known else kind(deepcopy(config))
    except Exception:  # some architectures fill their weights with numbers that the meta device lacks
        return True
    return has_head(scorer) and hasattr(causal, scorer.base_model_prefix)


def has_head(model: PreTrainedModel) -> bool:
    """Whether a model is one linear head on a body."""
    return isinstance(getattr(model, "score", None), torch.nn.Linear) and hasattr(model, model.base_model_prefix)


@functools.cache
def made_for(config: type[PreTrainedConfig]) -> type[PreTrainedModel] | None:
    """A class of scorers on the body of a causal architecture; None for one that has no body of its own."""
    if config not in AutoModelForCausalLM._model_mapping or config not in AutoModel._model_mapping:
        return None
    causal, body = AutoModelForCausalLM._model_mapping[config], AutoModel._model_mapping[config]
    base = next((c for c in causal.__mro__[1:] if issubclass(c, PreTrainedModel)), None)
    if base is None or base is PreTrainedModel:
        return None
    name = causal.__name__.removesuffix("ForCausalLM").removesuffix("LMHeadModel") + "ForSequenceClassification"
    told = {"base_model_prefix": causal.base_model_prefix, "config_class": config}
    told["__module__"] = causal.__module__  # in whose text transformers looks for the kinds of attention and experts
    told["forward"] = _told_as(body.forward)
    return type(name, (GenericForSequenceClassification, base), told)


# ---- scorers on the weights of another model


def twin(module: nn.Module) -> Any:
    """A module of its own, with the very parameters and buffers of another: nothing of these is copied.

    What is put into its layers, such as adapters, and its modes are its own.
    """
    tensors = [*module.parameters(), *module.buffers()]
    return deepcopy(module, {id(tensor): tensor for tensor in tensors})


def on_body_of(causal: PreTrainedModel, pad_token_id: int) -> PreTrainedModel | None:
    """A scorer with a twin of a language model's body and a head of zeros.

    None for an architecture whose scorers have another body, or cannot be built without weights.
    """
    body = twin(getattr(causal, causal.base_model_prefix))
    config = body.config
    config.num_labels, config.pad_token_id = 1, pad_token_id
    kind = class_for(config)
    try:
        if kind is AutoModelForSequenceClassification:
            kind = AutoModelForSequenceClassification._model_mapping[type(config)]
        with torch.device("meta"):
            scorer = kind(config)
    except Exception:  # some architectures fill their weights with numbers that the meta device lacks
        return None
    if not has_head(scorer) or type(getattr(scorer, scorer.base_model_prefix)) is not type(body):
        return None
    setattr(scorer, scorer.base_model_prefix, body)
    scorer.score = nn.utils.skip_init(
        nn.Linear, scorer.score.in_features, 1, bias=scorer.score.bias is not None, dtype=causal.dtype
    )
    for parameter in scorer.score.parameters():
        nn.init.zeros_(parameter)
    if any(tensor.is_meta for tensor in (*scorer.parameters(), *scorer.buffers())):
        return None
    return read_by_mask(scorer, type(causal).__name__).eval()
