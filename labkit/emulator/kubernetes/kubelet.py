"""The node's own endpoint, which the API server passes `kubectl logs` and `kubectl exec` on to.

https://kubernetes.io/docs/reference/node/kubelet-files/ and, for the frames of exec,
https://kubernetes.io/docs/reference/using-api/api-concepts/#websockets
"""

import asyncio
import contextlib
import fcntl
import json
import os
import struct
import termios
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from labkit.emulator.kubernetes.container_logs import ContainerLog, shown, timestamp
from labkit.emulator.kubernetes.pod_life import PodLife
from labkit.emulator.kubernetes.processes import Process

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
API_SERVER = "kube-apiserver-kubelet-client"
ADMINISTRATORS = "system:masters"


class Kubelet:
    """An ASGI app. `find(namespace, name)` returns the pod; `now()` is lab time in epoch seconds.

    Only the API server may call, by its client certificate: whoever can reach exec can do all that the node can.
    """

    def __init__(self, find: Callable[[str, str], PodLife | None], now: Callable[[], float]) -> None:
        self._find = find
        self._now = now
        self._app = Starlette(
            routes=[
                Route("/healthz", self._health),
                Route("/containerLogs/{namespace}/{pod}/{container}", self._logs),
                WebSocketRoute("/exec/{namespace}/{pod}/{container}", self._exec),
            ]
        )

    async def __call__(self, scope, receive, send) -> None:
        peer = scope.get("state", {}).get("peer")
        if peer is None or (peer.common_name != API_SERVER and ADMINISTRATORS not in peer.organizations):
            refusal = PlainTextResponse("Unauthorized\n" if peer is None else "Forbidden\n", 403 if peer else 401)
            if scope["type"] == "websocket":
                await WebSocket(scope, receive, send).send_denial_response(refusal)
            else:
                await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _health(self, _request: Request) -> Response:
        return PlainTextResponse("ok")

    async def _logs(self, request: Request) -> Response:
        path, query = request.path_params, request.query_params
        pod = self._find(path["namespace"], path["pod"])
        if pod is None:
            return PlainTextResponse(f'pod "{path["pod"]}" not found', 404)
        written = _log_of(pod, path["container"], query.get("previous") == "true")
        if isinstance(written, str):
            return PlainTextResponse(written, 400)
        try:
            tail = int(query["tailLines"]) if "tailLines" in query else None
            limit = int(query["limitBytes"]) if "limitBytes" in query else None
            since = _since(query.get("sinceTime"), query.get("sinceSeconds"), self._now())
        except ValueError as error:
            return PlainTextResponse(str(error), 400)
        lines = written.lines(follow=query.get("follow") == "true", tail=tail, since=since)
        return StreamingResponse(_texts(lines, query.get("timestamps") == "true", limit), media_type="text/plain")

    async def _exec(self, socket: WebSocket) -> None:
        path, query = socket.path_params, socket.query_params
        protocol = next((name for name in PROTOCOLS if name in socket.scope.get("subprotocols", ())), None)
        pod = self._find(path["namespace"], path["pod"])
        refusal = None
        if protocol is None:
            refusal = PlainTextResponse("the subprotocols of exec are v5.channel.k8s.io and v4.channel.k8s.io", 400)
        elif pod is None:
            refusal = PlainTextResponse("pod does not exist", 404)
        elif not (status := pod.status.container(path["container"])) or not status.running:
            refusal = PlainTextResponse(f'container not found ("{path["container"]}")', 404)
        elif not query.getlist("command"):
            refusal = PlainTextResponse("you must specify at least 1 command for the container", 400)
        if refusal:
            await socket.send_denial_response(refusal)
            return
        await socket.accept(subprotocol=protocol)
        wants = {name: query.get(name) in ("1", "true") for name in ("input", "output", "error", "tty")}
        session = _Session(socket, pod, path["container"], query.getlist("command"))
        status = await (session.on_terminal if wants["tty"] else session.on_pipes)(wants["input"])
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await socket.send_bytes(bytes([ERROR]) + json.dumps(status).encode())
            await socket.close()


class _Session:
    """One exec: a program at one end, a WebSocket at the other."""

    def __init__(self, socket: WebSocket, pod: PodLife, container: str, command: list[str]) -> None:
        self._socket = socket
        self._pod = pod
        self._container = container
        self._command = command

    async def on_pipes(self, stdin: bool) -> dict:
        """Run the program to its end. Returns the Status for the error channel."""
        try:
            process = await self._pod.exec(self._container, self._command, stdin=stdin)
        except (OSError, KeyError) as error:
            return _not_started(error)
        writer = _Pipe(process) if stdin else None
        receiving = asyncio.create_task(self._receive(process, writer))
        try:
            await asyncio.gather(self._send(STDOUT, process.stdout.read), self._send(STDERR, process.stderr.read))
            return _ended(await process.wait())
        finally:
            receiving.cancel()
            process.kill()
            process.close()

    async def on_terminal(self, _stdin: bool) -> dict:
        """The same, with the program on a terminal of its own."""
        master, terminal = os.openpty()
        try:
            name = os.ttyname(terminal)
            try:
                process = await self._pod.exec(self._container, self._command, stdin=False, terminal=name)
            except (OSError, KeyError) as error:
                return _not_started(error)
            screen = _Terminal(master)
            receiving = asyncio.create_task(self._receive(process, screen))
            sending = asyncio.create_task(self._send(STDOUT, screen.read))
            try:
                code = await process.wait()
                os.close(terminal)  # the last one: now the master's reader comes to the end of what was written
                terminal = -1
                await sending
                return _ended(code)
            finally:
                receiving.cancel()
                sending.cancel()
                screen.forget()
                process.kill()
        finally:
            os.close(master)
            if terminal >= 0:
                os.close(terminal)

    async def _send(self, channel: int, read: Callable) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            while data := await read(32 * 1024):
                await self._socket.send_bytes(bytes([channel]) + data)

    async def _receive(self, process: Process, sink: "_Pipe | _Terminal | None") -> None:
        """Pass on what the client sends. A client that goes away ends the program."""
        try:
            while True:
                frame = await self._socket.receive_bytes()
                if not frame:
                    continue
                channel, data = frame[0], frame[1:]
                if channel == STDIN and sink:
                    await sink.write(data)
                elif channel == CLOSE and data[:1] == bytes([STDIN]) and sink:
                    sink.close()
                elif channel == RESIZE and isinstance(sink, _Terminal):
                    sink.resize(data)
        except (WebSocketDisconnect, KeyError, RuntimeError):
            process.kill()


class _Pipe:
    """A program's standard input."""

    def __init__(self, process: Process) -> None:
        self._stdin = process.stdin

    async def write(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._stdin.write(data)
            await self._stdin.drain()

    def close(self) -> None:
        self._stdin.close()


class _Terminal:
    """The near end of a pseudo-terminal."""

    def __init__(self, master: int) -> None:
        self._master = master
        os.set_blocking(master, False)
        self._readable = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(master, self._readable.set)

    async def read(self, size: int) -> bytes:
        while True:
            self._readable.clear()
            try:
                return os.read(self._master, size)
            except BlockingIOError:
                await self._readable.wait()
            except OSError:  # Linux says EIO where the last program has closed its end
                return b""

    async def write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._master, data) :]
            except BlockingIOError:
                await asyncio.sleep(0.01)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._master, b"\x04")

    def resize(self, data: bytes) -> None:
        with contextlib.suppress(ValueError, TypeError, struct.error):
            size = json.loads(data)
            packed = struct.pack("HHHH", size["Height"], size["Width"], 0, 0)
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, packed)

    def forget(self) -> None:
        self._loop.remove_reader(self._master)


def _log_of(pod: PodLife, container: str, previous: bool) -> ContainerLog | str:
    """The log of the container's last run, or why there is none."""
    name = pod.pod["metadata"]["name"]
    status = pod.status.container(container)
    if status is None:
        return f'container "{container}" in pod "{name}" is not available'
    runs = [run for kept, run in pod.logs if kept == container]
    if previous:
        if len(runs) < 2:
            return f'previous terminated container "{container}" in pod "{name}" not found'
        return pod.logs[container, sorted(runs)[-2]]
    waiting = status.state.get("waiting", {}).get("reason", "")
    if not runs or not (status.run_id or status.exit_code is not None):
        failed = "trying and failing to pull image" if "Image" in waiting else f"waiting to start: {waiting}"
        return f'container "{container}" in pod "{name}" is {failed}'
    return pod.logs[container, max(runs)]


def _since(time: str | None, seconds: str | None, now: float) -> str:
    if time:
        return timestamp(datetime.fromisoformat(time.replace("Z", "+00:00")).astimezone(UTC).timestamp())
    return timestamp(now - int(seconds)) if seconds else ""


async def _texts(lines: AsyncIterator[bytes], timestamps: bool, limit: int | None) -> AsyncIterator[bytes]:
    left = limit
    async for line in lines:
        text = shown(line, timestamps=timestamps)
        if left is not None:
            text = text[:left]
            left -= len(text)
        if text:
            yield text
        if left == 0:
            return


def _ended(code: int) -> dict:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: command terminated with exit code {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _not_started(error: Exception) -> dict:
    said = "container not found" if isinstance(error, KeyError) else str(error)
    why = f"error executing command in container: failed to exec in container: unable to start process: {said}"
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {why}",
        "reason": "InternalError",
        "details": {"causes": [{"message": why}]},
        "code": 500,
    }
