"""Tiny random models of many architectures, and folders of tokenizers and settings as real models come."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from test_prompts import make_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

ROWS = 400  # of an embedding, above every id of `make_tokenizer`
SHAPE = {
    "vocab_size": ROWS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 1024,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_expand": 2}
MORE = {
    "qwen3_5_text": LINEAR,
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "granitemoehybrid": MAMBA
    | {"layer_types": ["mamba", "attention"], "num_local_experts": 0, "shared_intermediate_size": 48},
    "falcon_h1": MAMBA | {"mamba_n_groups": 1, "mamba_d_ssm": 64},
    "mamba": {"state_size": 4},
    "rwkv": {"attention_hidden_size": 32, "context_length": 128},
    "olmoe": {"num_experts": 2, "num_experts_per_tok": 1},
    "gemma3_text": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "gemma2": {"query_pre_attn_scalar": 8, "sliding_window": 8},
    "gemma4_text": {
        "vocab_size_per_layer_input": ROWS,
        "hidden_size_per_layer_input": 8,
        "num_kv_shared_layers": 0,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
        "global_head_dim": 8,
    },
}


def make_model(kind: str, **changes) -> PreTrainedModel:
    """A random model of an architecture, by transformers' name; its weights are large, so that its words differ."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SHAPE | MORE.get(kind, {}) | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return model.eval()


def save_tokenizer(folder: Path, template: str | None = None, made=None, **settings) -> Path:
    """Write a tokenizer with a chat template; `settings` go into its tokenizer_config.json."""
    tokenizer = made or make_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def save_settings(folder: Path, name: str, **settings) -> Path:
    """Write a file of settings, such as config.json."""
    (folder / name).write_text(json.dumps(settings))
    return folder
