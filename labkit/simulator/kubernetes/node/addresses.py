"""Addresses for pods whose servers want one port. Pods have no networks of their own here, so each has 127.0.0.1.

If another pod names one of its ports, a pod gets 127.0.0.2 and so on instead. When a program of a pod binds one of its
ports on every address, or on 127.0.0.1, it gets the pod's address: the kernel asks this process about each bind().

https://man7.org/linux/man-pages/man2/seccomp_unotify.2.html
"""

import contextlib
import ctypes
import errno
import fcntl
import itertools
import os
import re
import select
import socket
import struct
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from labkit.simulator.kubernetes.node.pod_status import ADDRESS

SCRIPT = Path(__file__).with_name("ask_before_binding.py")
RECEIVE, SEND, IS_VALID = 0xC0502100, 0xC0182101, 0x40082102
QUESTION, ANSWER = struct.Struct("QIIiIQ6Q"), struct.Struct("QqiI")
UNCHANGED = 1  # the kernel goes on with the call
GET_FILE = 438  # pidfd_getfd(2)


@dataclass
class Addresses:
    """The addresses of a node's pods."""

    _taken: dict[str, tuple[str, set[int]]] = field(default_factory=dict)  # pod's uid -> address and TCP ports

    def take(self, uid: str, ports: set[int]) -> str:
        """Return an address at which no other pod names one of the ports."""
        taken = {at for other, (at, names) in self._taken.items() if other != uid and names & ports}
        each = (f"127.0.{number >> 8}.{number & 255}" for number in itertools.count(1))
        address = next(address for address in each if address not in taken)
        self._taken[uid] = (address, ports)
        return address

    def release(self, uid: str) -> None:
        self._taken.pop(uid, None)


class Bindings(contextlib.AbstractContextManager["Bindings"]):
    """Leads the servers of one run of a container to its pod's address.

    `command` starts the container's program; the program inherits the file descriptor `number`.
    """

    def __init__(self, address: str, ports: set[int]) -> None:
        self._address, self._ports = address, ports
        self._near, self._far = socket.socketpair()
        self.number = self._far.fileno()
        self.command = [sys.executable, "-IS", str(SCRIPT), str(self.number)]
        threading.Thread(target=self._answer_all, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        """Leave the far end to the program."""
        self._far.close()

    def _answer_all(self) -> None:
        with self._near:
            _, numbers, *_ = socket.recv_fds(self._near, 1, 1)
        for number in numbers:
            poll = select.poll()
            poll.register(number, select.POLLIN)
            while any(event & select.POLLIN for _, event in poll.poll()):
                with contextlib.suppress(OSError):  # the program has ended
                    self._answer(number)
            os.close(number)

    def _answer(self, number: int) -> None:
        question = bytearray(QUESTION.size)
        fcntl.ioctl(number, RECEIVE, question)
        its_id, thread, _, _, _, _, file, at, length, *_ = QUESTION.unpack(question)
        error, flags = 0, UNCHANGED
        with contextlib.suppress(OSError, ValueError):
            process = int(re.findall(r"^Tgid:\s+(\d+)", Path(f"/proc/{thread}/status").read_text(), re.MULTILINE)[0])
            wanted = _memory_of(thread, at, min(length, 28))
            fcntl.ioctl(number, IS_VALID, struct.pack("Q", its_id))
            with _file_of(process, file) as its_socket:
                if address := self._instead(its_socket, wanted):
                    flags = 0
                    try:
                        its_socket.bind(address)
                    except OSError as refused:
                        error = -(refused.errno or errno.EADDRINUSE)
        fcntl.ioctl(number, SEND, bytearray(ANSWER.pack(its_id, 0, error, flags)))

    def _instead(self, its_socket: socket.socket, wanted: bytes) -> tuple[str, int] | None:
        """Return the address to bind instead of the wanted one; None if the wanted one is right."""
        family, port = int.from_bytes(wanted[:2], sys.byteorder), int.from_bytes(wanted[2:4], "big")
        if its_socket.type != socket.SOCK_STREAM or port not in self._ports:
            return None
        if family == socket.AF_INET and wanted[4:8] in (bytes(4), socket.inet_aton(ADDRESS)):
            return self._address, port
        is_every = family == socket.AF_INET6 and wanted[8:24] == bytes(16)
        if is_every and not its_socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            return f"::ffff:{self._address}", port
        return None


def _memory_of(process: int, at: int, length: int) -> bytes:
    """Return a part of another process's memory. Only the process's user could open its `/proc/PID/mem`.

    https://man7.org/linux/man-pages/man2/process_vm_readv.2.html
    """
    content = ctypes.create_string_buffer(length)
    here, there = ((ctypes.c_size_t * 2)(place, length) for place in (ctypes.addressof(content), at))
    call = ctypes.CDLL(None, use_errno=True).process_vm_readv
    if call(process, here, ctypes.c_ulong(1), there, ctypes.c_ulong(1), ctypes.c_ulong(0)) != length:
        raise OSError(ctypes.get_errno(), "process_vm_readv")
    return content.raw


def _file_of(process: int, number: int) -> socket.socket:
    """Return another process's socket."""
    descriptor = os.pidfd_open(process)
    try:
        file = ctypes.CDLL(None, use_errno=True).syscall(GET_FILE, descriptor, number, 0)
    finally:
        os.close(descriptor)
    if file < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    return socket.socket(fileno=file)
