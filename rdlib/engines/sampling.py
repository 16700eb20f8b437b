"""What every sampling stage does: open a model's engine, carry out a plan, extract the answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pandas as pd

from rdlib import engines
from rdlib.engines import generation
from rdlib.settings import Model
from rdlib.tasks import answers
from rdlib.tasks.prompts import Prompt


@contextmanager
def sampled(
    stage, model: Model, plan: pd.DataFrame, texts: dict[str, Prompt], work: Path, seed: int
) -> Iterator[pd.DataFrame]:
    """The responses of a plan with their extracted answers, for a `with` block that writes what becomes of them.

    One row a sample, as `generation.sample_to_disk` has it, and `answer`. What `work` keeps of them for a run
    that is interrupted goes when the block has ended without an error.
    """
    with closing(engines.open_engine(stage, model)) as engine:
        responses = generation.sample_to_disk(engine, plan, texts, work, seed, stage.profile.generation.shard_size)
    kind, asked = stage.dataset_settings.answer, zip(responses["text"], responses["id"], strict=True)
    responses["answer"] = [answers.extract(text, kind, texts[key].choices) for text, key in asked]
    yield responses
    generation.drop_shards(work)
