"""The letter of the option that a response chooses, and the places where it may stand.

    "(C) ..." -> "C"    "C. ..." -> "C"    "option C" -> "C"    "C because ..." -> "C"    "C = 5" -> None
    "most likely C" -> "C"    "c) zinc" -> "C"    "Vitamin D, i.e. (C)" -> "C"    "zinc", where (C) is zinc -> "C"

Which letters a question has is known to `answers.find`; what is read here is any of A to J.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from rdlib.tasks import numbers, places
from rdlib.tasks.plain import plain
from rdlib.tasks.questions import LETTERS

STATED = ("json", "answer_is", "chosen", "correct")  # rules that read what a response says, and do not guess
_LETTERED = 3  # characters that are a letter with its punctuation, and no text of an option
_HEAD = 60  # characters of a place in which its letter stands
# What makes a letter a symbol ("C = 5", "P(A)", "C(5, 2)", "A's", "D-glucose") and no option; "C<EOS>" is one
_SYMBOL = r"[\w'’]|-[a-z]| ?[=+^/>]| ?<(?![|/]?[A-Za-z_|]+>)|\((?:\d|[a-z]\b)"
# A bare letter is an option unless it is a symbol, or the article or the pronoun
_BARE = rf"([B-HJ])(?!{_SYMBOL})|([AI])(?!{_SYMBOL}|\.[a-z]|,? (?:and )?I[IV]| (?!because|since|as)[a-z])"
_ONLY = re.compile(r"[\s*]{0,4}\(([A-J])\)[\s.*]{0,4}")  # most places
_SMALL = r"(?<=\()([a-j])\)|([a-j])(?:[).:](?=[\s*]|$)|(?=[\W_]*$))"  # "(b)", "b) zinc", or "b" alone
_LETTER = re.compile(
    r"[\W_]{0,12}(?:(?i:is|option|choice|letter|statement|answer|most likely|likely|probably|therefore|thus|clearly"
    r"|indeed|definitely|actually|certainly|obviously|simply|hence|then|now|again|la|opción|opção|lettre|letra)\W{1,4}){0,3}"
    rf"(?:(?<=\()([A-J])\)|{_BARE}|{_SMALL})"
)
# The option after a text that begins like a letter: "B. subtilis (C)", "vitamin D, which is option (C)"
_NAMED_AT_END = re.compile(
    r"(?<!\bnot)(?<!\bthan)(?<!\bof)(?<!\band)(?<!\bor)(?<!\bfrom)(?<!\bto)(?<!\bas)(?<!\bwith)(?<!\blike)(?<!\bsince)"
    r"(?<!\bbut)(?<![A-J]\)),? \(?(?:(?:i\.e\.|namely|which is|that is),? )?"
    r"(?:[Oo]ption \(?([A-J])\)?|\(([A-J])\))[\s.*!]*$"
)
_NAME_ENDS = (")", *LETTERS)
_BOTH = re.compile(r"[\W_]{0,6}both\W{1,4}(?:option |statement )?\(?[A-J]\)?\W{1,4}and\b", re.IGNORECASE)
# "A or B" chooses none; "(A) or (B)", in the form that prompts ask for, is read as its first letter, as MMLU-Pro does
_EITHER = re.compile(r"[\W_]{0,6}(?:either\W{1,4}\(?[A-J]\)?|(?<!\()[A-J]),? or \(?[A-J]\b")
_PARTS = re.compile(r"\([a-j]\)[^()]*\([b-j]\)")  # of a question: "(a) 5 and (b) 7"
# A letter at the beginning of a line, or alone on it; "I." begins a list of the Romans, "(A) is wrong" does not choose
_LINE = re.compile(
    r"[*_\s\[{`\"'$=>→]{0,6}(?:\(([A-J])\)|([A-HJ])[).:*]|([A-J])\W{0,4}$"
    r"|\(?([a-j])\)? ?\W{0,3}$|\(?([a-hj])[).](?= .{1,80}$))"
    r"(?!\W{0,4}(?:is|are|was|isn['’]t|cannot|and|or)\b)"
)
# "(C)", but not the C of "P(C)", nor one that is ruled out, nor one of two
_ASIDE = re.compile(
    r"\([A-J]\)(?:,? (?:or|nor) \([A-J]\))+"
    r"|\((?<!\w\()(?<!out \()(?<!not \()(?<!n't \()([A-J])\)"
    r"(?! (?:is|was|are) (?:not\b|in(?:correct|valid)|wrong|false))"
)

Texts = dict[str, str | None]  # by the text of an option in a common form: its letter, None where two have that text


class SeveralError(Exception):
    """A place that names more than one option as the answer."""


class Words(str):
    """A place that may be an option's text, whole, and no letter."""

    __slots__ = ()


class Letter(str):
    """A place that may begin with a letter, and not with an option's text."""

    __slots__ = ()


@lru_cache(maxsize=4096)  # a question has many responses
def known(options: tuple[str, ...]) -> Texts:
    """The letters of a question's options by their texts."""
    texts: Texts = {}
    for letter, option in zip(LETTERS, options, strict=False):
        form = _form(option)
        texts[form] = None if form in texts else letter
    texts.pop("", None)
    return texts


_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_TOKEN = re.compile(r"-?\d+(?:\.\d+)?|\w+|[^\w\s.,;:!?*_\"'`$()\[\]{}]")


def _form(text: str) -> str:
    """A text without case, articles and punctuation, and no commas in numbers: "The 1,000 eggs." is "1000 eggs"."""
    text = plain(text).casefold()
    words = _TOKEN.findall(_THOUSANDS.sub("", text) if "," in text else text)
    return " ".join([word for word in words if word not in ("a", "an", "the")] or words)


def option(place: str, text: str = "", options: tuple[str, ...] = ()) -> str | None:
    """The letter of the option that a place begins with or, where the texts of the `options` are known, gives.

    `text`, the whole response, is not asked. SeveralError where the place names two options as right.
    """
    if only := _ONLY.fullmatch(place):
        return only[1]
    if isinstance(place, Words):
        may_be = options and len(place) < 20 + 2 * max(map(len, options))  # longer ones are no option's text
        return known(options).get(_form(place)) if may_be else None
    if "oth" in place[:10] and _BOTH.match(place):
        if options and (exact := known(options).get(_form(places.sentence(place)))):
            return exact  # "Both A and B" is an option of its own
        raise SeveralError("several")
    if not options or isinstance(place, Letter):
        return letter(place)
    may_be = len(place) > _LETTERED and place[0] not in "(*"
    if may_be and (exact := known(options).get(_form(places.sentence(place)))):
        return exact  # "I and II", "C. elegans"
    return letter(place) or (None if _EITHER.match(place) else by_text(place, known(options)))


def letter(place: str) -> str | None:
    """The option's letter that a place begins with, or that it names at its end after a text of its own."""
    head = plain(place[:_HEAD])
    match = _LETTER.match(head)
    if match is None:
        named = _NAMED_AT_END.search(place[-_HEAD:]) if place[-8:].rstrip(" .*!").endswith(_NAME_ENDS) else None
        return named[named.lastindex] if named and not named[0].startswith(f" ({named[named.lastindex]}") else None
    if match.lastindex in (2, 3) and head[match.end() : match.end() + 8].strip(" .,):*\"'"):
        named = _NAMED_AT_END.search(place, max(0, len(place) - _HEAD))
        if named and named.start() >= match.end():
            return named[named.lastindex]
    if _EITHER.match(head) or (match.lastindex == 4 and _PARTS.search(place)):
        return None
    return match[match.lastindex].upper()


def by_text(place: str, texts: Texts) -> str | None:
    """The letter of the option whose text a place gives, or begins with; of two the longer one."""
    said = _HEDGE.sub("", places.sentence(place[: 60 + 2 * max(map(len, texts), default=0)]), count=1)
    form = _form(said)
    if form in texts:
        return texts[form]
    if (remark := _REMARK.search(said)) and (found := texts.get(_form(said[: remark.start()]))):
        return found
    words = form.split(" ")
    for count in range(min(len(words), 30), 0, -1):
        if (found := texts.get(" ".join(words[:count]))) and _ends(words, count):
            return found
    return _by_number(place, texts) if len(place) < _HEAD and _DIGIT.search(place) else None


_DIGIT = re.compile(r"\d")
_HEDGE = re.compile(
    r"\W{0,4}(?:(?:most likely|likely|probably|therefore|thus|clearly|definitely|indeed|option)\W{1,4}){1,2}"
)
_REMARK = re.compile(r"[:;,(]\s?|\*\*\W| [-–—] ")


def _ends(words: list[str], count: int) -> bool:
    """Whether an option's text ends here, and is not the beginning of another thing's name."""
    return words[count] in _AFTER if count < len(words) else True


_AFTER = frozenset(
    "because since as which that so and not for due where when is are by with rather in - – — = ≈ <".split()
)


def _by_number(place: str, texts: Texts) -> str | None:
    """The letter of the one option that is the number of a place."""
    wanted = numbers.only_number(plain(place).strip(" $.*"))
    if wanted is None:
        return None
    same = [found for form, found in texts.items() if numbers.first_number(form) == wanted]
    return same[0] if len(same) == 1 else None


# A list of options, which says of each what it is, and not which is the answer

_ITEM = r"[\s*_-]{0,6}\(?([A-J])[).:]"
_ON_LINES = re.compile(rf"[:*_\s]{{0,6}}\n{_ITEM}[^\n]*\n+{_ITEM}")
_IN_A_SENTENCE = re.compile(r"\W{0,6}A[).:][^\n]*?[a-z]{2}[^\n]*?\bB[).:][^\n]*?[a-z]{2}[^\n]*?\bC[).:]")


def lists_options(place: str, sentence: str) -> bool:
    """Whether what follows "answers:" goes through the options, on lines of their own or in one sentence."""
    if place[:1] in " \n*_" and (match := _ON_LINES.match(place)):
        return ord(match[2]) == ord(match[1]) + 1
    return len(sentence) > 12 and _IN_A_SENTENCE.match(sentence) is not None


# Places, last first; those after `lines` are guesses

_TAIL = 600  # characters of a response's end in which the rules below look
_CHOSEN = re.compile(r"(?:ption|hoice|tatement|lternative)\b")  # "The statement that is true about X is: D"
_SELECTED = re.compile(r"(?:correct|right|best|chosen) \w?$")  # "the correct option is zinc"
# "I choose (B), since", "I would pick H", "leaving D"
_PICKED = re.compile(
    r"(?:hoose|elect|pick|go with|going with|opt for|leaving|leaves)"
    r"(?: only)?(?: the)?(?: option| choice| answer)?[\s:*]{1,4}"
    rf"(?:\(([A-J])\)|([B-HJ])(?!{_SYMBOL}))(?! (?:or|and)\b)"
)
_PICKS = ("hoose ", "elect ", "pick ", "go with", "going with", "opt for", "leaving ", "leaves ")
_IS = re.compile(r"(?:\bis\b|:)(?!\W{0,3}(?:not|wrong|incorrect|false)\b)")
_NAMES = re.compile(
    r"(?<![\w(])(?<!not )(?<!or )(?<!and )(?:\(([A-J])\)|([A-HJ]))[*\"' ]{1,4}(?:option )?(?:is|would be|must be)"
    r"(?: therefore| thus| clearly| also)?(?: the| my)?(?: only| most likely| most| likely| single| one)?$"
    r"|[Oo]ption \(?([a-j])\)? is(?: the)?(?: only| most likely| most)?$"
)  # before " correct": "(B) is the only"
_NAMING = (
    " is",
    " be",
    " the",
    " my",
    " only",
    " most",
    " single",
    " one",
    " likely",
    "fore",
    "thus",
    "clearly",
    "also",
)
_CLOSING = re.compile(
    r"(?:\b(?:is|be|so|So(?=,)|but|[Hh]ence|[Tt]hus|[Tt]herefore|choose|select|pick|option|choice|statement|leaves|leaving|with)\b,?"
    r"|\bit['’]s\b|:)[\s*_\"'\[$]{1,6}"
    r"(?:\(([A-J])\)|([A-HJ]))[\s*_\"'\]$.!]{0,6}$"
    r"|\b[Oo]ption \(?([a-j])\)?\.?$"
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
            sort = str if _SELECTED.search(tail, max(0, match.start() - 12), match.start()) else Letter
            yield from (sort(said[m.end() :]) for m in reversed(list(_IS.finditer(said))))
    picks = (match for mark in _PICKS if mark in tail for match in places.after(tail, mark, _PICKED, most=5))
    last = max(picks, key=lambda match: match.end(), default=None)
    if last:
        yield f"({last[last.lastindex]})"


def correct(text: str) -> Iterator[str]:
    """The letter that is called correct."""
    tail = text[-_TAIL:]
    for mark in (" correct", " right", " best", " answer", " true"):
        at = len(tail)
        while (at := tail.rfind(mark, 0, at)) >= 0:
            if tail.endswith(_NAMING, 0, at) and (match := _NAMES.search(tail, max(0, at - 60), at)):
                yield match[match.lastindex].upper()


def after_hash(text: str) -> Iterator[str]:
    """What follows `####`: a letter, or what may be an option's text; "#### B cells" is a heading."""
    for place in places.after_hash(text) if "#" in text and "####" in text else ():
        yield place if _LINE.match(place) else Words(place)


_LATEX = ("$\\", "\\t", "\\b", "\\f", "\\m", "\\(", "\\[")
_WIDE = frozenset("ＡＢＣＤＥＦＧＨＩＪ（")


def lines(text: str) -> Iterator[str]:
    """The letter that is the last line or begins the first; not one of a list of options."""
    before, _, last = (text := text.strip()).rpartition("\n")
    for line in (last, text):
        line_start = line[:300].partition("\n")[0]
        written = line_start[:1] in _WIDE or (line_start[:2] in _LATEX and len(line_start) < 40)
        match = _LINE.match(plain(line_start) if written else line_start)
        if match and (match.lastindex < 4 or line is last):
            found = match[match.lastindex].upper()
            if line is last and before:
                item, step = re.match(_ITEM, before.rstrip().rpartition("\n")[2][:20]), 1
            else:
                item, step = re.match(_ITEM, text.partition("\n")[2].lstrip()[:20]), -1
            if item is None or ord(item[1]) + step != ord(found):
                yield f"({found})"


_CAPITALS = frozenset("ABCDEFGHIJＡＢＣＤＥＦＧＨＩＪ")


def closing(text: str) -> Iterator[str]:
    """The letter in which the last sentence ends: "Since it isn't (A), it must be B."."""
    end = text.rstrip()[-40:]
    if end.rstrip("*_\"'])$.! }")[-1:] not in _CAPITALS and "ption " not in end:
        return
    if match := _CLOSING.search(plain(end)):
        yield match[match.lastindex].upper()


def abroad(text: str) -> Iterator[str]:
    """The letter that is the answer in another language."""
    yield from places.abroad(text)
    if "选" in text:
        yield from (match[1] for match in reversed(list(_CHINESE.finditer(text[-_TAIL:]))))


_CHINESE = re.compile(
    r"(?<!不)(?<!别)选(?:择|项)?\s?(?:[:：是为]\s?)?[*（(]{0,3}([A-J])(?![A-Za-z+=])(?!\W{0,3}(?:不|错|和|、|与))"
)


def last_words(text: str) -> Iterator[Words]:
    """The last and the first line, which may be an option's text, and what follows the last "is": "So it is zinc."."""
    last = text.rstrip()[-places.WIDTH :].rpartition("\n")[2].strip(" *_.")
    yield Words(last)
    yield Words(text.lstrip()[: places.WIDTH].partition("\n")[0])
    for mark in (" is ", " are ", " be ", ": ", "hoose ", "'s "):
        if (at := last.rfind(mark)) >= 0:
            yield Words(last[at + len(mark) :])


def last_aside(text: str) -> Iterator[str]:
    """The last letter in parentheses that is not ruled out."""
    yield from _ASIDE.findall(text)[-1:]
