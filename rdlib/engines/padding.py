"""A token to pad with, for tokenizers that have none to spare: never one that ends a response or means something.

Nothing reads padding by its number: masks say where it is. It must only be a row of the embedding, and no token that a
model is taught or sampled with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from transformers import PreTrainedTokenizerBase

from rdlib.errors import UserError

# Tokens that models reserve or never put out, tried in this order
CANDIDATES = ("<|finetune_right_pad_id|>", "<|reserved_special_token_0|>", "<|endoftext|>", "<|im_start|>", "<pad>")
ADDED = "<|pad|>"  # a token of our own, where the embedding has rows that no token uses
NEVER = ("ÿ", "<0xFF>")  # the byte 255, which no text in UTF-8 has: at a byte level, and as sentencepiece writes it


def usable(token: str | None, tokenizer: PreTrainedTokenizerBase, ends: Collection[int], size: int | None) -> bool:
    """Whether a token is there, ends nothing (`ends`) and is a row of an embedding of `size` rows (None: unknown)."""
    number = tokenizer.get_vocab().get(token) if token else None
    return number is not None and number not in ends and (size is None or number < size)


def spare(tokenizer: PreTrainedTokenizerBase, ends: Collection[int], size: int | None, source: str) -> str:
    """The token to pad with; it may be added to the tokenizer. UserError where there is none."""
    for token in _candidates(tokenizer):
        if usable(token, tokenizer, ends, size):
            return token
    if size is not None and len(tokenizer) < size:
        tokenizer.add_special_tokens({"pad_token": ADDED})
        return ADDED
    for token in NEVER:
        if usable(token, tokenizer, ends, size):
            return token
    raise UserError(
        f"The tokenizer of {source} has no pad token and none to spare: name one of its tokens that ends nothing as "
        f"pad_token in its tokenizer_config.json."
    )


def own_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The tokens of a tokenizer and their numbers, without one `ADDED` here."""
    return {token: number for token, number in tokenizer.get_vocab().items() if token != ADDED}


def _candidates(tokenizer: PreTrainedTokenizerBase) -> Iterator[str | None]:
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    yield from (token for token in special if "pad" in token.lower())
    yield from CANDIDATES
    yield from (tokenizer.unk_token, tokenizer.bos_token)
    yield from (token for token in special if any(word in token.lower() for word in ("reserved", "unused", "extra")))
