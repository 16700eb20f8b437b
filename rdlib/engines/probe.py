"""What a tokenizer must do before anything is computed with it, tried on a question and an answer when it is loaded.

A text comes back from its tokens; question and answer come through the chat template, the same in every call; and every
token of them has a row in the model's embedding.
"""

from __future__ import annotations

import json
import re

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import cached_file

from rdlib.errors import UserError
from rdlib.settings import Model
from rdlib.tasks import prompts, templates
from rdlib.tasks.spoken import thought_end

TEXT = "What is 7 * 6? Yes, it is 42.\n#### 42"
CALLS = 4  # of a template, which may draw at random
ASKED = (
    {"role": "user", "content": 'Is "7 * 6" < 50 & > 40?\nYes or no?'},  # signs that a template might escape
    {"role": "assistant", "content": "Yes, it is 42.\n#### 42"},
)
NEXT = {"role": "user", "content": "Is zinc a metal?"}


# ---- texts


def survives(tokenizer: PreTrainedTokenizerBase, text: str = TEXT) -> bool:
    """Whether a text comes back from its tokens: every word, and the space between any two.

    Case and further spaces may differ. A vocabulary that lacks some of these words must show spaces between others.
    """
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    back = tokenizer.decode(ids, skip_special_tokens=False)
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        return len(back.split()) > 1
    words = (r"\s*".join(map(re.escape, word)) for word in text.split())
    return re.fullmatch(r"\s*" + r"\s+".join(words) + r"\s*", back, re.IGNORECASE) is not None


def as_in_its_file(tokenizer: PreTrainedTokenizerBase, source: str, revision: str | None) -> PreTrainedTokenizerBase:
    """The tokenizer of tokenizer.json, where transformers makes another of it by the class that its settings name.

    UserError where a text does not survive it. (transformers 5 rebuilds LlamaTokenizer, for sentencepiece.)
    """
    if type(tokenizer) is not PreTrainedTokenizerFast and _differs(tokenizer, source, revision):
        filed = PreTrainedTokenizerFast.from_pretrained(source, revision=revision, padding_side="left")
        if survives(filed):
            if get_tokenizer_config(source, revision=revision).get("add_bos_token") and filed.bos_token_id is not None:
                filed.add_bos_token = True  # which its class would have heeded
            tokenizer = filed
    if not survives(tokenizer):
        back = tokenizer.decode(tokenizer(TEXT, add_special_tokens=False)["input_ids"])
        raise UserError(
            f"The tokenizer of {source} loses parts of a text ({TEXT[:14]!r} comes back as {back[:14]!r}): correct "
            f"tokenizer_class in its tokenizer_config.json, or its tokenizer.json."
        )
    return tokenizer


def _differs(tokenizer: PreTrainedTokenizerBase, source: str, revision: str | None) -> bool:
    """Whether a tokenizer gives other ids than its tokenizer.json, where there is one."""
    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    path = cached_file(source, "tokenizer.json", revision=revision, **quiet)
    if path is None:
        return False
    try:
        filed = Tokenizer.from_file(path).encode(TEXT, add_special_tokens=False).ids
        return filed != tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    except Exception:  # of the tokenizers library, which has no class of its own for what it cannot read or encode
        return True


def show_thinking(tokenizer: PreTrainedTokenizerBase) -> None:
    """Have marks of thinking stay in decoded texts, also where a tokenizer calls them special.

    Without them, what was thought would be read as the answer.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    marks = [token for token in state["added_tokens"] if token["special"] and thought_end(token["content"])]
    if marks:
        for token in marks:
            token["special"] = False
        tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))


# ---- templates


def check(tokenizer: PreTrainedTokenizerBase, size: int | None, source: str) -> None:
    """UserError where the chat template or the embedding, of `size` rows (None: unknown), does not fit."""
    ids = tokenizer(TEXT)["input_ids"]
    if tokenizer.chat_template:
        _check_template(tokenizer, source)
        ids = ids + prompts.render(tokenizer, list(ASKED))
    if size is not None:
        _check_rows(tokenizer, ids, size, source)


def _check_template(tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    for messages in ([ASKED[0]], list(ASKED), [*ASKED, NEXT]):
        asks = messages[-1]["role"] == "user"
        try:
            texts = {templates.rendered(tokenizer, messages, add_generation_prompt=asks) for _ in range(CALLS)}
        except UserError:
            if len(messages) > len(ASKED):  # examples before a question, which not every study asks with
                return
            raise
        if len(texts) > 1:
            raise UserError(
                f"The chat template of {source} gives the same question different prompts: take what is drawn at "
                f"random out of its chat_template."
            )
        lost = [m["role"] for m in messages if _squeezed(m["content"]) not in _squeezed(*texts)]
        if lost:
            raise UserError(
                f"The chat template of {source} drops what the {lost[0]} says: give it a chat_template that takes a "
                f"message's content as a text, or remove it and the model is asked in plain text."
            )


def check_examples(tokenizer: PreTrainedTokenizerBase) -> None:
    """UserError where the chat template refuses worked examples before a question, as in-context learning has them."""
    if tokenizer.chat_template:
        templates.rendered(tokenizer, [*ASKED, NEXT], add_generation_prompt=True)


def _squeezed(text: str) -> str:
    return "".join(text.split()).casefold()


def _check_rows(tokenizer: PreTrainedTokenizerBase, ids: list[int], size: int, source: str) -> None:
    """UserError where a token that a text can hold is beyond the embedding."""
    if len(tokenizer) > size:
        special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        ids = ids + [number for token, number in tokenizer.get_vocab().items() if token not in special]
    beyond = [number for number in (*ids, tokenizer.eos_token_id, tokenizer.pad_token_id) if number >= size]
    if beyond:
        token = tokenizer.convert_ids_to_tokens(beyond[0])
        raise UserError(
            f"The tokenizer of {source} has the token {token!r} (number {beyond[0]}), but the model's embedding has "
            f"{size} rows: resize the model's embedding, or take the tokenizer that it was trained with."
        )


# ---- settings of a profile


def set_options(tokenizer: PreTrainedTokenizerBase, model: Model) -> None:
    """Write a model's `chat_template_kwargs` into its template, with which a trained student is saved.

    UserError for one that the template does not read.
    """
    template = tokenizer.chat_template
    for name in model.chat_template_kwargs:
        if not isinstance(template, str) or not re.search(rf"\b{re.escape(name)}\b", template):
            raise UserError(
                f"chat_template_kwargs sets {name}, which the chat template of {model.model} does not read: check the "
                f"name, or take it out of the profile."
            )
    lines = [f"{{%- set {name} = {json.dumps(value)} %}}" for name, value in model.chat_template_kwargs.items()]
    if lines:
        tokenizer.chat_template = "".join(lines) + template
