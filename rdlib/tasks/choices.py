"""The letter of the option that a response chooses, and the places where it may stand.

    "(C) ..." -> "C"    "C. ..." -> "C"    "option C" -> "C"    "C because ..." -> "C"    "C = 5" -> None

Which letters a question has is known to `answers.find`; what is read here is any of A to J.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rdlib.tasks import places
from rdlib.tasks.plain import plain

STATED = ("json", "answer_is", "chosen", "correct")  # rules that read what a response says, and do not guess
_HEAD = 60  # characters of a place in which its letter stands
# What makes a letter a symbol ("C = 5", "P(A)", "C(5, 2)", "A's") and no option; "C<EOS>" is one
_SYMBOL = r"[\w'’]| ?[=+^/>]| ?<(?![|/]?[A-Za-z_|]+>)|\((?:\d|[a-z]\b)"
# A bare letter is an option unless it is a symbol, or the article or the pronoun
_BARE = rf"([B-HJ])(?!{_SYMBOL})|([AI])(?!{_SYMBOL}|\.[a-z]| (?!because|since|as)[a-z])"
_LETTER = re.compile(
    r"[\W_]{0,12}(?:(?i:is|option|choice|letter|statement|answer)\W{1,4})?" rf"(?:(?<=\()([A-J])\)|{_BARE})"
)
# A letter at the beginning of a line, or alone on it; "I." begins a list of the Romans, "(A) is wrong" does not choose
_LINE = re.compile(
    r"[*_\s]{0,6}(?:\(([A-J])\)|([A-HJ])[).:*]|([A-J])\W{0,4}$)(?!\W{0,4}(?:is|are|was|isn['’]t|cannot|and|or)\b)"
)
# "(C)", but not the C of "P(C)", nor one that is ruled out
_ASIDE = re.compile(
    r"\((?<!\w\()(?<!out \()(?<!not \()(?<!n't \()([A-J])\)"
    r"(?! (?:is|was|are) (?:not\b|in(?:correct|valid)|wrong|false))"
)


def letter(place: str) -> str | None:
    """The option's letter that a place begins with."""
    match = _LETTER.match(plain(place[:_HEAD]))
    return match[match.lastindex] if match else None


# A list of options, which says of each what it is, and not which is the answer

_ITEM = r"[\s*_-]{0,6}\(?([A-J])[).:]"
_ON_LINES = re.compile(rf"[:*_\s]{{0,6}}\n{_ITEM}[^\n]*\n+{_ITEM}")
_IN_A_SENTENCE = re.compile(r"\W{0,6}A[).:][^\n]*?[a-z]{2}[^\n]*?\bB[).:][^\n]*?[a-z]{2}[^\n]*?\bC[).:]")


def lists_options(place: str, sentence: str) -> bool:
    """Whether what follows "answers:" goes through the options, on lines of their own or in one sentence."""
    if place[:1] in " \n*_" and (match := _ON_LINES.match(place)):
        return ord(match[2]) == ord(match[1]) + 1
    return len(sentence) > 12 and _IN_A_SENTENCE.match(sentence) is not None


# Places, last first; those behind `lines` are guesses

_TAIL = 600  # characters of a response's end in which the rules below look
_CHOSEN = re.compile(r"(?:ption|hoice|tatement|lternative)\b")  # "The statement that is true about X is: D"
_IS = re.compile(r"(?:\bis\b|:)(?!\W{0,3}(?:not|wrong|incorrect|false)\b)")
_NAMES = re.compile(
    r"(?<![\w(])(?<!not )(?:\(([A-J])\)|([A-HJ]))[*\"' ]{1,4}(?:option )?(?:is|would be|must be)"
    r"(?: therefore| thus| clearly| also)?(?: the| my)?(?: only| most| single| one)?$"
)  # before " correct": "(B) is the only"
_NAMING = (" is", " be", " the", " my", " only", " most", " single", " one", "fore", "thus", "clearly", "also")
_CLOSING = re.compile(
    r"(?:\b(?:is|be|so|but|choose|select|pick|option|choice|statement|leaves|with)\b|:)[\s*_\"'\[$]{1,6}"
    r"(?:\(([A-J])\)|([A-HJ]))[\s*_\"'\]$.!]{0,6}$"
)


def answer_is(text: str) -> Iterator[str]:
    """What the answer "is", but not of a list that says of each option what it is."""
    return places.answer_is(text, lists_options)


def chosen(text: str) -> Iterator[str]:
    """What an option, a choice or a statement "is"."""
    tail = text[-_TAIL:]
    for mark in ("ption", "hoice", "tatement", "lternative"):
        for match in places.after(tail, mark, _CHOSEN, most=5):
            said = plain(places.sentence(match[0] + places.behind(match)))
            yield from (said[m.end() :] for m in reversed(list(_IS.finditer(said))))


def correct(text: str) -> Iterator[str]:
    """The letter that is called correct."""
    tail = text[-_TAIL:]
    for mark in (" correct", " right", " best", " answer"):
        at = len(tail)
        while (at := tail.rfind(mark, 0, at)) >= 0:
            if tail.endswith(_NAMING, 0, at) and (match := _NAMES.search(tail, max(0, at - 60), at)):
                yield match[match.lastindex]


def lines(text: str) -> Iterator[str]:
    """The letter that is the last line or begins the first; not the last of a list of options."""
    before, _, last = (text := text.strip()).rpartition("\n")
    for line in (last, text):
        if match := _LINE.match(line[:300].partition("\n")[0]):
            found = match[match.lastindex]
            item = re.match(_ITEM, before.rstrip().rpartition("\n")[2][:20]) if line is last else None
            if item is None or ord(item[1]) + 1 != ord(found):
                yield found


def closing(text: str) -> Iterator[str]:
    """The letter in which the last sentence ends: "Since it isn't (A), it must be B."."""
    if match := _CLOSING.search(plain(text.rstrip()[-40:])):
        yield match[match.lastindex]


def last_aside(text: str) -> Iterator[str]:
    """The last letter in parentheses that is not ruled out."""
    yield from _ASIDE.findall(text)[-1:]
