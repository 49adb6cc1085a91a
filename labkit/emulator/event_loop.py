"""Work that would block the event loop, and so every client of the lab."""

import asyncio
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

Given = TypeVarTuple("Given")
Result = TypeVar("Result")

AT_ONCE = 16 * 1024  # bytes; work on more than that is done in a thread


async def beside(size: int, function: Callable[[*Given], Result], *arguments: *Given) -> Result:
    """Run the function and return its result. If ``size`` is large, run it in a thread beside the event loop."""
    if size > AT_ONCE:
        return await asyncio.to_thread(function, *arguments)
    return function(*arguments)
