"""The thread that runs moto's calls one at a time, and a limit for calls that don't return."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

Given = TypeVarTuple("Given")
Result = TypeVar("Result")

LONGEST = 10.0
"""Seconds that a call may take: of the processor's time, or of waiting for nothing."""
LOOKS = 10
IDLE = 0.002
"""A thread that uses a smaller part of the time than this counts as waiting."""


class Stuck(Exception):
    """A call did not return; the process has to start again to answer others."""


class OneThread:
    """Run calls one after the other beside the event loop. ``on_stuck`` is called when one of them doesn't return.

    The thread's own time counts, so a busy machine makes no call late.
    """

    def __init__(self, name: str, longest: float = LONGEST):
        self.is_stuck = False
        self.on_stuck: Callable[[], None] = lambda: None
        self.longest = longest
        self._call: object = None
        self._spent: Callable[[], float] = time.monotonic
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=self._start)

    async def run(self, function: Callable[[*Given], Result], *arguments: *Given) -> Result:
        """Return what the function returns. Raises `Stuck` if it, or one before it, doesn't return."""
        running = asyncio.get_running_loop().run_in_executor(self._pool, self._mark, function, *arguments)
        call, began, last, idle = None, 0.0, 0.0, 0
        while not self.is_stuck:
            done, _ = await asyncio.wait({running}, timeout=self.longest / LOOKS)
            if done:
                return running.result()
            now = self._spent()
            if call is not self._call:
                call, began, last, idle = self._call, now, now, 0
            idle = idle + 1 if now - last < IDLE * self.longest / LOOKS else 0
            last = now
            # The first look is at the end of the first turn.
            is_over = idle >= LOOKS or now - began >= self.longest * (1 - 1 / LOOKS)
            if call is not None and is_over and not self.is_stuck:
                self.is_stuck = True
                self.on_stuck()
        running.cancel()
        raise Stuck

    def begin_anew(self) -> None:
        """Restart the time limit of the running call, for work that takes long once."""
        self._call = object()

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        # macOS has no such clock: there it is the machine's time.
        if hasattr(time, "pthread_getcpuclockid"):
            clock = time.pthread_getcpuclockid(threading.get_ident())
            self._spent = lambda: time.clock_gettime(clock)

    def _mark(self, function: Callable[[*Given], Result], *arguments: *Given) -> Result:
        self._call = object()
        try:
            return function(*arguments)
        finally:
            self._call = None
