"""The store of paid responses: what serves what, what survives, and how fast it is asked."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdlib.engines.asking import Reply, digest
from rdlib.engines.budget import Spent
from rdlib.engines.store import Store, Wanted
from rdlib.errors import UserError

KINDS = ["answer", "withheld", "refused"]
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Q?"}], "temperature": 1.0}
ANSWER = Reply("answer", "It is 4.\n#### 4", ended=True, reason="stop", tokens=9, prompt_tokens=5)


def wanted(samples=(0,), what: object = ASKED, series: str = "0", max_tokens: int = 100) -> Wanted:
    return Wanted(digest(what), series, samples, max_tokens)


def keep(store: Store, sample: int = 0, reply: Reply = ANSWER, one: Wanted | None = None, run: str = "r", what=ASKED):
    store.add(one or wanted(), what, ("q1", "Q?"), sample, reply, run)


def test_a_reply_comes_back_as_it_was_kept(tmp_path):
    odd = replace(ANSWER, text="\u2028 \x00 ½ 数", reasoning="hm\n", ended=False, reason="SAFETY", words="no")
    with Store.open(tmp_path / "s.sqlite") as store:
        keep(store, 3, odd)
    with Store.open(tmp_path / "s.sqlite") as store:
        assert store.kept([wanted((2, 3), max_tokens=50)]) == [{3: odd}]


@pytest.mark.parametrize(
    ("reply", "had", "now", "serves"),
    [
        (ANSWER, 100, 100, True),
        (ANSWER, 100, 8000, True),  # it ended, so a higher limit changes nothing
        (ANSWER, 100, 10, True),
        (replace(ANSWER, ended=False), 100, 100, True),
        (replace(ANSWER, ended=False), 100, 101, False),  # it was cut, and might go on
        (replace(ANSWER, ended=False), 100, 50, True),
        (Reply("withheld", words="all went into thinking"), 100, 200, False),
        (Reply("withheld", ended=True, words="I cannot help"), 100, 200, True),
        (Reply("refused", words="content filter"), 100, 200, True),
    ],
)
def test_what_serves_a_request(tmp_path, reply, had, now, serves):
    with Store.open(tmp_path / "s.sqlite") as store:
        keep(store, 0, reply, wanted(max_tokens=had))
        assert bool(store.kept([wanted(max_tokens=now)])[0]) is serves


def test_refusals_of_a_run_that_ended_badly_serve_no_more(tmp_path):
    refused = Reply("refused", words="filtered")
    with Store.open(tmp_path / "s.sqlite") as store:
        keep(store, 0, refused, run="bad")
        keep(store, 1, refused, run="good")
        store.void("bad")
        assert store.kept([wanted((0, 1))]) == [{1: refused}]
        assert store.kept([wanted((0, 1))], refused=False) == [{}]


def test_what_was_spent_and_learnt(tmp_path):
    with Store.open(tmp_path / "s.sqlite") as store:
        keep(store, 0)
        keep(store, 1, replace(ANSWER, prompt_tokens=None))
        keep(store, 2, Reply("refused", words="no"))
        keep(store, 0, one=wanted(what=ASKED | {"model": "other"}), what=ASKED | {"model": "other"})
        assert store.spent("m") == Spent(2, 5, 18) and store.spent("none") == Spent()
        assert store.models() == {"m": 3, "other": 1}
        assert store.learnt("m at u") == {}
        for most in (8, 4):
            store.remember("m at u", {"most_choices": most})
        assert store.learnt("m at u") == {"most_choices": 4}


def test_a_file_that_is_no_store_is_named(tmp_path):
    for number, content in enumerate((b"SQLite format 3\x00", b"\x00" * 5000, b'{"question": "a"}\n' * 900)):
        (tmp_path / f"s{number}.sqlite").write_bytes(content)
        with pytest.raises(UserError, match=rf"s{number}\.sqlite"), Store.open(tmp_path / f"s{number}.sqlite"):
            pass
    (tmp_path / "s.sqlite").touch()  # a store without a row
    with Store.open(tmp_path / "s.sqlite") as store:
        assert store.models() == {}
        store.connection.execute("PRAGMA query_only = ON")
        with pytest.raises(UserError, match="cannot be written"):
            keep(store)
        store.connection.execute("PRAGMA query_only = OFF")
        store.connection.execute("PRAGMA user_version = 99")
    connection = sqlite3.connect(tmp_path / "other.sqlite")
    connection.execute("CREATE TABLE t (a)")
    connection.close()
    for name, words in (("other", "a database of something else"), ("s", "of a later version"), ("no", "There is no")):
        with pytest.raises(UserError, match=words), Store.open(tmp_path / f"{name}.sqlite", create=False):
            pass


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(KINDS), st.booleans(), st.integers(1, 9)), max_size=12
    ),
    st.integers(1, 9),
)  # fmt: skip
def test_kept_is_the_newest_row_that_serves(rows, limit):
    """Against a plain reading of the rules."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "s.sqlite") as store:
        expected: dict[int, Reply] = {}
        for number, (sample, kind, ended, had) in enumerate(rows):
            reply = Reply(kind, f"text {number}", ended=ended)
            keep(store, sample, reply, wanted(max_tokens=had))
            if ended or kind == "refused" or had >= limit:
                expected[sample] = reply
        assert store.kept([wanted((0, 1, 2, 3), max_tokens=limit)]) == [expected]
