"""A container's termination message, for its status.

https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
"""

from collections import deque
from pathlib import Path

from labkit.emulator.kubernetes.node.container_logs import shown
from labkit.emulator.kubernetes.objects.kinds import Object

LONGEST, LONGEST_OF_LOG, LINES_OF_LOG = 4096, 2048, 80  # bytes, bytes, lines


def termination_message(container: Object, log: Path, code: int) -> str:
    """Return the end of the container's file at terminationMessagePath. On this machine, the file is beside ``log``.

    With the policy FallbackToLogsOnError, return the end of the log for a failed container that left the file empty.
    """
    file = log.with_name("termination-log")
    message = file.read_bytes()[-LONGEST:] if file.is_file() else b""
    if not message and code and container.get("terminationMessagePolicy") == "FallbackToLogsOnError":
        with log.open("rb") as lines:
            message = b"".join(shown(line, timestamps=False) for line in deque(lines, LINES_OF_LOG))[-LONGEST_OF_LOG:]
    return message.decode(errors="replace")
