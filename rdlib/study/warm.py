"""`python -m rdlib execute`: run one notebook by papermill; in a study in a fork of a warm process.

Imports cost a notebook about ten seconds of a core, often twice the time that it computes. A study therefore keeps one
server (`server`) that has imported everything. The command asks it to run the notebook in a fork, whose kernel is a
fork again (`rdlib.study.execute`). A fork computes what a new process would. Without a server the command runs the
notebook in its own process.

A job that a cluster's scheduler placed always runs in its own process, even on the server's host. The scheduler gave
processors, memory, GPUs and time to that process, and not to a fork of the server.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator

from rdlib.errors import UserError, exit_code

ADDRESS = "RDLIB_WARM_SOCKET"
STARTED = b"+"
# What a notebook imports sooner or later; papermill and the kernel first.
MODULES = (
    *("papermill", "ipykernel.kernelapp", "ipykernel.ipkernel", "matplotlib.pyplot", "seaborn", "sklearn.metrics"),
    *("rdlib.study.execute", "rdlib.study.notebook", "rdlib.study.figures"),
    *(f"rdlib.method.{name}" for name in ("teacher", "voting", "sft", "student", "reward_model", "rl", "evaluate")),
    *("peft", "transformers.models.llama.modeling_llama", "transformers.models.auto.modeling_auto"),
)


def set_environment() -> None:
    """Set what is not set of the environment of a notebook's process, however it was started.

    Call it before anything imports torch or tqdm, which read the environment once. What decides numbers is set earlier,
    by `import rdlib` (rdlib.numerics).
    """
    os.environ.setdefault("TQDM_MININTERVAL", "1")  # an executed notebook keeps every state of a progress bar
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # of tied weights, and of the reward model's new head


@contextlib.contextmanager
def server(keep: int, here: bool = True) -> Iterator[dict[str, str]]:
    """A context in which notebooks start warm; gives the variables that tell jobs where. It holds `keep` (a file) open.

    Not `here`: jobs run on other hosts, so there is no server, and the variables tell them so.
    """
    if not here or sys.platform != "linux":  # elsewhere no abstract sockets, or libraries that do not survive a fork
        yield {ADDRESS: ""}
        return
    with socket.socket(socket.AF_UNIX) as listener:
        address = f"rdlib-{os.getpid()}-{os.urandom(8).hex()}"
        listener.bind(f"\0{address}")  # abstract: no file to remove
        listener.listen(128)
        words = [sys.executable, "-m", "rdlib", "execute", "--serve", str(listener.fileno())]
        process = subprocess.Popen(words, pass_fds=[listener.fileno(), keep], stdin=subprocess.PIPE)
    try:
        yield {ADDRESS: address}
    finally:
        process.stdin.close()  # the server ends at the end of its input
        process.wait()


def serve(descriptor: int) -> None:
    """Import everything, then fork a child for each connection until standard input ends."""
    set_environment()
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in MODULES:
            importlib.import_module(module)
    import torch

    from rdlib.study.specification import STAGES

    for spec in STAGES.values():
        _ = spec.code  # remembered: forks compute with the code imported here, whatever happens to its files

    if torch.cuda.is_available():  # a fork cannot use CUDA once its parent has looked at it
        return
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    end_after(lambda: os.read(0, 1))
    listener = socket.socket(fileno=descriptor)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _run_job(connection)
        connection.close()


def end_after(wait: Callable[[], object]) -> None:
    """End this process, whatever it is at, as soon as `wait`, which is called in a thread, returns or fails."""

    def end() -> None:
        """Wait, and end."""
        with contextlib.suppress(OSError):
            wait()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


def _run_job(connection: socket.socket) -> None:
    """In the fork: run the client's notebook, report the exit status, and end, at the latest with the client."""
    status = 1
    try:
        request, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 2)
        for target, descriptor in enumerate(descriptors, start=1):
            os.dup2(descriptor, target)
        connection.sendall(STARTED)
        end_after(lambda: connection.recv(1))  # the kernel notices and ends too
        asked, environment, folder = json.loads(request)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        from rdlib.study import execute

        options = argparse.Namespace(**asked)
        status = exit_code(lambda: execute.run(options, execute.ForkingKernelManager))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        with contextlib.suppress(OSError):
            connection.sendall(str(status).encode())
        os._exit(status)


def ask(address: str, asked: dict[str, str]) -> int | None:
    """Have the server at `address` run a notebook; returns its exit status, or None when there is no server."""
    request = json.dumps([asked, dict(os.environ), os.getcwd()]).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect("\0" + address)
            socket.send_fds(connection, [request], [1, 2])
            if connection.recv(1) != STARTED:
                return None
        except OSError:
            return None
        status = connection.recv(16)
    if not status:
        raise UserError(
            "The notebook's process was killed, most likely because memory ran out: run fewer jobs at a time."
        )
    return int(status)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m rdlib execute`; `--serve` is how a study starts its server."""
    parser.add_argument("notebook", nargs="?", help="a notebook, as notebooks/00_data.ipynb")
    parser.add_argument("output", nargs="?", help="where the executed notebook goes")
    parser.add_argument("parameters", nargs="?", default="{}", help='parameters as JSON, as \'{"dataset": "gsm"}\'')
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int | None:
    """Run a notebook by the study's server, or in this process where there is none."""
    if options.serve is not None:
        return serve(options.serve)
    if options.output is None:
        raise UserError("Give a notebook, and where the executed one goes: notebooks/00_data.ipynb out.ipynb.")
    address = os.environ.get(ADDRESS)
    status = ask(address, vars(options)) if address else None
    if status is not None:
        return status
    from rdlib.study import execute

    if address is not None:
        print(f"{socket.gethostname()}: no server of warm notebooks for this job, so it starts cold.", flush=True)
    return execute.run(options)
