"""Chat templates and control tokens: what a tokenizer makes of messages and of texts, the same on every day.

    turn_of(tokenizer)      # Turn(lead="", end="<|im_end|>") by ChatML

A text never becomes a control token: "<|im_end|>" in a question is six ordinary tokens, as is a teacher's leaked one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakKeyDictionary

from rdlib.errors import UserError
from rdlib.tasks.spoken import closing_of, opened_by, spoken, thought_end

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")
Messages = list[dict[str, str]]

# What a template gets that asks for today's date: Llama 3's own default, so that every day has the same prompts
TODAY = datetime(2024, 7, 26)
PROBE = ("Is it 2?", "Yes, it is 2.")
PLANT = 0xF0000  # first private character of Unicode's plane 15: stands for a control token while a template is filled


def kept_with_tokenizer(function: Callable[[PreTrainedTokenizerBase], T]) -> Callable[[PreTrainedTokenizerBase], T]:
    """Computes a function of a tokenizer once, and again where its template or its tokens changed."""
    kept: WeakKeyDictionary = WeakKeyDictionary()

    @wraps(function)
    def of(tokenizer: PreTrainedTokenizerBase) -> T:
        """The function's value, computed again where the tokenizer's state changed."""
        state = (tokenizer.chat_template, tokenizer.eos_token, tokenizer.pad_token, len(tokenizer))
        found = kept.get(tokenizer)
        if found is None or found[0] != state:
            found = kept[tokenizer] = (state, function(tokenizer))
        return found[1]

    return of


# ---- texts


@kept_with_tokenizer
def control_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern | None:
    """A pattern of the special tokens as they are written; without marks of thinking, which responses hold."""
    added = tokenizer.added_tokens_decoder.values()
    names = {str(token) for token in added if token.special or re.fullmatch(r"<\|.+\|>", str(token))}
    names |= set(tokenizer.all_special_tokens)
    names = {name for name in names if name and thought_end(name) == 0}
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if names else None


def tokens_of(tokenizer: PreTrainedTokenizerBase, text: str, lead: str = "", **options: bool) -> list[int]:
    """Token ids of a text, in which what is written like a control token is ordinary text, but for the `lead`."""
    pattern = control_tokens(tokenizer)
    if pattern is None or not (found := pattern.findall(text)):
        return tokenizer(lead + text, **options)["input_ids"]
    if pattern.search(lead):
        before = tokenizer(lead, **options)["input_ids"]
        return before + tokens_of(tokenizer, text, add_special_tokens=False)
    text = lead + text
    ids = tokenizer(text, split_special_tokens=True, **options)["input_ids"]
    if not {tokenizer.convert_tokens_to_ids(name) for name in found} & set(ids):
        return ids
    return _spelled(tokenizer, text, pattern, **options)  # tokens that are not marked as special are never split


def _spelled(tokenizer: PreTrainedTokenizerBase, text: str, pattern: re.Pattern, **options: bool) -> list[int]:
    """Token ids of a text, each control token's first character by itself."""
    broken = pattern.sub(lambda match: f"{match[0][0]}{chr(PLANT)}{match[0][1:]}", text)
    first, *others = broken.split(chr(PLANT))
    ids = tokenizer(first, **options)["input_ids"]
    for part in others:
        ids = ids + tokenizer(part, add_special_tokens=False)["input_ids"]
    return ids


def own_words(text: str) -> tuple[str, bool]:
    """A response up to the mark of its turn's end that leaked into its text, and whether there was one."""
    start = thought_end(text)
    rest = text[start:]
    if "<" not in rest:
        return text, False
    said, bare = spoken(rest), rest.lstrip()
    if not bare.startswith(said) or len(said) == len(bare):
        return text, False
    return (text[:start] + rest[: len(rest) - len(bare)] + said).rstrip(), True


# ---- templates


def rendered(tokenizer: PreTrainedTokenizerBase, messages: Messages, **options: bool) -> str:
    """Chat messages as the template writes them; UserError when it refuses them."""
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, strftime_now=TODAY.strftime, **options)
    except Exception as error:  # a template is a program of its own: it raises what it likes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"The chat template of {tokenizer.name_or_path or 'the tokenizer'} refuses user and assistant turns "
            f"({reason}): correct its chat_template, or remove it and the model is asked in plain text."
        ) from None


def rendered_tokens(tokenizer: PreTrainedTokenizerBase, messages: Messages, **options: bool) -> list[int]:
    """Token ids of chat messages, whose control tokens are the template's own; UserError when it refuses them."""
    pattern, written = control_tokens(tokenizer), []

    def plant(match: re.Match) -> str:
        """A character that stands for a control token written in a text."""
        written.append(match[0])
        return chr(PLANT + len(written) - 1)

    if pattern is not None:
        messages = [m | {"content": pattern.sub(plant, m["content"])} for m in messages]
    text = rendered(tokenizer, messages, **options)
    if not written:
        return tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = []
    for part in re.split(f"([{chr(PLANT)}-{chr(PLANT + len(written) - 1)}])", text):
        number = ord(part) - PLANT if len(part) == 1 else -1
        if 0 <= number < len(written):
            ids += tokens_of(tokenizer, written[number], add_special_tokens=False)
        elif part:
            ids += tokenizer(part, add_special_tokens=False)["input_ids"]
    return ids


@dataclass(frozen=True)
class Turn:
    """How a chat template writes an answer: `lead` between the prompt and its text, `end` the token after it.

    A lead closes the thinking that the prompt opened, or holds an empty thought or the mark of a channel. A `header` of
    the answer belongs to the prompt, where the template adds none when it is asked to.
    """

    lead: str
    end: str | None
    header: str = ""


@kept_with_tokenizer
def turn_of(tokenizer: PreTrainedTokenizerBase) -> Turn:
    """The turn of a tokenizer with a chat template; UserError where the template refuses one."""
    question, answer = PROBE
    asked = [{"role": "user", "content": question}]
    prompt = rendered(tokenizer, asked, add_generation_prompt=True)
    before, _, behind = rendered(tokenizer, [*asked, {"role": "assistant", "content": answer}]).rpartition(answer)
    lead = before.removeprefix(prompt) if before.startswith(prompt) else ""
    if not lead.strip() and (mark := opened_by(prompt)):
        lead = f"{closing_of(mark)}\n\n"  # of thinking that the template opens and never shows closed
    bare = prompt == rendered(tokenizer, asked) and control_tokens(tokenizer) and control_tokens(tokenizer).search(lead)
    header, lead = (lead, "") if bare else ("", lead)
    first = tokenizer(behind.lstrip(), add_special_tokens=False)["input_ids"][:1] if behind.strip() else []
    added = tokenizer.added_tokens_decoder
    ends = bool(first) and first[0] in added and control_tokens(tokenizer).fullmatch(str(added[first[0]]))
    return Turn(lead, str(added[first[0]]) if ends else None, header)


@kept_with_tokenizer
def anchor_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """The end of a chat's prompt, from its last control token on, if an answer has other tokens after it than alone.

    Tokenizers in the manner of sentencepiece put a space before any text: alone, "Yes" is "▁Yes". "" of all others.
    """
    question, answer = PROBE
    prompt = rendered(tokenizer, [{"role": "user", "content": question}], add_generation_prompt=True)
    turn, pattern = turn_of(tokenizer), control_tokens(tokenizer)
    end = (prompt + turn.header).rpartition(question)[2]
    marks = list(pattern.finditer(end)) if pattern else []
    anchor = end[marks[-1].start() :] if marks else end
    behind, start, alone = (
        tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in (anchor + turn.lead + answer, anchor, turn.lead + answer)
    )
    return "" if behind == start + alone else anchor


@kept_with_tokenizer
def lead_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a turn's lead, where it holds control tokens."""
    lead, pattern = turn_of(tokenizer).lead, control_tokens(tokenizer)
    return tokenizer(lead, add_special_tokens=False)["input_ids"] if pattern and pattern.search(lead) else []
