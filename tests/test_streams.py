"""Tables in chunks: no question is parted, and one chunk is written as a whole table is."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdlib import artifacts, streams
from rdlib.errors import UserError


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(1, 9))
def test_no_question_is_parted(tmp_path_factory, counts, rows):
    path = tmp_path_factory.mktemp("stream") / "table.parquet"
    table = pd.DataFrame({"id": [f"q{i:02d}" for i, n in enumerate(counts) for _ in range(n)]})
    table["sample"] = range(len(table))
    artifacts.write_parquet(path, table)
    chunks = list(streams.whole_questions(path, ["id", "sample"], rows))
    pd.testing.assert_frame_equal(pd.concat(chunks, ignore_index=True), table)
    ids = [set(chunk["id"]) for chunk in chunks]
    assert sum(map(len, ids)) == len(counts)
    assert max(map(len, chunks)) <= 2 * rows + max(counts)


def test_one_chunk_gives_the_same_file(tmp_path):
    table = pd.DataFrame({"id": ["a", "b"], "answer": ["1", None], "share": [0.5, 1.0]})
    artifacts.write_parquet(tmp_path / "whole.parquet", table)
    streams.write_parquet(tmp_path / "chunks.parquet", [table])
    assert (tmp_path / "chunks.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_chunk_without_any_answer_fits_behind_one_with_answers(tmp_path):
    first, second = (
        pd.DataFrame({"id": [i], "answer": pd.Series([a], dtype="str")}) for i, a in (("a", "1"), ("b", None))
    )
    streams.write_parquet(tmp_path / "table.parquet", iter([first, second]))
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "table.parquet"), pd.concat([first, second], ignore_index=True)
    )


def test_a_writer_that_fails_leaves_no_file(tmp_path):
    def chunks():
        yield pd.DataFrame({"id": ["a"]})
        raise ValueError

    with pytest.raises(ValueError):
        streams.write_parquet(tmp_path / "table.parquet", chunks())
    assert not (tmp_path / "table.parquet").exists()


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(UserError, match="run the stage"):
        next(streams.read_parquet(tmp_path / "none.parquet"))
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        next(streams.read_parquet(tmp_path / "cut.parquet"))
