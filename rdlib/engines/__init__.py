"""The generation engines behind one interface, `rdlib.generation.Engine`; `open_engine` picks one by the profile."""

from __future__ import annotations

from rdlib.generation import Engine
from rdlib.profile import Model


def open_engine(stage, model: Model) -> Engine:
    """The engine that samples from `model` for a stage, with the profile's limits."""
    from rdlib import models
    from rdlib.engines.transformers_engine import TransformersEngine

    source = models.resolve(model.model, stage.root)
    return TransformersEngine(
        models.load_causal_lm(source).to(models.device()),
        models.load_tokenizer(source),
        stage.profile.generation.batch_size,
        stage.dataset_settings.max_tokens,
    )


def open_own(stage, folder: str) -> Engine:
    """The engine that samples from a model that the study has made, or is about to train."""
    return open_engine(stage, Model(model=folder, engine=stage.profile.generation.engine))
