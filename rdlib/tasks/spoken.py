"""What a response says: without the thinking before it, and without what follows the end of its turn.

An answer inside of thinking is none, and thinking that was cut off has none:

    "<think>Is it 3? No.</think>It is 4."  ->  "It is 4."
    "Is it 3? No.</think>It is 4."         ->  "It is 4."        the chat template had opened the thinking
    "<think>Is it 3? Per"                  ->  ""
    "It is 4.<|eot_id|>user What is 5?"    ->  "It is 4."
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, islice

THINK = "<think>\n"  # as chat templates that open the thinking write it
_TAGS = r"(?:seed:)?think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|inner_monologue"
# Marks that open and close thinking: DeepSeek-R1 and Qwen3, Seed, Magistral, Kimi, Command, OpenThinker, gpt-oss
_OPENS = (
    rf"<(?:{_TAGS})>|\[THINK\]|◁think▷|<\|START_THINKING\|>|<\|begin_of_thought\|>|<\|think(?:ing)?\|>"
    r"|<\|channel\|>(?:analysis|commentary)(?:<\|message\|>)?"
)
_CLOSES = (
    rf"</(?:{_TAGS})>|\[/THINK\]|◁/think▷|<\|END_THINKING\|>|<\|end_of_thought\|>|<\|/think(?:ing)?\|>"
    r"|<\|channel\|>final(?:<\|message\|>)?"
)
_MARKS = re.compile(f"(?=[<[◁])(?:({_OPENS})|{_CLOSES})", re.IGNORECASE)
_OPENED = re.compile(rf"(?!<\|channel)(?:{_OPENS})$", re.IGNORECASE)
_BOX = re.compile(r"<\|(?:(begin)|end)_of_box\|>")  # GLM's
_END = re.compile(
    r"<(?:\|(?:eot_id|im_end|endoftext|end_of_text|end|return|eom_id)\||/s|eos|EOS|end_of_turn|｜end▁of▁sentence｜)>"
)


def spoken(text: str) -> str:
    """The part of a response in which its answer may stand, "" where thinking did not come to its end."""
    if "<" in text or "THINK]" in text or "◁" in text:
        if _MARKS.search(text):
            text = _without_thoughts(text)
        text = text.lstrip()
        if "_of_box|>" in text:
            text = _BOX.sub(lambda mark: "\\boxed{" if mark[1] else "}", text)
        end = _END.search(text, 1)  # what a response begins with does not end it
        return text[: end.start()] if end else text
    if text.startswith("analysis") and text[8:9].isalpha():  # gpt-oss, its special tokens left out
        return text.rpartition("assistantfinal")[2] if "assistantfinal" in text else ""
    return text


def opened_by(prompt: str) -> str:
    """The mark by which a prompt's end opens the thinking, "" where it does not."""
    found = _OPENED.search(prompt.rstrip())
    return found[0] if found else ""


def closing_of(mark: str) -> str:
    """The mark that closes the thinking which `mark` opens."""
    for word, other in (("START", "END"), ("begin", "end")):
        if word in mark:
            return mark.replace(word, other)
    return re.sub(r"^\W+", lambda start: f"{start[0]}/", mark)


def with_openings(texts: list[str], finished: list[bool]) -> list[str]:
    """The responses of one model, thinking opened also where its chat template did that: `THINK` is put before them.

    A response shows it that closes thinking that it did not open. Where one does, one that shows no thinking and did
    not finish was cut off while it thought.
    """
    first = [next(_marks(text), None) if "think" in text else None for text in texts]
    unopened = [mark is not None and mark[0] == "</think>" for mark in first]
    if not any(unopened):
        return texts
    return [
        THINK + text if bare or (mark is None and not done) else text
        for text, mark, bare, done in zip(texts, first, unopened, finished, strict=True)
    ]


def thought_end(text: str) -> int:
    """Where thinking ends in a response: 0 where there is none, the text's end where it was cut off."""
    end = 0
    for mark in _marks(text):
        end = mark.end() if mark[1] is None else len(text)
    return end


def _marks(text: str) -> Iterator[re.Match]:
    """The marks of thinking; not a single one that a sentence only mentions: "Use the <thinking> tag."."""
    marks = _MARKS.finditer(text)
    first = list(islice(marks, 2))
    if len(first) == 1 and first[0][1]:
        before, behind = text[: first[0].start()].rpartition("\n")[2], text[first[0].end() :]
        if _SAID_BEFORE.search(before) or (not behind.strip() and _ANSWER_BEFORE.search(before)):
            return iter(())
    return chain(first, marks)


_SAID_BEFORE = re.compile(r"\w[^\w>|.!?:]*$|[`'\"]$")  # words right before a mark, or a quotation mark
_ANSWER_BEFORE = re.compile(r"####\s?$")  # "#### <think>", with nothing after it: the mark is the answer


def _without_thoughts(text: str) -> str:
    """What stands outside of the marks of thinking."""
    parts, at, thinking, closed = [], 0, False, False
    for mark in _marks(text):
        opens = mark[1] is not None
        if not thinking and (opens or closed):  # a second mark that closes nothing is a slip
            parts.append(text[at : mark.start()])
        at, thinking, closed = mark.end(), opens, closed or not opens
    return "".join(parts if thinking else [*parts, text[at:]])
