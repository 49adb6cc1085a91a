"""A container's log file, as a kubelet keeps it, and its readers.

Each line is `TIME STREAM TAG TEXT`; the tag is F for a whole line and P for a part of one.
https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

PART = 16 * 1024


class ContainerLog:
    """One run of one container: written while it runs, read by any number of readers."""

    def __init__(self, file: Path, now: Callable[[], float]) -> None:
        self.file = file
        self._now = now
        self._grew = asyncio.Event()
        self.closed = False
        file.parent.mkdir(parents=True, exist_ok=True)
        self._out = file.open("ab", buffering=0)

    async def copy(self, stream: str, read: Callable[[int], Awaitable[bytes]]) -> None:
        """Write what `read(size)` gives until it gives nothing."""
        rest = b""
        while data := await read(2 * PART):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._write(stream, b"F", line)
            while len(rest) > PART:
                self._write(stream, b"P", rest[:PART])
                rest = rest[PART:]
        if rest:
            self._write(stream, b"P", rest)

    def close(self) -> None:
        self.closed = True
        self._out.close()
        self._grew.set()

    def _write(self, stream: str, tag: bytes, text: bytes) -> None:
        self._out.write(b"%s %s %s %s\n" % (timestamp(self._now()).encode(), stream.encode(), tag, text))
        self._grew.set()

    async def lines(self, *, follow: bool = False, tail: int | None = None, since: str = "") -> AsyncIterator[bytes]:
        """Yield raw lines, the last `tail` of what is there first; with `follow` until the container ends."""
        with self.file.open("rb") as file:
            for line in deque(file, maxlen=tail):
                if line[: len(since)].decode() >= since:
                    yield line
            while follow:
                self._grew.clear()
                ended = self.closed
                for line in file:
                    yield line
                if ended:
                    return
                await self._grew.wait()


def shown(line: bytes, *, timestamps: bool) -> bytes:
    """A raw line as `kubectl logs` shows it."""
    time, _stream, tag, text = line.split(b" ", 3)
    if tag == b"P":
        text = text.removesuffix(b"\n")
    return time + b" " + text if timestamps else text


def timestamp(seconds: float) -> str:
    """Lab time in RFC 3339 with nanoseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
