"""Short free answers in a canonical form: equal answers get equal strings, and different ones stay different.

    phrase("The  Eiffel Tower!") -> "eiffel tower"  phrase("H₂O") -> "h2o"   phrase("Mrs. Dalloway") -> "mrs dalloway"
    phrase("1,000.50") -> "1000.5"                  phrase("C++") -> "c++"   phrase("U.S.") -> "us"
    phrase("Vitamin A") -> "vitamin a"              phrase("2,5") -> "2 5"   phrase("Answer: Oslo") -> "oslo"

A place that is just a number is that number. Each function takes a few hundred characters at most (`places` cuts them)
and gives None, or no place, where it finds no answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from rdlib.tasks import numbers, places
from rdlib.tasks.plain import plain_words

# Sentences: a point after a title or an initial ends none

_STOP = re.compile(r"\n|</|[。！？।॥]|[.!?](?=[\s*\"'”’»)]|$)")
_TITLES = frozenset(
    "mr mrs ms mx dr st ste sgt cpl capt cmdr maj gen col lt pvt adm prof rev hon pres gov sen rep mt ft fr sra srta "
    "mme mlle vs al cf ca approx dept univ messrs".split()
)
_SUFFIXES = frozenset("jr sr inc ltd co corp bros esq etc ave blvd rd".split())  # sentences end with them, too
_NUMBERED = frozenset(
    "lb lbs oz ft in yd min sec hr "
    "no nos nr op vol fig ch p pp art sec ed jan feb mar apr jun jul aug sep sept oct nov dec".split()
)
_OPENING = re.compile(
    r"\W*(?:It|Its|The|This|That|These|Those|There|They|He|She|His|Her|We|I|You|In|On|At|By|So|As|A|An|Since|Because"
    r"|However|Thus|Therefore|Hence|Note|Hope|Let|For|To|If|When|While|My|Also|Here|Both|Each|Some|Please)\b(?!\.)"
)


def sentence(place: str) -> str:
    """The first sentence of a place; "Mrs. Dalloway", "J. K. Rowling" and "No. 5" are not cut."""
    place = place.lstrip(" \t\r\n:：_")
    bare = place.lstrip("*_: \t\r\n")
    for stop in _STOP.finditer(bare):
        if stop[0] != "." or _ends(bare[: stop.start()], bare[stop.end() :]):
            bare = bare[: stop.start()]
            break
    return bare.rstrip("*_ ") if place.startswith("*") else bare


def _ends(before: str, after: str) -> bool:
    """Whether a point between two texts ends a sentence."""
    word = before.rpartition(" ")[2].lstrip("\"'“(*_").casefold()
    if after[:1] == " " and after[1:2].islower():  # "0.4 in. from the wall"
        return False
    if word in _TITLES:
        return not after.strip(" *_\"'”’)")
    if word in _NUMBERED:
        return not after.lstrip()[:1].isdigit()
    if word in _SUFFIXES or (word[-2:-1] in ("", ".") and word[-1:].isalpha()):  # an initial: "K" or "u.s"
        return _OPENING.match(after) is not None or not after.strip(" *_\"'”’)")
    return True


# Labels and headings: "Final answer:", "Explanation"

_LABEL = re.compile(
    r"[\W_]{0,8}(?:(?:so|and|thus|the|my|your|our|final|correct|right|short|best)\s){0,4}"
    r"(?:answers?[*_\"']{0,3}\s?(?:\b(?:is|was|are|would be|must be)\b[\s:：*_]*|[:：=][\s*_]*|(?:\n\s*|$))"
    r"|(?:result|conclusion|solution|response)[*_]{0,3}\s?[:：][\s*_]*)",
    re.IGNORECASE,
)
_HEADING = re.compile(
    r"[\W_]{0,8}(?:(?:the|my|a|brief|detailed|short|full|key|final|step[- ]by[- ]step|supporting)\s){0,3}"
    r"(?:explanations?|reasoning|rationale|analysis|justification|verification|check|conclusion|summary|solution|steps"
    r"|(?:step|part)\s\w{1,2}|working|background|context|notes?|sources?|references?|evidence|question|problem|approach"
    r"|method|discussion|details|thoughts?|thinking|thought process|derivation|proof|calculations?|confidence|hints?)"
    r"[*_]{0,3}\s{0,3}([:：]|[*_.\s]*(?:\n\s*\S|$))",
    re.IGNORECASE,
)
_MAY_BE_LABELLED = re.compile(r"[:：\n]|[nN][sS][wW][eE][rR]")
_FILLER = re.compile(r"\W{0,3}(?:(?:It|it|This|this|That|that) (?:is|was))\s+(?=[\w\"'“*])")


def unlabelled(place: str) -> str:
    """A place without the labels before its answer; "" where it is a label, a heading, or what follows one."""
    if not _MAY_BE_LABELLED.search(place):
        return place
    while place and (label := _LABEL.match(place)):
        place = place[label.end() :]
        if label[0].count("*") % 2:  # "*Answer: Oslo*"
            place = place.replace("*", " ", 1)
    heading = _HEADING.match(place)
    # A heading has a text, on its line or below; "#### Solution" at the very end is an answer
    return "" if heading and heading[1] else place


def after_hash(text: str) -> Iterator[str]:
    """What follows `####`, or the line below where a label follows it; nothing after a heading."""
    return filter(None, (sentence(unlabelled(place)) for place in places.behind_hash(text)))


def answer_is(text: str) -> Iterator[str]:
    """What the answer "is", up to the end of its sentence; nothing where a heading follows."""
    return places.answer_is(text, cut=lambda place: sentence(unlabelled(place)))


_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\([\"/n])")


def json_value(text: str) -> Iterator[str]:
    """The first sentence of the value of a JSON key that ends in "answer", its escapes read."""
    for place in places.json_value(text):
        if "\\" in place:
            place = _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else m[2].replace("n", "\n"), place)
        yield sentence(unlabelled(place))


_LANGUAGES = ("答案", "答え", "Antwort", "Respuesta", "Réponse", "Risposta", "Resposta", "Ответ", "उत्तर")
_SAID = re.compile(r"\w{2,9}[*_]{0,3}\s?(?:[:：]|是|为|為|は|(?:ist|es|est|è|é)\b[:：]?)")


def labelled(text: str) -> Iterator[str]:
    """What follows a label in another language, as in "答案：北京"."""
    if text.isascii() and not any(word in text for word in ("Antwort", "Respuesta", "Risposta", "Resposta")):
        return
    for word in _LANGUAGES:
        for match in places.after(text, word, _SAID):
            yield sentence(places.behind(match))


# Characters

_ODD = re.compile(  # compatibility forms: sub- and superscripts, ligatures, full-width and mathematical letters, ½, Ⅷ
    "[ªº¹²³¼-¾\u2070-\u209f\u2100-\u218b\u3000\ufb00-\ufdff\ufe70-\ufefc\uff01-\uffee\U0001d400-\U0001d7ff]"
)
_SUPERSCRIPT = re.compile("(?<=[^\\W_])([⁰¹²³⁴-⁹]+)([⁺⁻]?)|(?<=[^\\W_])([⁺⁻])")
_SUBSCRIPT = re.compile(r"(?<=[^\W_])_(?=[0-9])")
_CHARGE = re.compile(r"\^([0-9]*[+-])(?![\w(])")
_SINGLE = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "´": "'", "′": "'", "İ": "i", "♯": "#", "⁄": "/"})
_DASHES = re.compile("[‐‑‒−﹣]|–(?! )")


def _simple(place: str) -> str:
    """A place in NFC with ASCII's quotes, dashes and digits; other punctuation and what cannot be seen as spaces."""
    place = _SUPERSCRIPT.sub(_raised, unicodedata.normalize("NFC", place))
    place = _ODD.sub(lambda m: _compatible(m[0]), place.translate(_SINGLE))
    place = _DASHES.sub("-", place.translate(_SINGLE))
    return unicodedata.normalize("NFC", "".join(c if c.isascii() else _seen(c) for c in place))


def _raised(match: re.Match) -> str:
    """Superscripts as they are typed: "m²" is "m^2", and the charge of "Ca²⁺" is "2+"."""
    digits, sign = unicodedata.normalize("NFKC", match[1] or ""), match[2] or match[3] or ""
    return f"{digits}{unicodedata.normalize('NFKC', sign)}".replace("−", "-") if sign else f"^{digits}"


def _compatible(character: str) -> str:
    """The plain characters for a compatibility form; a space before "½", which follows digits."""
    if character == "™":
        return " "
    found = unicodedata.normalize("NFKC", character)
    return f" {found}" if unicodedata.numeric(character, 0) % 1 else found


def _seen(character: str) -> str:
    """A character beyond ASCII as the words have it."""
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category == "Cf" or "\ufe00" <= character <= "\ufe0f":  # zero width, direction, variants of emoji
        return ""
    if category in ("So", "Sm", "Sc", "Sk"):
        return " " if character in "°®©" else f" {character} "
    return " " if category[0] in "PZC" else character


# Words

_W = "[A-Za-z0-9_\x80-\U0010ffff]"  # `_simple` has taken out what is punctuation beyond ASCII
_TOKEN = re.compile(
    r"(?<![\w.])[+]?(-?(?:\d{1,3}(?:,\d{3})+(?!\d|,\d)(?:\.\d+)?|\d+(?:\.\d+)*(?:/\d+)?|\.\d+)[%+]?(?!\+))"
    rf"|((?:(?<![\w.])[.#@](?=[A-Za-z]))?{_W}+(?:(?:['&@]|\^-?){_W}+)*(?:\+{{1,2}}|\#|-(?=[\s.,;!?)]|$)|\*)?(?!{_W}))"
    rf"|(\#\d+|[=<>+]|{_W}+)"
)
_UNMARKED_TOKEN = re.compile(  # the same, where there is nothing but words, numbers and simple punctuation
    rf"(?<![\w.])(\d{{1,3}}(?:,\d{{3}})+(?!\d|,\d)(?:\.\d+)?|\d+(?:\.\d+)*|\.\d+)|({_W}+(?:'{_W}+)*)()"
)
_INITIALS = re.compile(r"(?<![\w.])(?:[^\W\d_]\. ?){1,8}[^\W\d_](?:\.|(?!\w))(?= |[^\w.]|$)")
_DEGREE = re.compile(r"\bPh\. ?D\b\.?")
_PERCENT = re.compile(r"(?<=[0-9])\s?(?:percent|per cent)\W*$")
_SPACED_MINUS = re.compile(r"(?:^|(?<=[(,]) ?)[-−] +(?=[\d.$∞])")
_ASIDE = re.compile(r"(?<=[\w.]) \(([^()]*)\)[\s.!]*$")
_BOLD = re.compile(r"(?<!\w)\*{1,3}(?=\S)([^*]*[^*\s])\*{1,3}(?!\w)|\*{2,}|^\*\s")
_EMAIL = re.compile(r"\be-mail", re.IGNORECASE)
_PAIRED = re.compile(r"\$(?! )([^$]*)\$(?![0-9])")
_ARTICLES = frozenset(("a", "an", "the"))
_BEHIND_A = frozenset("minor major flat sharp level levels positive negative plus minus star and or vs".split())
_BEFORE_A = frozenset(
    "vitamin hepatitis plan grade group type class section part option choice team series list schedule exhibit "
    "appendix point level category influenza protein note key chapter block model blood string variable set brand "
    "vertex side event city train company".split()
)
_PLAIN_WORDS = re.compile(r"[A-Za-z]+(?:(?:, ?| )[A-Za-z]+)*\.?")
_BETWEEN = re.compile(r", ?| ")
_MARKED = re.compile(
    r"[^\w\s,.()']|(?<!\w)-|-(?!\w)|\(-|-mail|_|[a-z]!|(?<![\w.])\.(?=[A-Za-z])"
)  # more than words and numbers


_LONE_TAG = re.compile(r"<([A-Za-z][\w-]*)>")


@lru_cache(maxsize=4096)  # the samples of a question say the same
def phrase(place: str) -> str | None:
    """A short answer without case, articles and punctuation; a place that is just a number as that number."""
    place = (plain_words(_SYMBOL.sub(_named, place)) if "\\" in place else plain_words(place)).strip()
    if _PLAIN_WORDS.fullmatch(place):
        if filler := _FILLER.match(place):
            return phrase(place[filler.end() :])
        return " ".join(_without_articles(_BETWEEN.split(place.removesuffix(".")))).lower()
    if tag := _LONE_TAG.fullmatch(place):
        return tag[1].lower()
    place = unlabelled(place if place.isascii() else _simple(place))
    if _MAY_BE_NUMBER.fullmatch(place) and (number := _only_number(place)):
        return number
    if _MARKED.search(place):
        place = _without_marks(place)
        if _FORMULA.search(place):
            return _formula(place)
        place = place.replace(" & ", " and ")
        return _said(_without_aside(_without_points(place)), _TOKEN)
    return _said(_without_aside(_without_points(place)), _UNMARKED_TOKEN)


def _said(place: str, token: re.Pattern) -> str | None:
    """The words of a place in lower case; a single number as `_only_number` has it."""
    while filler := _FILLER.match(place):
        place = place[filler.end() :]
    words = _without_articles(_words(token.findall(place)))
    if len(words) == 1 and words[0][-1] in "0123456789%" and (number := _only_number(words[0])):
        return number
    answer = " ".join(words).casefold()
    return (answer if answer.isascii() else unicodedata.normalize("NFC", answer)) or None


_NAMES = (
    "alpha beta gamma delta epsilon varepsilon theta lambda mu nu pi rho sigma tau phi varphi chi psi omega Gamma "
    "Delta Theta Lambda Sigma Phi Psi Omega infty sqrt pm mp le leq ge geq ne neq to rightarrow approx circ degree cup "
    "cap in forall exists neg lnot land wedge lor vee equiv subset sum int partial nabla emptyset"
)
_SIGNS = "αβγδεεθλμνπρστφφχψωΓΔΘΛΣΦΨΩ∞√±∓≤≤≥≥≠≠→→≈°°∪∩∈∀∃¬¬∧∧∨∨≡⊂∑∫∂∇∅"
_SYMBOLS = dict(zip(_NAMES.split(), _SIGNS, strict=True))
_FUNCTIONS = frozenset("sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan ln log exp lim max min".split())
_SYMBOL = re.compile(r"\\+([A-Za-z]+)")
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,30}>(?=.*\w)|^\s*>\s", re.DOTALL)
# What has no place in words: signs of mathematics and logic, and one-letter operands around "*" and "/"
_FORMULA = re.compile(
    r"[=^√±∓∧∨⊃≡¬∀∃≤≥≠→↔⇒⇔∫∑∂∇∪∩∈⊂<>]|\w\*\w|\S \* \S|\w\|\w|\w\(-[a-z]|~[A-Z(]"
    r"|(?<!\w)(?:[^\W\d]/(?:\d+|\w)|\d+/[^\W\d]|[a-z]!)(?!\w)"
    r"|^[-+]?[^\W\d] - \w|^-(?=[^\W\d](?!\w)|[α-ω√∞(]|\w+\()"
)
_SIGN = re.compile(rf"\d+(?:,\d{{3}})*(?:\.\d+)?(?:\^-?\w+)?|{_W}+(?:\^-?{_W}+)*|[^\s\w\"'.,:;?$]")


def _named(match: re.Match) -> str:
    """A symbol for the command that names it, which would go without a trace."""
    if match[1] in _FUNCTIONS:
        return f" {match[1]} "
    return f"{_SYMBOLS[match[1]]} " if match[1] in _SYMBOLS else match[0]


def _formula(place: str) -> str | None:
    """A formula sign by sign, its brackets as well."""
    for typed, sign in ((">=", "≥"), ("<=", "≤"), ("!=", "≠"), ("->", "→"), ("**", "")):
        place = place.replace(typed, sign)
    signs = [sign.replace(",", "").strip("_") for sign in _SIGN.findall(place)]
    return " ".join(filter(None, signs)).casefold() or None


# What may stand around the digits of a place that is just a number
_MAY_BE_NUMBER = re.compile(
    r"[^A-Za-z]*(?:(?:about|approximately|only|is|the|an?|thousand|million|billion|trillion|percent|per cent"
    r"|(?<=\d)e(?=[-+]?\d))(?![A-Za-z])[^A-Za-z]*)*",
    re.IGNORECASE,
)


def _only_number(place: str) -> str | None:
    """The number that a place is; "18+" and "#1" are none."""
    if place.isdigit() and place.isascii() and place[0] != "0" and len(place) < 20:
        return place
    if re.search(r"\d\s?[+#]|#\d", place):
        return None
    place = _PERCENT.sub("", place.lower().lstrip())
    for article in ("the ", "a ", "an "):
        place = place.removeprefix(article)
    return numbers.only_number(place.removeprefix("+"))


def _without_marks(place: str) -> str:
    """A place without emphasis, tags and LaTeX's marks; a minus before a number joins it."""
    place = _SPACED_MINUS.sub(" -", place).lstrip()
    if "<" in place or ">" in place:
        place = _TAG.sub(" ", place)
    if "$" in place:
        place = _PAIRED.sub(r"\1", place)
    if "^" in place or "_" in place:
        place = _CHARGE.sub(r"\1", _SUBSCRIPT.sub("", place))
    if "*" in place:
        place = _BOLD.sub(r"\1", place)
    return _EMAIL.sub("email", place)


def _without_points(place: str) -> str:
    """A place with its initials joined: "U.S." and "J. K. Rowling"."""
    return _INITIALS.sub(_joined, _DEGREE.sub("PhD", place)) if "." in place else place


def _without_aside(place: str) -> str:
    """A place without a bracket at its end that says nothing new."""
    aside = _ASIDE.search(place) if place.endswith((")", ").")) else None
    return place[: aside.start()] if aside and _explains(aside[1], place[: aside.start()]) else place


def _joined(match: re.Match) -> str:
    return match[0].replace(".", "").replace(" ", "")


def _explains(aside: str, before: str) -> bool:
    """Whether a bracket at the end says nothing new: an abbreviation of what stands before it, or a long remark."""
    words = [word for word in re.findall(r"\w+", before) if word.lower() not in ("of", "the", "and", "for", "in")]
    return len(re.findall(r"[^\W\d]{2,}", aside)) > 2 or (
        len(words) > 1 and aside.upper() == "".join(w[0] for w in words).upper()
    )


def _words(tokens: list[tuple[str, str, str]]) -> list[str]:
    """The words of a place as they are written; numbers without what says nothing."""
    found = []
    for number, word, other in tokens:
        if number:
            found.append(_number(number, first=not found or found[-1].lower() in _ARTICLES))
        else:
            word = (word or other).strip("_")
            if len(word) > 6 and word[-1] == "-":  # no blood group and no ion
                word = word[:-1]
            if word:
                found.append(word)
    while len(found) > 1 and found[0] in ("+", "=", "<", ">") and not found[1][0].isdigit():  # a quote's or list's mark
        del found[0]
    return found


def _number(text: str, first: bool) -> str:
    """A number inside of a phrase, without needless zeros where it comes first: "Python 3.10" keeps its own."""
    text = text.replace(",", "")
    if text.startswith((".", "-.")):
        text = text.replace(".", "0.", 1)
    if first and text.count(".") == 1 and text[-1].isdigit() and "/" not in text:
        text = text.rstrip("0").rstrip(".")
    return text


def _without_articles(words: list[str]) -> list[str]:
    """Words without articles; "A" stays where it is a letter, as in "Vitamin A", "A minor" and "A and B"."""
    last = len(words) - 1
    kept = [word for i, word in enumerate(words) if not (word.lower() in _ARTICLES and _is_article(words, i, last))]
    return kept or words


def _is_article(words: list[str], i: int, last: int) -> bool:
    word, before = words[i], words[i - 1].lower() if i else ""
    if i == last:
        return False
    following = words[i + 1]
    if word.lower() == "a":
        ampere = before[:1].isdigit()
        return not ampere and before not in _BEFORE_A and following.lower() not in _BEHIND_A
    # Two bands; the WHO is no band
    return not (i == 0 and last == 1 and following.lower() in ("who", "the") and following != "WHO")
