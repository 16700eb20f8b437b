"""The word-and-digit tokenizer of the micro models, in the ordinary Hugging Face layout."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rdlib.micro import gsm, lexicon, mmlu

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
GLUE = (
    "Q: A: . ? , : = + - #### has have how many does did there are that belong to some at the end first later of "
    "find number starts ends with means more less same is someone else in what not listed answer by"
).split()


def vocabulary() -> list[str]:
    """Every token, special ones first; `▁` marks the start of a word."""
    words = [*GLUE, *lexicon.NAMES, *lexicon.OBJECTS, *(verb.word for verb in lexicon.verbs())]
    words += [lexicon.EPITHET, *lexicon.EPITHETS, *(sense for senses in lexicon.SENSES.values() for sense in senses)]
    words += [f"({letter})" for letter in mmlu.LETTERS]
    for category, (relations, link) in lexicon.CATEGORIES.items():
        words += [category, link, *relations, *lexicon.entities()[category]]
    words += [value for values in lexicon.VALUES.values() for value in values]
    words += [str(digit) for digit in range(10)]
    tokens = [PAD, EOS, UNK, *("▁" + word for word in words), *(str(digit) for digit in range(10))]
    return list(dict.fromkeys(tokens))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer; digits are single tokens, pad differs from eos, nothing is added by itself."""
    vocab = {token: index for index, token in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNK))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always"),
            pre_tokenizers.Split(Regex("▁?[0-9]"), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, unk_token=UNK, padding_side="left"
    )


# The perturbed problems use the same words, so one vocabulary serves all three benchmarks.
assert set(gsm.MEANING.values()) <= set(GLUE)
