"""Places of a response where its answer may stand, last first, whatever the kind of answer.

    list(answer_is("The answer is 5. Wait, the answer is 6."))  ->  ["6", "5"]
    list(answer_is("The answer isn't 5, but 6."))               ->  ["6"]
    list(json_value('{"answer": "6", "unit": "m"}'))             ->  ["6"]

A place is what follows a mark, at most `WIDTH` characters, and a rule offers at most `_PLACES` of them: the cost is
that of str.rfind on any text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from rdlib.tasks import numbers

_PLACES, WIDTH = 20, 300
_SCALE = 20  # characters after the last digit: its "million"

_HASH = re.compile(r"####")
_HEADING = re.compile(r"\W{0,6}(\d{1,2})[.):]\s?\*{0,2}[^\W\d]")  # "#### 2. Total cost"
_BOXED = re.compile(r"oxed\s?\{")  # also where a program read \b as a backspace, or dropped the backslash
_JSON = re.compile(r"nswer[\"'”]\s{0,20}:\s{0,20}(?![,}\s])")
_SAYS = re.compile(
    r"nswers?[*_\"'`)\]]{0,4}\s{0,3}(?:(?:to|for) [^.:=\n]{0,120}?)?"
    r"(?::|：|=>?|>|->|→|⇒|≈|\n|[-–—]\s|\b(?:is|was|are)(?:(n['’]t)\b|\b)|\b(?:equals|(?:would|should|must|will) be)\b"
    r"|\b(can(?:not| not|['’]t)|could(?: not|n['’]t)) be\b)(\W{0,3}(?:not|wrong|incorrect)\b)?",
    re.IGNORECASE,
)
_BUT = re.compile(r"\b(?:but|rather|instead|so|thus|hence|therefore)\b|\bit(?: is|['’]s)\b", re.IGNORECASE)
_FILLING = re.compile(
    r"\W{0,3}(?:(?:rather|instead|it|that|this|the|correct|right|answer|must|should|has to|be|is|I choose|it['’]s)\b"
    r"[\s:,*]{1,3}){0,8}"
)
_SENTENCE_END = re.compile(
    r"\n|</|。|[.!?](?=[\s*\"']|$)(?:(?<=[0-9)\]\"'*%}$ ].)|(?<=[a-z][a-z].)"
    r"(?<!\bMrs.)(?<!\bSgt.)(?<!\bProf.)(?<!pprox.)(?<!\bvs.)(?<!\bca.)(?<!\bRs.)(?<!\bJr.))"
)
_JSON_VALUE = re.compile(r"\"((?:[^\"\\]|\\.)*)|'([^'\n]*)|([^}\n]*)")


_ITEM = re.compile(r"(?:[-–—•‣▪◦+>]|1[.)])\s+(?=\S)")  # of a list, or a quotation; no minus
_OPENS = re.compile(r"(?:\$\$|\\\[|\\\(|```\w{0,8})\s*\n\s*")  # a displayed formula, or code
_HOPES = ("hope this a", "hope that a", "hope the a", "hope my a")  # "I hope this answer is helpful to you 3"
# "Answer:" and "the answer is" of other languages
_ABROAD = {
    mark: re.compile(
        re.escape(mark) + r"[\w ]{0,12}?[*_\"'`)\]】」]{0,4}\s{0,3}"
        r"(?:[:：=]|ঃ|是|为|為|は|هو|هي|है|\b(?:ist|lautet|es|est|è|é|is|adalah)\b)"
    )
    for mark in (
        *("ntwort", "espuesta", "isposta", "esposta", "awaban", "ntwoord", "Jibu"),
        *(
            "éponse",
            "答案",
            "答え",
            "回答",
            "解答",
            "答",
            "정답",
            "답변",
            "답",
            "الإجابة",
            "الجواب",
            "إجابة",
            "उत्तर",
            "উত্তর",
        ),
        *("твет", "dpowiedź", "Cevap"),
    )
}


_LATIN_MARKS = [mark for mark in _ABROAD if mark.isascii()]


class Whole(str):
    """A place that is the answer and nothing else, as a box or a JSON value is; a sentence may go on."""

    __slots__ = ()


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
    """The place after a mark."""
    return match.string[match.end() : match.end() + WIDTH]


def sentence(place: str, new_line: bool = False) -> str:
    """The first sentence of a place, without the mark of a list's item where it stands on a line of its own."""
    start = place.lstrip(" \t\r\n:：*_")
    if start[:1] in _STARTS:
        opens = _OPENS.match(start)
        new_line = new_line or opens is not None or "\n" in place[: len(place) - len(start)]
        start = start[opens.end() :] if opens else start
        item = _ITEM.match(start) if new_line else None
        start = start[item.end() :].lstrip("*_") if item else start
    end = _SENTENCE_END.search(start)
    return start[: end.start()] if end else start


_STARTS = frozenset("$\\`-–—•‣▪◦+>1")


def behind_hash(text: str) -> Iterator[str]:
    """What follows `####`, on the lines below as well."""
    return map(behind, after(text, "####", _HASH))


def after_hash(text: str) -> Iterator[str]:
    """What follows `####`, unless it is a numbered heading."""
    return (sentence(behind(match)) for match in after(text, "####", _HASH) if not _is_heading(match))


def _is_heading(match: re.Match) -> bool:
    """Whether "#### 2. Total" heads a part: "#### 18. She makes this of 9 eggs." is an answer."""
    text, end = match.string, match.end()
    heading = _HEADING.match(text, end)
    if heading is None:
        return False
    number = int(heading[1])
    counts = number < 10 or f"#### {number - 1}" in text[: match.start()]
    return counts and ("####" in text[: match.start()] or "\n" in text[end:].strip())


def number_after_hash(text: str) -> Iterable[str]:
    """`####` with a number right after it, or what stands for none: "#### Step 3" is a heading."""
    return _numbers_after_hash(text) if "#" in text and "####" in text else ()


def _numbers_after_hash(text: str) -> Iterator[str]:
    """The same where there is a `####`; words count only as the last line of a response: "#### Monday"."""
    words = None
    for place in after_hash(text):
        if place[:1].isdigit() or numbers.begins_with_answer(place) or NOTHING.match(place):
            yield place
        elif words is None:
            words = place
    if words and text.count("####") == 1 and text.rstrip().endswith(words.rstrip()[-20:]) and not _DIGIT.search(words):
        yield Whole(words)


_DIGIT = re.compile(r"\d")


def in_box(text: str) -> Iterable[str]:
    """What stands in \\boxed{...}; nothing where it is empty or its end was cut off."""
    return _in_boxes(text) if "{" in text and "oxed" in text else ()


def _in_boxes(text: str) -> Iterator[str]:
    """What stands between a box's braces."""
    for place in map(behind, after(text, "oxed", _BOXED)):
        depth = 1
        for brace in re.finditer(r"[{}]", place):
            depth += 1 if brace.group() == "{" else -1
            if depth == 0:
                if brace.start():
                    yield Whole(place[: brace.start()])
                break


def json_value(text: str) -> Iterable[str]:
    """The value of a JSON key that ends in "answer"."""
    quoted = ('"' in text and 'nswer"' in text) or ("'" in text and "nswer'" in text) or "nswer”" in text
    return _json_values(text) if quoted else ()  # a single character is found faster


def _json_values(text: str) -> Iterator[str]:
    """The values, but not those of an example that repeats the prompt."""
    for match in after(text, "nswer", _JSON):
        if not _is_example(match):
            value = _JSON_VALUE.match(behind(match))
            yield Whole(value.group(value.lastindex))


def _is_example(match: re.Match) -> bool:
    """Whether a JSON key is that of the prompt's example, repeated: 'as asked, e.g., `"answer": "42"`'."""
    before = match.string[max(0, match.start() - 20) : match.start()]
    return "e.g." in before or "xample" in before or "such as" in before


def answer_is(
    text: str, listed: Callable[[str, str], bool] | None = None, cut: Callable[[str], str] | None = None
) -> Iterator[str]:
    """What the answer "is"; after "is not ..." what follows "but" or "so". `listed` tells a list of all answers.

    `cut` takes what is read of a place (None: its first sentence).
    """
    for mark in ("nswer", "NSWER"):
        for match in after(text, mark, _SAYS):
            if (match[0][5] in "\"'`" and _is_example(match)) or text.endswith(_HOPES, 0, match.start()):
                continue
            place = behind(match)
            said = sentence(place, match[0][-1] == "\n") if cut is None else cut(place)
            if match.lastindex:  # "is not"
                said = _behind_turn(said)
            if said and (listed is None or len(place) < 20 or not listed(place, said)):
                yield said


def _behind_turn(said: str) -> str:
    """What is said instead: of "(A), so it must be B" the "B", "" where nothing is."""
    turn = _BUT.search(said)
    return said[_FILLING.match(said, turn.end()).end() :] if turn else ""


def said_first(text: str) -> Iterator[str]:
    """What the answer "is", where a number begins what is said of it."""
    return (place for place in answer_is(text) if numbers.begins_with_number(place))


def abroad(text: str) -> Iterator[str]:
    """What the answer is in another language."""
    text = text[-2 * WIDTH :]  # at the end, where a guess would look else
    for mark in _LATIN_MARKS if text.isascii() else _ABROAD:
        if mark in text:
            for match in after(text, mark, _ABROAD[mark], most=5):
                if said := sentence(behind(match)):
                    yield said


def last_sentence(text: str) -> Iterator[str]:
    """The last sentence that holds a digit, offers of further help left out."""
    if 'answer"' in text:
        text = _EXAMPLE.sub("", text)
    if text.lstrip().startswith(_SORRY):
        yield Remark(text[:WIDTH])
    text = _without_offers(text)
    end = 1 + max(map(text.rfind, "0123456789"))
    if end:
        start = max(0, end - WIDTH)
        start = text.find(" ", start) if start else 0  # not in the middle of a number
        for mark in ("\n", ". ", "! ", "? "):
            start = max(start, text.rfind(mark, start, end - 1))
        place = text[start : end + _SCALE].lstrip("\n.!? ")
        item = _ITEM.match(place)
        if ". " in (rest := text[end : end + WIDTH]) or "\n" in rest:
            yield Remark(rest)
        yield Guess(place[item.end() :] if item else place)


class Guess(str):
    """A sentence that came last, and is not said to be the answer."""

    __slots__ = ()


class Remark(str):
    """What is said after the last number: it may say that there is no answer, and gives none."""

    __slots__ = ()


_SORRY = (
    "I'm sorry",
    "I’m sorry",
    "I am sorry",
    "Sorry",
    "I can",
    "I am unable",
    "I'm unable",
    "As an AI",
    "Unfortunately",
)


_OFFER = re.compile(r"(?:^|[\n.!?])\s*(?:I hope|Hope|Let me know|Feel free|Please (?:ask|feel|let)|Ask )[^\n]*\s*$")


def _without_offers(text: str) -> str:
    """A text without the offer that it ends in: "Ask if you have 1 more question."."""
    tail = text[-WIDTH:]
    if not ("ope " in tail or "sk " in tail or "et me " in tail or "eel free" in tail):
        return text
    offer = _OFFER.search(text, len(text) - len(tail))
    return text[: offer.start() + 1] if offer else text


def strict(mark: str) -> Callable[[str], list[str]]:
    """The place after the last mark, whatever it holds."""
    return lambda text: [text[at + len(mark) :]] if (at := text.rfind(mark)) >= 0 else []
