"""vLLM's OpenAI-compatible server on this machine, for the tests."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

COMMON = ("--dtype", "float32", "--kv-cache-memory-bytes", str(2**30), "--enforce-eager", "--no-enable-chunked-prefill")
SECONDS_TO_START = 300


@contextlib.contextmanager
def running(model: str, folder: Path, *options: str, **environment: str) -> Iterator[str]:
    """The address of a server of a model, until the end of the context; its log is in the folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--host", "127.0.0.1"]
    environment = {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"} | environment
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port), *COMMON, *options],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | environment,
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def policy_server(model: str, folder: Path, *options: str) -> contextlib.AbstractContextManager[str]:
    """A server as docs/rollouts.md says to start it, with the shape of a model and made-up weights."""
    shape = ("--load-format", "dummy", "--hf-overrides", '{"tie_word_embeddings": false}')
    return running(model, folder, *shape, "--logprobs-mode", "processed_logprobs", *options, VLLM_SERVER_DEV_MODE="1")


def _wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    """Wait until the server answers; its last lines when it ended instead."""
    for _ in range(SECONDS_TO_START):
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            if httpx.get(address).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(1)
    pytest.fail(log.read_text()[-3000:])
