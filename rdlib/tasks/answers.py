"""Final answers: taking them out of a response in one canonical form, and telling whether two are the same.

A response is read by an ordered list of rules; a rule offers the places where the answer may stand, last first,
and the first place that holds an answer of the asked kind decides:

    find("So 9 * 2 = 18. The answer is $18.00.", "math")  ->  Found(answer="18", rule="answer_is")
    find('{"reasoning": "...", "answer": "1/3"}', "math")  ->  Found(answer="1/3", rule="json")
    find("The answer is **(C)**, as mitosis ...", "choice")  ->  Found(answer="C", rule="answer_is")

Votes count equal strings, so equal numbers get equal strings here and `same` compares nothing else. math-verify is
not used: on the 3,957 GSM8K answers that the tests read it decides 13 otherwise, all wrongly (60% is not 60, 2:10 pm
is 2), and its parsing takes 600 µs a response where `find` takes 7.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rdlib.tasks import canonical

# A rule reads at most so many places, and so many characters at each: the cost is that of str.rfind on any text
_PLACES, _WIDTH = 20, 300
_TAIL, _SCALE = 100, 20  # characters before and behind the last digit: a number, and its "million"


@dataclass(frozen=True)
class Found:
    """An extracted answer in its canonical form and the name of the rule that found it; both None without one."""

    answer: str | None
    rule: str | None


def find(text: str, kind: str) -> Found:
    """The final answer a(y) of a response and the rule that found it, in time linear in the text.

    `kind` is "number" (strict: what follows the last `####`), "text" (strict: the word that follows the last "the
    answer is"), "math" (a number in free text), "choice" (an option's letter A-J) or "phrase" (a short free answer).
    Rules go from the one that a format asked for to the one that guesses: `####` and \\boxed{} say nothing but the
    final answer, a JSON key may follow reasoning that says "the answer is" of a step, and the fallbacks read what
    merely came last. For "choice" a box comes after the sentence, since models box numbers of the working too.
    """
    if kind not in _KINDS:
        raise ValueError(f"unknown answer kind {kind!r}: use {', '.join(map(repr, _KINDS))}")
    parse, rules = _KINDS[kind]
    for name, places in rules.items():
        for place in places(text):
            answer = parse(place)
            if answer is not None:
                return Found(answer, name)
    return Found(None, None)


def extract(text: str, kind: str) -> str | None:
    """The final answer a(y) of a response, None where it has none; see `find` for `kind`."""
    return find(text, kind).answer


def same(first: str | None, second: str | None) -> bool:
    """Whether two extracted answers agree; an answer that could not be extracted agrees with nothing."""
    return first is not None and second is not None and first == second


def rule_shares(texts: Iterable[str], kind: str) -> dict[str, float]:
    """Share of responses in (0, 1] by the rule that found their answer, "none" for those without; {} for no text."""
    counts = Counter(find(text, kind).rule or "none" for text in texts)
    return {rule: count / counts.total() for rule, count in counts.most_common()}


_REFUSAL = re.compile(
    r"(?:####|answer is|answer:) ?none\b"
    r"|(?:\bnot|n't|n’t|unable to) (?:be )?(?:know|determin|calculat|comput|specif|mention|state|provide|given?\b)"
    r"|(?:not|n't|n’t|without|lacks?|missing|more) (?:of |have |provide |contain |give |the )*"
    r"(?:enough|sufficient|necessary|needed|required) (?:information|data|details)"
    r"|\bunaware\b|\bis unknown\b|\binsufficient (?:information|data)"
)


UNANSWERABLE = "None"  # the gold answer of GSM-Plus where a question lacks what an answer needs (critical thinking)


def refuses(text: str) -> bool:
    """Whether a response says, anywhere, that the question lacks what an answer needs.

    It is the right answer where GSM-Plus's gold answer is "None" (critical thinking) and is asked there alone: one in
    150 responses to solvable questions says on its way that something "is not known".
    """
    return _REFUSAL.search(text.lower()) is not None


# Rules: the places where an answer may stand, last first

_HASH = re.compile(r"####(?!\W{0,6}\d{1,2}[.):] ?\*{0,2}[A-Z])")  # not a numbered heading: "#### 2. Total cost"
_BOXED = re.compile(r"\\boxed\s?\{")
_JSON = re.compile(r"nswer[\"'”]\s{0,20}:\s{0,20}(?![,}\s])")
_SAYS = re.compile(
    r"nswers?[*_\"'`)\]]{0,4}\s{0,3}(?:(?:to|for) [^.:=\n]{0,120}?)?"
    r"(?::|=|>|->|\n|\b(?:is|are|was|equals|(?:would|should|must|will) be)\b)(?!\W{0,3}(?:not|wrong|incorrect)\b)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"\n|</|(?:(?<=[a-z][a-z])|(?<=[0-9)\]\"'*%}$ ]))[.!?](?=[\s*\"']|$)")
_JSON_VALUE = re.compile(r"\"((?:[^\"\\]|\\.)*)|'([^'\n]*)|([^}\n]*)")
_LETTER_LINE = re.compile(r"[*_\s]{0,6}(?:\(([A-J])\)|([A-J])(?:[).:*]|\W{0,4}$))")
_LETTER_ASIDE = re.compile(r"\((?<!\w\()([A-J])\)")  # "(C)", but not the C of "P(C)"


def _after(text: str, mark: str, pattern: re.Pattern) -> Iterator[str]:
    """What follows each occurrence of `pattern`, which begins with `mark`; the last `_PLACES` marks are tried."""
    at = len(text)
    for _ in range(_PLACES):
        at = text.rfind(mark, 0, at)
        if at < 0:
            return
        if match := pattern.match(text, at):
            yield text[match.end() : match.end() + _WIDTH]


def _sentence(place: str) -> str:
    place = place.lstrip()
    end = _SENTENCE_END.search(place)
    return place[: end.start()] if end else place


def _hash(text: str) -> Iterator[str]:
    return map(_sentence, _after(text, "####", _HASH))


def _hash_number(text: str) -> Iterator[str]:
    """`####` with a number right behind it: "#### Step 3" is a heading."""
    return (place for place in _hash(text) if canonical.begins_with_number(place))


def _boxed(text: str) -> Iterator[str]:
    for place in _after(text, "\\boxed", _BOXED):
        depth = 1
        for brace in re.finditer(r"[{}]", place):
            depth += 1 if brace.group() == "{" else -1
            if depth == 0:
                yield place[: brace.start()]
                break


def _json(text: str) -> Iterator[str]:
    for place in _after(text, "nswer", _JSON):
        match = _JSON_VALUE.match(place)
        yield match.group(match.lastindex)


def _answer_is(text: str) -> Iterator[str]:
    for mark in ("nswer", "NSWER"):
        yield from map(_sentence, _after(text, mark, _SAYS))


def _last_number(text: str) -> Iterator[str]:
    end = 1 + max(map(text.rfind, "0123456789"))
    if end:
        yield from canonical.numbers(text[max(0, end - _TAIL) : end + _SCALE])[-1:]


def _lines(text: str) -> Iterator[str]:
    """The letter that is the last line or begins the first."""
    text = text.strip()
    for line in (text[text.rfind("\n") + 1 :], text):
        if match := _LETTER_LINE.match(line[:_WIDTH].partition("\n")[0]):
            yield match[match.lastindex]


def _last_letter(text: str) -> Iterator[str]:
    yield from _LETTER_ASIDE.findall(text)[-1:]


def _strict(mark: str):
    """The place behind the last mark, whatever it holds."""
    return lambda text: [text[at + len(mark) :]] if (at := text.rfind(mark)) >= 0 else []


_SAID = {"json": _json, "answer_is": _answer_is}
_KINDS = {
    "number": (canonical.strict_number, {"hash": _strict("####")}),
    "text": (canonical.strict_word, {"answer_is": _strict("the answer is")}),
    "math": (canonical.number, {"hash": _hash_number, "boxed": _boxed, **_SAID, "last_number": _last_number}),
    "choice": (canonical.letter, {**_SAID, "boxed": _boxed, "letter": _lines, "last_letter": _last_letter}),
    "phrase": (canonical.phrase, {"hash": _hash, "boxed": _boxed, **_SAID}),
}
