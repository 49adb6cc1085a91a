"""Start a program whose calls of bind(), and those of its children, wait for another process's answer.

Arguments: the file descriptor of a socket, to which this script sends the kernel's questions, and the program's. If the
kernel refuses that, the program starts without.

https://man7.org/linux/man-pages/man2/seccomp_unotify.2.html
"""

import ctypes
import os
import platform
import socket
import struct
import sys

# machine -> its number in the kernel's audit, and the numbers of the system calls seccomp() and bind()
CALLS = {"x86_64": (0xC000003E, 317, 49), "aarch64": (0xC00000B7, 277, 200)}
SET_FILTER, NEW_LISTENER = 1, 8
ASK, ALLOW = 0x7FC00000, 0x7FFF0000
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06


def main() -> None:
    number, program = int(sys.argv[1]), sys.argv[2:]
    with socket.socket(fileno=number) as receiver:
        questions = _questions()
        if questions >= 0:
            socket.send_fds(receiver, [b"?"], [questions])
            os.close(questions)
    os.execvp(program[0], program)  # noqa: S606


def _questions() -> int:
    """Make the kernel ask before this process, or a child, calls bind(). Return the questions' file descriptor."""
    if platform.machine() not in CALLS:
        return -1
    machine, seccomp, bind = CALLS[platform.machine()]
    steps = [(LOAD, 0, 0, 4), (EQUAL, 0, 3, machine), (LOAD, 0, 0, 0), (EQUAL, 0, 1, bind),
             (RETURN, 0, 0, ASK), (RETURN, 0, 0, ALLOW)]  # fmt: skip
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code)))
    return int(ctypes.CDLL(None).syscall(seccomp, SET_FILTER, NEW_LISTENER, ctypes.byref(program)))


if __name__ == "__main__":
    main()
