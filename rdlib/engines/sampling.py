"""What every sampling stage does: open a model's engine, carry out a plan, extract the answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pandas as pd

from rdlib import artifacts, engines
from rdlib.engines import first_look, generation
from rdlib.engines.stored_server import StoredServer
from rdlib.settings import Model
from rdlib.tasks.prompts import Prompt

UNANSWERED = ["id", "temperature", "sample", "words"]  # columns of the table of samples without an answer


@contextmanager
def sampled(
    stage, model: Model, plan: pd.DataFrame, texts: dict[str, Prompt], work: Path, seed: int, look: bool = False
) -> Iterator[pd.DataFrame]:
    """The responses of a plan with their extracted answers, for a `with` block that writes what becomes of them.

    One row a sample, as `generation.sample_to_disk` has it, and `answer`. What `work` keeps of them for a run
    that is interrupted goes when the block has ended without an error. A server's responses are kept in the study's
    store; with `look`, some questions are asked before all others (`first_look`).
    """
    with closing(engines.open_engine(stage, model)) as engine:
        if isinstance(engine, StoredServer):
            if look:
                first_look.take(stage, engine, plan, texts)
            responses = _asked(stage, engine, plan, texts, work)
        else:
            shard_size = stage.profile.generation.shard_size
            responses = generation.sample_to_disk(engine, plan, texts, work, seed, shard_size)
    yield generation.with_answers(responses, stage.answer_kind, texts)
    generation.drop_shards(work)


def _asked(stage, engine: StoredServer, plan: pd.DataFrame, texts: dict[str, Prompt], work: Path) -> pd.DataFrame:
    """The responses of a server; those that never came are rows without text, and rows of unanswered.parquet."""
    groups = engine.generate(generation.requests_of(engine, plan, texts))
    responses = generation.table_of(plan, groups)
    words = [completion.words for group in groups for completion in group]
    missing = responses.assign(words=words)[[bool(said) for said in words]]
    artifacts.write_parquet(work / "unanswered.parquet", missing[UNANSWERED])
    return generation.opened(responses)
