"""What this machine could do at most: measured peaks of one thread, and FLOPs and bytes a decoded token.

A token of one row costs two FLOPs a weight of the layers and the head, and four a layer, place of the context and unit
of width for the attention. It moves its row's keys and values once, and its share of the weights, which a batch reads
once for all of its rows. The time can be no shorter than FLOPs / peak FLOPs, nor than bytes / peak bandwidth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

from bench.timing import seconds_of

FLOAT = 4  # bytes


@cache
def peak_flops(size: int = 1024) -> float:
    """FLOPs a second of one thread in float32: the best of several products of square matrices."""
    a, b, out = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    return 2 * size**3 / min(seconds_of(lambda: torch.mm(a, b, out=out)) for _ in range(8))


@cache
def peak_bandwidth(mib: int = 256) -> float:
    """Bytes a second that one thread reads and writes: the best of several copies of a block larger than any cache."""
    source = torch.ones(mib * 2**20 // FLOAT)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(seconds_of(lambda: target.copy_(source)) for _ in range(8))


@dataclass(frozen=True)
class Cost:
    """FLOPs and bytes of memory traffic of one decoded token of one row."""

    flops: float
    bytes: float

    @property
    def tokens_per_second(self) -> float:
        """The most that one thread of this machine can decode."""
        return 1 / max(self.flops / peak_flops(), self.bytes / peak_bandwidth())


def cost(config, parameters: int, context: float, rows: int) -> Cost:
    """Of a Llama with so many `parameters` (input embedding left out), at a mean `context` and `rows` at once."""
    heads = config.num_key_value_heads / config.num_attention_heads
    cached = 2 * config.num_hidden_layers * config.hidden_size * heads * context
    attention = 4 * config.num_hidden_layers * config.hidden_size * context
    return Cost(2 * parameters + attention, FLOAT * (cached + parameters / rows))
