"""Log-probabilities of given tokens, and entropies, from hidden states, without the logits of all positions at once.

Shapes: N positions, H numbers of a hidden state, V vocabulary entries. Logits [N, V] in float32 are the largest tensors
of PPO with a real vocabulary: 0.58 GiB for 1,024 positions of 151,936 entries, and their gradient is as large. So they
are computed in tiles [N, v] of the vocabulary, folded into sums of each position, and computed again in the backward
pass (the fused linear cross-entropy, as in Liger Kernel, arXiv:2410.10989). With z = (h W^T + b) / temperature:

    log p(y) = z_y - log sum_j exp z_j          the sums by a running maximum (arXiv:1805.02867)
    entropy  = log sum_j exp z_j - sum_j p_j z_j
    d log p(y) / d z_j = [j = y] - p_j          p_j from the kept log sum, tile by tile

Logits that fit into one tile, as those of the micro world's vocabulary do, are computed whole, by autograd.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CPU_TILE = 2**22  # logits at once: 16 MiB in float32, which stay in a CPU's caches
TILE = 2**25  # on other devices: 128 MiB, so that the time to start its kernels is negligible
ALIGNED = 64  # a tile's width is a multiple of this, as matrix products like it


def tile_of(device: torch.device) -> int:
    """How many logits are held at once on a device."""
    return CPU_TILE if device.type == "cpu" else TILE


def at_least_float32(tensor: Tensor) -> Tensor:
    """A tensor in float32, or in float64 where it is in that."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def selective_logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability [B, T] of each of `tokens` [B, T] under `logits` [B, T, V], in float32 or better."""
    logits = at_least_float32(logits)
    return logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)


def entropy_from_logits(logits: Tensor) -> Tensor:
    """Entropy in nats [B, T] of softmax(`logits` [B, T, V]); 0 for a policy that is sure."""
    return torch.special.entr(at_least_float32(logits).softmax(-1)).sum(-1)


def logprobs_and_entropy(
    states: Tensor, head: nn.Module, tokens: Tensor, mask: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor | None]:
    """Log-probability [B, T] of each of `tokens` [B, T] after `states` [B, T, H], and entropy in nats [B, T].

    `head`: the output layer. `temperature` divides its logits. Positions outside `mask` [B, T] have any finite value.
    The entropy has no gradient, and is None where nothing has one: only a training step looks at it. A head that is
    more than a linear layer, as one with an adapter of its own, is computed whole.
    """
    if needs_tiles(head, tokens):
        logprobs, entropy, _ = in_tiles(states, head, tokens, mask, temperature)
        return logprobs, entropy if torch.is_grad_enabled() else None
    logits = at_least_float32(head(states)) / temperature
    entropy = entropy_from_logits(logits.detach()) if torch.is_grad_enabled() else None
    return selective_logprobs(logits, tokens), entropy


def needs_tiles(head: nn.Module, tokens: Tensor) -> bool:
    """Whether `head` is a linear layer alone, and the logits of `tokens` [B, T] are more than one tile."""
    return type(head) is nn.Linear and tokens.numel() * len(head.weight) > tile_of(tokens.device)


@torch.compiler.disable  # the number of tiles depends on the data
def in_tiles(
    states: Tensor, head: nn.Linear, tokens: Tensor, mask: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities and entropies [B, T], and whether no token is likelier, by tiles; 0 outside `mask`.

    Nothing is computed outside `mask`.
    """
    found = _Tiled.apply(states[mask], head.weight, head.bias, tokens[mask], temperature)
    return tuple(torch.zeros_like(mask, dtype=one.dtype).masked_scatter(mask, one) for one in found)


class _Tiled(torch.autograd.Function):
    """`in_tiles` of `tokens` [N], from states [N, H], weight [V, H] and bias [V]."""

    @staticmethod
    def forward(
        ctx, states: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over the vocabulary, tile by tile; under autocast in its type, as a linear layer's product is."""
        kind = states.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
        layer = Layer(weight, bias, temperature, dtype)
        with torch.autocast(kind, enabled=False):
            sums = Sums.none(tokens, at_least_float32(states.new_empty(0, dtype=dtype)).dtype)
            for columns in layer.tiles(len(tokens)):
                sums = sums.with_tile(layer.logits(states, columns), tokens - columns.start)
            log_sum = sums.highest + sums.total.log()
        ctx.layer = layer.temperature, layer.dtype
        ctx.save_for_backward(states, weight, bias, tokens, log_sum)
        entropy, likeliest = sums.total.log() - sums.weighed / sums.total, sums.chosen >= sums.highest
        ctx.mark_non_differentiable(entropy, likeliest)
        return sums.chosen - log_sum, entropy, likeliest

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor, *_) -> tuple[Tensor | None, ...]:
        """Gradients of states, weight and bias, each where it is wanted, from that of the log-probabilities [N]."""
        states, weight, bias, tokens, log_sum = ctx.saved_tensors
        layer = Layer(weight, bias, *ctx.layer)
        wanted = ctx.needs_input_grad
        of_states = torch.zeros_like(states, dtype=log_sum.dtype) if wanted[0] else None
        of_weight = torch.empty_like(weight) if wanted[1] else None
        of_bias = torch.empty_like(bias) if wanted[2] else None
        with torch.autocast(states.device.type, enabled=False):
            for columns in layer.tiles(len(tokens)):
                of_logits = layer.logits(states, columns)
                of_logits = of_tile(of_logits, tokens - columns.start, log_sum, gradient / layer.temperature)
                if of_bias is not None:
                    of_bias[columns] = of_logits.sum(0)
                of_logits = of_logits.to(layer.dtype)
                if of_states is not None:
                    of_states += unrounded_product(of_logits, weight[columns].to(layer.dtype))
                if of_weight is not None:
                    of_weight[columns] = of_logits.t() @ states.to(layer.dtype)
                del of_logits  # before the next tile is there
        return None if of_states is None else of_states.to(states.dtype), of_weight, of_bias, None, None


@dataclass(frozen=True)
class Layer:
    """An output layer, weight [V, H] and bias [V], whose products are in `dtype` and divided by `temperature`."""

    weight: Tensor
    bias: Tensor | None
    temperature: float
    dtype: torch.dtype

    def tiles(self, positions: int) -> Iterator[slice]:
        """Parts of the vocabulary, so wide that they have a tile's logits of so many positions."""
        vocabulary, most = len(self.weight), tile_of(self.weight.device) // max(1, positions)
        width = max(ALIGNED, most // ALIGNED * ALIGNED)
        return (slice(start, min(start + width, vocabulary)) for start in range(0, vocabulary, width))

    def logits(self, states: Tensor, columns: slice) -> Tensor:
        """Logits [N, v] of some columns of the vocabulary, in float32 or better."""
        found = at_least_float32(states.to(self.dtype) @ self.weight[columns].to(self.dtype).t())
        if self.bias is not None:
            found += self.bias[columns]
        return found if self.temperature == 1 else found.div_(self.temperature)


@dataclass(frozen=True)
class Sums:
    """Of the logits z seen so far, each [N]: their maximum m, sum exp(z - m), sum (z - m) exp(z - m), and z_y."""

    highest: Tensor
    total: Tensor
    weighed: Tensor
    chosen: Tensor

    @classmethod
    def none(cls, tokens: Tensor, dtype: torch.dtype) -> Sums:
        """Of no logits."""
        zero = torch.zeros_like(tokens, dtype=dtype)
        return cls(torch.full_like(zero, torch.finfo(dtype).min), zero, zero, zero)

    def with_tile(self, logits: Tensor, places: Tensor) -> Sums:
        """With one tile more, which is written over; `places` [N] of the tokens, counted from the tile's beginning."""
        here = (places >= 0) & (places < logits.shape[1])
        chosen = logits.gather(1, places.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
        highest = torch.maximum(self.highest, logits.amax(1))
        fallen = self.highest - highest
        below = logits.sub_(highest[:, None]).clamp_(min=torch.finfo(logits.dtype).min)  # -inf times 0 would be NaN
        powers = below.exp()
        total = fallen.exp() * self.total + powers.sum(1)
        weighed = fallen.exp() * (self.weighed + fallen * self.total) + powers.mul_(below).sum(1)
        return Sums(highest, total, weighed, torch.where(here, chosen, self.chosen))


def of_tile(logits: Tensor, places: Tensor, log_sum: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of a tile's products [N, v], written over its logits, from that of the log-probabilities [N]."""
    here = (places >= 0) & (places < logits.shape[1])
    found = logits.sub_(log_sum[:, None]).exp_().mul_(-gradient[:, None])
    return found.scatter_add_(1, places.clamp(0, logits.shape[1] - 1)[:, None], (here * gradient)[:, None])


def unrounded_product(a: Tensor, b: Tensor) -> Tensor:
    """The product of two matrices in float32 or better: what several tiles add up is not rounded before."""
    if a.is_cuda and a.dtype in (torch.float16, torch.bfloat16):
        return torch.mm(a, b, out_dtype=torch.float32)
    return at_least_float32(a) @ at_least_float32(b)
