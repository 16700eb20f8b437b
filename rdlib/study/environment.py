"""Environment variables that every process of a study has, however it was started; the user's own values win."""

from __future__ import annotations

import os

DEFAULTS = {
    "OMP_NUM_THREADS": "1",  # several threads end in other digits, and tiny models are fastest with one
    "TQDM_MININTERVAL": "1",  # an executed notebook keeps every state of a progress bar
    "TRANSFORMERS_VERBOSITY": "error",  # it would warn of tied weights and of the reward model's new head
}


def set_defaults() -> None:
    """Set what is not set. Call it before anything imports torch or tqdm, which read the environment once."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
