"""The arithmetic of PPO (section 3.4, Eq. 8) as pure functions on tensors, and the networks' part in it.

Shapes: B episodes, T response positions, L positions of query and response, V vocabulary entries. A mask is
True on real tokens; all padding is on the right. Every function is defined at the edges that practice meets:
responses of one token, equal rewards, sharp policies, empty masks.

An episode of three tokens in a batch padded to four, with gamma = lambda = 1 and no KL penalty:

    rewards     0     0     1     .        the score sits on the last real token
    values    0.5   0.6   0.8     .
    returns   1.0   1.0   1.0     .
    advantage 0.5   0.4   0.2     .

tests/golden compares it with trl 1.12.0's PPOTrainer. One difference is deliberate: TRL puts the score, and one
more value, on the position after the last token when the batch has room there. Here, as in most other
libraries, the score belongs to the last token (the EOS), so that an episode's advantages do not depend on how
long the others in its batch are. A mask that is one longer reproduces TRL's numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from rdlib.method.token_logprobs import at_least_float32, logprobs_and_entropy

Tokens = list[list[int]]

# exp(20) is far outside any clip range, and keeps 0 * inf = NaN out of the gradient of the clipped branch
MAX_LOG_RATIO = 20.0


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` over the True positions of `mask`, as a scalar (0 if there are none)."""
    return values.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)


def masked_var(values: Tensor, mask: Tensor) -> Tensor:
    """Unbiased variance of `values` over `mask`, as a scalar (0 for fewer than two positions)."""
    count = mask.sum()
    squares = (values - masked_mean(values, mask)).square()
    return masked_mean(squares, mask) * count / (count - 1).clamp(min=1)


def masked_whiten(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """`values` scaled to unit variance, and to zero mean unless `shift_mean` is False; 0 outside `mask`."""
    mean = masked_mean(values, mask)
    whitened = (values - mean) * torch.rsqrt(masked_var(values, mask) + 1e-8)
    if not shift_mean:
        whitened = whitened + mean
    return whitened.masked_fill(~mask, 0)


def response_mask(responses: Tensor, eos_id: int, pad_id: int) -> Tensor:
    """Mask [B, T] of real tokens: up to and including the first EOS, or up to an earlier pad."""
    is_eos = responses == eos_id
    ends = is_eos | (responses == pad_id)
    nothing_ended_before = (ends.cumsum(1) - ends.long()) == 0
    return nothing_ended_before & (is_eos | ~ends)


def token_kl(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, estimator: str = "k1") -> Tensor:
    """Estimate [B, T] of KL(policy || reference) at each sampled token, 0 outside `mask`.

    "k1" is log p - log q; "k3" is q/p - 1 - log(q/p), never negative and of lower variance (Schulman,
    joschu.net/blog/kl-approx).
    """
    if estimator not in ("k1", "k3"):
        raise ValueError(f"The KL estimator must be k1 or k3, not {estimator!r}.")
    log_ratio = (ref_logprobs - logprobs).masked_fill(~mask, 0)
    return -log_ratio if estimator == "k1" else log_ratio.clamp(max=MAX_LOG_RATIO).exp() - 1 - log_ratio


def kl_penalised_rewards(
    scores: Tensor,
    logprobs: Tensor,
    ref_logprobs: Tensor,
    mask: Tensor,
    kl_coef: float,
    estimator: str = "k1",
) -> Tensor:
    """Rewards [B, T]: -`kl_coef` times each token's KL, plus `scores` [B] (Eq. 7) on the last real token."""
    rewards = -kl_coef * token_kl(logprobs, ref_logprobs, mask, estimator)
    last = mask & ~torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
    return rewards + last * scores.unsqueeze(1)


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and returns, each [B, T] and 0 outside `mask` (Schulman et al. 2016).

    delta_t = r_t + gamma V_{t+1} - V_t; A_t = delta_t + gamma lam A_{t+1}; after the last token both are 0.
    """
    values, rewards = values.masked_fill(~mask, 0), rewards.masked_fill(~mask, 0)
    advantages = torch.zeros_like(values)
    advantage = next_value = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * lam * advantage
        advantages[:, t], next_value = advantage, values[:, t]
    return advantages.masked_fill(~mask, 0), advantages + values


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_range: float,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Clipped surrogate loss (Eq. 8), a mean over the real tokens, and the share of them that is clipped.

    `weights` [B, T], where given, weigh the tokens' losses: see `sampler_weights`.
    """
    log_ratio = (logprobs - old_logprobs).masked_fill(~mask, 0).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = log_ratio.exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)
    losses = torch.max(unclipped, clipped)
    losses = losses if weights is None else losses * weights
    return masked_mean(losses, mask), masked_mean((clipped > unclipped).float(), mask)


def sampler_ratio(logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Ratio [B, T] of a token's probability under the policy to that under the sampler, 1 outside `mask`."""
    log_ratio = (logprobs - sampler_logprobs).masked_fill(~mask, 0)
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def sampler_weights(logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor, cap: float) -> Tensor:
    """Truncated importance weights [B, T]: the ratio, at most `cap`.

    From Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training". They correct
    for rollouts that another engine sampled from the same weights with slightly other probabilities.
    """
    return sampler_ratio(logprobs, sampler_logprobs, mask).clamp(max=cap)


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip_range: float
) -> tuple[Tensor, Tensor]:
    """Half the squared error of values clipped to `clip_range` around the old ones, and the share clipped."""
    clipped_values = torch.clamp(values, old_values - clip_range, old_values + clip_range)
    unclipped, clipped = (values - returns).square(), (clipped_values - returns).square()
    return 0.5 * masked_mean(torch.max(unclipped, clipped), mask), masked_mean((clipped > unclipped).float(), mask)


def approximate_kl(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """How far this update moved the policy: the mean of (log p - log p_old)^2 / 2 over the real tokens."""
    return 0.5 * masked_mean((logprobs - old_logprobs).square(), mask)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns) over the real tokens; 0 if the returns are all equal."""
    variance = masked_var(returns, mask)
    residual = masked_var(returns - values, mask)
    return torch.where(variance > 1e-12, 1 - residual / variance.clamp(min=1e-12), torch.zeros_like(variance))


@dataclass
class Batch:
    """Episodes as tensors, padded on the right; `mask` [B, T] is True on the response's real tokens.

    `sequences` [B, L] are query and response without a gap, so that causal attention never sees padding and
    needs no mask (a third faster than queries padded on the left). `responses` and all below are [B, T]; those
    from `logprobs` to `returns` are None until the rollouts have been evaluated. `sampler_logprobs` are the
    sampler's own, None where it does not tell, and `weights` those of `sampler_weights`, None for weights of 1.
    """

    sequences: Tensor
    query_lengths: Tensor
    responses: Tensor
    mask: Tensor
    logprobs: Tensor | None = None
    ref_logprobs: Tensor | None = None
    values: Tensor | None = None
    advantages: Tensor | None = None
    returns: Tensor | None = None
    sampler_logprobs: Tensor | None = None
    weights: Tensor | None = None

    @classmethod
    def collate(cls, prompts: Tokens, responses: Tokens, device: torch.device | str = "cpu") -> Batch:
        """Pad token ids (with 0, which nothing looks at) into a batch."""
        sequences = pad([p + r for p, r in zip(prompts, responses, strict=True)])
        padded = pad(responses)
        lengths = torch.tensor([len(r) for r in responses])
        mask = torch.arange(padded.shape[1]) < lengths.unsqueeze(1)
        query_lengths = torch.tensor([len(p) for p in prompts])
        return cls(*(t.to(device) for t in (sequences, query_lengths, padded, mask)))

    @property
    def lengths(self) -> Tensor:
        """Tokens [B] of query and response."""
        return self.query_lengths + self.mask.sum(1)

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the networks' passes read: see `PolicyAndValue.forward`."""
        return self.sequences, self.query_lengths, self.responses, self.mask

    def take(self, rows: Tensor) -> Batch:
        """The episodes `rows`, without the columns that are only padding in them."""
        width = int(self.mask[rows].sum(1).max())
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        taken = {name: t[rows] for name, t in columns.items() if t is not None}
        cut = {name: t[:, :width] if t.ndim > 1 else t for name, t in taken.items()}
        return Batch(**(cut | {"sequences": taken["sequences"][:, : int(self.lengths[rows].max())]}))

    def rows_by_length(self, size: int, index: int = 0, processes: int = 1) -> list[Tensor]:
        """Row numbers in parts of at most `size`, of similar length, so that little is padding.

        All rows, or those of process `index`: together the processes have each row once.
        """
        return list(self.lengths.argsort(stable=True)[index::processes].split(size))


def pad(rows: list[list]) -> Tensor:
    """Rows of numbers as a tensor, filled up with 0 on the right."""
    width = max(map(len, rows))
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])


def response_logprobs(
    policy: nn.Module,
    sequences: Tensor,
    query_lengths: Tensor,
    responses: Tensor,
    mask: Tensor,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities [B, T] of the response tokens at a sampling temperature, and entropies [B, T].

    Outside `mask` they are any numbers. Logits are computed at the response positions alone, and in tiles where a
    vocabulary is large: see `logprobs_and_entropy`, which also says when there are entropies.
    """
    states = response_states(policy, sequences, query_lengths, responses.shape[1])
    return logprobs_and_entropy(states, policy.get_output_embeddings(), responses, mask, temperature)


def response_values(value_model: nn.Module, sequences: Tensor, query_lengths: Tensor, width: int) -> Tensor:
    """Values [B, `width`] of the states before each response token, by the reward model's head."""
    states = response_states(value_model, sequences, query_lengths, width)
    return at_least_float32(_without_adapter_wrapper(value_model).score(states).squeeze(-1))


def response_states(model: nn.Module, sequences: Tensor, query_lengths: Tensor, width: int) -> Tensor:
    """Final hidden states [B, width, H] at the positions from which the response tokens are predicted."""
    model = _without_adapter_wrapper(model)
    backbone = getattr(model, model.base_model_prefix)
    hidden = backbone(input_ids=sequences, use_cache=False).last_hidden_state
    positions = query_lengths.unsqueeze(1) - 1 + torch.arange(width, device=sequences.device)
    positions = positions.clamp(max=sequences.shape[1] - 1)
    return hidden.gather(1, positions.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))


def _without_adapter_wrapper(model: nn.Module) -> nn.Module:
    # PEFT injects its adapters into the model that it wraps, so the inner model computes the same
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class PolicyAndValue(nn.Module):
    """Both trained networks as one module, so that accelerate wraps and synchronises them as one."""

    def __init__(self, policy: nn.Module, value_model: nn.Module) -> None:
        super().__init__()
        self.policy, self.value_model = policy, value_model

    def forward(
        self, sequences: Tensor, query_lengths: Tensor, responses: Tensor, mask: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Log-probabilities and entropies of `response_logprobs`, and values, each [B, T] of the response positions."""
        logprobs, entropies = response_logprobs(self.policy, sequences, query_lengths, responses, mask, temperature)
        return logprobs, entropies, response_values(self.value_model, sequences, query_lengths, responses.shape[1])
