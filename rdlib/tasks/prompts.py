"""Prompts: zero-shot for every stage, few-shot for in-context learning, and their way into token ids.

The paper's prompts (its Appendix A) are missing from its text; these are ours. They ask for the form that
`rdlib.tasks.answers` reads first and that the benchmarks' own solutions end in: "#### 12" after GSM8K's, "The answer is
(C)." after MMLU-Pro's. Examples, of a micro benchmark and of a real one to a model without a chat template:

    Q: in history , what is the metal of dorek ? (A) zinc (B) iron (C) tin A:

    Answer each question. Think step by step. Finish with the sentence "The answer is (X).", ...

    Question: Which of these is a metal?
    (A) chalk
    (B) zinc
    Answer:
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

from rdlib.settings import Dataset
from rdlib.tasks import templates
from rdlib.tasks.questions import LETTERS
from rdlib.tasks.spoken import opened_by, thought_end
from rdlib.tasks.templates import tokens_of

if TYPE_CHECKING:  # a notebook imports this module before it sets the environment up that transformers reads
    from transformers import PreTrainedTokenizerBase

INSTRUCTIONS = {
    "math": 'Think step by step. Finish with a line of its own: "#### " and then the final answer as a number alone.',
    "choice": 'Think step by step. Finish with the sentence "The answer is (X).", where X is the letter of one option.',
    "phrase": 'Think step by step. Finish with a line of its own: "#### " and then the final answer in a few words.',
    "expression": 'Think step by step. Finish with a line of its own: "#### " and then the final answer in LaTeX.',
}
# How a base model, which knows no end of a turn, continues after its answer: with a question of its own, whose answer
# would be taken for the final one. The micro models have no such strings: they were taught to end.
STOP = ("\nQuestion:", "\nQ:", "\nAnswer each question.")


@dataclass(frozen=True)
class Prompt:
    """What a model is asked: chat messages (role, content), and the same as text for a model without a chat.

    `id` and `question` say which question it is of, for an engine that looks its responses up. `stop` are the strings
    that end a response to the plain text; `options` says how many letters an answer may be, `option_texts` the
    texts of these letters where the question has options.
    """

    messages: tuple[tuple[str, str], ...]
    plain: str
    id: str = ""
    question: str = ""
    stop: tuple[str, ...] = ()
    options: int = len(LETTERS)
    option_texts: tuple[str, ...] = ()

    @property
    def choices(self) -> int | tuple[str, ...]:
        """What `answers.find` needs to know of the options: their texts, or how many there are where none are known."""
        return self.option_texts or self.options

    @property
    def chat(self) -> list[dict[str, str]]:
        """The messages as chat templates and servers take them."""
        return [{"role": role, "content": content} for role, content in self.messages]


def zero_shot(settings: Dataset, question: str, options: Sequence[str] = ()) -> Prompt:
    """The prompt of one question; options are lettered from A."""
    return few_shot(settings, [], question, options)


def few_shot(
    settings: Dataset,
    examples: Sequence[tuple[str, Sequence[str], str]],
    question: str,
    options: Sequence[str] = (),
) -> Prompt:
    """The prompt of one question after worked examples (question, options, response).

    The kind of answer chooses its style. In a chat each example is a turn of the user and one of the assistant.
    """
    if settings.answer not in INSTRUCTIONS:
        shown = [f"{micro_question(q, o)} {response}" for q, o, response in examples]
        plain = " ".join([*shown, micro_question(question, options)])
        return Prompt((("user", plain),), plain, options=len(options) or len(LETTERS), option_texts=tuple(options))
    turns = []
    for asked, choices, response in examples:
        turns += [("user", put(settings, asked, choices)), ("assistant", response)]
    turns.append(("user", put(settings, question, options)))
    plain = _plain(settings, examples, question, options)
    told = {"options": len(options) or len(LETTERS), "option_texts": tuple(options)}
    return Prompt(tuple(turns), plain, stop=STOP, **told)


def instruction_of(settings: Dataset) -> str:
    """The instruction to a model on how to answer."""
    language = f" Write your response in {settings.prompt.language}." if settings.prompt.language else ""
    return INSTRUCTIONS[settings.answer] + language


def put(settings: Dataset, question: str, options: Sequence[str]) -> str:
    """A question as a user puts it: by the dataset's template, or followed by the instruction."""
    template, instruction = settings.prompt.template, instruction_of(settings)
    if template is None:
        return f"{listed(question, options)}\n\n{instruction}"
    values = {"question": question, "options": "\n".join(lettered(options)), "instruction": instruction}
    return re.sub(r"\{(question|options|instruction)\}", lambda match: values[match[1]], template)


def _plain(
    settings: Dataset,
    examples: Sequence[tuple[str, Sequence[str], str]],
    question: str,
    options: Sequence[str],
) -> str:
    """The prompt as text for a model without a chat."""
    if settings.prompt.template is not None:
        shown = [f"{put(settings, asked, choices)} {response}" for asked, choices, response in examples]
        return "\n\n".join([*shown, put(settings, question, options)])
    shown = [f"Question: {listed(q, o)}\nAnswer: {response}" for q, o, response in examples]
    first = f"Answer each question. {instruction_of(settings)}"
    return "\n\n".join([first, *shown, f"Question: {listed(question, options)}\nAnswer:"])


def lettered(options: Sequence[str]) -> list[str]:
    """Options, a line each, lettered from A."""
    return [f"({letter}) {value}" for letter, value in zip(LETTERS, options, strict=False)]


def listed(question: str, options: Sequence[str]) -> str:
    """A question with its options below it, a line each, lettered from A."""
    return "\n".join([question, *lettered(options)])


def micro_question(question: str, options: Sequence[str]) -> str:
    """A question as the micro models were trained on it."""
    lettered = "".join(f" ({letter}) {value}" for letter, value in zip(LETTERS, options, strict=False))
    return f"Q: {question}{lettered} A:"


def of_questions(
    settings: Dataset, questions: pd.DataFrame, examples: Sequence[tuple[str, Sequence[str], str]] = ()
) -> dict[str, Prompt]:
    """The prompt of each question of a table, by id."""
    return {
        q.id: replace(few_shot(settings, examples, q.question, q.options), id=str(q.id), question=q.question)
        for q in questions.itertuples()
    }


def encode(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Token ids of a prompt: through the chat template where the tokenizer has one, else as plain text.

    A BOS token is there exactly if the template writes it or, for plain text, the tokenizer adds it; never an end
    token or separator, which some tokenizers add to any text. UserError when the template refuses the messages.
    """
    if tokenizer.chat_template:
        ids, header = render(tokenizer, prompt.chat, add_generation_prompt=True), templates.turn_of(tokenizer).header
        return ids + tokenizer(header, add_special_tokens=False)["input_ids"] if header else ids
    ids, ends = tokens_of(tokenizer, prompt.plain), {*tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    return ids[:-1] if len(ids) > 1 and ids[-1] in ends else ids


def stops(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> tuple[str, ...]:
    """The strings that end a response to what `encode` makes of a prompt: none in a chat, which has turns."""
    return () if tokenizer.chat_template else prompt.stop


def opening(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """What a prompt's tokens say of the response already: "<think>" where the chat template opens the thinking.

    It belongs to the response's text: without it, thinking that was cut off would look like an answer.
    """
    mark = opened_by(tokenizer.decode(ids[-24:])) if tokenizer.chat_template else ""
    return f"{mark}\n" if mark else ""


def said(tokenizer: PreTrainedTokenizerBase, tokens: list[int], finished: bool) -> str:
    """The text of a response's tokens, without control tokens, a character that was cut off, or the mark of a channel.

    That mark is what the template writes before an answer in control tokens, of which their text alone would be left.
    """
    hidden = tokenizer.chat_template and tokens and not tokenizer.decode(tokens[:1], skip_special_tokens=True)
    lead = templates.lead_tokens(tokenizer) if hidden else []
    if lead and tokens[: len(lead)] == lead:
        tokens = tokens[len(lead) :]
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    return text if finished else text.rstrip("\ufffd")


def render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], **options: bool) -> list[int]:
    """Token ids of chat messages by the tokenizer's template; UserError when it refuses them."""
    return templates.rendered_tokens(tokenizer, messages, **options)


def joint(tokenizer: PreTrainedTokenizerBase) -> str:
    """What stands between a prompt and its response, so that their tokens are those of the whole text.

    After a chat's prompt most templates put nothing, some a space, a line or an empty thought; after plain text it is a
    space, which tokenizers with a prefix space of their own already put.
    """
    if tokenizer.chat_template:
        return templates.turn_of(tokenizer).lead
    question, answer = templates.PROBE
    start, whole = encode(tokenizer, Prompt((), question)), tokenizer(f"{question} {answer}")["input_ids"]
    turn = whole[len(start) :] if whole[: len(start)] == start else []
    for lead in (" ", ""):
        ids = tokenizer(lead + answer, add_special_tokens=False)["input_ids"]
        if turn[: len(ids)] == ids:
            return lead
    return " "


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The special token that a chat template writes after a response; None without a template or such a token.

    Some tokenizers name another one their end token: that of a base model, or of a careless conversion.
    """
    return templates.turn_of(tokenizer).end if tokenizer.chat_template else None


class Encoder:
    """Turns a question's id and a response into token ids; `prompts` are the questions' own, by id."""

    def __init__(self, prompts: dict[str, Prompt], tokenizer: PreTrainedTokenizerBase):
        self.tokenizer, self.joint = tokenizer, joint(tokenizer)
        self.anchor = templates.anchor_of(tokenizer) if tokenizer.chat_template else ""
        self.prompts = {key: encode(tokenizer, prompt) for key, prompt in prompts.items()}
        self.opening = opening(tokenizer, next(iter(self.prompts.values()), []))

    def response(self, text: str, finished: bool) -> list[int]:
        """Token ids of a response as it follows its prompt, with the end token only where the response ended.

        One that does not think follows the template's closed or empty thought; what it says after a leaked mark of
        its end is left out.
        """
        text, leaked = templates.own_words(text)
        ids = self._tokens(*self._lead(text))
        return ids + ([self.tokenizer.eos_token_id] if finished or leaked else [])

    def _tokens(self, lead: str, text: str) -> list[int]:
        """Token ids of lead and text as they are after the prompt."""
        if self.anchor:
            start = self.tokenizer(self.anchor, add_special_tokens=False)["input_ids"]
            ids = tokens_of(self.tokenizer, text, self.anchor + lead, add_special_tokens=False)
            if ids[: len(start)] == start:
                return ids[len(start) :]
        return tokens_of(self.tokenizer, text, lead, add_special_tokens=False)

    def _lead(self, text: str) -> tuple[str, str]:
        """What stands before a response, and the response without what the lead or the prompt says already."""
        thinks = bool(self.opening and text.startswith(self.opening)) or thought_end(text) > 0
        text = text.removeprefix(self.opening) if self.opening else text
        lead, mark = self.joint, self.joint.strip()
        if not mark:
            return lead, text
        if text.lstrip().startswith(mark):  # an empty thought, which the engines strip, as the template writes it
            return lead, text.lstrip().removeprefix(mark).lstrip()
        return ("", text) if thinks else (lead, text)

    def __call__(self, key: str, text: str, finished: bool) -> list[int]:
        """Token ids of the prompt followed by the response."""
        return self.prompts[key] + self.response(text, finished)
