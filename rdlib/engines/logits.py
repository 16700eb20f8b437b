"""Architectures that change their logits after the output layer, which PPO's own computation of them leaves out."""

from __future__ import annotations

from transformers import PreTrainedConfig

# What configurations call it: Gemma 2 to 4, NanoChat, RecurrentGemma, xLSTM
CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
# Granite and HyperCLOVA X, Cohere, Falcon-H1, Muse, Inkling
SCALES = (
    "logits_scaling",
    "logit_scale",
    "lm_head_multiplier",
    "output_multiplier",
    "logits_mup_width_multiplier",
)


def changed_by(config: PreTrainedConfig) -> str | None:
    """The setting by which a configuration caps or scales its logits, and its value; None where it does not."""
    text = config.get_text_config(decoder=True)
    for name in (*CAPS, *SCALES):
        value = getattr(text, name, None)
        if value is not None and value != (0 if name in CAPS else 1):
            return f"{name} {value}"
    return None
