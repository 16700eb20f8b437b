"""What a response other than an answer means: pure functions of its status, its words and what was sent.

limited     too many requests: slower, and again
passing     may pass: again, with another seed
parameter   a parameter that the server does not take: again without it
refused     this request will never pass, the others may
doubtful    refused, or nothing passes: that is known once another request passes
hopeless    nothing will pass: one sentence ends the run
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rdlib.engines import server_waits
from rdlib.engines.server_pace import LONGEST_RETRY_AFTER
from rdlib.engines.server_parameters import blamed, most_choices
from rdlib.engines.server_said import Said, any_of

Kind = Literal["limited", "passing", "parameter", "refused", "doubtful", "hopeless"]
LIMITS = {429, 498, 529}
PASSING = {408, 409, 423, 424, 425, 499}  # besides all from 500 up
MAY_BLAME = {0, 400, 404, 405, 406, 422, 500, 501, 502}  # statuses of refusals that may be about a parameter


@dataclass(frozen=True)
class Outcome:
    """What a response means; `why` says which sentence fits where nothing will pass, `wait` is in seconds."""

    kind: Kind
    why: str = ""
    wait: float | None = None
    together: bool = False  # too many are open at once
    names: tuple[str, ...] = ()  # of parameters
    sure: bool = True
    most: int | None = None  # choices at once


ACCOUNT = any_of(
    r"(account|organi[sz]ation|api[ _-]?key|project|team|workspace)\b.{0,40}"
    r"\b(suspend|deactivat|disabled|terminat|banned|revoked|expired|blocked|locked)"
)
COUNTRY = any_of(
    r"(country|region|territory|location)\b.{0,40}(not supported|unsupported|restricted|not available|not allowed)",
    r"unsupported_country",
)
WITHHELD = any_of(
    r"content[ _-]?(management|filter|policy|moderation|safety|violation)|responsible ?_?ai|moderation|flagged",
    r"inappropriate|usage polic|data_?inspection|exists risk|harmful|prohibited[ _]content|unsafe|guardrail",
    r"(?<!case.)sensitive",
    r"safety (system|filter|polic|setting|reason|check|guard)|for safety|invalid[_ ]prompt\b|block_?reason",
    r"violat\w+ .{0,60}(polic|guideline|terms|safety)|(prompt|input|content|request|response)\w* (was|is|were) blocked",
    r"blocked (by|due|because)|policy[ _]violation|敏感|不安全|违规|不适当",
)
FOR_NOW = any_of(r"unavailable|timed? ?out|temporar|try again|retry")
TOO_LARGE = any_of(r"request (entity |body )?too large|reduce your message|tokens must be reduced|payload too large")
CONTEXT = any_of(
    r"context[ _-]?(length|window|size|limit)|maximum context|available context|\bn_ctx\b|max_model_len",
    r"(prompt|inputs?|messages?|text|conversation|question|string|tokens|content)\w*\b.{0,30}too (long|large)\b",
    r"too many (input |prompt )?tokens(?! per)|reduce the (length|prompt|messages?|input)|string_above_max_length",
    r"(input|prompt|tokens?|length)\b.{0,60}exceed\w*.{0,60}(context|maximum|max|limit|length)",
    r"exceed\w*.{0,40}(maximum|max)\b.{0,30}(input|prompt|sequence|length|tokens)",
    r"longer than .{0,40}(context|model|max)",
)
CREDIT = any_of(
    r"insufficient[ _-]?(credit|balance|quota|fund)|not enough (credit|balance|fund)|requires? more credits|no credits",
    r"(credit|balance)s?\b.{0,30}(too low|exhausted|depleted|insufficient|run out|ran out|negative|used up)|arrear",
    r"out of credit|payment[ _]required|billing_(hard_limit|not_active)|billing.{0,20}not (active|enabled)",
    r"(hard|billing|spend\w*|usage) (cap|limit)\b.{0,20}(reached|exceeded)|budget.{0,20}exceeded|exceeded.?budget",
    r"key limit exceeded|余额|欠费",
)
CURRENT_QUOTA = any_of(r"exceeded your current quota")
DAY = any_of(r"per[ _-]?day|\bdaily\b|\brpd\b|\btpd\b|per[ _-]?month|monthly|limit: 0(?![.\d])")
KEY = any_of(
    r"api[ _-]?key|unauthori[sz]ed|unauthenticated|authenticat|authori[sz]ation|credential|access token|invalid token",
    r"permission|forbidden|not authori[sz]ed|access denied|no access|not have access|\bkeys?\b",
)
BAD_KEY = any_of(
    r"(invalid|incorrect|missing|expired|wrong|no)\b.{0,20}(api[ _-]?key|credential|access token)|api_key_invalid",
    r"api[ _-]?key\b.{0,30}(invalid|not valid|incorrect|missing|required|expired|not found)|invalid_api_key",
)
ADDRESS = any_of(
    r"unexpected endpoint|no route|route not found|cannot (post|get) |(unknown|invalid) (url|endpoint|path)",
    r"unknown request url|plain http request|endpoint not found|method not allowed|no handler found",
)
BARE_NOT_FOUND = re.compile(
    r"\W*(404\W*)?((page|resource|path|url|the requested url)?\W*(was )?not found\W*)?(404)?\W*"
)
MODEL = any_of(
    r"model[_ -]?not[_ -]?(found|exist)|(no such|unknown|invalid|unsupported) model|not a valid model",
    r"\bmodel\b.{0,80}(not found|n[o']t exist|not available|unavailable|decommissioned|no longer|not (a )?valid)",
    r"\bmodel\b.{0,80}(unknown|retired|has been (removed|deprecated))|model_decommissioned",
    r"\bmodel\b.{0,80}not (loaded|deployed|served|supported by|supported for this|recogni[sz]ed)",
    r"deployment\b.{0,60}(not found|n[o']t exist)|deploymentnotfound|not have access to( the| this)? model|try pulling",
    r"invalid model name|no (available )?(channel|deployments?) (for|available)|\bmodel\b.{0,60}is not supported$",
)
RATE = any_of(
    r"rate.?limit|too many (concurrent |parallel |simultaneous )?requests|requests? per (min|sec|hour)|throttl",
    r"slow down|tokens per (min|sec)|\b(rpm|tpm|qps)\b|resource.?exhausted|overload|concurren",
    r"(at|over|no|insufficient) capacity",
    r"quota exceeded|server (is )?busy|high (load|traffic|demand)|并发|频率|速率|繁忙",
)
STRICT_RATE = any_of(r"rate.?limit|throttl|too many requests|too many concurrent")
TOGETHER = any_of(r"concurren|parallel|simultaneous|in.?flight|at the same time|并发")
FEWER_TOKENS = any_of(
    r"too (large|high|big|many)|at most|less than|lower than|exceed|maximum|must be|range|<=|≤|supports? (only|up to)"
)
UNKNOWN_LIMIT = any_of(
    r"max_completion_tokens. instead|unsupported parameter|not supported|extra_forbidden|not permitted|unknown|unrecog"
)


def judge(said: Said, sent: Mapping[str, Any]) -> Outcome:
    """What a response means, that came in place of an answer to the body `sent`."""
    for find in (_redirect, _of_nobody, _of_this_request, _of_credit, _of_rate, _of_address, _of_parameters, _of_model):
        if outcome := find(said, sent):
            return outcome
    if said.status == 403:
        if KEY.search(said.text) and not said.page:
            return Outcome("hopeless", "access")
        return Outcome("doubtful", "access" if not said.words else "forbidden")
    if said.status in (404, 405, 410):
        return Outcome("doubtful", "not found")
    if said.status in PASSING or said.status >= 500 or said.status < 300:
        return Outcome("passing", wait=_bounded(server_waits.asked(said)))
    return Outcome("refused")


def _bounded(wait: float | None) -> float | None:
    return None if wait is None else min(wait, LONGEST_RETRY_AFTER)


def _redirect(said: Said, _: Any) -> Outcome | None:
    if said.status == 407:
        return Outcome("hopeless", "proxy")
    return Outcome("hopeless", "redirect") if 300 <= said.status < 400 else None


def _of_nobody(said: Said, _: Any) -> Outcome | None:
    """An account, a key or a country for which nothing passes."""
    if said.status >= 500 or said.status in LIMITS:
        return None
    if COUNTRY.search(said.text):
        return Outcome("hopeless", "forbidden")
    if ACCOUNT.search(said.text) or (said.status in (0, 400) and BAD_KEY.search(said.text)):
        return Outcome("hopeless", "access")
    if said.status == 401 and not WITHHELD.search(said.text):
        return Outcome("hopeless", "access")
    return None


def _of_this_request(said: Said, sent: Mapping[str, Any]) -> Outcome | None:
    """Content that is not wanted, or a prompt that is too long."""
    if said.status in LIMITS | {402}:
        return Outcome("refused") if TOO_LARGE.search(said.text) else None
    passing = said.status >= 500 and FOR_NOW.search(said.text)
    if (WITHHELD.search(said.text) and not passing) or said.status in (413, 414, 451) or TOO_LARGE.search(said.text):
        return Outcome("refused")
    if too_many_tokens(said, sent):
        return Outcome("hopeless", "max_tokens")
    return Outcome("refused") if CONTEXT.search(said.text) else None


def too_many_tokens(said: Said, sent: Mapping[str, Any]) -> bool:
    """Whether a refusal says that no response may be as long as was asked for, whatever the prompt."""
    name = next((n for n in ("max_tokens", "max_completion_tokens") if n in sent), None)
    if name is None or said.status not in MAY_BLAME:
        return False
    context = re.search(r"context (?:length|window|size)(?: limit)?(?: is| of|:)?(?: only)? \(?(\d[\d,]*)", said.text)
    if context:
        return int(context[1].replace(",", "")) <= sent[name]
    if re.search(r"\b(prompt|messages|inputs?)\b", said.text):  # it depends on them
        return False
    named = name in said.params or re.search(r"\bmax_(completion_)?tokens\b", said.text)
    return bool(named and FEWER_TOKENS.search(said.text) and not UNKNOWN_LIMIT.search(said.text))


def _of_credit(said: Said, _: Any) -> Outcome | None:
    if said.status == 402 or CREDIT.search(said.text):
        return Outcome("hopeless", "quota" if said.status == 429 else "credit")
    return None


def _of_rate(said: Said, _: Any) -> Outcome | None:
    """A rate limit: by its status, or by words that say so of another."""
    strict = said.status in (400, 403) and STRICT_RATE.search(said.text)
    if not (said.status in LIMITS or strict or ((said.status == 0 or said.status >= 500) and RATE.search(said.text))):
        return None
    wait = server_waits.asked(said)
    if said.status in LIMITS or strict:
        day = DAY.search(f"{said.text} {said.body}".lower())
        worded = re.search(r"try again in", said.text)
        if (wait or 0) > LONGEST_RETRY_AFTER or (day and not (worded and wait)):
            return Outcome("hopeless", "quota")
        if CURRENT_QUOTA.search(said.text) and wait is None:
            return Outcome("hopeless", "quota")
    return Outcome("limited", wait=_bounded(wait), together=bool(TOGETHER.search(said.text)))


def _of_address(said: Said, _: Any) -> Outcome | None:
    bare = BARE_NOT_FOUND.fullmatch(one_word(said)) or said.page
    if ADDRESS.search(said.text) and said.status not in (401, 403) or (said.status in (404, 405) and bare):
        return Outcome("doubtful" if said.status in (404, 405) else "hopeless", "address")
    return None


def one_word(said: Said) -> str:
    """The words in lower case, without codes."""
    return said.words.lower().partition(" (")[0]


def _of_parameters(said: Said, sent: Mapping[str, Any]) -> Outcome | None:
    if said.status not in MAY_BLAME:
        return None
    names, sure = blamed(said, sent)
    if not names or (not sure and said.status not in (400, 422)):
        return None
    most = most_choices(said, sent.get("n", 1)) if "n" in names else None
    return Outcome("parameter", names=names, sure=sure, most=most)


def _of_model(said: Said, _: Any) -> Outcome | None:
    if said.status in (0, 400, 403, 404, 410, 422) and MODEL.search(said.text):
        return Outcome("hopeless", "model")
    return None


KEPT = "what it has answered is kept, and the same command continues from there."


@dataclass(frozen=True)
class Place:
    """Of which server and model a sentence speaks, and what to do about its key."""

    url: str
    model: str
    mend_key: str
    location: str = ""  # where a redirect points

    def hopeless(self, why: str, said: Said, limit: int | None = None) -> str:
        """The sentence for what no request will pass; the server's own words are in it."""
        words, status = said.words, said.status or 200
        says = f"; it says: {words}" if words else ""
        told = f"{status}: {words}" if words else f"{status}"
        return {
            "access": f"The server {self.url} refuses access to {self.model} ({status}): {self.mend_key}{says}",
            "proxy": f"The proxy on the way to {self.url} refuses to pass requests on ({told}): correct the proxy "
            f"that the environment names",
            "forbidden": f"The server {self.url} refuses {self.model} to you ({told}): settle that with its "
            f"provider, or name another model in the profile",
            "credit": f"The server {self.url} says that the credit is used up ({words or status}): {KEPT}",
            "quota": f"The server {self.url} says that the quota is used up ({words or status}): {KEPT}",
            "model": f"The server {self.url} has no model {self.model!r} ({status}): check base_url and the model's "
            f"name in the profile{says}",
            "not found": f"The server {self.url} does not serve {self.model!r} ({told}): settle that with its "
            f"provider, or name another model in the profile",
            "address": f"The server {self.url} knows no such address or no model {self.model!r} ({status}): check "
            f"base_url, which usually ends in /v1, and the model's name in the profile{says}",
            "max_tokens": f"The server {self.url} gives no responses of {limit} tokens ({told}): lower max_tokens of "
            f"the teacher in the profile; {KEPT}",
            "redirect": f"The server {self.url} sends requests on to {self.location or 'another address'} ({status}): "
            f"give that address as base_url in the profile",
        }[why].rstrip(".") + "."
