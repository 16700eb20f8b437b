"""Runs one notebook by papermill, for `python -m rdlib execute` (`rdlib.study.warm`) and `publish`.

It differs from papermill's own command in three ways:
- a parameter that the notebook does not declare is an error;
- the message of a failed notebook is left beside it, in a file ending in `.error`;
- the kernel can be a fork of this process (`ForkingKernelManager`), with all that it has imported.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import warnings
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import nbformat
import nbformat.reader
import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.manager import KernelManager
from jupyter_client.provisioning import LocalProvisioner
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from rdlib.errors import UserError, hint


def run(options: argparse.Namespace, kernel_manager: type[KernelManager] | None = None) -> None:
    """Run the notebook that a command names."""
    warnings.filterwarnings("ignore")
    execute(Path(options.notebook), Path(options.output), read_parameters(options.parameters), kernel_manager)


def check_parameters(notebook: Path, parameters: dict[str, Any]) -> None:
    """UserError for a parameter that the notebook's parameters cell does not declare."""
    try:
        declared = list(papermill.inspect_notebook(str(notebook)))
    except nbformat.reader.NotJSONError:
        raise UserError(
            f"{notebook} is not a notebook: give the path of a file such as notebooks/00_data.ipynb."
        ) from None
    for name in parameters:
        if name not in declared:
            other = hint(name, declared, f"it declares {', '.join(declared)}.")
            raise UserError(f"{notebook.name} has no parameter {name!r}: {other}")


def execute(
    notebook: Path, output: Path, parameters: dict[str, Any], kernel_manager: type[KernelManager] | None = None
) -> None:
    """Execute a notebook; UserError with the last line of what went wrong in it.

    `kernel_manager`: what starts the kernel, instead of papermill's own choice.
    """
    if not notebook.is_file():
        raise UserError(f"There is no notebook {notebook}: look in the folder notebooks/.")
    check_parameters(notebook, parameters)
    output.parent.mkdir(parents=True, exist_ok=True)
    problem = output.with_suffix(".error")
    problem.unlink(missing_ok=True)
    options = {"cwd": str(notebook.parent), "progress_bar": False, "kernel_name": "python3", "coalesce_streams": True}
    options |= {"kernel_manager_class": kernel_manager} if kernel_manager else {}
    try:
        papermill.execute_notebook(str(notebook), str(output), parameters, **options)
    except (PapermillExecutionError, RuntimeError) as error:
        message = _message(error, output)
        problem.write_text(message + "\n")
        raise UserError(message) from None
    finally:
        scrub_paths(output, notebook)


def _message(error: Exception, output: Path) -> str:
    """What a notebook failed with, in a line; raises the error where it is another's."""
    if isinstance(error, PapermillExecutionError):
        return error.evalue if error.ename == "UserError" else f"{error.ename}: {error.evalue}"
    if not isinstance(error, DeadKernelError) and "Kernel died" not in str(error):  # the latter while it starts
        raise error
    return (
        f"The kernel of {output.name} was killed{_mark_killed(output)}, most likely because memory ran out: run fewer "
        f"jobs at a time, lower generation.batch_size or raise training.gradient_accumulation, then run this again; it "
        f"resumes from what was kept."
    )


def _mark_killed(output: Path) -> str:
    """Leave an error in the cell that was being run, the last one that had started; returns which it was, in words."""
    content = nbformat.read(output, as_version=4) if output.is_file() else nbformat.v4.new_notebook()
    cells = [cell for cell in content.cells if cell.cell_type == "code"]
    started = [n for n, cell in enumerate(cells) if cell.metadata.get("papermill", {}).get("start_time")]
    if not started:
        return ""
    last, said = cells[started[-1]], ["The kernel was killed."]
    last.outputs.append(nbformat.v4.new_output("error", ename="KilledKernel", evalue="", traceback=said))
    nbformat.write(content, output)
    first = last.source.strip().splitlines()[:1]
    return f" in its code cell {started[-1] + 1}" + (f" ({first[0][:60]})" if first else "")


def scrub_paths(output: Path, notebook: Path) -> None:
    """Take the folders of this machine out of an executed notebook's metadata."""
    if output.is_file():
        content = nbformat.read(output, as_version=4)
        content.metadata.get("papermill", {}).update(input_path=notebook.name, output_path=output.name)
        nbformat.write(content, output)


def read_parameters(text: str) -> dict[str, Any]:
    """The parameters of the command line; UserError when they are not a JSON dictionary."""
    try:
        parameters = json.loads(text)
    except json.JSONDecodeError:
        parameters = None
    if not isinstance(parameters, dict):
        raise UserError(f'The parameters are not a JSON dictionary ({text}): write {{"dataset": "gsm"}}, for example.')
    return parameters


# ---- a kernel that is a fork of this process


class ForkedKernel(ForkProcess):
    """A fork of this process, with what a kernel's provisioner calls of subprocess.Popen."""

    stdin = stdout = stderr = None

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self.exitcode

    def wait(self) -> int:
        """Wait for its end; returns the exit status."""
        self.join()
        return self.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)


class ForkingProvisioner(LocalProvisioner):
    """Launches a kernel by a fork, where LocalProvisioner starts a new interpreter."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> dict[str, Any]:
        """Fork; the child becomes the kernel of the connection file in `cmd`."""
        self.cwd = Path(kwargs.get("cwd") or ".")
        self.process = ForkedKernel(target=_serve_kernel, args=(cmd[cmd.index("-f") + 1], kwargs["env"], self.cwd))
        self.process.start()
        self.pid = self.pgid = self.process.pid
        return self.connection_info


class ForkingKernelManager(AsyncKernelManager):
    """A kernel manager whose kernels are forks of this process."""

    async def _async_pre_start_kernel(self, **kwargs: Any) -> tuple[list[str], dict[str, Any]]:
        if self.provisioner is None:
            self.provisioner = ForkingProvisioner(kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self)
        return await super()._async_pre_start_kernel(**kwargs)


def _serve_kernel(connection_file: str, environment: dict[str, str], folder: Path) -> None:
    """In the fork: serve the kernel's connection until it has to shut down."""
    os.setsid()  # a group of its own, as jupyter_client gives a kernel, so that a signal reaches all of it
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["ipykernel_launcher", "-f", connection_file]
    asyncio.events._set_running_loop(None)  # the parent's loop, which waits for this kernel, is not ours
    asyncio.set_event_loop(asyncio.new_event_loop())
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.launch_instance(sys.argv[1:], parent_handle=os.getppid())
