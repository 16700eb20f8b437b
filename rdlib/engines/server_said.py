"""What a server said in place of an answer: its words in one line, its codes, and which fields it blames.

Servers say it in many shapes, and all are read: OpenAI's {"error": {"message", "code", "param"}}, Gemini's list of
that, FastAPI's "detail", Ollama's {"error": "..."}, a provider's error inside of a gateway's, and pages of HTML.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

LONGEST_WORDS = 300  # characters that a message quotes
LONGEST_TEXT = 20_000  # characters that are looked through
LONGEST_PAGE = 4000  # of HTML
DEEPEST = 8  # levels of an error inside of an error
CODES = ("code", "type", "status", "reason", "error_code", "err_code", "error_type", "errorCode")
VAGUE = {
    "error",
    "invalid_request_error",
    "api_error",
    "bad_request",
    "badrequesterror",
    "server_error",
    "null",
    "none",
}
MESSAGES = ("message", "msg", "error_msg", "error_message", "status_msg", "errorMessage", "description", "title")
NESTED = ("error", "errors", "detail", "details", "base_resp", "innererror")


@dataclass(frozen=True)
class Said:
    """A response other than an answer.

    `status` is the HTTP status, or the code inside of a body that came with 200 (0 where it has none); `words` are for
    messages, `text` is all that was said and `codes` are its codes, in lower case; `params` are the fields blamed.
    """

    status: int
    words: str
    text: str = ""
    codes: frozenset[str] = frozenset()
    params: tuple[str, ...] = ()
    body: Any = None
    headers: Mapping[str, str] | None = None
    page: bool = False

    @property
    def quoted(self) -> str:
        """The words as a message has them, or that there are none."""
        return self.words or f"status {self.status}, no message"


def any_of(*patterns: str) -> re.Pattern:
    """What matches where any of the patterns does."""
    return re.compile("|".join(patterns))


def read(status: int, headers: Mapping[str, str], content: bytes, secrets: tuple[str, ...] = ()) -> Said:
    """What a response said; none of the `secrets` is in it."""
    raw = scrubbed(content[: 50 * LONGEST_TEXT].decode("utf-8", "replace"), secrets)
    body = parsed(raw)
    page = body is None and bool(re.match(r"\s*(<!doctype|<html)", raw, re.I))
    text = one_line(_page(raw) if body is None else scrubbed("; ".join(_messages(body)), secrets))[:LONGEST_TEXT]
    found = _codes(body)
    codes = [c for c in found if not c.isdigit() and c.lower() not in text.lower() and c.lower() not in VAGUE]
    shown = text or ("" if body in ({}, [], None) else one_line(raw[:LONGEST_TEXT]))
    words = shortened(f"{shown} ({', '.join(codes[:2])})" if codes and text and len(text) < 120 else shown)
    if status == 200:
        status = next((int(code) for code in found if re.fullmatch("[3-5][0-9][0-9]", code)), 0)
    lowered = frozenset(code.lower() for code in found)
    return Said(status, words, f"{text} {' '.join(found)}".lower(), lowered, _params(body), body, headers, page)


def scrubbed(text: str, secrets: tuple[str, ...]) -> str:
    """A text without the secrets."""
    for secret in secrets:
        text = text.replace(secret, "[key]")
    return text


def parsed(text: str | bytes) -> Any:
    """JSON, or None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def one_line(text: str) -> str:
    """A text without line breaks and characters that cannot be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def shortened(text: str) -> str:
    """A text that a message can quote."""
    return text if len(text) <= LONGEST_WORDS else text[: LONGEST_WORDS - 3] + "..."


def fields(value: Any, depth: int = DEEPEST) -> Iterator[tuple[str, Any]]:
    """(name, value) of all fields of a JSON value, the outer ones first."""
    if depth and isinstance(value, dict):
        yield from ((str(name), inner) for name, inner in value.items())
        value = list(value.values())
    if depth and isinstance(value, list):
        for inner in value[:50]:
            yield from fields(inner, depth - 1)


def _page(raw: str) -> str:
    """The words of a page of HTML, or of plain text."""
    if "<" not in raw:
        return raw[:LONGEST_TEXT]
    raw = re.sub(r"(?is)<(script|style)\b[^>]*>.*?</\1>", " ", raw[:LONGEST_PAGE])
    return html.unescape(re.sub(r"<[^<>]{0,500}>", " ", raw))


def _messages(value: Any, depth: int = DEEPEST) -> list[str]:
    """The sentences of an error, without repetitions."""
    found: list[str] = []
    if not depth:
        return found
    if isinstance(value, str):
        found = [value]
    elif isinstance(value, list):
        found = [message for inner in value[:3] for message in _messages(inner, depth - 1)]
    elif isinstance(value, dict):
        found = _of_object(value, depth - 1)
    return [text for place, text in enumerate(found) if text.strip() and text not in " ".join(found[:place])]


def _of_object(value: dict[str, Any], depth: int) -> list[str]:
    if isinstance(value.get("msg"), str) and isinstance(value.get("loc"), list):  # pydantic's
        return [f"{'.'.join(str(part) for part in value['loc'])}: {value['msg']}"]
    found = []
    for name in (*NESTED[:1], *MESSAGES, *NESTED[1:]):
        inner = value.get(name)
        if isinstance(inner, str | dict | list) and not (name == "details" and found):
            found += _messages(inner, depth)
    metadata = value.get("metadata")
    if isinstance(metadata, dict):  # OpenRouter's: what its provider said, as JSON in a text
        raw, reasons = metadata.get("raw"), metadata.get("reasons")
        found += _messages(parsed(raw) or raw if isinstance(raw, str) else raw, depth)
        found += [f"reasons: {', '.join(map(str, reasons))}"] if isinstance(reasons, list) and reasons else []
    return found


def _codes(body: Any) -> list[str]:
    """The codes of an error, as texts."""
    found = [one_line(str(value)) for name, value in fields(body) if name in CODES and type(value) in (str, int)]
    return [code for code in dict.fromkeys(found) if 0 < len(code) <= 60 and not code.count(" ") > 1]


def _params(body: Any) -> tuple[str, ...]:
    """The fields of a request that an error names as at fault, besides in its words."""
    found: list[str] = []
    for name, value in fields(body):
        if name in ("param", "parameter", "field", "params") and isinstance(value, str):
            found.append(value)
        if name in ("param", "params", "parameters", "unsupported_params") and isinstance(value, list):
            found += [one for one in value if isinstance(one, str)]
        if name == "loc" and isinstance(value, list):
            found += [str(part) for part in value if part != "body"][:1]
    return tuple(dict.fromkeys(found))
