"""The thread that makes moto's calls: it makes the call of a cancelled caller, too, and passes on every failure."""

import asyncio
import threading

import pytest

from labkit.simulator.aws.one_thread import OneThread


def test_a_call_is_still_made_if_its_caller_is_cancelled():
    begins, done = threading.Event(), []

    async def main():
        thread = OneThread("test")
        first = asyncio.create_task(thread.run(begins.wait, 60))
        second = asyncio.create_task(thread.run(done.append, "second"))
        await asyncio.sleep(0)  # both are handed over
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        begins.set()
        assert await first is True
        await thread.run(done.append, "third")
        thread.close()

    asyncio.run(main())
    assert done == ["second", "third"]


@pytest.mark.parametrize("failure", [KeyError, StopIteration, SystemExit])
def test_every_failure_of_a_call_reaches_its_caller(failure):
    def fails():
        raise failure

    async def main():
        thread = OneThread("test")
        try:
            await asyncio.wait_for(thread.run(fails), 60)
        finally:
            thread.close()

    # A coroutine can't raise StopIteration: https://docs.python.org/3/library/asyncio-future.html
    with pytest.raises(RuntimeError if failure is StopIteration else failure):
        asyncio.run(main())
