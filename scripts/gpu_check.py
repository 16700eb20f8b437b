"""What this project does on a GPU, measured in at most eight minutes without a download: `make check KIND=gpu`.

    python3 scripts/gpu_check.py                              # on a card; any releases that work together
    python3 scripts/gpu_check.py --device cpu --scale tiny    # the same path on a CPU, shapes cut, a minute

SFT, reward model and PPO of models in the shapes of Qwen2.5-0.5B and Llama-3.2-1B with random weights, in float32 with
autocast and in bfloat16 with LoRA, by SDPA and by flash attention; rollouts by vLLM, which sleeps and wakes; and checks
of what a GPU might do otherwise than a CPU. Each row has the measured memory, time and share of the card's peak beside
what the dry run says. What is not installed (vllm, flash_attn) is a row that says so.

A machine that has only a copy of the working tree needs torch with CUDA, and transformers, trl, peft, accelerate,
datasets, pydantic, pandas, pyarrow, pyyaml, safetensors, psutil, httpx, sympy and tqdm beside it, in whatever releases
work together; what is missing is said before anything runs. Rows are written one by one, to a file
gpu_check_<card>.json in $OUT, or in bench/results; an interrupted run keeps them. Put into bench/results, it fills
docs/memory.md and docs/speed.md by `make docs`; a CPU's result goes to runs/ and never into a document.

The exit status is 1 where a row failed, and 0 where rows were not reached, do not fit or want what is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
NEEDED = (
    "torch transformers trl peft accelerate datasets pydantic pandas pyarrow yaml safetensors psutil httpx sympy tqdm"
).split()
# Read by what is imported next: no hub, no bars, torch's own numerics, and a look at the card that leaves forks able
# to use it
SURROUNDINGS = {
    "RDLIB_NUMERICS": "native",
    "HF_HUB_OFFLINE": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
FACTS_SECONDS = 120.0


def missing() -> str | None:
    """What must be installed before anything can run, in a sentence; None where all is there."""
    if sys.version_info < (3, 11):  # noqa: UP036 (nothing has looked at it on a bare machine)
        return f"This needs Python 3.11 or newer, and here is {sys.version.split()[0]}."
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    return f"Missing here: {', '.join(absent)}. Install them, and run this again." if absent else None


def options(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="gpu_check.py", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="the most that all may take (default: 8)")
    parser.add_argument("--out", type=Path, help="the result file, or its folder (default: $OUT, or bench/results)")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--scale", choices=("full", "tiny"), help="default: full on a card, tiny on a CPU")
    parser.add_argument("--only", nargs="+", metavar="KIND", help="some of sft, reward_model, ppo, vllm, checks")
    return parser.parse_args(arguments)


def place(out: Path | None, card: dict[str, Any]) -> Path:
    """The result file."""
    usual = Path(os.environ["OUT"]) if os.environ.get("OUT") else ROOT / "bench" / "results"
    folder = out or (usual if card["kind"] == "cuda" else ROOT / "runs")
    name = re.sub(r"[^a-z0-9]+", "_", card["name"].lower()).strip("_")
    return folder if folder.suffix == ".json" else folder / f"gpu_check_{name}.json"


def the_card(asked: str, folder: Path) -> tuple[dict[str, Any], str]:
    """The device, and how processes that can use it are started; exits where the one asked for is not there."""
    from scripts import gpu_plan

    seems = Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None
    for method in ("fork", "spawn"):
        try:
            (card,) = gpu_plan.in_a_process(gpu_plan.facts_of, None, folder, FACTS_SECONDS, method)
        except (RuntimeError, TimeoutError) as error:
            if method == "spawn":
                sys.exit(f"error: the device cannot be measured: {error}.")
            continue
        if card["kind"] == "cuda" or asked == "cpu" or not seems:
            break
    if asked == "cuda" and card["kind"] != "cuda":
        sys.exit(
            "error: torch sees no CUDA device here: install a build of torch for the driver, or take --device cpu."
        )
    return card, method


def provenance(given: argparse.Namespace, card: dict[str, Any], scale: str) -> dict[str, Any]:
    """Where the numbers come from: command, card, versions, commit."""
    from rdlib import artifacts

    made = artifacts.environment()
    optional = {name for name in ("peft", "vllm", "flash_attn") if importlib.util.find_spec(name) is not None}
    packages = made["packages"] | {name: metadata.version(name) for name in sorted(optional)}
    command = "python3 scripts/gpu_check.py" + (f" --minutes {given.minutes:g}" if given.minutes != 8 else "")
    kept = {name: made[name] for name in ("commit", "dirty", "python", "machine")}
    return {"command": command, "started": artifacts.now(), "scale": scale, "card": card, "packages": packages} | kept


def run(given: argparse.Namespace, folder: Path) -> int:
    """Measure all that there is time for, and write a row as soon as it is there; the exit status."""
    from rdlib import artifacts
    from scripts import gpu_plan

    end = time.monotonic() + 60 * given.minutes
    card, method = the_card(given.device, folder)
    scale = given.scale or ("full" if card["kind"] == "cuda" else "tiny")
    path, rows = place(given.out, card), []
    content = provenance(given, card, scale) | {"rows": rows}
    print(f"{card['name']}: {card['measured_tflops']:.3g} TFLOP/s measured. Rows go to {path.name}.", flush=True)
    for work in gpu_plan.works(scale, folder, card, given.only):
        for row in gpu_plan.measure(work, end, method):
            rows.append(row)
            artifacts.write_json(path, content)
            print(line(row), flush=True)
    return int(any(row["status"] == gpu_plan.FAILED for row in rows))


def line(row: dict[str, Any]) -> str:
    """A row as a line of text."""
    where = f"{row['model']}, {row['numbers']}, {row['attention']}, {row['row']}"
    if "seconds" in row:
        times = f"{row['seconds']:.3g} s (predicted {row['predicted_seconds']:.3g})"
        memory = f"{row['memory_gib']:.3g} GiB (predicted {row['predicted_gib']:.3g})"
        return f"{where}: {times}, {memory}, {100 * row['share_of_peak']:.1f} % of the peak"
    found = f"{row['value']:.3g}, at most {row['at_most']:g}" if "value" in row else row.get("settings", "")
    return f"{where}: {row['status']}. {row.get('error') or found}"


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    given = options(arguments)
    if said := missing():
        print(f"error: {said}", file=sys.stderr)
        return 1
    os.environ.update({name: os.environ.get(name, value) for name, value in SURROUNDINGS.items()})
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]  # of several, transformers' Trainer would use all
    os.environ["CUDA_VISIBLE_DEVICES"] = "" if given.device == "cpu" else first
    with tempfile.TemporaryDirectory(prefix="gpu_check") as folder:
        return run(given, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
