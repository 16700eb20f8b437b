"""The check before a study: does the server answer, and has it the model?

Lists of models are of many kinds: some hold patterns (`openai/*`), name models otherwise than requests do, come page
by page, or are not shown to a key that may ask. Only a list that surely lacks the model refuses it.
"""

from __future__ import annotations

import contextlib
import fnmatch
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from rdlib.engines.generation import clean
from rdlib.engines.server_said import parsed

PATIENCE = 10.0  # seconds for the list; a question may take longer
# Servers that hold one model and answer under any name: llama.cpp, koboldcpp, MLX's and the like.
ANY_NAME = {"llamacpp", "llama.cpp", "koboldcpp", "me"}


@dataclass
class Listed:
    """The models that a server lists, who owns them, and the first page's response."""

    response: httpx.Response | None = None
    names: list[str] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)
    whole: bool = True  # no page is missing


def listed(get: Callable[..., httpx.Response], url: str) -> Listed:
    """Ask for the list, all its pages; httpx.HTTPError when the first cannot be had."""
    found, asked, end = Listed(), {}, time.monotonic() + PATIENCE
    while time.monotonic() < end:
        response = get(url, params=asked or None, timeout=PATIENCE)
        found.response = found.response or response
        body = parsed(response.content) if response.status_code == 200 else None
        _add(found, body)
        following = _next_page(body)
        if following is None or following == asked:
            return found
        asked = following
    found.whole = False
    return found


def _add(found: Listed, body: Any) -> None:
    entries = next((body[n] for n in ("data", "models") if isinstance(body.get(n), list)), []) if _is(body) else body
    for one in entries if isinstance(entries, list) else []:
        names = [one] if isinstance(one, str) else [one.get(n) for n in ("id", "root", "name")] if _is(one) else []
        names = [clean(name)[:200] for name in names if isinstance(name, str) and name]
        if _is(one) and not isinstance(one.get("id"), str):
            names = []
        found.names += names[:1]
        found.owners += [str(one.get("owned_by"))] if _is(one) and names else []
        aliases = one.get("aliases") if _is(one) else None
        found.names += [clean(a)[:200] for a in aliases if isinstance(a, str)] if isinstance(aliases, list) else []


def _is(value: Any) -> bool:
    return isinstance(value, dict)


def _next_page(body: Any) -> dict[str, str] | None:
    """The parameters that ask for the page after this one."""
    if not _is(body) or not body.get("data"):
        return None
    with contextlib.suppress(httpx.InvalidURL, TypeError, ValueError):
        if isinstance(body.get("next"), str) and body["next"]:
            return dict(httpx.URL(body["next"]).params) or None
    if body.get("has_more") is True and isinstance(body.get("last_id"), str):
        return {"after": body["last_id"], "after_id": body["last_id"]}
    token = body.get("nextPageToken") or body.get("next_page_token")
    return {"pageToken": token, "page_token": token} if isinstance(token, str) else None


def has(names: list[str], model: str) -> bool:
    """Whether a list has a model: by its name, a pattern, its tag `latest`, or without a provider before or after."""
    bare = model.rpartition(":")[0] if ":" in model else model
    return any(_means(name, model) or name in (bare, model.removeprefix("models/")) for name in names)


def _means(name: str, model: str) -> bool:
    """Whether a listed name is that of a model, or a pattern that has it; gateways find the provider of a bare name."""
    if "*" in name:
        pattern = name.replace("[", "[[]").replace("?", "[?]")
        return "/" not in model or fnmatch.fnmatchcase(model, pattern)
    name, model = name.removesuffix(":latest").lower(), model.removesuffix(":latest").lower()
    return name == model or name.endswith(f"/{model}")


def serves_any_name(found: Listed) -> bool:
    """Whether the server holds one model and answers under any name."""
    return any(owner.lower() in ANY_NAME for owner in found.owners)
