"""Move long work out of the event loop: while the loop works, every client of the lab waits."""

import asyncio
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

Given = TypeVarTuple("Given")
Result = TypeVar("Result")

AT_ONCE = 16 * 1024  # bytes; work on more than that is done in a thread


async def in_thread_if_large(size: int, function: Callable[[*Given], Result], *arguments: *Given) -> Result:
    """Return the result of ``function``, called with ``arguments``.

    ``size`` is the number of bytes to process. If it's over 16 KiB, the function runs in a thread.
    """
    if size > AT_ONCE:
        return await asyncio.to_thread(function, *arguments)
    return function(*arguments)
