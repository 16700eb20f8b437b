"""The files of a batch service, both ways: requests written out, a line each, and what came back of them.

    {"custom_id": "rd-<digest>-<series>-<first>-<count>-<max_tokens>", "method": "POST",
     "url": "/v1/chat/completions", "body": {...}}
    {"custom_id": "rd-...", "response": {"status_code": 200, "body": {"choices": [...]}}, "error": null}

This is OpenAI's form. Others differ a little: Azure's address is shorter, Mistral and Together want no address at all,
vLLM's `run-batch` puts what went wrong into `error`, some leave out the status or the `body` around an answer. All are
read. The identifier says of itself which samples of what was asked a line holds, so files may come back in any order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdlib.engines.generation import clean
from rdlib.engines.server_said import parsed
from rdlib.engines.store import Wanted
from rdlib.errors import UserError

MOST_LINES, MOST_BYTES = 50_000, 190_000_000  # of a file; OpenAI takes 200 MB, and some count MB as 2**20
ADDRESSES = {"openai": "/v1/chat/completions", "azure": "/chat/completions", "bare": None}
TICKET = re.compile(r"rd-([0-9a-f]{32})-(\d*)-(\d{1,9})-([1-9]\d{0,8})-([1-9]\d{0,8})")
NOT_RUN = ("batch_expired", "batch_cancelled", "batch_canceled")  # codes of requests that nobody answered


@dataclass(frozen=True)
class Ticket:
    """Which samples a line is about: `count` of them from the number `first`, as far as `max_tokens` allowed."""

    digest: bytes
    series: str
    first: int
    count: int
    max_tokens: int

    @property
    def custom_id(self) -> str:
        """The identifier of the line; some services allow 64 characters."""
        return f"rd-{self.digest.hex()}-{self.series}-{self.first}-{self.count}-{self.max_tokens}"

    @property
    def samples(self) -> tuple[int, ...]:
        """The numbers of the samples."""
        return tuple(range(self.first, self.first + self.count))

    @property
    def wanted(self) -> Wanted:
        """What the line wants of the store."""
        return Wanted(self.digest, self.series, self.samples, self.max_tokens)

    @classmethod
    def read(cls, custom_id: Any) -> Ticket | None:
        """The ticket of an identifier; None where this program did not make it."""
        match = TICKET.fullmatch(custom_id) if isinstance(custom_id, str) else None
        if match is None:
            return None
        digest, series, *numbers = match.groups()
        return cls(bytes.fromhex(digest), series, *map(int, numbers))


def request_line(ticket: Ticket, body: dict[str, Any], form: str) -> bytes:
    """A line of a request file, in the `form` that a service takes (a key of `ADDRESSES`); plain ASCII."""
    address = {"method": "POST", "url": ADDRESSES[form]} if ADDRESSES[form] else {}
    whole = {"custom_id": ticket.custom_id} | address | {"body": body}
    whole = json.loads(clean(json.dumps(whole, ensure_ascii=False)))  # no half of a surrogate pair
    return json.dumps(whole, separators=(",", ":")).encode() + b"\n"


def packed(lines: list[tuple[Ticket, bytes]]) -> Iterator[list[tuple[Ticket, bytes]]]:
    """The lines in parts that a service takes as one file each."""
    part, size = [], 0
    for ticket, line in lines:
        if part and (len(part) == MOST_LINES or size + len(line) > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append((ticket, line))
        size += len(line)
    if part:
        yield part


@dataclass(frozen=True)
class Result:
    """What became of a line: `content` is what a server would have answered the request with, and its `status`.

    `not_run`: the batch ended before it came to this request.
    """

    ticket: Ticket
    status: int
    content: bytes
    not_run: bool = False


def results(path: Path) -> Iterator[Result]:
    """What a file of results holds; UserError for a file that is none, with the line."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                raw = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
                if raw.strip():
                    yield _result(raw, f"{path}, line {number}")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give the path of a batch's result file.") from None


def _result(raw: bytes, place: str) -> Result:
    line = parsed(raw)
    if line is None:
        raise UserError(f"{place} is cut off or is no JSON: download the file again; nothing of it was read.")
    if not isinstance(line, dict) or not isinstance(line.get("custom_id"), str):
        raise UserError(f"{place} has no custom_id, so it is no result in OpenAI's form{_whose(line)}.")
    ticket = Ticket.read(line["custom_id"])
    if ticket is None:
        raise UserError(f"{place} is of a batch file of another study: {line['custom_id'][:80]!r} is no request of it.")
    if "body" in line and not {"response", "error"} & line.keys() and "choices" not in _object(line["body"]):
        raise UserError(f"{place} is a request: give the files that the service made of it, not those sent to it.")
    return Result(ticket, *_answer(line, place))


def _whose(line: Any) -> str:
    native = isinstance(line, dict) and ("key" in line or "candidates" in _object(line.get("response")))
    return ", but Gemini's own, which cannot be read" if native else ""


def _answer(line: dict[str, Any], place: str) -> tuple[int, bytes, bool]:
    """The status and the content of a line, and whether it was not run."""
    if isinstance(line.get("result"), dict):
        raise UserError(f"{place} is a result in Anthropic's own form, which cannot be read: ask by its chat endpoint.")
    response = _object(line.get("response"))
    bodies = [response.get("body"), line.get("response"), line.get("body")]
    bodies = [parsed(body) if isinstance(body, str) else body for body in bodies]
    status = response.get("status_code")
    status = status if type(status) is int else 200
    answer = next((body for body in bodies if "choices" in _object(body)), None)
    if answer is not None:
        return status, json.dumps(answer).encode(), False
    error = bodies[0] or line.get("error") or bodies[1] or "no answer"
    code = _object(line.get("error")).get("code")
    return status, json.dumps(error if "error" in _object(error) else {"error": error}).encode(), code in NOT_RUN


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
