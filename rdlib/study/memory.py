"""Memory of one GPU by what holds it, from a model's shape and the settings: formulas, in bytes, without a device.

Adam in float32 keeps 16 bytes a trained parameter: weight, gradient and two moments of four each (Rajbhandari et al.
2020, ZeRO, section 3.1, has the same sum for bf16 with float32 masters). What a forward pass keeps for its backward
pass was read off transformers' Llama, tensor by tensor. Of a layer, for one token, with c bytes a number that is
computed with and w a number that is held, of H hidden, Q query, K key and I intermediate values:

    2 norms              2 (4 H + w H + 4)        the input in float32, the normalised one, 1/rms
    inputs of matmuls    c (2 H + Q)              c (5 H + Q) under autocast, which casts one for each
    attention            c (Q + 2 K) + 4 heads    sdpa without padding: q, k, v, log of the sum
                         c (3 Q + T) + 4 heads    sdpa with padding: k and v for every head, the mask of T keys
                         3 c Q + 4 heads T        eager: k and v for every head, probabilities (and again in bf16)
    MLP                  4 c I                    gate, its silu, up, and their product

Tests hold the formulas to tensors that autograd saves, and the sums to the peak of this project's own training steps,
on a CPU. RUNTIME, CUDA's context, workspaces and fragments, is a guess; docs/memory.md says what a card showed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from rdlib.study.architectures import Shape

GIB = 2**30
RUNTIME = 2 * GIB
TILE = (4096, 32768)  # tokens (or fewer) and vocabulary entries of the logits that TRL's trainers hold at once
DEEPSPEED_BUCKET = 5e8  # its reduce_bucket_size
DEEPSPEED_LIVE = 1e9  # parameters that ZeRO-3 leaves gathered: its stage3_max_live_parameters
PPO_TILE = 2**25  # logits that PPO holds at once on a GPU (TILE of rdlib.method.token_logprobs)
PPO_COPIES = 4  # of logits in float32 that fit into a tile, at the peak of a backward pass (tests/test_memory.py)
PICKING_COPIES = 3.25  # of the logits [B, V]: scaled, softmax and its sums, and a comparison
Kind = Literal["none", "ddp", "zero2", "zero3", "fsdp"]


@dataclass(frozen=True)
class Memory:
    """Bytes of one GPU at a stage's peak; sums and the largest of several by what holds them."""

    weights: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    activations: float = 0.0
    logits: float = 0.0
    cache: float = 0.0
    runtime: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return sum(getattr(self, part.name) for part in fields(self))

    def __add__(self, other: Memory) -> Memory:
        return Memory(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))


def most(*phases: Memory) -> Memory:
    """The phase that takes most, of several that follow each other and free what they took."""
    return max(phases, key=lambda phase: phase.total)


@dataclass(frozen=True)
class Numbers:
    """Bytes of a number as it is held, and as it is computed with."""

    weight: int
    compute: int

    @property
    def autocast(self) -> bool:
        """Whether weights are cast for each use."""
        return self.weight != self.compute


FP32, AUTOCAST, BF16 = Numbers(4, 4), Numbers(4, 2), Numbers(2, 2)


@dataclass(frozen=True)
class Sharding:
    """How a training is spread: over so many processes, and what each of them holds a part of."""

    kind: Kind = "none"
    processes: int = 1

    @property
    def deepspeed(self) -> bool:
        """Whether DeepSpeed keeps the numbers."""
        return self.kind in ("zero2", "zero3")


# ---- what a training holds all the time


def states(trained: float, frozen: float, numbers: Numbers, sharding: Sharding, adapters: bool = False) -> Memory:
    """Weights, gradients and Adam's moments of so many parameters; adapters on frozen weights are float32.

    DeepSpeed in bf16 holds weights and gradients in bf16, and float32 masters beside the moments.
    """
    n, held = sharding.processes, 4 if adapters else numbers.weight
    if sharding.deepspeed:
        held = numbers.compute
        masters = 4 if held == 2 else 0
        bucket = min(DEEPSPEED_BUCKET, trained) * held
        whole = (trained + frozen) * held
        weights = whole if sharding.kind == "zero2" else whole / n + min(DEEPSPEED_LIVE, trained + frozen) * held
        return Memory(weights, trained * held / n + bucket, trained * (8 + masters) / n)
    if sharding.kind == "fsdp":
        return Memory((trained * held + frozen * numbers.weight) / n, trained * held / n, 2 * trained * held / n)
    buckets = 2 if sharding.kind == "ddp" else 1
    return Memory(trained * held + frozen * numbers.weight, trained * held * buckets, 2 * trained * held)


def casts(shape: Shape, numbers: Numbers, sharding: Sharding) -> Memory:
    """The bf16 copies of trained float32 weights that autocast makes and keeps for the length of a forward pass."""
    layers = shape.layers if sharding.kind in ("none", "ddp") else 2  # FSDP gathers a layer, and the next one
    wanted = numbers.autocast and not sharding.deepspeed
    return Memory(weights=2.0 * layers * shape.layer_linear if wanted else 0.0)


# ---- what passes hold


def layer_activations(
    shape: Shape, numbers: Numbers, length: int, attention: str = "sdpa", padded: bool = False
) -> float:
    """Bytes that one layer keeps of one token for the backward pass; the sequences have `length` tokens."""
    c, hidden, queries = numbers.compute, shape.hidden, shape.queries
    norms = 2 * (4 * hidden + numbers.weight * hidden + 4)
    inputs = c * ((5 if numbers.autocast else 2) * hidden + queries)
    if attention == "eager":
        kept = 3 * c * queries + shape.heads * length * (4 if c == 4 else 6)
    elif padded and attention == "sdpa":
        kept = c * (3 * queries + length) + 4 * shape.heads
    else:
        kept = c * (queries + 2 * shape.keys) + 4 * shape.heads
    return norms + inputs + kept + 4 * c * shape.intermediate


def kept_activations(
    shape: Shape,
    numbers: Numbers,
    rows: int,
    length: int,
    checkpointing: bool = False,
    attention: str = "sdpa",
    padded: bool = False,
) -> float:
    """Bytes that a forward pass over [rows, length] tokens keeps: of every layer, or its input alone."""
    layer = layer_activations(shape, numbers, length, attention, padded)
    of_layer = numbers.weight * shape.hidden if checkpointing else layer
    last_norm = (4 + numbers.weight) * shape.hidden + 4
    return rows * length * (shape.layers * of_layer + last_norm)


def training_activations(
    shape: Shape,
    numbers: Numbers,
    rows: int,
    length: int,
    checkpointing: bool = False,
    attention: str = "sdpa",
    padded: bool = False,
) -> float:
    """Bytes at the peak of a backward pass: what was kept, a layer computed again, and gradients of its MLP."""
    kept = kept_activations(shape, numbers, rows, length, checkpointing, attention, padded)
    again = layer_activations(shape, numbers, length, attention, padded) if checkpointing else 0.0
    gradients = 3 * numbers.compute * shape.intermediate + 2 * numbers.weight * shape.hidden
    return kept + rows * length * (again + gradients)


def passing_activations(shape: Shape, numbers: Numbers, tokens: float) -> float:
    """Bytes of so many tokens in a forward pass without gradient: the stream, a norm of it, and the MLP's values."""
    return tokens * (3 * numbers.compute * shape.intermediate + (2 * numbers.weight + 4) * shape.hidden)


def kv_cache(shape: Shape, rows: float, length: float, width: int) -> float:
    """Bytes of keys and values of so many sequences, with `width` bytes a number."""
    return 2.0 * shape.layers * shape.keys * width * rows * length


# ---- logits


def tiled_head(shape: Shape, numbers: Numbers, tokens: int, trained: bool = True) -> float:
    """TRL's head, which never holds all logits: a tile of them, and float32 gradients of states and output layer."""
    tile = min(tokens, TILE[0]) * TILE[1] * numbers.compute
    return tile + 4 * tokens * shape.hidden + (4 * shape.embedding if trained else 0)


def tiled_logprobs(shape: Shape, numbers: Numbers, tokens: int, trained: bool = True) -> float:
    """PPO's head, which holds a tile of logits; whole ones where they fit into a tile.

    Forwards a tile and its powers in float32; backwards its gradient, also in the type of products, and those of
    states and output layer.
    """
    if tokens * shape.vocabulary <= PPO_TILE:
        return whole_logits(shape, tokens, PPO_COPIES)
    tile = PPO_TILE * (4 if numbers.compute == 4 else 4 + numbers.compute)
    gradients = 4 * tokens * shape.hidden + (numbers.weight * shape.embedding if trained else 0)
    return max(2 * 4 * PPO_TILE, tile + gradients)


def whole_logits(shape: Shape, tokens: int, copies: float) -> float:
    """Logits [tokens, V] in float32, so many times."""
    return 4.0 * copies * tokens * shape.vocabulary


# ---- sampling


def sampling(
    shape: Shape, numbers: Numbers, rows: int, prompt: int, response: int, prompts: int | None = None
) -> Memory:
    """The transformers engine at work, without its weights: cache, logits of a step, and reading the prompts."""
    return Memory(
        activations=passing_activations(shape, numbers, (prompts or rows) * prompt),
        logits=whole_logits(shape, rows, PICKING_COPIES),
        cache=kv_cache(shape, rows, prompt + response, numbers.compute),
    )
