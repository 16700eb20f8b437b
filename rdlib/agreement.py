"""The label-free measure by which checkpoints are chosen: agreement with the teacher's vote on validation questions."""

from __future__ import annotations

import pandas as pd

from rdlib import answers, generation, prompts
from rdlib.errors import UserError


class Agreement:
    """Share of validation questions whose greedy answer equals the pseudo-label.

    `ids` are the questions' ids, `answers` the answers that the last model gave to them.
    """

    def __init__(
        self, questions: pd.DataFrame, labels: pd.DataFrame, tokenizer, kind: str, max_tokens: int, batch: int
    ):
        known = labels.dropna(subset="pseudo_label").set_index("id")["pseudo_label"]
        questions = questions[questions["id"].isin(known.index)]
        if questions.empty:
            raise UserError("No validation question has a pseudo-label: lower voting.threshold or take more questions.")
        encode = tokenizer([prompts.zero_shot(q.question, q.options) for q in questions.itertuples()])["input_ids"]
        self.requests = [generation.Request(prompt, 1, 0.0) for prompt in encode]
        self.ids = list(questions["id"])
        self.labels = list(known[self.ids])
        self.answers: list[str | None] = []
        self.tokenizer, self.kind, self.max_tokens, self.batch = tokenizer, kind, max_tokens, batch

    def __call__(self, model) -> float:
        """The agreement of a model, between 0 and 1."""
        engine = generation.TransformersEngine(model, self.tokenizer, self.batch, self.max_tokens)
        completions = [group[0] for group in engine.generate(self.requests, seed=0)]
        self.answers = [answers.extract(generation.decode_text(self.tokenizer, c), self.kind) for c in completions]
        agreeing = [answers.same(a, label) for a, label in zip(self.answers, self.labels, strict=True)]
        return sum(agreeing) / len(agreeing)
