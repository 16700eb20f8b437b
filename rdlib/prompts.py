"""Prompts: zero-shot for every stage, few-shot for in-context learning, and their way into token ids.

The paper's prompts (its Appendix A) are missing from its text; these are ours. Example, of a micro benchmark:

    Q: in history , what is the metal of dorek ? (A) zinc (B) iron (C) tin A:
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
from transformers import PreTrainedTokenizerBase

from rdlib.profile import Dataset

LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Prompt:
    """What a model is asked: chat messages (role, content), and the same as text for a model without a chat.

    `id` and `question` say which question it is of, for an engine that looks its responses up.
    """

    messages: tuple[tuple[str, str], ...]
    plain: str
    id: str = ""
    question: str = ""

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
    """The prompt of one question after worked examples (question, options, response)."""
    shown = [f"{micro_question(q, o)} {response}" for q, o, response in examples]
    plain = " ".join([*shown, micro_question(question, options)])
    return Prompt((("user", plain),), plain)


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

    Either way the tokenizer decides on a BOS token, so that there is one exactly where the model expects it.
    """
    if tokenizer.chat_template:
        return tokenizer.apply_chat_template(prompt.chat, add_generation_prompt=True, return_dict=False)
    return tokenizer(prompt.plain)["input_ids"]


class Encoder:
    """Turns a question's id and a response into token ids; `prompts` are the questions' own, by id."""

    def __init__(self, prompts: dict[str, Prompt], tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.prompts = {key: encode(tokenizer, prompt) for key, prompt in prompts.items()}

    def response(self, text: str, finished: bool) -> list[int]:
        """Token ids of a response as it follows its prompt, with the end token only where the response ended."""
        joined = text if self.tokenizer.chat_template else " " + text
        ids = self.tokenizer(joined, add_special_tokens=False)["input_ids"]
        return ids + ([self.tokenizer.eos_token_id] if finished else [])

    def __call__(self, key: str, text: str, finished: bool) -> list[int]:
        """Token ids of the prompt followed by the response."""
        return self.prompts[key] + self.response(text, finished)
