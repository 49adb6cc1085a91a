"""Fork kernels and servers from one Python that has already loaded their modules: 1 to 2 seconds less CPU for each.

Each is still a process of its own and shares no state with another. A server that a kernel starts is forked, too, and
goes on after its kernel. Whatever else `labkit` or a notebook starts, it starts as on a user's machine.
"""

import gc
import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

LOADED = (
    "tests.botocore_data",
    "tests.forked_by_fleets",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.extensions.storemagic",
    "anywidget",
    "anyio._backends._asyncio",
    "boto3.s3.inject",
    "boto3.session",
    "distributed.nanny",
    "httpcore",
    "ipykernel.debugger",
    "ipykernel.ipkernel",
    "ipykernel.kernelapp",
    "ipywidgets",
    "kubernetes.client.api.authorization_v1_api",
    "kubernetes.client.api.core_v1_api",
    "kubernetes.stream",
    "labkit.course.examination",
    "labkit.course.exercises.exercise",
    "labkit.course.widgets.journey",
    "labkit.course.widgets.live",
    "labkit.course.widgets.trail",
    "labkit.doctor.examination",
    "labkit.simulator.clients",
    "labkit.simulator.server",
    "labkit.simulator.sessions",
    "labkit.lab",
    "labkit.runs.fleet.task",
    "labkit.steps.credentials",
    "labkit.steps.iam_role",
    "labkit.steps.oidc_provider",
    "labkit.steps.service_account",
    "labkit.targets.eks",
    "labkit.targets.moto",
    "moto.eks.urls",
    "moto.iam.urls",
    "moto.s3.urls",
    "moto.s3bucket_path.utils",
    "papermill",
    "tornado.platform.asyncio",
    "xml.dom.minidom",
    "tenacity",
)
# How a process finds its fork server.
FORK_SERVER = ("_forkserver_address", "_forkserver_authkey")
FORKING = multiprocessing.get_context("forkserver")


def kernels(patch: Any) -> None:
    """Let Jupyter's client in this process fork its kernels. `patch` is pytest's `MonkeyPatch`."""
    from jupyter_client.provisioning import local_provisioner

    FORKING.set_forkserver_preload([*LOADED])
    patch.setattr(local_provisioner, "launch_kernel", _launch)


def servers(patch: Any) -> None:
    """Let `labkit` in this process fork the servers of its labs. `patch` is pytest's `MonkeyPatch`."""
    from labkit.simulator import process

    FORKING.set_forkserver_preload([*LOADED])
    patch.setattr(process, "subprocess", SimpleNamespace(Popen=_serve, DEVNULL=subprocess.DEVNULL))


def stay_with(server: dict[str, Any]) -> None:
    """Let this process fork from the fork server that forked it, and start no other."""
    forkserver.ensure_running = lambda: None
    vars(forkserver._forkserver).update(server, ensure_running=forkserver.ensure_running)


class Forked:
    """A forked program, with the methods that its starter expects of a `Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, run: Callable[..., None], *arguments: Any):
        reading, writing = FORKING.Pipe(duplex=False)
        let_daemon_fork()
        # Without `daemon`, the tests couldn't end before the program does.
        process = FORKING.Process(target=run, args=(*arguments, writing), daemon=True)
        process.start()
        writing.close()
        # The client signals the program's process group. Until the program has its own, that is the tests' group.
        reading.recv()
        self.process = process
        self.pid = process.pid
        self.kill, self.terminate = process.kill, process.terminate

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> int | None:
        self.process.join()
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _launch(command: Sequence[str], *, env: dict[str, str], cwd: str | None = None, **_: Any) -> Forked:
    """Start the kernel that this command line starts: `python … -m ipykernel_launcher -f FILE …`."""
    forkserver.ensure_running()
    server = {name: value for name, value in vars(forkserver._forkserver).items() if name in FORK_SERVER}
    return Forked(_run_kernel, [*command[command.index("ipykernel_launcher") + 1 :]], env, cwd, server)


def _run_kernel(
    arguments: list[str], env: dict[str, str], cwd: str | None, server: dict[str, Any], ready: Connection
) -> None:
    from ipykernel.kernelapp import launch_new_instance

    from labkit.simulator import folder, process
    from labkit.steps import namespace

    # Stored outputs must not hold a line that only a busy machine prints.
    folder.SAID_AFTER = process.SAID_AFTER = process.ANSWERS_WITHIN
    namespace.SOON = namespace.GONE_WITHIN
    become(["ipykernel_launcher", *arguments], env, cwd, ready)
    # The labs and fleets that this kernel starts are forked from the server that forked this kernel.
    stay_with(server)
    process.subprocess = SimpleNamespace(Popen=_serve_on, DEVNULL=subprocess.DEVNULL)
    threading.Thread(target=_end_with_the_client, daemon=True).start()
    # Without a parent, the kernel would print how to connect to it.
    launch_new_instance(argv=[*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])


def _serve(command: Sequence[str], *, env: dict[str, str], cwd: Path, stdout: IO[bytes], pass_fds: list[int], **_: Any):
    """Start the server that this command line starts: `python -m labkit.simulator FOLDER READY_FD …`."""
    answer = Connection(os.dup(pass_fds[0]), readable=False)
    arguments = [*command[command.index("labkit.simulator") + 1 :]]
    return Forked(_run_server, arguments, answer, stdout.name, env, str(cwd))


def _serve_on(command: Sequence[str], **given: Any) -> Forked:
    """Start the server that this command line starts; it goes on after this process."""
    server = _serve(command, **given)
    multiprocessing.process._children.discard(server.process)
    return server


def _run_server(
    arguments: list[str], answer: Connection, log: str, env: dict[str, str], cwd: str, ready: Connection
) -> None:
    arguments[1] = str(os.dup(answer.fileno()))
    answer.close()
    become(["labkit.simulator", *arguments], env, cwd, ready)
    let_the_starter_end()
    with Path(os.devnull).open("rb") as nothing, Path(log).open("ab") as file:
        for descriptor, of in enumerate((nothing, file, file)):
            os.dup2(of.fileno(), descriptor)
    runpy.run_module("labkit.simulator", run_name="__main__")


def let_daemon_fork() -> None:
    # multiprocessing lets no daemon have children, but this program may need some.
    multiprocessing.current_process()._config["daemon"] = False


def let_the_starter_end() -> None:
    """Close this process's end of the resource tracker's pipe.

    From 3.13 on, Python waits at its end until all ends are closed, but a lab goes on after what started it.
    https://github.com/python/cpython/issues/88887
    """
    tracker = resource_tracker._resource_tracker
    os.close(tracker._fd)
    tracker._fd = None


def become(argv: list[str], env: dict[str, str], cwd: str | None, ready: Connection) -> None:
    """Turn this forked process into a program of its own, and tell its starter."""
    # A collection of garbage would copy every page of the modules that this process shares with its fork server.
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    let_daemon_fork()
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    if cwd:
        os.chdir(cwd)
    sys.argv = argv
    ready.send(None)
    ready.close()


def _end_with_the_client() -> None:
    # A kernel ends with its parent. Its parent here is the fork server, so it watches the client instead.
    client = multiprocessing.parent_process()
    if client:
        client.join()
        os._exit(1)
