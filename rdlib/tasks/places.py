"""Places of a response where its answer may stand, last first, whatever the kind of answer.

    list(answer_is("The answer is 5. Wait, the answer is 6."))  ->  ["6", "5"]
    list(answer_is("The answer isn't 5, but 6."))               ->  ["6"]
    list(json_value('{"answer": "6", "unit": "m"}'))             ->  ["6"]

A place is what follows a mark, at most `_WIDTH` characters, and a rule offers at most `_PLACES` of them: the cost is
that of str.rfind on any text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from rdlib.tasks import numbers

_PLACES, _WIDTH = 20, 300
_SCALE = 20  # characters behind the last digit: its "million"

_HASH = re.compile(r"####(?!\W{0,6}\d{1,2}[.):] ?\*{0,2}[A-Z])")  # not a numbered heading: "#### 2. Total cost"
_BOXED = re.compile(r"\\boxed\s?\{")
_JSON = re.compile(r"nswer[\"'”]\s{0,20}:\s{0,20}(?![,}\s])")
_SAYS = re.compile(
    r"nswers?[*_\"'`)\]]{0,4}\s{0,3}(?:(?:to|for) [^.:=\n]{0,120}?)?"
    r"(?::|：|=|>|->|\n|[-–—]\s|\b(?:is|was|are)(?:(n['’]t)\b|\b)|\b(?:equals|(?:would|should|must|will) be)\b"
    r"|\b(can(?:not| not|['’]t)|could(?: not|n['’]t)) be\b)(\W{0,3}(?:not|wrong|incorrect)\b)?",
    re.IGNORECASE,
)
_BUT = re.compile(r"\b(?:but|rather|instead|so|thus|hence|therefore)\b|\bit(?: is|['’]s)\b", re.IGNORECASE)
_FILLING = re.compile(
    r"\W{0,3}(?:(?:rather|instead|it|that|this|the|correct|right|answer|must|should|has to|be|is|I choose|it['’]s)\b"
    r"[\s:,*]{1,3}){0,8}"
)
_SENTENCE_END = re.compile(r"\n|</|(?:(?<=[a-z][a-z])|(?<=[0-9)\]\"'*%}$ ]))[.!?](?=[\s*\"']|$)")
_JSON_VALUE = re.compile(r"\"((?:[^\"\\]|\\.)*)|'([^'\n]*)|([^}\n]*)")


_EXAMPLE = re.compile(r"(?:e\.g\.|[eE]xample|such as)[^\w\n]{0,8}\w{0,12}answer[`'\"]{1,2}\s?:\s?[^\n}]{0,20}")
NOTHING = re.compile(r"\W*(?:none|null|n/?a|nan|unknown|undefined|unanswerable|impossible)\b\W*(?:$|\n)", re.IGNORECASE)


def after(text: str, mark: str, pattern: re.Pattern, most: int = _PLACES) -> Iterator[re.Match]:
    """Where `pattern`, which begins with `mark`, matches; the last `most` marks are tried."""
    at = len(text)
    for _ in range(most):
        at = text.rfind(mark, 0, at)
        if at < 0:
            return
        if match := pattern.match(text, at):
            yield match


def behind(match: re.Match) -> str:
    """The place behind a mark."""
    return match.string[match.end() : match.end() + _WIDTH]


def sentence(place: str) -> str:
    """The first sentence of a place."""
    place = place.lstrip(" \t\r\n:：*_")
    end = _SENTENCE_END.search(place)
    return place[: end.start()] if end else place


def behind_hash(text: str) -> Iterator[str]:
    """What stands behind `####`, on the lines below as well."""
    return map(behind, after(text, "####", _HASH))


def after_hash(text: str) -> Iterator[str]:
    """What follows `####`."""
    return map(sentence, behind_hash(text))


def number_after_hash(text: str) -> Iterator[str]:
    """`####` with a number right behind it, or a word for none: "#### Step 3" is a heading."""
    return (place for place in after_hash(text) if numbers.begins_with_number(place) or NOTHING.match(place))


def in_box(text: str) -> Iterator[str]:
    """What stands in \\boxed{...}; nothing where its end was cut off."""
    for place in map(behind, after(text, "\\boxed", _BOXED)):
        depth = 1
        for brace in re.finditer(r"[{}]", place):
            depth += 1 if brace.group() == "{" else -1
            if depth == 0:
                yield place[: brace.start()]
                break


def json_value(text: str) -> Iterator[str]:
    """The value of a JSON key that ends in "answer"."""
    for match in after(text, "nswer", _JSON):
        if not _is_example(match):
            value = _JSON_VALUE.match(behind(match))
            yield value.group(value.lastindex)


def _is_example(match: re.Match) -> bool:
    """Whether a JSON key is that of the prompt's example, repeated: 'as asked, e.g., `"answer": "42"`'."""
    before = match.string[max(0, match.start() - 20) : match.start()]
    return "e.g." in before or "xample" in before or "such as" in before


def answer_is(
    text: str, listed: Callable[[str, str], bool] | None = None, cut: Callable[[str], str] = sentence
) -> Iterator[str]:
    """What the answer "is"; behind "is not ..." what follows "but" or "so". `listed` tells a list of all answers.

    `cut` takes a place's first sentence.
    """
    for mark in ("nswer", "NSWER"):
        for match in after(text, mark, _SAYS):
            if match[0][5] in "\"'`" and _is_example(match):
                continue
            place = behind(match)
            said = cut(place)
            if match.lastindex:  # "is not"
                said = _behind_turn(said)
            if said and (listed is None or len(place) < 20 or not listed(place, said)):
                yield said


def _behind_turn(said: str) -> str:
    """What is said instead: of "(A), so it must be B" the "B", "" where nothing is."""
    turn = _BUT.search(said)
    return said[_FILLING.match(said, turn.end()).end() :] if turn else ""


def last_sentence(text: str) -> Iterator[str]:
    """The last sentence that holds a digit."""
    if 'answer"' in text:
        text = _EXAMPLE.sub("", text)
    end = 1 + max(map(text.rfind, "0123456789"))
    if end:
        start = max(0, end - _WIDTH)
        start = text.find(" ", start) if start else 0  # not in the middle of a number
        for mark in ("\n", ". ", "! ", "? "):
            start = max(start, text.rfind(mark, start, end - 1))
        yield text[start : end + _SCALE].lstrip("\n.!? ").removeprefix("- ")  # an item of a list


def strict(mark: str) -> Callable[[str], list[str]]:
    """The place behind the last mark, whatever it holds."""
    return lambda text: [text[at + len(mark) :]] if (at := text.rfind(mark)) >= 0 else []
