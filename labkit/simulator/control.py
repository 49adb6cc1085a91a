"""The requests that commands send to the lab's server, over a unix socket in the lab's folder.

A command gets the server's process id from the kernel, even if the server doesn't answer.
"""

import contextlib
import json
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.simulator.folder import ELSEWHERE, Folder

NAME = "server.sock"
LONGEST_PATH = 103  # bytes; macOS's limit for a socket's path. Linux accepts 107
WAITING = 4096  # the most commands that may wait for a stopped server; the kernel may have a lower limit
# sys/un.h of macOS: https://github.com/apple-oss-distributions/xnu/blob/main/bsd/sys/un.h
SOL_LOCAL, LOCAL_PEERPID = 0, 2


@dataclass(frozen=True)
class Reply:
    """The server's answer and its process id.

    The operating system reports the id, even if the server doesn't answer.
    """

    pid: int
    """The server's process id; 0 if the server runs in another container, where this process can't see it."""
    answer: dict[str, Any] | None
    """The server's answer; None if it didn't answer in time."""

    @property
    def is_stopped(self) -> bool:
        """Whether the server's process is stopped, for example by SIGSTOP or Ctrl-Z."""
        import psutil  # it takes 0.05 s to load, and few commands need it

        stopped = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
        with contextlib.suppress(psutil.NoSuchProcess):
            return self.pid > 0 and psutil.Process(self.pid).status() in stopped
        return False


def ask(folder: Folder, word: str, *, within: float) -> Reply | None:
    """Send ``word`` to the folder's server, and return the reply; None if no server runs.

    ``word`` is ``state``, ``end`` or ``copy PLACE``. PLACE is the name of a subfolder for the copy of the lab's state.
    ``within`` is in seconds. Raises :class:`LabError` if the folder isn't usable.
    """
    with folder.usable(), socket.socket(socket.AF_UNIX) as asking, _address(folder) as address:
        asking.settimeout(max(within, 0.1))
        try:
            asking.connect(address)
            pid = _peer(asking)
            asking.sendall(f"{word}\n".encode())
            with asking.makefile("rb") as stream:
                return Reply(pid, json.loads(stream.readline()))
        except TimeoutError:
            return Reply(pid, None)
        except (FileNotFoundError, ConnectionError, BlockingIOError, ValueError):
            return None


class ControlSocket:
    """The server's listening socket. Only the process that holds the lock on ``server.lock`` may create the socket.

    Raises :class:`LabError` if the folder's file system doesn't support unix sockets.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.socket = socket.socket(socket.AF_UNIX)
        with folder.usable():
            (folder.path / NAME).unlink(missing_ok=True)
        try:
            with _address(folder) as address:
                self.socket.bind(address)
        except OSError as error:
            raise LabError(
                f"The file system of {folder.path} does not support unix sockets: {error.strerror or error}.",
                next=ELSEWHERE,
            ) from error
        (folder.path / NAME).chmod(0o600)
        self.socket.listen(WAITING)
        self._files = self._identity()

    @property
    def is_in_place(self) -> bool:
        """Whether the lock file and the socket in the folder still belong to this server."""
        try:
            return self._files == self._identity()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # a network file system may be unreachable for a moment
            return True

    def _identity(self) -> list[tuple[int, int]]:
        files = [(self.folder.path / name).stat() for name in ("server.lock", NAME)]
        return [(file.st_dev, file.st_ino) for file in files]


def network() -> str:
    """Return the name of this process's network namespace; empty on a system without such namespaces.

    https://man7.org/linux/man-pages/man7/namespaces.7.html
    """
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/net").readlink())
    return ""


@contextlib.contextmanager
def _address(folder: Folder) -> Iterator[str]:
    """Yield a path to the socket that is short enough for the kernel."""
    path = folder.path / NAME
    if len(os.fsencode(path)) <= LONGEST_PATH:
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="labkit-") as short:
        link = Path(short) / "lab"
        link.symlink_to(folder.path)
        yield str(link / NAME)


def _peer(connected: socket.socket) -> int:
    """Return the id of the process at the socket's other end."""
    if sys.platform == "darwin":
        return connected.getsockopt(SOL_LOCAL, LOCAL_PEERPID)
    pid: int = struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    return pid
