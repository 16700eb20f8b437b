"""For how long a server asks to wait: in headers or in its words, as a number, a duration, a date or an epoch."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from rdlib.engines.server_said import Said, fields

UNITS = {
    **dict.fromkeys(("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"), 0.001),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}
_PART = rf"\d+(?:\.\d+)?\s*(?:{'|'.join(sorted(UNITS, key=len, reverse=True))})(?![a-z])"
_DURATION = re.compile(rf"(?:{_PART.replace('(?![a-z])', '')}[\s,]*(?:and\s+)?)+(?![a-z])", re.I)
_SAID = re.compile(
    rf"(?:again|retry|retrying|wait|reset|resets|available)\s+(?:again\s+)?(?:in|after|for|at least)?\s*(?:about\s+)?"
    rf"((?:{_PART.replace('(?![a-z])', '')}[\s,]*(?:and\s+)?)+)(?![a-z])",
    re.I,
)
MILLISECONDS = ("retry-after-ms", "x-ms-retry-after-ms")
RESETS = re.compile(r"(?:x-)?(?:[a-z]+-)?rate-?limit-(?:reset(?:-([a-z-]+))?|([a-z-]+)-reset(?:-[a-z]+)?)$", re.I)


def asked(said: Said) -> float | None:
    """Seconds that a response asks to wait; None where it names none."""
    headers = {name.lower(): value for name, value in (said.headers or {}).items()}
    now = _date(headers.get("date", "")) or time.time()
    named = [_milliseconds(headers), _seconds(headers.get("retry-after", ""), now)]
    found = [next((value for value in named if value is not None), None)]
    found += [_in_body(said.body, now), _in_words(said.text)]
    waits = [value for value in found if value is not None]
    return max(waits) if waits else _until_reset(headers, now)


def _milliseconds(headers: Mapping[str, str]) -> float | None:
    for name in MILLISECONDS:
        value = _number(headers.get(name, ""))
        if value is not None:
            return max(0.0, value / 1000)
    return None


def _number(text: Any) -> float | None:
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        value = float(text)
        return None if math.isnan(value) else value
    return None


def _date(text: str) -> float | None:
    """A date of HTTP or ISO as seconds since 1970; one without a zone is GMT."""
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        with contextlib.suppress(ValueError, TypeError, OverflowError, IndexError):
            date = parse(text.strip())
            return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    return None


def _seconds(text: Any, now: float) -> float | None:
    """Seconds from now: of a number, an epoch in seconds or milliseconds, a duration ("1m30s") or a date."""
    value = _number(text)
    if value is not None:
        if 1e12 < value < 1e14:
            value /= 1000
        return max(0.0, value - now if 1e9 < value < 1e11 and abs(value - now) < 1e8 else value)
    if not isinstance(text, str):
        return None
    if _DURATION.fullmatch(text.strip()):
        return duration(text)
    date = _date(text)
    return None if date is None else max(0.0, date - now)


def duration(text: str) -> float:
    """The seconds of a duration: "20s", "1m30s", "500 ms", "1 hour and 2 minutes"."""
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.lower())
    return sum(float(number) * UNITS.get(unit, 0.0) for number, unit in parts if unit != "and")


def _in_body(body: Any, now: float) -> float | None:
    found = []
    for name, value in fields(body):
        plain = re.sub("[^a-z]", "", name.lower())
        if plain in ("retrydelay", "retryafter", "retryafterseconds", "retryafters", "resetsinseconds"):
            found.append(_delay(value, now))
        if plain in ("retryafterms", "retrydelayms") and (number := _number(value)) is not None:
            found.append(max(0.0, number / 1000))
    return max((value for value in found if value is not None), default=None)


def _delay(value: Any, now: float) -> float | None:
    if isinstance(value, dict):  # protobuf's Duration
        parts = [_number(value.get("seconds", 0)), _number(value.get("nanos", 0))]
        return None if None in parts else max(0.0, parts[0] + parts[1] / 1e9)
    return None if isinstance(value, bool) else _seconds(value, now)


def _in_words(text: str) -> float | None:
    return max((duration(match[1]) for match in _SAID.finditer(text)), default=None)


def _until_reset(headers: Mapping[str, str], now: float) -> float | None:
    """By the headers that tell when each limit is reset: that of the one with nothing left, else the nearest."""
    used, others = [], []
    for name, value in headers.items():
        if match := RESETS.fullmatch(name):
            which = match[1] or match[2] or ""
            left = next((headers[n] for n in headers if "remaining" in n and n.endswith(which)), None)
            left = left or next((headers[n] for n in headers if "remaining" in n and which and which in n), None)
            seconds = _seconds(value, now)
            if seconds is not None:
                (used if _number(left) == 0 else others).append(seconds)
    return max(used) if used else min(others, default=None)
