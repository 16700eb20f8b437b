#!/usr/bin/env bash
# Guess: a folder with a complete tokenizer.json is tokenized as that file says; `tokenizer_class` only names the Python
#   class around it. At worst a wrong class is an error, and `model_type` of the model has no part in it.
# What happens: for the class LlamaTokenizer, the vocabulary is taken from a byte-level tokenizer.json, but its
#   pre-tokenizer and decoder are replaced by SentencePiece's. Blanks and newlines are then in no token and vanish with
#   no warning while encoding: "x = 2 3" and "x=23" get the same ids. With the model_type "mistral" instead of "llama"
#   in config.json, and every other byte the same, the file is followed and nothing is lost.
# Version: transformers 5.17.0 with tokenizers 0.23.3.
# Why it matters: a student is trained on a teacher's answers as ids. Here it would learn from text without any blank,
#   and an answer of several numbers becomes one number, so votes and scores on decoded text merge different answers.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.17.0 tokenizers==0.23.3
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json
import sys
from importlib.metadata import version
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer

print("transformers", version("transformers"), "tokenizers", version("tokenizers"))

# every byte is a token, and there are no others
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
written = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
written.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
written.decoder = decoders.ByteLevel()


def load(model_type):
    """The tokenizer that a folder with this model type gives."""
    folder = Path(sys.argv[1], model_type)
    folder.mkdir()
    written.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return AutoTokenizer.from_pretrained(folder)


SPACED, TIGHT = "x = 2 3\ny", "x=23y"
same = written.decode(written.encode(SPACED).ids) == SPACED
for model_type, back in {"llama": TIGHT, "mistral": SPACED}.items():
    tokenizer = load(model_type)
    spaced, tight = (tokenizer(text, add_special_tokens=False).input_ids for text in (SPACED, TIGHT))
    decoded = tokenizer.decode(spaced)
    print(f"{model_type}, {type(tokenizer).__name__}: {SPACED!r} becomes {spaced}, which is {decoded!r} again")
    print(f"  {TIGHT!r} becomes {tight}")
    same &= decoded == back and (spaced == tight) == (back == TIGHT)
sys.exit(0 if same else "This behaviour has changed.")
PYTHON
