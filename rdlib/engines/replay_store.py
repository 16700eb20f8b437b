"""Replay from a store of responses (`rdlib.engines.store`), its own or one copied from another machine.

A request gets the samples of its question's text, at its temperature and, where the store has several, under its own
prompt and of its own seed. `Model.recorded` names the model where the store has answers of more than one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rdlib.engines.asking import Reply
from rdlib.engines.generation import Completion, Request
from rdlib.engines.server_answers import completion_of
from rdlib.engines.store import Store
from rdlib.errors import UserError
from rdlib.settings import Model
from rdlib.tasks.prompts import Prompt


class StoreReplay:
    """An engine; see the module. `seed` is the study's."""

    def __init__(self, path: Path, model: Model, seed: int):
        self.path, self.model, self.seed = path, model, seed
        self._stack = ExitStack()
        self.store = self._stack.enter_context(Store.open(path, create=False))
        self.recorded = self._recorded()

    def encode(self, prompt: Prompt) -> Prompt:
        """The prompt itself: responses are looked up by its question."""
        return prompt

    def generate(self, requests: Sequence[Request], seed: int = 0) -> list[list[Completion]]:
        """The first `n` responses of each request; UserError naming a question that has fewer."""
        return [self._serve(request) for request in requests]

    def close(self) -> None:
        """Close the store."""
        self._stack.close()

    def _recorded(self) -> str:
        """The model whose answers are served; UserError where it is not there, or nobody says which."""
        models = self.store.models()
        if not models:
            raise UserError(f"The store {self.path} has no responses yet: give another, or ask the teacher first.")
        name = self.model.recorded or (next(iter(models)) if len(models) == 1 else None)
        if name not in models:
            raise UserError(
                f"The store {self.path} has responses of {', '.join(models)}"
                + (f" and none of {name}" if name else "")
                + ": name one of these as the teacher's `recorded`."
            )
        return name

    def _serve(self, request: Request) -> list[Completion]:
        asked = self._asked(request)
        found = self._samples(asked[0], request) if asked else []
        if len(found) < request.n:
            heat = "" if request.temperature is None else f" at temperature {request.temperature:g}"
            raise UserError(
                f"The store {self.path} has {len(found)} of the {request.n} responses of {self.recorded} that are "
                f"asked for to question {request.prompt.question[:80]!r}{heat}: ask the teacher for the others."
            )
        return [completion_of(reply, self.model, (), request.stop) for reply in found[: request.n]]

    def _asked(self, request: Request) -> list[bytes]:
        """The digest of what was asked about the question at the temperature, in a list that is empty for none."""
        query = "SELECT digest, content FROM asked WHERE question = ? AND model = ? AND temperature IS ?"
        heat = None if request.temperature is None else round(float(request.temperature), 6)
        rows = self.store.connection.execute(query, [request.prompt.question, self.recorded, heat]).fetchall()
        if len(rows) > 1:
            same = [row for row in rows if _is_of(json.loads(row[1]), request)]
            if len(same) != 1:
                raise UserError(
                    f"The store {self.path} has answers to {request.prompt.question[:80]!r} to {len(rows)} prompts or "
                    f"settings of sampling, and not to this study's alone: give a store with one of them."
                )
            rows = same
        return [digest for digest, _ in rows]

    def _samples(self, digest: bytes, request: Request) -> list[Reply]:
        """The replies of the study's own series or else of the first that there is, by the sample's number."""
        query = "SELECT DISTINCT series FROM responses WHERE asked = ? ORDER BY series"
        series = [row[0] for row in self.store.connection.execute(query, [digest])]
        if not series:
            return []
        own = str(self.seed) if str(self.seed) in series else series[0]
        return list(self.store.samples(digest, own).values())


def _is_of(content: dict[str, Any], request: Request) -> bool:
    """Whether what was asked has the messages of a request, whatever its system prompt."""
    return [m for m in content["messages"] if m["role"] != "system"] == request.prompt.chat
