"""The folder of a study's batches, beside its store: request files, what they ask for, and where they were sent.

    responses/mine.batches/teacher-1a2b3c4d.jsonl          what is sent
    responses/mine.batches/teacher-1a2b3c4d.asked.jsonl    what its lines ask for: what the store keeps beside answers
    responses/mine.batches/sent.json                       which file was sent as which batch, and how far it is
    responses/mine.batches/batch_abc-output.jsonl          what came back

A file is named by what is in it, so the same requests make the same file. Nothing here removes one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rdlib import artifacts, engines
from rdlib.engines.batch_files import Ticket
from rdlib.errors import UserError

SUFFIX = ".batches"  # of the folder, in the place of the store's own


@dataclass(frozen=True)
class Origin:
    """What a request asks for: of which teacher, the id and text of its question, and `asking.asked`."""

    teacher: str
    id: str
    question: str
    content: dict[str, Any]


@dataclass
class Sent:
    """A request file on its way: sent to an `address`, as far as the identifiers tell; `finished`: its end was read."""

    file: str
    teacher: str
    address: str
    endpoint: str
    file_id: str | None = None
    batch_id: str | None = None
    said: str = ""
    finished: bool = False


Origins = dict[tuple[bytes, str], Origin]


class Folder:
    """See the module. `held` lets one process at a time work with it."""

    def __init__(self, path: Path):
        self.path, self.notes = path, path / "sent.json"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out; UserError where one is at work."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"Another command is at work in {self.path}: wait until it has ended.") from None
            yield

    def sent(self) -> list[Sent]:
        """What was sent so far, and what became of it."""
        if not self.notes.is_file():
            return []
        try:
            return [Sent(**one) for one in json.loads(self.notes.read_text(encoding="utf-8"))]
        except (ValueError, TypeError) as error:
            raise UserError(f"{self.notes} cannot be read ({error}): restore a copy of it, or mend it.") from None

    def note(self, sent: Sequence[Sent]) -> None:
        """Keep what was sent, at once and as a whole."""
        artifacts.write_json(self.notes, [asdict(one) for one in sent])

    def keep(self, teacher: str, part: Sequence[tuple[Ticket, bytes]], origins: Origins) -> Path:
        """Write a request file, what it asks for first; its path."""
        content = b"".join(line for _, line in part)
        name = f"{re.sub(r'[^A-Za-z0-9_.-]', '_', teacher)}-{artifacts.content_hash(content.decode())[:8]}"
        keys = dict.fromkeys((ticket.digest, ticket.series) for ticket, _ in part)
        asked = [{"digest": key[0].hex(), "series": key[1]} | asdict(origins[key]) for key in keys]
        lines = "".join(json.dumps(one) + "\n" for one in asked)
        artifacts.write_bytes(self.path / f"{name}.asked.jsonl", lines.encode())
        artifacts.write_bytes(self.path / f"{name}.jsonl", content)
        return self.path / f"{name}.jsonl"

    def origins(self) -> Origins:
        """What all request files of this folder ask for."""
        found: Origins = {}
        for path in sorted(self.path.glob("*.asked.jsonl")):
            for line in path.read_text().splitlines():
                one = json.loads(line)
                key = bytes.fromhex(one.pop("digest")), one.pop("series")
                found[key] = Origin(**one)
        return found

    def tickets(self, file: str) -> list[Ticket]:
        """What the lines of a request file are about."""
        path = self.path / file
        if not path.is_file():
            raise UserError(f"{path} is gone, of which {self.notes} says that it was sent: restore a copy of it.")
        with path.open("rb") as lines:
            return [Ticket.read(json.loads(line)["custom_id"]) for line in lines]

    def under_way(self, teacher: str) -> list[Ticket]:
        """What was sent to a teacher and has not come back."""
        waiting = [one.file for one in self.sent() if one.teacher == teacher and one.batch_id and not one.finished]
        return [ticket for file in waiting for ticket in self.tickets(file)]


def under_way(stage) -> str:
    """One sentence where batches are under way whose answers a stage would ask for once more; else empty."""
    folder = Folder(engines.store_path(stage).with_suffix(SUFFIX))
    waiting = sum(ticket.count for ticket in folder.under_way(stage.teacher))
    if not waiting:
        return ""
    return (
        f"{waiting:,} samples of {stage.teacher} are under way in batches and would be paid for twice: give "
        f"`python -m rdlib batch collect` first, or cancel them at the provider and then give it."
    )
