"""A Jupyter kernel that is a fork of the process that asks for it, with all that this one has imported."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import sys
import traceback
from typing import Any

from ipykernel.kernelapp import IPKernelApp
from jupyter_client import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner


class ForkedProcess:
    """A child of this process, with the methods of subprocess.Popen that a kernel's provisioner calls."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid, self.returncode = pid, None

    def _collect(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._collect(os.WNOHANG)

    def wait(self) -> int:
        """Wait for its end; returns the exit status."""
        return self._collect(0)

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


class ForkingProvisioner(LocalProvisioner):
    """Launches a kernel by os.fork, where LocalProvisioner starts a new interpreter."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> dict[str, Any]:
        """Fork; the child becomes the kernel of the connection file in `cmd`."""
        connection_file, environment = cmd[cmd.index("-f") + 1], kwargs["env"]
        self.cwd = pathlib.Path(kwargs.get("cwd") or ".")
        pid = os.fork()
        if pid == 0:
            _become_kernel(connection_file, environment, self.cwd)
        self.process = ForkedProcess(pid)
        self.pid = self.pgid = pid
        return self.connection_info


class ForkingKernelManager(AsyncKernelManager):
    """A kernel manager whose kernels are forks of this process."""

    async def _async_pre_start_kernel(self, **kwargs: Any) -> tuple[list[str], dict[str, Any]]:
        if self.provisioner is None:
            self.provisioner = ForkingProvisioner(kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self)
        return await super()._async_pre_start_kernel(**kwargs)


def _become_kernel(connection_file: str, environment: dict[str, str], folder: pathlib.Path) -> None:
    """In the fork: serve the kernel's connection until it is told to shut down, and end the process."""
    status = 1
    try:
        os.setsid()  # a group of its own, as jupyter_client gives a kernel, so that a signal reaches all of it
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.argv = ["ipykernel_launcher", "-f", connection_file]
        asyncio.events._set_running_loop(None)  # the parent's loop, which waits for this kernel, is not ours
        asyncio.set_event_loop(asyncio.new_event_loop())
        IPKernelApp.launch_instance(sys.argv[1:], parent_handle=os.getppid())
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(status)
