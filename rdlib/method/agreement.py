"""The label-free measure by which checkpoints are chosen: agreement with the teacher's vote on validation questions."""

from __future__ import annotations

import pandas as pd
from accelerate import Accelerator, PartialState

from rdlib.engines import generation, models
from rdlib.engines.transformers_engine import TransformersEngine
from rdlib.errors import UserError
from rdlib.method import training
from rdlib.settings import Dataset
from rdlib.tasks import answers, prompts


class Agreement:
    """Share of validation questions whose greedy answer equals the pseudo-label.

    `ids` are the questions' ids, `answers` the answers that the last model gave to them. `kind` says how they are read
    (`Stage.answer_kind`; None: as the dataset's settings have it).
    """

    def __init__(
        self,
        questions: pd.DataFrame,
        labels: pd.DataFrame,
        tokenizer,
        settings: Dataset,
        batch: int,
        kind: str | None = None,
    ):
        known = labels.dropna(subset="pseudo_label").set_index("id")["pseudo_label"]
        questions = questions[questions["id"].isin(known.index)]
        if questions.empty:
            raise UserError("No validation question has a pseudo-label: lower voting.threshold or take more questions.")
        asked = prompts.of_questions(settings, questions).values()
        self.requests = [generation.Request(prompts.encode(tokenizer, p), 1, 0.0, p.stop) for p in asked]
        self.options = [prompt.choices for prompt in asked]
        self.ids = list(questions["id"])
        self.labels = list(known[self.ids])
        self.answers: list[str | None] = []
        self.tokenizer, self.kind, self.max_tokens = tokenizer, kind or settings.answer, settings.max_tokens
        self.batch = batch

    def __call__(self, model, accelerator: Accelerator | None = None) -> float:
        """The agreement of a model, between 0 and 1; the processes of `accelerator` share the questions."""
        accelerator = accelerator or PartialState()
        longest = max(len(request.prompt) for request in self.requests)
        models.require_room(models.context(model.config), longest, self.max_tokens)
        engine = TransformersEngine(model, self.tokenizer, self.batch, self.max_tokens)
        completions = engine.generate(training.share(self.requests, accelerator), seed=0)
        options = training.share(self.options, accelerator)
        given = [answers.extract(g[0].text, self.kind, of) for g, of in zip(completions, options, strict=True)]
        self.answers = training.gather(given, len(self.requests), accelerator)
        agreeing = [answers.same(a, label) for a, label in zip(self.answers, self.labels, strict=True)]
        return sum(agreeing) / len(agreeing)
