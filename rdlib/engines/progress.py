"""How many requests to a server are done: a bar in the notebook, and a small file that the terminal shows.

The file is JSON, in a folder that `make study` looks at; it is removed after the last request.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from rdlib import artifacts
from rdlib.engines.budget import Spent, money
from rdlib.engines.generation import Progress
from rdlib.settings import Prices

EVERY = 1.0  # seconds between two writes of the file


class AskingProgress(Progress):
    """The bar of responses, and the file `path` (None: no file): done, total, tokens and seconds since the start."""

    def __init__(self, label: str, total: int, kept: int, path: Path | None, prices: Prices | None = None):
        super().__init__(total)
        self.label, self.total, self.path, self.prices = label, total, path, prices
        self.kept, self.came, self.prompt_tokens = kept, 0, 0
        self.written = 0.0
        self.skip(kept)
        self.write()

    def came_in(self, tokens: int, prompt_tokens: int) -> None:
        """Count a response that just came."""
        self.came += 1
        self.tokens += tokens
        self.prompt_tokens += prompt_tokens
        self.bar.update(1)
        self.bar.set_postfix_str(f"{self.tokens / self.seconds:,.0f} tokens/s", refresh=False)

    def show(self) -> None:
        """Write the file unless it was written just now; called when all samples of a call have come."""
        if time.time() - self.written > EVERY:
            self.write()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return max(time.time() - self.clock, 1e-6)

    def state(self) -> dict[str, Any]:
        """What the file holds; `left` is in seconds, `money_left` what the rest will cost at this rate."""
        done = self.kept + self.came
        state = {"label": self.label, "done": done, "total": self.total, "process": os.getpid()}
        if self.came:
            each = self.seconds / self.came
            state |= {"rate": 60 / each, "left": each * (self.total - done), "tokens": self.tokens / self.seconds}
            if self.prices:
                spent = money(self.prices, Spent(self.came, self.prompt_tokens, self.tokens))
                state |= {"money_left": spent / self.came * (self.total - done), "currency": self.prices.currency}
        return state

    def write(self) -> None:
        """Write the file now."""
        self.written = time.time()
        if self.path is not None:
            artifacts.write_bytes(self.path, json.dumps(self.state()).encode())

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if self.path is not None:
            self.path.unlink(missing_ok=True)
