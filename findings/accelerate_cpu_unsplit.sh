#!/usr/bin/env bash
# Guess: a configuration of accelerate that asks for FSDP2 over two processes splits the model over them. `use_cpu` only
#   chooses the device, and what cannot be split there is refused. PyTorch's own FSDP2 splits a model on CPUs.
# What happens: accelerate launch starts two processes, but without a GPU each takes itself for the only one:
#   num_processes is 1, both are the main process, and both hold the whole model. With Accelerator(cpu=True) the two
#   know of each other, and each holds a whole copy of the model and of its optimizer. No message names FSDP.
# Version: accelerate 1.15.0 with torch 2.13.0.
# Why it matters: a rehearsal of sharded training on a machine without GPUs passes without any sharding. Its checkpoints
#   and its memory are not the real ones. In the first case two main processes also write to the same files.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check accelerate==1.15.0 torch==2.13.0 numpy==2.4.6
cat >"$folder/split.yaml" <<'YAML'
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
use_cpu: true
num_machines: 1
num_processes: 2
main_process_port: 0
mixed_precision: "no"
fsdp_config:
  fsdp_version: 2
  fsdp_auto_wrap_policy: NO_WRAP
  fsdp_reshard_after_forward: true
YAML
cat >"$folder/split.py" <<'PYTHON'
import os
import sys
from importlib.metadata import version

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

WIDTH, LAYERS, PROCESSES = 64, 4, 2
WHOLE = LAYERS * WIDTH * (WIDTH + 1)


def make_model():
    """A small stack of layers."""
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)))


def held(model, optimizer):
    """Numbers of the weights and of their first moments that this process holds after a step."""
    model(torch.ones(2, WIDTH)).sum().backward()
    optimizer.step()
    moments = [state["exp_avg"] for state in optimizer.state_dict()["state"].values()]
    return tuple(sum(getattr(t, "_local_tensor", t).numel() for t in of) for of in (model.parameters(), moments))


on_cpu = sys.argv[1] == "cpu"
accelerator = Accelerator(cpu=on_cpu)
model = make_model()
ours = held(*accelerator.prepare(model, torch.optim.AdamW(model.parameters())))
asked = {name: os.environ.get(name) for name in ("ACCELERATE_USE_FSDP", "WORLD_SIZE")}
lines = [f"process {os.environ['RANK']}, accelerate {version('accelerate')}, torch {version('torch')}, cpu={on_cpu}"]
lines += [f"  {asked}; num_processes {accelerator.num_processes}, main process: {accelerator.is_main_process}"]
lines += [f"  holds of {WHOLE} weights and as many moments: {ours}"]
same = asked == {"ACCELERATE_USE_FSDP": "true", "WORLD_SIZE": str(PROCESSES)} and ours == (WHOLE, WHOLE)
if on_cpu:
    model = make_model()
    fully_shard(model, mesh=init_device_mesh("cpu", (PROCESSES,)))
    by_torch = held(model, torch.optim.AdamW(model.parameters()))
    lines += [f"  and of a model split by torch itself: {by_torch}"]
    same &= accelerator.num_processes == PROCESSES and by_torch == (WHOLE // PROCESSES, WHOLE // PROCESSES)
else:
    same &= accelerator.num_processes == 1 and accelerator.is_main_process
print("\n".join(lines), flush=True)
accelerator.end_training()
sys.exit(0 if same else "This behaviour has changed.")
PYTHON
export OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES= # a machine without GPUs
for way in file cpu; do
    "$folder/venv/bin/accelerate" launch --config_file "$folder/split.yaml" "$folder/split.py" "$way" 2>"$folder/log" ||
        { grep -v '^ ' "$folder/log" | head -n 5 >&2; exit 1; }
    if grep -i -e fsdp -e shard "$folder/log"; then
        echo "A message now names it." >&2
        exit 1
    fi
done
