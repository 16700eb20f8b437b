"""Tables larger than memory: read and written some rows at a time.

    for chunk in streams.whole_questions(path, ["id", "answer"]):   # all responses of a question are in one chunk
        ...
    streams.write_parquet(path, map(label, chunks))                  # one row group a chunk; the file whole or absent

Memory depends on the size of a chunk, not of the table. A table of one chunk is written as `artifacts.write_parquet`
writes it, byte for byte.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rdlib import artifacts
from rdlib.errors import UserError

ROWS = 2**18  # of a chunk: some ten MB without texts; each table of the micro study is one chunk


def read_parquet(path: Path, columns: list[str] | None = None, rows: int = ROWS) -> Iterator[pd.DataFrame]:
    """A table in chunks of `rows` rows, none for an empty one; UserError when it is missing or cannot be read."""
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(rows, columns=columns, use_threads=False):
                yield pa.Table.from_batches([batch]).to_pandas()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the stage that writes it again.") from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a readable Parquet file ({type(error).__name__}): delete its folder.") from None


def whole_questions(path: Path, columns: list[str], rows: int = ROWS) -> Iterator[pd.DataFrame]:
    """A table whose rows of a question (`id`) lie together, in chunks of about `rows` rows that part no question."""
    kept = None
    for chunk in read_parquet(path, columns, rows):
        if kept is not None:
            unfinished = kept["id"] == kept["id"].iloc[-1]  # this question's other rows may come with the new chunk
            if not unfinished.all():
                yield kept[~unfinished]
            chunk = pd.concat([kept[unfinished], chunk], ignore_index=True)
        kept = chunk
    if kept is not None:
        yield kept


def write_parquet(path: Path, chunks: Iterable[pd.DataFrame]) -> None:
    """Write chunks of a table, at least one, as one Parquet file: atomically, reproducibly, a row group a chunk."""
    with artifacts.whole_or_absent(path) as temporary, contextlib.ExitStack() as stack:
        schema = writer = None
        for chunk in chunks:
            if writer is None:
                schema = artifacts.schema_of(chunk)
                writer = stack.enter_context(pq.ParquetWriter(temporary, schema, compression="zstd"))
            writer.write_table(pa.Table.from_pandas(chunk, schema=schema, preserve_index=False))
