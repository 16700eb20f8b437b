"""Where a response ends: one set of tokens for sampling, for what is taught, and for what a saved model says of itself.

A checkpoint's generation settings also hold how its makers liked to sample. That is dropped when a model is loaded: the
study samples as its profile says, and a saved student answers greedily, as it was evaluated.
"""

from __future__ import annotations

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

KEPT = {"bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "use_cache", "transformers_version"}
KEPT |= {"output_attentions", "output_hidden_states"}  # which decide nothing that is sampled


def of_settings(settings: GenerationConfig | None) -> list[int]:
    """The end tokens in a model's generation settings."""
    found = getattr(settings, "eos_token_id", None)
    return [token for token in (found if isinstance(found, list) else [found]) if token is not None]


def of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a response: the tokenizer's, and those of the model's generation settings."""
    return sorted({tokenizer.eos_token_id, *of_settings(getattr(model, "generation_config", None))})


def settle(model: PreTrainedModel) -> None:
    """Leave nothing in a model's generation settings but its tokens: greedy, and such as can be saved."""
    settings = getattr(model, "generation_config", None)
    if settings is None:
        return
    usual = GenerationConfig()
    for name in settings.to_diff_dict():
        if name not in KEPT and hasattr(usual, name) and not name.startswith("_"):
            setattr(settings, name, getattr(usual, name))


def agree(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Have a model that is saved with a tokenizer end where it was sampled to end."""
    settings = getattr(model, "generation_config", None)
    if settings is not None and sorted(of_settings(settings)) != (ends := of(model, tokenizer)):
        settings.eos_token_id = ends if len(ends) > 1 else ends[0]
