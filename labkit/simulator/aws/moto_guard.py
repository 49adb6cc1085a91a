"""Guard moto: check its release line (major.minor), and keep it from opening connections and starting processes.

Many services of moto open connections: SNS and Firehose post to any URL, Lambda and Batch talk to Docker. Python's
audit hooks see each connection before a library opens it. This module doesn't import moto.

https://peps.python.org/pep-0578/
https://docs.python.org/3/library/audit_events.html
"""

import errno
import sys
from functools import cache
from typing import Any

from labkit.errors import LabError

CHECKED_WITH = "5.2"
REQUIREMENT = "moto>=5.2,<5.3"
# Name look-ups use the network, too. And another process could open connections unseen.
WAYS_OUT = frozenset((
    "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "os.system", "pty.spawn",
    "socket.connect", "socket.getaddrinfo", "socket.gethostbyaddr", "socket.gethostbyname", "socket.getnameinfo",
    "socket.sendmsg", "socket.sendto", "subprocess.Popen",
))  # fmt: skip


def check_release(installed: str = "") -> None:
    """Raise :class:`LabError` if moto is missing, or if its release line (such as 5.2) isn't ``CHECKED_WITH``.

    ``installed`` is moto's version, if the caller already knows it.
    """
    from importlib.metadata import PackageNotFoundError, version  # 0.02 s, and only a start needs it

    try:
        installed = installed or version("moto")
    except PackageNotFoundError:
        problem = "moto is not installed"
    else:
        if installed.split(".")[:2] == CHECKED_WITH.split("."):
            return
        problem = f"moto {installed} is installed"
    raise LabError(
        f"{problem}; the lab was tested with moto {CHECKED_WITH}, and doesn't run with any other.",
        where=f"the Python environment {sys.prefix}",
        next=f'pip install "{REQUIREMENT}" in that environment; in a clone of the repository: make -B setup',
    )


class Closed(ConnectionRefusedError):
    """Raised when moto tries to open a connection or to start a process."""


@cache
def close() -> None:
    """From now on, keep moto from opening connections and from starting processes, in any thread."""
    sys.addaudithook(_refuse_moto)


def closed(error: BaseException | None) -> Closed | None:
    """Return the `Closed` error that caused moto's error; None if moto's error has another cause."""
    while error is not None and not isinstance(error, Closed):
        error = error.__cause__ or error.__context__
    return error


def _refuse_moto(event: str, _: tuple[Any, ...]) -> None:
    frame = sys._getframe(1) if event in WAYS_OUT else None
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] == "moto":
            raise Closed(errno.ECONNREFUSED, f"The lab's AWS opens no connections and starts no processes ({event})")
        frame = frame.f_back
