"""Loading models and tokenizers from local folders or the hub, with errors a user can act on."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from rdlib.errors import UserError

logging.set_verbosity_error()
logging.disable_progress_bar()  # loading a file is no long work


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, padding on the left."""
    return _load(AutoTokenizer, source, padding_side="left")


def load_causal_lm(source: str | Path) -> PreTrainedModel:
    """A language model in float32, in evaluation mode."""
    return _load(AutoModelForCausalLM, source, dtype=torch.float32).eval()


def load_scorer(source: str | Path, pad_token_id: int | None = None) -> PreTrainedModel:
    """A model with one linear head on the last token's final embedding (a new head is zero) in float32."""
    model = _load(AutoModelForSequenceClassification, source, dtype=torch.float32, num_labels=1)
    if pad_token_id is not None:
        model.config.pad_token_id = pad_token_id
    return model.eval()


def _load(loader, source: str | Path, **options):
    try:
        return loader.from_pretrained(source, **options)
    except Exception as error:  # a missing, cut or foreign file fails in many ways, some of them of other libraries
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"The model {source} cannot be loaded ({reason}): check the path or name in the profile; "
            f"a hub model needs a network, and a gated one a login."
        ) from None


def resolve(source: str, root: Path) -> str:
    """A model source of a profile: a folder relative to the repository, or a hub name as it is."""
    folder = root / source
    return str(folder) if folder.is_dir() else source


def parameter_count(source: str | Path) -> int:
    """Number of parameters in a model folder's safetensors files; UserError when there are none."""
    files = sorted(Path(source).glob("*.safetensors"))
    if not files:
        raise UserError(
            f"{source} holds no .safetensors file, so its parameters can't be counted: give a local folder."
        )
    total = 0
    for file in files:
        with safe_open(file, framework="pt") as content:
            total += sum(math.prod(content.get_slice(name).get_shape()) for name in content.keys())  # noqa: SIM118
    return total
