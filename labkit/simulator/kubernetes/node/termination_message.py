"""A container's termination message, for its status.

https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
"""

from collections import deque
from pathlib import Path

from labkit.simulator.kubernetes.node.container_logs import shown
from labkit.simulator.kubernetes.objects.kinds import Object

LONGEST, LONGEST_OF_LOG, LINES_OF_LOG = 4096, 2048, 80  # bytes, bytes, lines


def termination_message(container: Object, log: Path, code: int) -> str:
    """Return the end of the file with the container's termination message: `termination-log`, beside ``log``.

    If a failed container left this file empty, and its policy is FallbackToLogsOnError, return the end of the log.
    """
    file = log.with_name("termination-log")
    message = file.read_bytes()[-LONGEST:] if file.is_file() else b""
    if not message and code and container.get("terminationMessagePolicy") == "FallbackToLogsOnError":
        with log.open("rb") as lines:
            message = b"".join(shown(line, timestamps=False) for line in deque(lines, LINES_OF_LOG))[-LONGEST_OF_LOG:]
    return message.decode(errors="replace")
