"""A running container's standard streams. The container's log and any number of attached clients share them.

https://kubernetes.io/docs/reference/kubectl/generated/kubectl_attach/
"""

import asyncio
from collections.abc import Awaitable, Callable

from labkit.simulator.kubernetes.node.container_logs import ContainerLog
from labkit.simulator.kubernetes.node.program_streams import STDERR, STDOUT, Pipes, Terminal

Client = Callable[[int, bytes], Awaitable[None]]  # takes a channel (standard output or error) and the output
NAMES = {STDOUT: "stdout", STDERR: "stderr"}


class Attachments:
    """The clients that are attached to a container's ``streams``.

    Some clients are attached to the container's stdin. With ``closes_input``, the container's stdin ends as soon as
    one of these clients closes its input or leaves. If the container has a terminal, ``closes_input`` has no effect.

    If a client stops reading, the program's writes block as soon as the buffers are full.
    """

    def __init__(self, streams: Pipes | Terminal, *, closes_input: bool) -> None:
        self.streams = streams
        self.closes_input = closes_input and not streams.is_terminal
        self.clients: set[Client] = set()
        self.ended = asyncio.Event()

    async def copy(self, written: ContainerLog) -> None:
        """Copy the container's output to the log and to the attached clients, until the output ends."""
        try:
            await asyncio.gather(
                *(written.copy(NAMES[channel], self._reader(channel)) for channel in self.streams.outputs)
            )
        finally:
            self.ended.set()

    def _reader(self, channel: int) -> Callable[[int], Awaitable[bytes]]:
        async def read(size: int) -> bytes:
            data = await self.streams.read(channel, size)
            for client in tuple(self.clients):
                await self._give(client, channel, data)
            return data

        return read

    async def _give(self, client: Client, channel: int, data: bytes) -> None:
        giving = asyncio.ensure_future(client(channel, data))
        try:
            while not (await asyncio.wait({giving}, timeout=0.5))[0]:
                if self.streams.over:
                    self.clients.discard(client)  # it doesn't read, but the log still needs the rest
                    return
        finally:
            giving.cancel()
