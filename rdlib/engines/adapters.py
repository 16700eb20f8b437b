"""Whether low-rank adapters fit a model, tried on a model without weights."""

from __future__ import annotations

import warnings

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rdlib.settings import Lora


def without_weights(config: PreTrainedConfig) -> PreTrainedModel:
    """A causal language model on the meta device: its shapes alone."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def cannot_be_built(config: PreTrainedConfig) -> str | None:
    """Why transformers makes no causal language model of a configuration; None where it does.

    None too where weights cannot be made on the meta device, which some architectures fill with numbers of its own.
    """
    try:
        without_weights(config)
    except (AssertionError, ImportError, ValueError) as error:
        return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    except Exception:
        return None
    return None


def problem(config: PreTrainedConfig, lora: Lora) -> str | None:
    """Why a model of this configuration cannot have these adapters, and what to do; None where it can."""
    from peft import LoraConfig, get_peft_model

    try:
        model = without_weights(config)
    except Exception:  # of a configuration that transformers cannot build; the stage that loads it says why
        return None
    both = model.get_input_embeddings(), model.get_output_embeddings()
    tied = None not in both and both[0].weight is both[1].weight
    names = {name.rpartition(".")[2] for name, module in model.named_modules() if _is_linear(module)}
    settings = LoraConfig(task_type="CAUSAL_LM", r=lora.r, target_modules=lora.target_modules)
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            get_peft_model(model, settings)
        if not tied or both == (model.get_input_embeddings(), model.get_output_embeddings()):
            return None
        reason = "its output layer and its embedding are one matrix, so merging an adapter of one changes the other"
    except ValueError as error:  # no layer of the names, or one that adapters would break
        reason = str(error).strip().splitlines()[0][:160]
    fitting = ", ".join(sorted(names - {"lm_head", "embed_out"}))
    return f"set its target_modules to some of {fitting} ({reason})."


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear | Conv1D)
