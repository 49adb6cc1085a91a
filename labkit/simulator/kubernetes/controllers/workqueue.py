"""A queue of objects that a controller must look at (https://kubernetes.io/docs/concepts/architecture/controller/)."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from labkit.simulator.kubernetes.objects.status import ApiError

Key = tuple[str, str]  # namespace and name
log = logging.getLogger(__name__)

FIRST_RETRY, LONGEST_RETRY = 0.005, 16.0  # seconds before a retry; they double with each failure
TICK = 0.5  # seconds between two readings of lab time, which a user may move at any moment
BREATH = 0.1  # seconds: the longest pause between two calls of ``look`` for the same object


class WorkQueue:
    """Call ``look`` for each added key, and again after a failure. For each key, at most one call runs at a time.

    ``look`` returns the lab time at which it must be called again for the key, or None. ``now`` returns lab time.
    """

    def __init__(self, look: Callable[[Key], Awaitable[float | None]], now: Callable[[], float]):
        self._look, self._now = look, now
        self._added: set[Key] = set()
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._failures: dict[Key, int] = {}
        self._waiting: dict[Key, float] = {}
        self._ticking: asyncio.TimerHandle | None = None
        self._retrying: dict[Key, asyncio.TimerHandle] = {}

    def add(self, key: Key) -> None:
        """Add a key. Call this in the event loop."""
        self._added.add(key)
        if key not in self._running:
            self._running[key] = asyncio.get_running_loop().create_task(self._run(key))

    def close(self) -> None:
        """Cancel the running calls of ``look``, and the planned ones."""
        for task in self._running.values():
            task.cancel()
        for timer in (*self._retrying.values(), self._ticking):
            if timer:
                timer.cancel()

    async def _run(self, key: Key) -> None:
        try:
            while key in self._added:
                self._added.discard(key)
                began = time.monotonic()
                await self._once(key)
                # After a long call (a thousand pods), the next call waits: meanwhile the pods change one by one.
                await asyncio.sleep(min(4 * (time.monotonic() - began), BREATH))
        finally:
            del self._running[key]

    async def _once(self, key: Key) -> None:
        self._waiting.pop(key, None)
        try:
            moment = await self._look(key)
        except Exception as error:
            if not isinstance(error, ApiError):
                log.exception("%s/%s", *key)
            self._retry(key)
            return
        self._failures.pop(key, None)
        if moment is not None:
            self._waiting[key] = moment
            if self._ticking is None:
                self._tick()

    def _retry(self, key: Key) -> None:
        failures = self._failures[key] = self._failures.get(key, -1) + 1
        seconds = min(FIRST_RETRY * 2 ** min(failures, 20), LONGEST_RETRY)

        def again() -> None:
            del self._retrying[key]
            self.add(key)

        if key not in self._retrying:
            self._retrying[key] = asyncio.get_running_loop().call_later(seconds, again)

    def _tick(self) -> None:
        now, self._ticking = self._now(), None
        for key, moment in list(self._waiting.items()):
            if moment <= now:
                del self._waiting[key]
                self.add(key)
        if self._waiting:
            seconds = min(max(min(self._waiting.values()) - now, 0.01), TICK)
            self._ticking = asyncio.get_running_loop().call_later(seconds, self._tick)
