"""The node's end of a program's standard streams: pipes, or a pseudo-terminal. Clients can attach to them.

`Pipes` and `Terminal` have the same methods. Call ``hand_over`` after the program's start. ``far`` holds the
descriptors that the program gets as its standard input, output and error.
"""

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Awaitable, Callable

from labkit.simulator.kubernetes.node.container_logs import ContainerLog

STDIN, STDOUT, STDERR = 0, 1, 2


class Pipes:
    """Pipes for a program's output, and a pipe for the program's input if ``stdin`` is true.

    If ``stdin`` is false, the program's input is /dev/null.
    """

    is_terminal = False
    outputs = (STDOUT, STDERR)
    patience = None  # no limit: wait for all processes that hold the pipes, as a container runtime does

    def __init__(self, *, stdin: bool) -> None:
        self.far: list[int] = []
        self.over = False
        self._stdin = stdin
        self._input: asyncio.StreamWriter | None = None
        self._readers: dict[int, asyncio.StreamReader] = {}
        self._near: list[asyncio.BaseTransport] = []

    async def open(self) -> None:
        self.far = [asyncio.subprocess.DEVNULL]
        if self._stdin:
            await self._open_input()
        for channel in self.outputs:
            await self._open_output(channel)

    async def read(self, channel: int, size: int) -> bytes:
        return await self._readers[channel].read(size)

    async def write(self, data: bytes) -> None:
        if self._input and not self._input.transport.is_closing():
            with contextlib.suppress(ConnectionError):
                self._input.write(data)
                await self._input.drain()

    def end_input(self) -> None:
        if self._input:
            self._input.close()

    def resize(self, _width: int, _height: int) -> None:
        """Do nothing: pipes have no size."""

    def hand_over(self) -> None:
        """Close this process's copies of the program's descriptors."""
        for number in self.far:
            if number >= 0:
                os.close(number)
        self.far = []

    def program_has_ended(self) -> None:
        """Set ``over``. The pipes stay open until the last process that holds them ends."""
        self.over = True

    def close(self) -> None:
        self.hand_over()
        for transport in self._near:
            transport.close()

    async def _open_input(self) -> None:
        loop = asyncio.get_running_loop()
        self.far[STDIN], near = os.pipe()
        transport, protocol = await loop.connect_write_pipe(
            lambda: asyncio.streams.FlowControlMixin(loop=loop), os.fdopen(near, "wb", 0)
        )
        self._near.append(transport)
        self._input = asyncio.StreamWriter(transport, protocol, None, loop)

    async def _open_output(self, channel: int) -> None:
        near, far = os.pipe()
        self.far.append(far)
        reader = self._readers[channel] = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(near, "rb", 0)
        )
        self._near.append(transport)


class Terminal:
    """A pseudo-terminal. Closing it hangs up: the program gets SIGHUP."""

    is_terminal = True
    outputs = (STDOUT,)
    patience = 1.0  # seconds to wait for other processes that hold the terminal, after the program's end

    def __init__(self) -> None:
        self.over = False
        self._near = self._own = -1
        self._readable, self._writable = asyncio.Event(), asyncio.Event()

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        # `_own` stays open while the program runs: `read` fails with EIO when no process has the program's side open.
        self._near, self._own = os.openpty()
        self.device = os.ttyname(self._own)
        self.far = [self._own] * 3
        os.set_blocking(self._near, False)

    async def read(self, _channel: int, size: int) -> bytes:
        while self._near >= 0:
            try:
                return os.read(self._near, size)
            except BlockingIOError:
                self._readable.clear()
                self._loop.add_reader(self._near, self._on_readable)
                await self._readable.wait()
            except OSError:  # Linux raises EIO after the program has closed its side
                break
        return b""

    async def write(self, data: bytes) -> None:
        while data and self._near >= 0:
            try:
                data = data[os.write(self._near, data) :]
            except BlockingIOError:
                self._writable.clear()
                self._loop.add_writer(self._near, self._on_writable)
                await self._writable.wait()
            except OSError:
                return

    def end_input(self) -> None:
        """Do nothing. As with a container runtime, the terminal stays open."""

    def resize(self, width: int, height: int) -> None:
        if self._near >= 0:
            with contextlib.suppress(struct.error, OSError):
                fcntl.ioctl(self._near, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def hand_over(self) -> None:
        """Do nothing. This process keeps the program's side of the terminal open until the program ends."""

    def program_has_ended(self) -> None:
        """Close this process's copy of the program's descriptor, so that `read` reaches the end of the output."""
        self.over = True
        if self._own >= 0:
            os.close(self._own)
            self._own = -1

    def close(self) -> None:
        self.program_has_ended()
        if self._near >= 0:
            self._loop.remove_reader(self._near)
            self._loop.remove_writer(self._near)
            os.close(self._near)
            self._near = -1
        self._readable.set()
        self._writable.set()

    def _on_readable(self) -> None:
        # Watch the terminal only while a client reads: with unread output, it's readable all the time.
        self._loop.remove_reader(self._near)
        self._readable.set()

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._near)
        self._writable.set()


Client = Callable[[int, bytes], Awaitable[None]]  # takes a channel (standard output or error) and the output
NAMES = {STDOUT: "stdout", STDERR: "stderr"}


class Attachments:
    """The clients that are attached to a running container's ``streams``, which the container's log shares.

    Some clients are attached to the container's stdin. With ``closes_input``, the container's stdin ends as soon as
    one of these clients closes its input or leaves. If the container has a terminal, ``closes_input`` has no effect.

    If a client stops reading, the program's writes block as soon as the buffers are full.
    https://kubernetes.io/docs/reference/kubectl/generated/kubectl_attach/
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
