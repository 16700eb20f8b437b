"""The loss of SFT (Eq. 2) from the logits of the labelled positions alone, where TRL computes those of all positions.

TRL's fused head skips the positions without a label (prompt and padding) on devices that have Triton. Elsewhere, as on
a CPU, it computes their logits too and sets them to zero; with a real vocabulary that is most of a step's time.
"""

from __future__ import annotations

import functools
import types

from torch import Tensor, nn
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput

from rdlib.engines import logits
from rdlib.method import token_logprobs

IGNORED = -100  # the label of a position without loss


def score_alone(model: PreTrainedModel) -> None:
    """Replace the fused forward that TRL has given `model`, which computes the same numbers within rounding.

    TRL's own stays for calls without labels, on devices with Triton, for heads that are more than a linear layer, for
    models that change their logits after the head, and for logits that fit into one tile.
    """
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    forward_of_trl = model.forward
    if logits.changed_by(model.config):
        return

    @functools.wraps(type(model).forward)  # whose signature transformers reads
    def forward(self, *args, fused_lm_head: bool = False, labels: Tensor | None = None, **kwargs):
        """TRL's fused forward for `labels` [B, T], by labelled positions where that saves time; else TRL's own."""
        head = self.get_output_embeddings()
        if fused_lm_head and labels is not None and _is_worth_it(head, labels):
            states = self.base_model(*args, **kwargs | {"use_cache": False}).last_hidden_state
            return _output(states[:, :-1], head, labels[:, 1:])
        return forward_of_trl(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)

    model.forward = types.MethodType(forward, model)


def _is_worth_it(head: nn.Module, labels: Tensor) -> bool:
    """Whether there is no Triton for the device, and the logits of all positions are more than one tile."""
    return labels.device.type not in ("cuda", "xpu") and token_logprobs.needs_tiles(head, labels)


def _output(states: Tensor, head: nn.Linear, labels: Tensor) -> FusedCausalLMOutput:
    """What SFTTrainer reads, each [B, T] and 0 without a label, from states [B, T, H] and their next tokens [B, T]."""
    mask = labels != IGNORED
    logprobs, entropy, likeliest = token_logprobs.in_tiles(states, head, labels, mask)
    return FusedCausalLMOutput(
        loss=-logprobs.sum() / mask.sum().clamp(min=1),
        log_probs=logprobs,
        entropy=entropy,
        is_top1=likeliest,
        label_mask=mask,
    )
