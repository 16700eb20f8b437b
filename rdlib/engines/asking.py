"""What is asked of a server, and what came of it: the currency between the server's client and the store of responses.

    ask = Ask(request, samples=(3, 4), seed=7)      # samples 3 and 4 of a request are missing
    for number, sample, reply in server.replies({0: ask}): ...

A response belongs to what was asked (`asked`): the model, the messages, the parameters of sampling. Where the server
is, how fast it is asked, with which key, and how long a response may be decide nothing of it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

from rdlib.engines.generation import Request
from rdlib.settings import Model


@dataclass(frozen=True)
class Settings:
    """What all requests to a server have in common; `max_tokens` is the most tokens of a response."""

    model: str
    max_tokens: int
    top_p: float = 1.0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ask:
    """The samples of a request that are still missing, by their numbers from 0, and what their seeds derive from."""

    request: Request
    samples: tuple[int, ...]
    seed: int


@dataclass(frozen=True)
class Reply:
    """What came of one sample, as the server gave it: nothing cut and nothing stripped.

    `kind` answer: `text`, and what the teacher thought before it (`reasoning`, None where the server gave nothing
    apart). "withheld": a choice without text, which was paid for; "refused": the server will never answer this
    request; "failed": it did not answer this time. Of the last three `words` are the server's own, for the report.

    `reason` is the server's word for why the response ended, and `ended` whether that was by itself; `tokens` are
    those of the response, thinking included, and `prompt_tokens` those of the prompt (None: the server did not tell;
    for samples that came together, the first has them all).
    """

    kind: Literal["answer", "withheld", "refused", "failed"]
    text: str = ""
    reasoning: str | None = None
    ended: bool = False
    reason: str = ""
    tokens: int = 0
    prompt_tokens: int | None = None
    words: str = ""


def messages_of(model: Model, request: Request) -> list[dict[str, str]]:
    """The messages of a request: the system prompt, where there is one, and the prompt's own."""
    system = [{"role": "system", "content": model.system_prompt}] if model.system_prompt else []
    return [*system, *request.prompt.chat]


def asked(model: Model, settings: Settings, request: Request) -> dict[str, Any]:
    """What a request asks for, as far as it decides the response; JSON-able.

    The temperature is None where the server's own is asked for.
    """
    own = request.temperature is None or "temperature" in model.leave_out
    content = {"model": settings.model, "messages": messages_of(model, request)}
    content |= {"temperature": None if own else round(float(request.temperature), 6)}
    content |= {"top_p": settings.top_p} if "top_p" not in model.leave_out else {}
    content |= {"stop": list(settings.stop)} if settings.stop else {}
    return content | ({"request": model.request.body} if model.request.body else {})


def series_of(content: dict[str, Any], seed: int) -> str:
    """The series that a request's samples belong to: the study's seed; greedy ones are the same for all seeds."""
    return "" if content["temperature"] == 0 else str(seed)


def digest(content: Any) -> bytes:
    """Sixteen bytes that tell JSON-able contents apart."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
