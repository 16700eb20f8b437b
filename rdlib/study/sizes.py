"""Inputs of estimates: shapes of models, numbers of questions, tokens of prompts and responses.

    shape, source = shape_of(Model(model="meta-llama/Llama-3.2-1B"), root)
    shape.parameters                        # 1,235,814,400, without a hub or a file of weights

A `Shape` is that of decoder-only transformers such as Llama and Qwen2: RMSNorm, grouped-query attention, gated MLP, no
bias but Qwen2's on query, key and value. tests/test_memory.py compares its counts with transformers' own classes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from rdlib.settings import Dataset, Model

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Questions of the splits of appendix B.1, where a profile takes all there are.
SIZES = {
    "gsm8k": {"train": 6726, "validation": 747, "test": 1319, "perturbed_test": 10552},
    "mmlu_pro": {"train": 9204, "validation": 1023, "test": 1805, "perturbed_test": 0},
}
# Tokens of a prompt and of a response: of Llama-3's on GSM8K and MMLU-Pro (../shared/data), and of the micro models'.
LENGTHS = {
    "gsm8k": (130, 190),
    "mmlu_pro": (260, 330),
    "micro-gsm": (40, 45),
    "micro-mmlu": (50, 12),
    "questions": (150, 250),
}
# Tokens of the longest prompt: 985 and 5,286 characters of a question over 3.5, and the instruction around it.
LONGEST = {"gsm8k": 350, "mmlu_pro": 1600, "micro-gsm": 100, "micro-mmlu": 100, "questions": 600}


def split_sizes(dataset: Dataset, root: Path) -> dict[str, int]:
    """Questions of each split of a dataset; UserError where a file of your own questions cannot be read."""
    given = {name: getattr(dataset, name) for name in ("train", "validation", "test", "perturbed_test")}
    if None not in given.values():
        return given
    known = SIZES.get(dataset.source)
    if known is None:
        from rdlib.tasks import data

        splits = pd.Series([q.split for q in data.load(dataset.source, dataset, root)]).value_counts()
        known = {name: int(splits.get(name, 0)) for name in given}
    return {name: known[name] if count is None else min(count, known[name]) for name, count in given.items()}


@dataclass(frozen=True)
class Shape:
    """An architecture's numbers; `tied`: input and output embedding are one matrix.

    `counted`: parameters of an architecture with layers other than Llama's, counted on its own class; otherwise 0.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    intermediate: int
    vocabulary: int
    tied: bool = False
    qkv_bias: bool = False
    counted: int = 0

    @property
    def queries(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_width

    @property
    def keys(self) -> int:
        """Width of all key heads together, which is that of the values."""
        return self.kv_heads * self.head_width

    @property
    def linear_sizes(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of a layer's linear maps, by the names that adapters know them by."""
        return {
            "q_proj": (self.hidden, self.queries),
            "k_proj": (self.hidden, self.keys),
            "v_proj": (self.hidden, self.keys),
            "o_proj": (self.queries, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def layer_linear(self) -> int:
        """Weights of a layer's linear maps."""
        return sum(inputs * outputs for inputs, outputs in self.linear_sizes.values())

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, or of the output layer."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """Parameters of the language model."""
        bias = self.queries + 2 * self.keys if self.qkv_bias else 0
        layers = self.layers * (self.layer_linear + bias + 2 * self.hidden)
        return self.counted or self.embedding * (1 if self.tied else 2) + layers + self.hidden

    @property
    def scorer_parameters(self) -> int:
        """Parameters of a reward or value model: a head of one output in the output layer's place."""
        return self.parameters - (0 if self.tied else self.embedding) + self.hidden

    def adapter_parameters(self, rank: int, targets: str | list[str] = "all-linear") -> int:
        """Parameters of low-rank adapters; a pattern of names counts as all linear layers."""
        names = [t.rpartition(".")[2] for t in targets] if isinstance(targets, list) else list(self.linear_sizes)
        sizes = [size for name, size in self.linear_sizes.items() if name in names]
        return self.layers * rank * sum(inputs + outputs for inputs, outputs in sizes)


# From the models' config.json on the hub.
KNOWN = {
    "Llama-3-8B": Shape(4096, 32, 32, 8, 128, 14336, 128256),
    "Llama-3.1-8B": Shape(4096, 32, 32, 8, 128, 14336, 128256),
    "Llama-3-70B": Shape(8192, 80, 64, 8, 128, 28672, 128256),
    "Llama-3.1-70B": Shape(8192, 80, 64, 8, 128, 28672, 128256),
    "Llama-3.2-1B": Shape(2048, 16, 32, 8, 64, 8192, 128256, tied=True),
    "Llama-3.2-3B": Shape(3072, 28, 24, 8, 128, 8192, 128256, tied=True),
    "Qwen2.5-0.5B": Shape(896, 24, 14, 2, 64, 4864, 151936, tied=True, qkv_bias=True),
    "Qwen2.5-7B": Shape(3584, 28, 28, 4, 128, 18944, 152064, qkv_bias=True),
}


def shape_of(model: Model, root: Path) -> tuple[Shape, str]:
    """The shape of a model and where it comes from: its folder's config.json, or KNOWN by its name on the hub.

    Of any other model, that of the KNOWN one nearest in size to its `parameters`: a guess, and called one.
    """
    if (root / model.model / "config.json").is_file() and (found := _shape_in(root / model.model)):
        shape, kind = found
        guess = f"; activations and cache of {kind} are a guess, as Llama's" if shape.counted else ""
        return shape, f"{model.model}/config.json{guess}"
    name = re.sub(r"^Meta-|-(Instruct|Base)$", "", model.model.rpartition("/")[2])
    if name in KNOWN:
        return KNOWN[name], f"{name}'s config.json on the hub, kept in rdlib"
    name = min(KNOWN, key=lambda known: abs(KNOWN[known].parameters - (model.parameters or 0.0)))
    return KNOWN[name], f"a guess: {model.model} counts as {name}"


def _shape_in(folder: Path) -> tuple[Shape, str] | None:
    """The shape of the model in a folder, and its architecture; None for one that transformers does not know.

    Widths that an architecture does not have are those of a Llama its size.
    """
    from rdlib.engines import adapters, models

    try:
        whole = models.load_config(folder)
        text = whole.get_text_config(decoder=True)
        parameters = 0 if _is_llamas(whole) else adapters.without_weights(whole).num_parameters()
    except Exception:  # a configuration of code that is not here, or one that it does not take
        return None
    heads = getattr(text, "num_attention_heads", None) or max(1, text.hidden_size // 64)
    shape = Shape(
        text.hidden_size,
        text.num_hidden_layers,
        heads,
        getattr(text, "num_key_value_heads", None) or heads,
        getattr(text, "head_dim", None) or text.hidden_size // heads,
        _intermediate(text),
        text.vocab_size,
        tied=bool(getattr(text, "tie_word_embeddings", False)),
        qkv_bias=whole.model_type == "qwen2",
        counted=parameters,
    )
    return shape, whole.model_type


def _is_llamas(config: PreTrainedConfig) -> bool:
    """Whether an architecture's layers are those of `Shape`."""
    others = ("attention_bias", "mlp_bias", "quantization_config")
    return config.model_type in ("llama", "qwen2", "mistral") and not any(getattr(config, n, None) for n in others)


def _intermediate(text: PreTrainedConfig) -> int:
    """How wide a layer is between its maps, for one token: of a mixture, the experts that it goes through."""
    width = getattr(text, "intermediate_size", None) or getattr(text, "ffn_hidden_size", None) or 4 * text.hidden_size
    width = max(width) if isinstance(width, list | tuple) else width
    experts = getattr(text, "num_experts_per_tok", None)
    return experts * (getattr(text, "moe_intermediate_size", None) or width) if experts else width


def configuration(shape: Shape, **more: Any) -> PreTrainedConfig:
    """The configuration of a Llama or, where query, key and value have a bias, of a Qwen2 of this shape."""
    from transformers import LlamaConfig, Qwen2Config  # late: counting parameters needs neither

    return (Qwen2Config if shape.qkv_bias else LlamaConfig)(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_width,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        **more,
    )
