"""Watches. A client gets the changes since a resource version, and then each later change.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from labkit.simulator.kubernetes.objects.kinds import Kind, Object
from labkit.simulator.kubernetes.objects.selectors import Matcher
from labkit.simulator.kubernetes.objects.status import expired
from labkit.simulator.kubernetes.objects.storage import Change, Storage, Stored, dump

BACKLOG = 10_000  # changes; a client that falls further behind loses its watch
BOOKMARK_SECONDS = 60


@dataclass
class Selection:
    """The objects that a list or a watch selects. The namespace "" selects all namespaces."""

    namespace: str
    labels: Matcher | None
    fields: Matcher | None

    def matches(self, stored: Stored) -> bool:
        if self.namespace and stored.namespace != self.namespace:
            return False
        if self.labels and not self.labels(stored.metadata.get("labels") or {}):
            return False
        return not self.fields or self.fields(stored.object)


@dataclass
class WatchStream:
    """One watch, which lasts ``seconds``.

    - ``render`` returns the JSON of an event's object.
    - ``start`` is the resource version after which the events begin. With None, the existing objects are sent first.
    - ``initial_end``: whether a bookmark follows the existing objects.
    - ``bookmarks``: whether to send bookmarks from time to time.
    """

    storage: Storage
    kind: Kind
    selection: Selection
    render: Callable[[Stored], bytes]
    start: int | None
    initial_end: bool
    bookmarks: bool
    seconds: float
    _marked: int = field(default=0, init=False)

    async def events(self) -> AsyncGenerator[bytes]:
        """Yield the events as lines of JSON, until the watch's time is over or the client is too far behind."""
        queue: asyncio.Queue[Change] = asyncio.Queue()
        overrun = False

        def tell(change: Change) -> None:
            nonlocal overrun
            if queue.qsize() < BACKLOG:
                queue.put_nowait(change)
            else:
                overrun = True

        subscribers = self.storage.subscribers.setdefault(self.kind, set())
        subscribers.add(tell)
        try:
            first, refused = self._first()
            if first:
                yield b"".join(first)
            if refused:
                return
            deadline = time.monotonic() + self.seconds
            bookmark_at = self._next_bookmark(deadline)
            while not overrun and (left := min(deadline, bookmark_at) - time.monotonic()) > -1:
                try:
                    change = await asyncio.wait_for(queue.get(), max(left, 0))
                except TimeoutError:
                    if time.monotonic() >= deadline - 0.01:
                        return
                    if self.storage.version != self._marked:
                        yield self._bookmark(final=False)
                    bookmark_at = self._next_bookmark(deadline)
                    continue
                changes = [change, *(queue.get_nowait() for _ in range(queue.qsize()))]
                if text := b"".join(map(self._event, changes)):
                    yield text
        finally:
            subscribers.discard(tell)

    def _first(self) -> tuple[list[bytes], bool]:
        if self.start is None:
            objects = self.storage.list(self.kind, self.selection.namespace)
            lines = [self._line("ADDED", stored) for stored in objects if self.selection.matches(stored)]
            if self.initial_end:
                lines.append(self._bookmark(final=True))
            return lines, False
        if self.start < self.storage.oldest or self.start > self.storage.version:
            # The version is too old or, after a restart of the server, from the future. The client must list again.
            error = expired(f"too old resource version: {self.start} ({self.storage.oldest + 1})")
            return [b'{"type":"ERROR","object":' + dump(error.status()) + b"}\n"], True
        lines = [
            self._event(change)
            for change in self.storage.history
            if change.version > self.start and change.kind == self.kind
        ]
        return [line for line in lines if line], False

    def _event(self, change: Change) -> bytes:
        before = change.before if change.before and self.selection.matches(change.before) else None
        if change.type != "DELETED" and self.selection.matches(change.stored):
            return self._line("MODIFIED" if before else "ADDED", change.stored)
        if before is None:
            return b""
        return self._line("DELETED", change.stored if change.type == "DELETED" else _left(before, change.version))

    def _line(self, type_: str, stored: Stored) -> bytes:
        return b'{"type":"' + type_.encode() + b'","object":' + self.render(stored) + b"}\n"

    def _bookmark(self, *, final: bool) -> bytes:
        self._marked = self.storage.version
        metadata: Object = {"resourceVersion": str(self._marked)}
        if final:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        body = {"kind": self.kind.kind, "apiVersion": self.kind.api_version, "metadata": metadata}
        return b'{"type":"BOOKMARK","object":' + dump(body) + b"}\n"

    def _next_bookmark(self, deadline: float) -> float:
        if not self.bookmarks:
            return deadline
        now = time.monotonic()
        # The last bookmark tells the client where to start its next watch.
        last = deadline - 2
        return min(now + BOOKMARK_SECONDS, last) if now < last else deadline


def _left(before: Stored, version: int) -> Stored:
    """Return the object for a DELETED event, sent when the object leaves the watch's selection."""
    metadata = {**before.metadata, "resourceVersion": str(version)}
    return Stored({**before.object, "metadata": metadata}, before.managers)
