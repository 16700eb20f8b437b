"""From a server's choices to replies, and from a reply to the response that a study keeps.

Servers name the end of a response in many ways, put thinking beside the text or into it, and withhold what they do not
like. One odd choice says nothing of the others that came with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rdlib.engines.asking import Reply
from rdlib.engines.generation import Completion, approximate_tokens, clean, cut_at, cut_run_on
from rdlib.engines.server_said import one_line, parsed, shortened
from rdlib.settings import Model
from rdlib.tasks.spoken import thought_end

MOST_TOKENS = 10**9  # of an answer; a server that counts more has miscounted
# Names of servers for a response that did not end by itself: it was cut, stopped, or broke off.
CUTS = {
    *("length", "max_tokens", "max_length", "model_length", "max_output_tokens", "model_context_window_exceeded"),
    *("token_limit", "truncated", "incomplete", "pause_turn", "repetition", "too_long", "context_length_exceeded"),
}
WITHHELD = {
    *("content_filter", "content_filtered", "refusal", "sensitive", "safety", "recitation", "blocklist", "spii"),
    *("prohibited_content", "moderation", "guardrail", "guardrail_intervened", "image_safety", "language", "filtered"),
}
BROKEN = {
    *("error", "network_error", "insufficient_system_resource", "abort", "aborted", "cancelled", "canceled", "timeout"),
    *("other", "malformed_function_call", "failed", "internal_error"),
}
ENDS = {
    *("stop", "eos", "eos_token", "stop_sequence", "end_turn", "end_of_text", "end_of_turn", "complete", "completed"),
    *("finish", "finished", "done", "tool_calls", "function_call", "tool_use"),
}
LENGTH = {"length", "max_tokens", "max_length", "model_length", "max_output_tokens", "model_context_window_exceeded"}


@dataclass(frozen=True)
class Fault:
    """A choice that is no answer and may be one when it is asked for again; `fallback` is what it is if not.

    `odd`: it was whole and paid for, so that not many tries are worth it.
    """

    words: str
    fallback: Reply | None = None
    odd: bool = False


def replies_of(content: bytes, limit: int, reasonless: bool = False) -> list[Reply | Fault] | None:
    """Each choice of an answer, in their order; None where the body is no answer with choices.

    `limit` is the most tokens that were asked for; `reasonless` says that this server never tells why a response ended.
    """
    answer = parsed(content)
    if not isinstance(answer, dict) or not isinstance(answer.get("choices"), list) or not answer["choices"]:
        return None
    read = [_choice(choice, reasonless) for choice in answer["choices"]]
    usage = answer.get("usage") if isinstance(answer.get("usage"), dict) else {}
    counts = token_counts(usage.get("completion_tokens"), [_written(one) for one in read])
    prompts = usage.get("prompt_tokens")
    prompts = prompts if type(prompts) is int and 0 <= prompts < MOST_TOKENS else None
    rest = None if prompts is None else 0
    return [
        _counted(one, count, prompts if place == 0 else rest, limit)
        for place, (one, count) in enumerate(zip(read, counts, strict=True))
    ]


def _counted(one: Reply | Fault, tokens: int, prompt_tokens: int | None, limit: int) -> Reply | Fault:
    """A choice with its tokens; one that ended for a reason nobody knows was cut if it is as long as it could be."""
    if isinstance(one, Fault):
        return replace(one, fallback=one.fallback and _counted(one.fallback, tokens, prompt_tokens, limit))
    known = _plain(one.reason) in CUTS | WITHHELD | BROKEN | ENDS
    ended = one.ended and (known or tokens < limit)
    return replace(one, tokens=tokens, prompt_tokens=prompt_tokens, ended=ended)


def _written(one: Reply | Fault) -> str:
    reply = one.fallback if isinstance(one, Fault) else one
    return f"{reply.reasoning or ''}{reply.text}" if reply else ""


def token_counts(total: Any, texts: Sequence[str]) -> list[int]:
    """The tokens of each text: its share of the server's count of all, or about what it must have.

    Some servers count one of several choices alone, which the length of the texts shows.
    """
    about = [approximate_tokens(text) for text in texts]
    if type(total) is not int or not 0 <= total < MOST_TOKENS:  # a bool is no int here
        return about
    if len(texts) > 1 and total < sum(about) / 2:
        return about
    return shares(total, [max(1, len(text)) for text in texts])


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """Whole numbers that add up to `total` and are about in proportion to the weights.

    Servers count the tokens of all choices together, so a single choice's count is its share by length.
    """
    ends, seen = [0], 0
    for weight in weights:
        seen += weight
        ends.append(round(total * seen / sum(weights)))
    return [end - start for start, end in zip(ends, ends[1:], strict=False)]


# ---- one choice


def _plain(reason: str) -> str:
    """A reason as the tables above have it: FinishReason.MAX_TOKENS is max_tokens."""
    return "_".join(reason.rpartition(".")[2].strip().lower().replace("-", " ").split())


def _choice(choice: Any, reasonless: bool) -> Reply | Fault:
    if not isinstance(choice, dict):
        return Fault("a choice was no object")
    message = choice.get("message") if isinstance(choice.get("message"), dict) else {"content": choice.get("text")}
    text, reasoning, refusal = _contents(message)
    given = choice.get("finish_reason")
    reason = clean(given)[:60] if isinstance(given, str) else ""
    if text.strip():
        return _with_text(choice, text, reasoning, reason, reasonless)
    return _without_text(choice, message, reasoning, refusal, reason)


def _with_text(
    choice: dict[str, Any], text: str, reasoning: str | None, reason: str, reasonless: bool
) -> Reply | Fault:
    plain = _plain(reason)
    ended = plain not in CUTS | WITHHELD | BROKEN
    reply = Reply("answer", text, reasoning, ended, reason)
    error = error_of(choice)
    if error:
        return Fault(error, replace(reply, ended=False))
    if not plain and not reasonless:
        return Fault("a response came without the reason why it ended", reply, odd=True)
    return reply


def _without_text(
    choice: dict[str, Any], message: dict[str, Any], reasoning: str | None, refusal: str, reason: str
) -> Reply | Fault:
    plain = _plain(reason)
    reply = Reply(
        "withheld", "", reasoning, False, reason, words=refusal or _why_empty(choice, message, reasoning, plain)
    )
    if not refusal and (error := error_of(choice)):
        return Fault(error)
    if not refusal and plain in BROKEN:
        return Fault(f"the response broke off ({reason})")
    unexplained = not refusal and not reasoning and not message.get("tool_calls") and message.get("content") is None
    if unexplained and plain not in CUTS | WITHHELD | {"tool_calls", "function_call"}:
        return Fault("a response had no content", reply, odd=True)
    return reply


def _why_empty(choice: dict[str, Any], message: dict[str, Any], reasoning: str | None, plain: str) -> str:
    if plain in WITHHELD:
        filters = choice.get("content_filter_results")
        filters = filters if isinstance(filters, dict) else {}
        hit = [one_line(str(n))[:40] for n, v in filters.items() if isinstance(v, dict) and v.get("filtered") is True]
        return f"withheld by the server ({', '.join([plain, *hit])})"
    if reasoning and plain in LENGTH:
        return "all tokens went into thinking; raise max_tokens"
    if reasoning:
        return "no answer after the thinking"
    if message.get("tool_calls") or message.get("function_call") or plain in ("tool_calls", "function_call"):
        return "a call of a tool in place of an answer"
    if plain in LENGTH:
        return "an empty response that used all its tokens; raise max_tokens"
    return "an empty response"


def error_of(choice: Mapping[str, Any]) -> str:
    """The words of an error inside of a choice, "" where there is none."""
    error = choice.get("error")
    if not error:
        return ""
    words = error.get("message") if isinstance(error, dict) else error
    return shortened(one_line(clean(str(words or error))))


def _contents(message: dict[str, Any]) -> tuple[str, str | None, str]:
    """(text, thinking, refusal) of a message, whose content is a text or a list of parts."""
    texts, thoughts, refusals = [], [], []
    content = message.get("content")
    for part in content if isinstance(content, list) else [content]:
        _sort(part, texts, thoughts, refusals)
    if not "".join(thoughts):
        apart = (message.get(n) for n in ("reasoning_content", "reasoning", "thinking", "reasoning_details"))
        thoughts = [next((text for value in apart if (text := _plain_text(value)).strip()), "")]
    refusal = shortened(one_line(clean(_plain_text(message.get("refusal")) or "".join(refusals))))
    return clean("".join(texts)), clean("".join(thoughts)) or None, refusal


def _sort(part: Any, texts: list[str], thoughts: list[str], refusals: list[str]) -> None:
    """Put a part of a content where it belongs."""
    kind = str(part.get("type", "")) if isinstance(part, dict) else ""
    if "think" in kind or "reason" in kind:
        thoughts.append(_plain_text(part))
    elif kind == "refusal":
        refusals.append(_plain_text(part.get("refusal")))
    else:
        texts.append(_plain_text(part))


def _plain_text(value: Any, depth: int = 5) -> str:
    """The text in a text, a part, or a list of parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and depth:
        return "".join(_plain_text(one, depth - 1) for one in value)
    if isinstance(value, dict) and depth:
        names = ("text", "thinking", "reasoning", "reasoning_content", "summary", "content")
        return next((text for n in names if (text := _plain_text(value.get(n), depth - 1))), "")
    return ""


# ---- a reply as a response


def completion_of(reply: Reply, model: Model, stop: Sequence[str], run_on: Sequence[str]) -> Completion:
    """A reply as the study keeps it.

    It ends before the first of the `stop` strings after its thinking, and where it continues with a question of its own
    (`run_on`). The model's `thinking` says whether thinking is kept, whether it came inline or as a field of its own.
    A sample without an answer is an empty response that did not finish, of no tokens where nothing was paid.
    """
    if reply.kind != "answer":
        tokens = reply.tokens if reply.kind == "withheld" else 0
        return Completion("", None, tokens, "length", reply.words or "the response was empty")
    text, ended = clean(reply.text), reply.ended
    start = thought_end(text)
    thought_on = start and thought_end(f"{text}.") > len(text)  # thinking that was cut off
    answer = text[start:]
    cut = cut_at(answer, stop)
    ended = (ended or len(cut) < len(answer)) and not thought_on
    if model.drops_thinking and not thought_on:
        text = cut
    else:
        text = text[:start] + cut
        if not model.drops_thinking and reply.reasoning and not start:
            text = f"<think>\n{clean(reply.reasoning).strip()}\n</think>\n\n{text.lstrip()}"
    completion = Completion(text.strip(), None, reply.tokens, "stop" if ended else "length")
    return cut_run_on(completion, run_on)
