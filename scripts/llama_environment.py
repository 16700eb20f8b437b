"""Build `.venv-llama`, where a llama.cpp server runs (scripts/llama_server.py), unless it is there and up to date.

PyPI's `xllamacpp` has llama.cpp's own server as a CPU wheel of 34 MB, which needs nothing else.
"""

import apart

XLLAMACPP = "xllamacpp==2026.10.11549"

if __name__ == "__main__":
    apart.bring_up(".venv-llama", [XLLAMACPP])
