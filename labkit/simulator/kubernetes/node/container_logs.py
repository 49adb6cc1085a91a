"""A container's log file, in a kubelet's format, its readers, and the container's termination message.

Each line is `TIME STREAM TAG TEXT`. The tag is F for a whole line, and P for a part of a line.
https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from labkit.simulator.kubernetes.objects.kinds import Object

PART = 16 * 1024
LONGEST = 10 * 1024 * 1024  # bytes after which a new log file starts: a kubelet's containerLogMaxSize


class ContainerLog:
    """The log of one run of a container. It can have many readers, even while the container still writes."""

    def __init__(self, file: Path, now: Callable[[], float]) -> None:
        self.file = file
        self._now = now
        self._grew = asyncio.Event()
        self._begun = 0  # how often a new file was started
        self.closed = False
        file.parent.mkdir(parents=True, exist_ok=True)
        self._out = file.open("ab", buffering=0)

    @classmethod
    def ended(cls, file: Path, now: Callable[[], float]) -> "ContainerLog":
        """Return the log of a run that ended before this node process started."""
        log = cls(file, now)
        log.close()
        return log

    async def copy(self, stream: str, read: Callable[[int], Awaitable[bytes]]) -> None:
        """Copy the output of `read(size)` to the log, until `read` returns no more output."""
        rest = b""
        while data := await read(2 * PART):
            *whole, rest = (rest + data).split(b"\n")
            parts = [rest[start : start + PART] for start in range(0, len(rest), PART)]
            rest = parts.pop() if parts else b""
            self._write(stream, [(b"F", line) for line in whole] + [(b"P", part) for part in parts])
        if rest:
            self._write(stream, [(b"P", rest)])

    def close(self) -> None:
        self.closed = True
        self._out.close()
        self._grew.set()

    def _write(self, stream: str, lines: list[tuple[bytes, bytes]]) -> None:
        # All lines get the same time. To ask the clock for each line would slow down a busy program.
        before = f"{timestamp(self._now())} {stream} ".encode()
        if self._out.tell() > LONGEST:
            self._begin_again()
        self._out.write(b"".join(b"%s%s %s\n" % (before, tag, text) for tag, text in lines))
        self._grew.set()

    def _begin_again(self) -> None:
        """Start a new file. A real kubelet keeps some old files, but shows only the newest one.

        https://kubernetes.io/docs/concepts/cluster-administration/logging/#log-rotation
        """
        self._out.close()
        # Readers that have opened the old file still read it to its end.
        self.file.unlink()
        self._out = self.file.open("ab", buffering=0)
        self._begun += 1

    async def lines(
        self, *, follow: bool = False, tail: int | None = None, since: str = ""
    ) -> AsyncIterator[list[bytes]]:
        """Yield lists of raw lines: the last `tail` lines of the log, or all lines without `tail`.

        Leave out lines from before the time `since`. With `follow`, also yield each new line, until the log ends.
        """
        begun, file = self._begun, self.file.open("rb")
        try:
            if tail is not None:
                yield [line for line in deque(file, maxlen=tail) if line[: len(since)].decode() >= since]
            else:
                while block := file.readlines(PART):
                    yield [line for line in block if line[: len(since)].decode() >= since]
            while follow:
                self._grew.clear()
                ended, now = self.closed, self._begun
                while block := file.readlines(PART):
                    yield block
                if now != begun:
                    file.close()
                    begun, file = self._begun, self.file.open("rb")
                elif ended:
                    return
                else:
                    await self._grew.wait()
        finally:
            file.close()


def shown(line: bytes, *, timestamps: bool) -> bytes:
    """Return a raw line as `kubectl logs` shows it."""
    time, _stream, tag, text = line.split(b" ", 3)
    if tag == b"P":
        text = text.removesuffix(b"\n")
    return time + b" " + text if timestamps else text


# Of a termination message: bytes, bytes if it comes from the log, and lines of the log.
LONGEST_MESSAGE, LONGEST_OF_LOG, LINES_OF_LOG = 4096, 2048, 80


def termination_message(container: Object, log: Path, code: int) -> str:
    """Return the end of the file with the container's termination message: `termination-log`, beside ``log``.

    If a failed container left this file empty, and its policy is FallbackToLogsOnError, return the end of the log.
    https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
    """
    file = log.with_name("termination-log")
    message = file.read_bytes()[-LONGEST_MESSAGE:] if file.is_file() else b""
    if not message and code and container.get("terminationMessagePolicy") == "FallbackToLogsOnError":
        with log.open("rb") as lines:
            message = b"".join(shown(line, timestamps=False) for line in deque(lines, LINES_OF_LOG))[-LONGEST_OF_LOG:]
    return message.decode(errors="replace")


def timestamp(seconds: float) -> str:
    """Return a time in RFC 3339 with nanoseconds. ``seconds`` is the lab time since the epoch."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
