"""Shapes of the models that profiles name, and what follows from them: parameters, without a hub or a file of weights.

    shape, source = architectures.of(Model(model="meta-llama/Llama-3.2-1B"), root)
    shape.parameters                        # 1,235,814,400

Decoder-only transformers as Llama's and Qwen2's: RMSNorm, grouped-query attention, gated MLP, no bias but Qwen2's on
query, key and value. The counts are those of transformers' own classes (a test builds each on the meta device).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rdlib.settings import Model

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Shape:
    """An architecture's numbers; `tied`: input and output embedding are one matrix.

    `counted` are the parameters of an architecture whose layers are others than these (0: they are not).
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
    def layer(self) -> int:
        """Parameters of a layer."""
        bias = self.queries + 2 * self.keys if self.qkv_bias else 0
        return self.layer_linear + bias + 2 * self.hidden

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, or of the output layer."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """Parameters of the language model."""
        return self.counted or self.embedding * (1 if self.tied else 2) + self.layers * self.layer + self.hidden

    @property
    def scorer_parameters(self) -> int:
        """Parameters of a reward or value model: a head of one output in the output layer's place."""
        if self.counted:
            return self.counted - (0 if self.tied else self.embedding) + self.hidden
        return self.embedding + self.layers * self.layer + 2 * self.hidden

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


def of(model: Model, root: Path, parameters: float = 0.0) -> tuple[Shape, str]:
    """The shape of a model and where it comes from: its folder's config.json, or KNOWN by its name on the hub.

    Of any other model, that of the KNOWN one nearest in size to `parameters`: a guess, and called one.
    """
    path = root / model.model / "config.json"
    if path.is_file():
        config = json.loads(path.read_text(encoding="utf-8"))
        if is_llamas(config):
            return of_config(config), f"{model.model}/config.json"
        if (other := of_another(path.parent)) is not None:
            kind = config.get("model_type")
            return other, f"{model.model}/config.json; activations and cache of {kind} are a guess, as Llama's"
    name = family(model.model)
    if name in KNOWN:
        return KNOWN[name], f"{name}'s config.json on the hub, kept in rdlib"
    name = min(KNOWN, key=lambda known: abs(KNOWN[known].parameters - parameters))
    return KNOWN[name], f"a guess: {model.model} counts as {name}"


def family(name: str) -> str:
    """A model's name on the hub without its owner and the words that leave its shape as it is."""
    return re.sub(r"^Meta-|-(Instruct|Base)$", "", name.rpartition("/")[2])


def is_llamas(config: dict) -> bool:
    """Whether a config.json is of an architecture whose layers are those of `Shape`."""
    bias = config.get("attention_bias") or config.get("mlp_bias")
    return (
        config.get("model_type") in ("llama", "qwen2", "mistral") and not bias and "quantization_config" not in config
    )


def of_another(folder: Path) -> Shape | None:
    """The shape of a model of any other architecture by its folder, its parameters counted on one without weights.

    None where transformers does not know the architecture. Widths that it does not have are those of a Llama its size.
    """
    from rdlib.engines import adapters, models

    try:
        whole = models.load_config(folder)
        text = whole.get_text_config(decoder=True)
        model = adapters.without_weights(whole)
    except Exception:  # a configuration of code that is not here, or one that it does not take
        return None
    hidden = text.hidden_size
    heads = getattr(text, "num_attention_heads", None) or max(1, hidden // 64)
    return Shape(
        hidden,
        text.num_hidden_layers,
        heads,
        getattr(text, "num_key_value_heads", None) or heads,
        getattr(text, "head_dim", None) or hidden // heads,
        _intermediate(text),
        text.vocab_size,
        tied=bool(getattr(text, "tie_word_embeddings", False)),
        counted=sum(parameter.numel() for parameter in model.parameters()),
    )


def _intermediate(text) -> int:
    """How wide a layer is between its maps, for one token: of a mixture, the experts that it goes through."""
    width = getattr(text, "intermediate_size", None) or getattr(text, "ffn_hidden_size", None) or 4 * text.hidden_size
    width = max(width) if isinstance(width, list | tuple) else width
    experts = getattr(text, "num_experts_per_tok", None)
    return experts * (getattr(text, "moe_intermediate_size", None) or width) if experts else width


def of_config(config: dict) -> Shape:
    """The shape in a config.json of a Llama, Qwen2 or Mistral."""
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    kind = config.get("model_type")
    return Shape(
        hidden,
        config["num_hidden_layers"],
        heads,
        config.get("num_key_value_heads") or heads,
        config.get("head_dim") or hidden // heads,
        config["intermediate_size"],
        config["vocab_size"],
        tied=config.get("tie_word_embeddings", False),
        qkv_bias=kind == "qwen2",
    )


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
