"""The store of paid responses: one SQLite file a study, filled answer by answer, only ever added to, and asked first.

    with Store.open(path) as store:
        store.kept([Wanted(digest, series, samples=(0, 1), max_tokens=384)])   # [{0: Row, 1: Row}]

A response belongs to what was asked (`asking.asked`), to its number among the samples of that, and to a series: the
study's seed, so that seeds have samples of their own; greedy responses are shared by all. docs/responses.md describes
the tables. Nothing here removes a row; the file is the user's, and can be copied to another machine.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rdlib import artifacts
from rdlib.engines.asking import Reply
from rdlib.engines.budget import Spent
from rdlib.errors import UserError

FORMAT = 1  # user_version of the file
APPLICATION = 0x72646C62  # "rdlb": what tells the file from other SQLite files
BUSY = 120.0  # seconds that a process waits for another's write
TABLES = """
CREATE TABLE asked (
    digest BLOB PRIMARY KEY, model TEXT NOT NULL, id TEXT NOT NULL, question TEXT NOT NULL, temperature REAL,
    content TEXT NOT NULL);
CREATE TABLE responses (
    asked BLOB NOT NULL, series TEXT NOT NULL, sample INTEGER NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL,
    reasoning TEXT, ended INTEGER NOT NULL, reason TEXT NOT NULL, tokens INTEGER NOT NULL, prompt_tokens INTEGER,
    words TEXT NOT NULL, max_tokens INTEGER NOT NULL, run TEXT NOT NULL, at TEXT NOT NULL);
CREATE INDEX responses_of ON responses (asked, series, sample);
CREATE INDEX asked_of ON asked (question, model);
CREATE TABLE void_runs (run TEXT NOT NULL);
CREATE TABLE learnt (server TEXT NOT NULL, content TEXT NOT NULL, at TEXT NOT NULL);
"""
REPLY = tuple(field.name for field in fields(Reply))


@dataclass(frozen=True)
class Wanted:
    """Samples of a request, by their numbers: the digest of what is asked, its series, and its `max_tokens`."""

    digest: bytes
    series: str
    samples: tuple[int, ...]
    max_tokens: int


class Store:
    """See the module; `open` makes one."""

    def __init__(self, connection: sqlite3.Connection, path: Path):
        self.connection, self.path = connection, path

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path, create: bool = True) -> Iterator[Store]:
        """The store in a file, made where there is none and `create`; UserError for a file that is none."""
        if not create and not path.is_file():
            raise UserError(f"There is no store of responses {path}: give the path of one, or ask the teacher first.")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None)
        except sqlite3.Error as error:
            raise _unreadable(path, error) from None
        with contextlib.closing(connection):
            try:
                _prepare(connection, path)
            except sqlite3.Error as error:
                raise _unreadable(path, error) from None
            yield cls(connection, path)

    def kept(self, wanted: Sequence[Wanted], refused: bool = True) -> list[dict[int, Reply]]:
        """The replies that serve each of `wanted`, by the sample's number; what is missing has to be asked.

        A response that ended by itself serves whatever the limit; one that was cut, only up to the limit it had.
        What the server had refused for good serves too (kind "refused"), unless not `refused`.
        """
        void = {run for (run,) in self.connection.execute("SELECT run FROM void_runs")} if refused else set()
        query = (  # key by key: SQLite 3.40 took a thousand times as long for a query of hundreds of keys
            f"SELECT sample, max_tokens, run, {', '.join(REPLY)} FROM responses WHERE asked = ? AND series = ? "
            "ORDER BY rowid DESC"  # the newest first
        )
        found: list[dict[int, Reply]] = []
        for one in wanted:
            replies: dict[int, Reply] = {}
            for sample, max_tokens, run, *values in self.connection.execute(query, (one.digest, one.series)):
                reply = _reply(values)
                if reply.kind == "refused":
                    serves = refused and run not in void
                else:
                    serves = reply.ended or max_tokens >= one.max_tokens
                if serves and sample in one.samples:
                    replies.setdefault(sample, reply)
            found.append(replies)
        return found

    def add(self, wanted: Wanted, asked: Mapping[str, Any], question: tuple[str, str], sample: int, reply: Reply,
            run: str) -> None:  # fmt: skip
        """Keep a reply, at once and for good; `question` is the id and the text of the question that it answers."""
        key, text = question
        about = (wanted.digest, asked["model"], key, text, asked["temperature"], json.dumps(asked, ensure_ascii=False))
        values = tuple(getattr(reply, name) for name in REPLY)
        row = (wanted.digest, wanted.series, sample, wanted.max_tokens, run, artifacts.now(), *values)
        with self._transaction():
            self.connection.execute("INSERT OR IGNORE INTO asked VALUES (?, ?, ?, ?, ?, ?)", about)
            self.connection.execute(
                f"INSERT INTO responses (asked, series, sample, max_tokens, run, at, {', '.join(REPLY)}) "
                f"VALUES ({', '.join('?' * len(row))})",
                row,
            )

    def void(self, run: str) -> None:
        """Serve the refusals of a run no more: it ended since most was refused, so the cause was not the question."""
        with self._transaction():
            self.connection.execute("INSERT INTO void_runs VALUES (?)", [run])

    def remember(self, server: str, learnt: Mapping[str, Any]) -> None:
        """Keep what was learnt of a server, where it is new."""
        if learnt and learnt != self.learnt(server):
            with self._transaction():
                content = json.dumps(dict(learnt), sort_keys=True)
                self.connection.execute("INSERT INTO learnt VALUES (?, ?, ?)", [server, content, artifacts.now()])

    def learnt(self, server: str) -> dict[str, Any]:
        """What was learnt last of a server; {} for an unknown one."""
        query = "SELECT content FROM learnt WHERE server = ? ORDER BY rowid DESC LIMIT 1"
        row = self.connection.execute(query, [server]).fetchone()
        return json.loads(row[0]) if row else {}

    def spent(self, model: str) -> Spent:
        """What the responses of a model took, those that no request asks for any more included."""
        query = (
            "SELECT count(*), coalesce(sum(r.prompt_tokens), 0), coalesce(sum(r.tokens), 0) FROM responses AS r "
            "JOIN asked ON r.asked = asked.digest WHERE asked.model = ? AND r.kind != 'refused'"
        )
        return Spent(*self.connection.execute(query, [model]).fetchone())

    def others(self, questions: Iterable[str], temperature: float | None, digests: set[bytes]) -> list[dict[str, Any]]:
        """What else was asked about these questions (texts) at a temperature, without the requests of `digests`."""
        found = []
        query = "SELECT digest, content FROM asked WHERE question = ? AND temperature IS ?"
        for question in questions:
            rows = self.connection.execute(query, [question, temperature])
            found += [json.loads(content) | {"question": question} for digest, content in rows if digest not in digests]
        return found

    def models(self) -> dict[str, int]:
        """How many responses the store has of each model."""
        query = "SELECT model, count(*) FROM asked JOIN responses ON digest = asked GROUP BY model ORDER BY model"
        return dict(self.connection.execute(query))

    def samples(self, digest: bytes, series: str) -> dict[int, Reply]:
        """Every sample of what was asked that has an answer, or was paid for, in the order of their numbers."""
        query = (
            f"SELECT sample, {', '.join(REPLY)} FROM responses WHERE asked = ? AND series = ? "
            "AND kind IN ('answer', 'withheld') ORDER BY sample, ended DESC, max_tokens DESC, rowid DESC"
        )
        found: dict[int, Reply] = {}
        for sample, *values in self.connection.execute(query, [digest, series]):
            found.setdefault(sample, _reply(values))
        return found

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Keep all that a block adds, or nothing of it: much faster than one by one, for answers that came already."""
        with self._transaction():
            yield

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        if self.connection.in_transaction:
            yield
            return
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            yield
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")
            raise UserError(
                f"The store of responses {self.path} cannot be written ({error}): make room or give back the right to "
                f"write it, then run this again; what is in it is kept."
            ) from None
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new file; UserError for a file of something else or of a later version."""
    connection.execute("PRAGMA synchronous = FULL")  # an answer that was paid for is on the disk
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if (application, version) == (APPLICATION, FORMAT):
        return
    if application or version or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        what = "of a later version" if application == APPLICATION else "a database of something else"
        raise UserError(f"{path} is {what}, no store of responses that can be read here: give another path.")
    connection.execute("BEGIN IMMEDIATE")
    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[
        0
    ]:  # another process may have been first
        for statement in TABLES.strip().split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")


def _reply(values: Sequence[Any]) -> Reply:
    kind, text, reasoning, ended, *others = values
    return Reply(kind, text, reasoning, bool(ended), *others)


def _unreadable(path: Path, error: sqlite3.Error) -> UserError:
    return UserError(f"The store of responses {path} cannot be read ({error}): give another path, or restore a copy.")
