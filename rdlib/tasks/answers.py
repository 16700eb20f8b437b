"""Final answers: taking them out of a response in one canonical form, and telling whether two are the same.

A response is read by an ordered list of rules; a rule offers the places where the answer may stand, last first,
and the first place that holds an answer of the asked kind decides:

    find("So 9 * 2 = 18. The answer is $18.00.", "math")  ->  Found(answer="18", rule="answer_is")
    find('{"reasoning": "...", "answer": "1/3"}', "math")  ->  Found(answer="1/3", rule="json")
    find("The answer is **(C)**, as mitosis ...", "choice")  ->  Found(answer="C", rule="answer_is")
    find("<think>It is 5.</think>The answer is 6.", "math")  ->  Found(answer="6", rule="answer_is")
    find('{"answer": "It cannot be determined."}', "math")  ->  Found(answer=None, rule="refused")

Votes count equal strings, so equal numbers get equal strings here and `same` compares nothing else. math-verify is
not used: on the 3,957 GSM8K answers that the tests read it decides 13 otherwise, all wrongly (60% is not 60, 2:10 pm
is 2), and its parsing takes 600 µs a response where `find` takes 7.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import repeat

from rdlib.tasks import canonical, choices, expressions, numbers, own_equality, phrases, places
from rdlib.tasks.questions import LETTERS
from rdlib.tasks.spoken import spoken

Options = int | Sequence[str]  # how many a question has, or their texts
_ANY = len(LETTERS)


@dataclass(frozen=True)
class Found:
    """An extracted answer in its canonical form and the name of the rule that found it.

    Without an answer the rule is None, or says why there is none where the response shows it: "unfinished" (thinking
    that was cut off), "refused" (the place of the answer says that there is none), "no option" (a letter that the
    question's options do not have) or "ambiguous" (a number whose points and commas can be read in two ways).
    """

    answer: str | None
    rule: str | None


def find(text: str, kind: str, options: Options = _ANY) -> Found:
    """The final answer a(y) of a response and the rule that found it, in time linear in the text.

    `kind` is "number" (strict: what follows the last `####`), "text" (strict: the word that follows the last "the
    answer is"), "math" (a number in free text), "choice" (the letter of one of the `options`), "phrase" (a short free
    answer) or "expression" (of algebra), or what `own_equality.kind_of` makes of one of these. `options` are the texts
    of the question's options, or how many it has where the texts are not known. Rules go from the one that a format
    asked for to the one that guesses: `####` and \\boxed{} say nothing but the final answer, a JSON key may follow
    reasoning that says "the answer is" of a step, and the fallbacks read what merely came last. Where forms that say
    the answer compete, the last one in the text counts.
    """
    parse, rules = _rules_of(kind)
    said, letters = spoken(text), None
    if kind == "choice":
        parse, letters = _option_reader(options)
    try:
        for name, offered in rules.items():
            beyond = False
            for place in offered(said):
                answer = parse(place, said)
                if answer is not None:
                    if letters is None or answer in letters:
                        return _later(said, kind, Found(answer, name), parse, letters)
                    beyond = True
            if beyond and name in choices.STATED:
                return Found(None, "no option")
    except (_NoAnswerError, choices.SeveralError) as error:
        return Found(None, str(error))
    return Found(None, None if said.strip() or not text.strip() else "unfinished")


@lru_cache(maxsize=64)
def _rules_of(kind: str) -> tuple[Callable[[str, str], str | None], dict[str, Callable]]:
    """How a place is parsed, and the rules; an equality of one's own takes the place that holds an answer."""
    alone = own_equality.kind_alone(kind)
    if alone not in _KINDS:
        raise ValueError(f"unknown answer kind {alone!r}: use {', '.join(map(repr, _KINDS))}")
    parse, rules = _KINDS[alone]
    canonical_form = own_equality.function_of(kind)
    if canonical_form is None:
        return parse, rules
    return lambda place, text: None if parse(place, text) is None else canonical_form(place.strip()), rules


def _option_reader(options: Options) -> tuple[Callable[[str, str], str | None], str]:
    """How a place is read as one of the options, and their letters."""
    if isinstance(options, int):
        return choices.option, LETTERS[:options]
    if not options:
        return choices.option, LETTERS
    return partial(choices.option, options=tuple(options)), LETTERS[: len(options)]


def _later(said: str, kind: str, found: Found, parse: Callable, letters: str | None) -> Found:
    """The answer that another form gives after the one that was found, else that one."""
    for rule, (mark, offered) in _LATER.get((own_equality.kind_alone(kind), found.rule), {}).items():
        start = said.rfind(_MARKS[found.rule]) + 1
        for place in offered(said[start:]) if said.find(mark, start) >= 0 else ():
            answer = parse(place, said)
            if answer is not None and (letters is None or answer in letters):
                return found if answer == found.answer else Found(answer, rule)
    return found


def extract(text: str, kind: str, options: Options = _ANY) -> str | None:
    """The final answer a(y) of a response, None where it has none; see `find`."""
    return find(text, kind, options).answer


def same(first: str | None, second: str | None) -> bool:
    """Whether two extracted answers agree; an answer that could not be extracted agrees with nothing."""
    return first is not None and second is not None and first == second


def rule_shares(texts: Iterable[str], kind: str, options: Iterable[Options] = repeat(len(LETTERS))) -> dict[str, float]:
    """Share of responses in (0, 1] by the rule that found their answer, or the reason why there is none.

    `options` are those of each response's question; "none" stands for an answer that no rule found.
    """
    counts = Counter(find(text, kind, of).rule or "none" for text, of in zip(texts, options, strict=False))
    return {rule: count / counts.total() for rule, count in counts.most_common()}


_REFUSAL = re.compile(
    r"(?:####|answer is|answer:) ?none\b"
    r"|(?:\b(?:can)?not|n't|n’t|unable to) (?:be )?"
    r"(?:know|determin|calculat|comput|specif|mention|state|provide|given?\b)"
    r"|(?:not|n't|n’t|without|lacks?|missing|more) (?:of |have |provide |contain |give |the )*"
    r"(?:enough|sufficient|necessary|needed|required) (?:information|data|details)"
    r"|\bunaware\b|\bis unknown\b|\binsufficient (?:information|data)"
)


# The same of one place, where a careless word does less harm than in a whole response
_DECLINES = re.compile(
    r"\b(?:im|not )possible to\b|\bneeds? more (?:information|data|details)\b"
    r"|\bno (?:real |integer |valid )?solutions?\b|\binfinitely many\b|\blacks? (?:the )?(?:data|information|details)\b"
    r"|\bno (?:single |unique )?(?:number|answer) (?:can|is|exists)"
    r"|(?:can(?:not| not|'t|’t)|unable to|won't) (?:be )?(?:help|assist|answer|solve|comply|inferred|found)"
    r"|无法|不能确定|信息不足|no se puede|ne peut pas|nicht (?:bestimm|beantwort)"
)
# Of each a response that declines has a word: looking for them is the faster part
_DENIALS = ("not", "none", "n't", "n’t", "no ", "unable", "without", "lack", "missing", "more", "unaware", "unknown")
_DENIALS += ("insufficient", "impossible", "infinitely", "无法", "不能", "不足", "no se", "ne peut", "nicht")
_DENIED = ("know", "unk", "none", "determin", "calculat", "comput", "specif", "mention", "state", "provide", "given")
_DENIED += (
    "unaw",
    "information",
    "data",
    "detail",
    "possible to",
    "number",
    "answer",
    "help",
    "assist",
    "solve",
    "comply",
)
_DENIED += ("found", "inferred", "solution", "infinitely", "无法", "不能", "不足", "puede", "peut", "nicht")
# "The answer is rounded to 2 decimals", which says something of an answer that was given before
_OF_THE_ANSWER = re.compile(
    r"(?:rounded|expressed|correct|accurate|helpful|based|reasonable|verified|consistent|shown|explained)\b(?!\W{0,4}$)"
)
# "The answer is Monday", and not "The answer is clear"
_WORDS = re.compile(
    r"\W*(?!(?:not |very |now |as |given |shown |also |indeed |the )*"
    r"(?:correct|right|wrong|incorrect|clear|simple|easy|obvious|straightforward|below|above|follows?|here|this|that"
    r"|these|it|found|calculated|reasonable|same|number|following)\b)"
    r"[^\W\d]+(?:[\s-]+[^\W\d]+){0,3}\W*"
)


UNANSWERABLE = "None"  # the gold answer of GSM-Plus where a question lacks what an answer needs (critical thinking)


def refuses(text: str) -> bool:
    """Whether a response says, anywhere, that the question lacks what an answer needs.

    It is the right answer where GSM-Plus's gold answer is "None" (critical thinking) and is asked there alone: one in
    150 responses to solvable questions says on its way that something "is not known".
    """
    return _REFUSAL.search(spoken(text).lower()) is not None


class _NoAnswerError(Exception):
    """The place of the answer shows that there is none, and why: no other place is asked then."""


def _number(place: str, text: str) -> str | None:
    """The number of a place; _NoAnswerError where it refuses one, or gives one that can be read in two ways."""
    if isinstance(place, places.Remark):
        return _require_no_refusal(place)
    if place[:1].isalpha() and _OF_THE_ANSWER.match(place):
        return None
    try:
        whole, stated = isinstance(place, places.Whole), not isinstance(place, places.Guess)
        answer = numbers.number(place, text, _require_no_refusal, whole, stated)
    except numbers.AmbiguousError:
        raise _NoAnswerError("ambiguous") from None
    except numbers.NoNumberError as error:
        raise _NoAnswerError(str(error)) from None
    if answer is None and _says_no_number(place):
        raise _NoAnswerError("no number")
    return answer


def _says_no_number(place: str) -> bool:
    """Whether a place without a number is an answer in words: a box, or a sentence of a few words."""
    if any(map(str.isdigit, place)):
        return False
    if isinstance(place, places.Whole):
        return bool(place.strip(" $\n{["))  # an object of JSON on lines of its own is not read here
    return _WORDS.fullmatch(place) is not None


def _declines(place: str) -> bool:
    """Whether a place in lower case says that there is no answer."""
    if not any(map(place.__contains__, _DENIALS)) or not any(map(place.__contains__, _DENIED)):
        return False
    return bool(_REFUSAL.search(place) or _DECLINES.search(place))


def _require_no_refusal(place: str) -> None:
    """_NoAnswerError where a place says that there is no answer."""
    if places.NOTHING.match(place) or _declines(place.lower()):
        raise _NoAnswerError("refused")


def _alone(parse: Callable[[str], str | None]) -> Callable[[str, str], str | None]:
    """A parser that needs nothing but the place."""
    return lambda place, text: parse(place)


# By kind, how a place is parsed, and the rules in their order
_KINDS: dict[str, tuple] = {
    "number": (
        _alone(canonical.strict_number),
        {"hash": places.strict("####")},
    ),  # the micro models know this form alone
    "text": (_alone(canonical.strict_word), {"answer_is": places.strict("the answer is")}),  # and this one
    "math": (
        _number,
        {
            "hash": places.number_after_hash,  # GSM8K's form, which our prompts ask for
            "boxed": places.in_box,  # what models trained on competition problems write, and for nothing else
            "json": places.json_value,  # other prompts' form; before the sentence, which may stand in its reasoning
            "answer_is": places.answer_is,  # said in words
            "answer_abroad": places.abroad,
            "last_sentence": places.last_sentence,  # a guess: responses end with what they found
        },
    ),
    "choice": (
        choices.option,
        {
            "json": places.json_value,  # a format that was asked for
            "answer_is": choices.answer_is,  # MMLU-Pro's form, which our prompts ask for
            "chosen": choices.chosen,  # "the correct option is B", "the statement that is true about X is: D"
            "correct": choices.correct,  # "(B) is correct"
            "hash": choices.after_hash,
            "boxed": places.in_box,  # after the sentences, since numbers of the working are boxed too
            "letter": choices.lines,  # a letter alone on the last line, or at the beginning of the first
            "answer_abroad": choices.abroad,
            "closing": choices.closing,  # a letter at the end of the last sentence
            "option_text": choices.last_words,  # the text of an option, said last
            "last_letter": choices.last_aside,  # a guess: the option mentioned last
        },
    ),
    "phrase": (
        _alone(phrases.phrase),
        {
            "hash": phrases.after_hash,
            "boxed": places.in_box,
            "json": phrases.json_value,
            "answer_is": phrases.answer_is,
            "labelled": phrases.labelled,
        },  # as for numbers, without a guess
    ),
    "expression": (
        _alone(expressions.expression),
        {
            "hash": expressions.after_hash,
            "boxed": places.in_box,
            "json": places.json_value,
            "answer_is": expressions.answer_is,
        },
    ),
}

# Where forms compete: by kind and rule, the other rules whose place after it counts instead
_MARKS = {"hash": "####", "boxed": "oxed", "answer_is": "nswer", "chosen": "ption", "correct": " correct"}
_BOX, _SAID = ("oxed", places.in_box), ("nswer", places.said_first)
_LATER: dict[tuple[str, str], dict[str, tuple[str, Callable]]] = {
    ("math", "hash"): {"boxed": _BOX, "answer_is": _SAID},
    ("math", "boxed"): {"answer_is": _SAID},
    ("choice", "answer_is"): {"boxed": _BOX},
    ("choice", "chosen"): {"boxed": _BOX},
    ("choice", "correct"): {"boxed": _BOX},
}
