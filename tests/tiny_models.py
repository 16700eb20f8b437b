"""Tiny random models of many architectures, folders of tokenizers and settings as real models come, and prompts."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import torch
from scipy.stats import chisquare
from tokenizers import Tokenizer, decoders, normalizers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Metaspace
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from rdlib.micro import gsm, mmlu
from rdlib.tasks.prompts import micro_question

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
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
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


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BRACKETS = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
THINKING = CHATML.replace("assistant\n'", "assistant\n<think>\n'")
WITHOUT_THINKING = CHATML.replace("assistant\n'", "assistant\n<think>\n\n</think>\n\n'")
SPECIAL = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "[INST]", "[/INST]"]


def byte_level(special: list[str], texts: list[str]) -> Tokenizer:
    """A byte-level BPE tokenizer of some texts, without settings."""
    core = Tokenizer(BPE())
    core.pre_tokenizer, core.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    core.train_from_iterator(
        texts, BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=ByteLevel.alphabet())
    )
    return core


def make_tokenizer(
    around: str | None = None, template: str | None = None, eos: str = "</s>", pad: str | None = "<pad>"
):
    """A byte-level BPE tokenizer; `around` is what its post-processor puts around a text, as "<s> $A"."""
    texts = ["What is 7 * 6? Yes, it is 42.\n#### 42", "The answer is (B). Think step by step.\n\nQuestion: Answer:"]
    core = byte_level(SPECIAL, texts)
    if around is not None:
        special = [(token, core.token_to_id(token)) for token in SPECIAL[:2]]
        core.post_processor = TemplateProcessing(single=around, special_tokens=special)
    extra = {"additional_special_tokens": SPECIAL[3:]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token=eos, pad_token=pad, **extra)
    tokenizer.chat_template = template
    return tokenizer


def sentencepiece_like(legacy: bool) -> PreTrainedTokenizerFast:
    """A tokenizer as Llama 2's, TinyLlama's and Mistral's: a space before any text, or (`legacy`) before any part."""
    core = Tokenizer(BPE(unk_token="<unk>"))
    core.pre_tokenizer = Metaspace(prepend_scheme="first", split=True)
    alphabet = [*map(chr, range(32, 127)), "\n", "é", "≠"]
    core.train_from_iterator(
        ["Yes, it is 42."], BpeTrainer(vocab_size=200, special_tokens=["<unk>", *SPECIAL], initial_alphabet=alphabet)
    )
    if legacy:
        core.pre_tokenizer = None
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    extra = {"additional_special_tokens": SPECIAL[3:], "unk_token": "<unk>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", **extra)


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


def prompt_texts(count: int = 12) -> list[str]:
    """Prompts of very different lengths."""
    rng = random.Random(0)
    texts = []
    for _ in range(count // 2):
        choice = mmlu.draw(rng)
        texts += [micro_question(gsm.draw(rng).question, []), micro_question(choice.question, choice.options)]
    return texts


def chi_square(counts: Counter, probabilities: torch.Tensor, total: int) -> float:
    """The p-value of counts against probabilities; outcomes expected fewer than five times are one outcome."""
    expected = probabilities * total
    large = (expected >= 5).nonzero().squeeze(-1).tolist()
    observed = [counts[i] for i in large]
    wanted = [expected[i].item() for i in large]
    return chisquare([*observed, total - sum(observed)], [*wanted, total - sum(wanted)]).pvalue
