"""The thread that runs moto's calls one at a time, and a time limit for calls that don't return."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, TypeVarTuple

Given = TypeVarTuple("Given")
Result = TypeVar("Result")

LONGEST = 10.0
"""A call may use the processor for at most this many seconds. It may also be idle for at most this many seconds."""
LOOKS = 10
IDLE = 0.002
"""If the thread uses a smaller share of the processor's time than this, it counts as idle."""


class Stuck(Exception):
    """A call didn't return. The process must restart before it can answer other calls."""


class OneThread:
    """Run calls one after the other, in a thread beside the event loop.

    If a call exceeds the time limit, call ``on_stuck``.

    On Linux, the limit counts the thread's processor time, so a busy machine doesn't make calls fail. A call also
    exceeds the limit if the thread is idle for that long in one stretch.
    """

    def __init__(self, name: str, longest: float = LONGEST):
        self.is_stuck = False
        self.on_stuck: Callable[[], None] = lambda: None
        self.longest = longest
        self._call: object = None
        self._seen = _Seen()
        self._waiting: set[asyncio.Future[None]] = set()
        self._watched: asyncio.AbstractEventLoop | None = None
        self._spent: Callable[[], float] = time.monotonic
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=self._start)

    async def run(self, function: Callable[[*Given], Result], *arguments: *Given) -> Result:
        """Run the function, and return its result. Raises `Stuck` if the function or an earlier one doesn't return."""
        if self.is_stuck:
            raise Stuck
        loop = asyncio.get_running_loop()
        # Not `run_in_executor`: if the caller is cancelled, the call must still run.
        running, ended = self._pool.submit(lambda: self._mark(function, *arguments)), loop.create_future()
        running.add_done_callback(partial(_tell, loop, ended))
        self._waiting.add(ended)
        if self._watched is not loop:
            # One timer for all calls: a timer for each call would cost more than the rest of this method.
            self._watched, self._seen = loop, _Seen()
            loop.call_later(self.longest / LOOKS, self._look)
        try:
            await ended
            return running.result()
        finally:
            self._waiting.discard(ended)

    def _look(self) -> None:
        """Call ``on_stuck`` if the running call takes too long."""
        loop = self._watched
        if loop is None or not self._waiting:
            self._watched = None
            return
        now, seen = self._spent(), self._seen
        if self._call is not seen.call:
            # The call may have started right after the previous look.
            seen.call, seen.began, seen.idle = self._call, now, 0
        else:
            seen.idle = seen.idle + 1 if now - seen.at < IDLE * self.longest / LOOKS else 0
        seen.at = now
        is_over = seen.idle >= LOOKS or now - seen.began >= self.longest * (1 - 1 / LOOKS)
        if seen.call is not None and is_over:
            self.is_stuck = True
            self.on_stuck()
            for ended in self._waiting:
                if not ended.done():
                    ended.set_exception(Stuck())
            return
        loop.call_later(self.longest / LOOKS, self._look)

    def begin_anew(self) -> None:
        """Give the running call its full time limit again, for example after it has loaded code for the first time."""
        self._call = object()

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        # macOS has no such clock. There, the machine's time counts.
        if hasattr(time, "pthread_getcpuclockid"):
            clock = time.pthread_getcpuclockid(threading.get_ident())
            self._spent = lambda: time.clock_gettime(clock)

    def _mark(self, function: Callable[[*Given], Result], *arguments: *Given) -> Result:
        self._call = object()
        try:
            return function(*arguments)
        finally:
            self._call = None


def _tell(loop: asyncio.AbstractEventLoop, ended: asyncio.Future[None], _running: Future[Any]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(_settle, ended)


def _settle(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


@dataclass
class _Seen:
    """The result of the last check of moto's thread.

    ``call`` is the call that ran in the thread at the last check, or None. ``began`` and ``at`` are times on a clock:
    on Linux, the thread's processor time; on macOS, the machine's time. ``began`` is the time of the first check that
    found this call. ``at`` is the time of the last check.
    """

    call: object = None
    began: float = 0.0
    at: float = 0.0
    idle: int = 0
