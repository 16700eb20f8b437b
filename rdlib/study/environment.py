"""Environment variables of a notebook's process, however it was started; the user's own values win.

Those that decide numbers are set earlier, by `import rdlib` (rdlib.numerics).
"""

from __future__ import annotations

import os

DEFAULTS = {
    "TQDM_MININTERVAL": "1",  # an executed notebook keeps every state of a progress bar
    "TRANSFORMERS_VERBOSITY": "error",  # it would warn of tied weights and of the reward model's new head
}


def set_defaults() -> None:
    """Set what is not set. Call it before anything imports torch or tqdm, which read the environment once."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
