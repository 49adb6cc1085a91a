"""Kernels that are forked from one Python that has loaded what notebooks load: two seconds less of CPU for each.

Each is a process of its own, as a kernel always is, with nothing of another notebook in it. The tests of `labkit run`
and `labkit lab` start kernels as a user's Jupyter does.
"""

import multiprocessing
import os
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from jupyter_client.provisioning import local_provisioner

LOADED = (
    "boto3.session",
    "ipykernel.ipkernel",
    "ipykernel.kernelapp",
    "ipywidgets",
    "kubernetes.client.api.core_v1_api",
    "kubernetes.stream",
    "labkit.doctor.examination",
    "labkit.lab",
    "labkit.targets.moto",
)
FORKING = multiprocessing.get_context("forkserver")


def fork(patch: Any) -> None:
    """Lets Jupyter's client in this process fork its kernels. `patch` is pytest's `MonkeyPatch`."""
    FORKING.set_forkserver_preload([*LOADED])
    patch.setattr(local_provisioner, "launch_kernel", _launch)


class Kernel:
    """A forked kernel, as the client wants the `Popen` of one."""

    stdin = stdout = stderr = None

    def __init__(self, process: Any):
        self._process = process
        self.pid = process.pid
        self.kill, self.terminate = process.kill, process.terminate

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int | None:
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _launch(command: Sequence[str], *, env: dict[str, str], cwd: str | None = None, **_: Any) -> Kernel:
    """Start the kernel that this command line starts: `python … -m ipykernel_launcher -f FILE …`."""
    arguments = [*command[command.index("ipykernel_launcher") + 1 :]]
    reading, writing = FORKING.Pipe(duplex=False)
    process = FORKING.Process(target=_run, args=(arguments, env, cwd, writing))
    process.start()
    writing.close()
    # The client signals the kernel's process group: until it has one, that would be the tests' own.
    reading.recv()
    return Kernel(process)


def _run(arguments: list[str], env: dict[str, str], cwd: str | None, ready: Connection) -> None:
    from ipykernel.kernelapp import launch_new_instance

    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    if cwd:
        os.chdir(cwd)
    sys.argv = ["ipykernel_launcher", *arguments]
    ready.send(None)
    ready.close()
    threading.Thread(target=_end_with_the_client, daemon=True).start()
    # Without a parent it would print how to connect to it.
    launch_new_instance(argv=[*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])


def _end_with_the_client() -> None:
    # A kernel looks after its parent, and its parent here is what it was forked from.
    client = multiprocessing.parent_process()
    if client:
        client.join()
        os._exit(1)
