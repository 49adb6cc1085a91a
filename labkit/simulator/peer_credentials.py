"""The user at the other end of a loopback connection, as Linux's kernel names it.

https://man7.org/linux/man-pages/man7/sock_diag.7.html
"""

import contextlib
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.errors import LabError

# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h and net/tcp_states.h
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, ESTABLISHED = 4, 20, 1, 1
NO_COOKIE = b"\xff" * 8
# In a user namespace, this id stands for every user without an id of its own.
OVERFLOW_UID = Path("/proc/sys/kernel/overflowuid")


def same_user(
    listening: socket.socket, also: range = range(0), admits: Callable[[], bool] = lambda: True
) -> socket.socket:
    """Return a listening socket on loopback that accepts only connections of this process's user, while it ``admits``.

    The socket also accepts the users whose ids are in ``also``. It closes other connections before they get a byte. If
    the kernel can't name users, it accepts every user.
    """
    guarded = _GuardedSocket(fileno=listening.detach())
    guarded.also, guarded.admits, guarded.checks_user = also, admits, is_available()
    return guarded


def is_available() -> bool:
    """Whether the kernel names the user of a connection. It doesn't on macOS, for example.

    Raises LabError if no connection on loopback is possible.
    """
    if not OVERFLOW_UID.exists() or os.geteuid() == int(OVERFLOW_UID.read_text()):
        return False
    with socket.create_server(("127.0.0.1", 0)) as trial, socket.socket() as caller:
        try:
            caller.connect(trial.getsockname())
        except OSError as error:
            raise LabError(
                f"The lab can't connect to itself at 127.0.0.1: {error.strerror}. Loopback may be down.",
                next="ip link set lo up, as this machine's administrator; then labkit up",
            ) from None
        while True:
            connection, address = trial.accept()
            with connection:
                if address == caller.getsockname():  # another user may have been faster
                    return peer_uid(connection) == os.geteuid()


def peer_uid(connection: socket.socket) -> int | None:
    """Return the id of the user who opened an IPv4 connection of this machine, as this user namespace has it.

    Return None if the other end no longer has the connection open, or if the kernel can't name its user.
    """
    with (
        contextlib.suppress(OSError, struct.error),
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel,
    ):
        (near, near_port), (far, far_port) = connection.getsockname(), connection.getpeername()
        ends = struct.pack("!HH4s12x4s12x", far_port, near_port, socket.inet_aton(far), socket.inet_aton(near))
        request = struct.pack("=BBxxI", socket.AF_INET, socket.IPPROTO_TCP, 1 << ESTABLISHED)
        request += ends + struct.pack("=I8s", 0, NO_COOKIE)
        kernel.send(struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0) + request)
        kind, state, uid = struct.unpack_from("=4xH11xB62xI", kernel.recv(4096, socket.MSG_DONTWAIT))
        # The kernel may also answer with a closed connection, or with a socket that listens on the same port.
        if kind == SOCK_DIAG_BY_FAMILY and state == ESTABLISHED:
            return int(uid)
    return None


class _GuardedSocket(socket.socket):
    also: range
    admits: Callable[[], bool]
    checks_user: bool

    def accept(self) -> tuple[socket.socket, Any]:
        connection, address = super().accept()
        if self.admits() and (not self.checks_user or self._is_known(peer_uid(connection))):
            return connection, address
        connection.close()
        raise ConnectionAbortedError  # asyncio expects it, and goes on

    def _is_known(self, user: int | None) -> bool:
        return user is not None and (user == os.geteuid() or user in self.also)
