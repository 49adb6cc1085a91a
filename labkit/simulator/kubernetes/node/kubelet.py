"""The node's own HTTPS endpoint. The API server passes `kubectl logs`, `exec` and `attach` on to it.

https://kubernetes.io/docs/reference/node/kubelet-files/
The frames of exec and attach: https://kubernetes.io/docs/reference/using-api/api-concepts/#websockets
"""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from labkit.simulator.kubernetes.node.client import said
from labkit.simulator.kubernetes.node.container_logs import ContainerLog, shown, timestamp
from labkit.simulator.kubernetes.node.pod import NodePod
from labkit.simulator.kubernetes.node.pod_life import PodLife
from labkit.simulator.kubernetes.node.processes import Process
from labkit.simulator.kubernetes.node.program_streams import STDERR, STDIN, STDOUT, Attachments, Pipes, Terminal
from labkit.simulator.kubernetes.objects.kinds import Object

ERROR, RESIZE, CLOSE = 3, 4, 255
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
WANTED = {"input": STDIN, "output": STDOUT, "error": STDERR}
API_SERVER = "kube-apiserver-kubelet-client"
ADMINISTRATORS = "system:masters"
PART = 32 * 1024
WAITING = {"ErrImagePull": "image can't be pulled", "ImagePullBackOff": "trying and failing to pull image"}
EXITED = "container is in CONTAINER_EXITED state"
SUCCESS = {"metadata": {}, "status": "Success"}


class Kubelet:
    """An ASGI app. `find(namespace, name)` returns the pod, and `now()` returns lab time in epoch seconds.

    Only the API server and administrators may call the kubelet, with their client certificates. A client that may call
    exec can do everything that the node can do.
    """

    def __init__(self, find: Callable[[str, str], PodLife | None], now: Callable[[], float]) -> None:
        self._find = find
        self._now = now
        self._app = Starlette(
            routes=[
                Route("/healthz", self._health),
                Route("/containerLogs/{namespace}/{pod}/{container}", self._logs),
                WebSocketRoute("/exec/{namespace}/{pod}/{container}", self._exec),
                WebSocketRoute("/attach/{namespace}/{pod}/{container}", self._attach),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
        life = self._find(path["namespace"], path["pod"])
        if life is None:
            return PlainTextResponse(f'pod "{path["pod"]}" not found', 404)
        written = _log_of(life.pod, path["container"], query.get("previous") == "true")
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
        name, command = socket.path_params["container"], socket.query_params.getlist("command")
        if life := await self._life_or_refusal(socket, f'container not found ("{name}")'):
            session = _Session(socket)
            streams = Terminal() if session.tty else Pipes(stdin=STDIN in session.wanted)
            if not command:
                await session.end(_not_started(ValueError("args must not be empty")))
            else:
                await session.end(await session.run(lambda: life.exec(name, command, streams), streams))

    async def _attach(self, socket: WebSocket) -> None:
        path = socket.path_params
        missing = f"container {path['container']} not found in pod {path['pod']}_{path['namespace']}"
        if life := await self._life_or_refusal(socket, missing):
            session = _Session(socket)
            if there := life.pod.attachments.get(path["container"]):
                await session.end(await session.join(there))
            else:  # the container ended while the client was accepted
                await session.end(_failed(f"error attaching to container: {EXITED}"))

    async def _life_or_refusal(self, socket: WebSocket, missing: str) -> PodLife | None:
        """Accept the client and return the pod, or refuse the client."""
        path = socket.path_params
        life = self._find(path["namespace"], path["pod"])
        protocol = next((name for name in PROTOCOLS if name in socket.scope.get("subprotocols", ())), None)
        refusal = None
        if not _wanted(socket):
            refusal = PlainTextResponse("you must specify at least 1 of stdin, stdout, stderr", 400)
        elif life is None:
            refusal = PlainTextResponse("pod does not exist", 404)
        elif path["container"] not in life.pod.attachments:
            refusal = PlainTextResponse(missing, 500)
        elif protocol is None:
            refusal = PlainTextResponse(f"the client must offer the subprotocol {' or '.join(PROTOCOLS)}", 400)
        if refusal:
            await socket.send_denial_response(refusal)
            return None
        await socket.accept(subprotocol=protocol)
        return life


class _Session:
    """One exec or attach. It connects a program's streams with a client's channels."""

    def __init__(self, socket: WebSocket) -> None:
        self.wanted = _wanted(socket)
        self.tty = _is_set(socket, "tty")
        self._socket = socket

    async def run(self, start: Callable[[], Awaitable[Process]], streams: Pipes | Terminal) -> Object:
        """Run a program, and return the Status for the error channel."""
        try:
            process = await start()
        except (OSError, KeyError) as error:
            streams.close()
            return _not_started(error)
        running = asyncio.create_task(self._to_the_end(process, streams))
        try:
            await self._until_client_leaves(streams, running)
            return _ended(running.result()) if running.done() else {}
        finally:
            # If the client has left, the program only loses its input or its terminal.
            running.cancel()
            streams.close()

    async def join(self, attachments: Attachments) -> Object:
        """Connect the client to the container's input and output, until the container ends or the client leaves.

        Return the status for the client: always `SUCCESS`.
        """
        ended = asyncio.create_task(attachments.ended.wait())
        attachments.clients.add(self._send)
        try:
            await self._until_client_leaves(attachments.streams, ended, keeps_input=not attachments.closes_input)
        finally:
            ended.cancel()
            attachments.clients.discard(self._send)
            if STDIN in self.wanted and attachments.closes_input:
                attachments.streams.end_input()
        return SUCCESS

    async def end(self, status: Object) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self._socket.send_bytes(bytes([ERROR]) + json.dumps(status).encode())
            await self._socket.close()

    async def _to_the_end(self, process: Process, streams: Pipes | Terminal) -> int:
        """Send the client all output of a program, and return the exit code."""
        sending = asyncio.gather(*(self._copy(streams, channel) for channel in streams.outputs))
        code = await process.wait()
        streams.program_has_ended()
        await asyncio.wait({sending}, timeout=streams.patience)
        return code

    async def _copy(self, streams: Pipes | Terminal, channel: int) -> None:
        while data := await streams.read(channel, PART):
            await self._send(channel, data)

    async def _send(self, channel: int, data: bytes) -> None:
        if channel in self.wanted:
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await self._socket.send_bytes(bytes([channel]) + data)

    async def _until_client_leaves(
        self, streams: Pipes | Terminal, ended: asyncio.Task[Any], *, keeps_input: bool = False
    ) -> None:
        """Wait until the client leaves or the task ``ended`` is done.

        With ``keeps_input``, the wait is also over when the client closes its input. The program's input then stays
        open.
        """
        receiving = asyncio.create_task(self._receive(streams, keeps_input))
        await asyncio.wait({receiving, ended}, return_when=asyncio.FIRST_COMPLETED)
        receiving.cancel()

    async def _receive(self, streams: Pipes | Terminal, keeps_input: bool) -> None:
        with contextlib.suppress(WebSocketDisconnect, KeyError, RuntimeError):
            while True:
                frame = await self._socket.receive_bytes()
                channel, data = frame[:1], frame[1:]
                if channel == bytes([STDIN]) and STDIN in self.wanted:
                    await streams.write(data)
                elif channel == bytes([CLOSE]) and data == bytes([STDIN]) and STDIN in self.wanted:
                    if keeps_input:
                        return
                    streams.end_input()
                elif channel == bytes([RESIZE]):
                    with contextlib.suppress(ValueError, TypeError, KeyError):
                        size = json.loads(data)
                        streams.resize(size["Width"], size["Height"])


def _wanted(socket: WebSocket) -> set[int]:
    return {channel for name, channel in WANTED.items() if _is_set(socket, name)}


def _is_set(socket: WebSocket, name: str) -> bool:
    return socket.query_params.get(name) in ("1", "true")


def _log_of(pod: NodePod, container: str, previous: bool) -> ContainerLog | str:
    """Return the log of the container's latest run; with ``previous``, of the run before. Without a log, return why."""
    of = f'container "{container}" in pod "{pod.document["metadata"]["name"]}"'
    status = pod.status.container(container)
    if status is None:
        return f"{of} is not available"
    before = status.last.get("terminated") or {}
    if previous:
        run_id = before.get("containerID", "")
        missing = f"previous terminated {of} not found"
    elif status.running:
        run_id, missing = status.run_id, ""
    elif ended := status.state.get("terminated") or before:
        run_id = ended.get("containerID", "")
        missing = f"{of} is terminated"
    else:
        reason = status.state["waiting"]["reason"]
        return f"{of} is waiting to start: {WAITING.get(reason, reason)}"
    if not run_id:
        return missing
    log = pod.logs.get((container, int(run_id.rpartition("/")[2])))
    return log or f"unable to retrieve container logs for {run_id}"


def _since(time: str | None, seconds: str | None, now: float) -> str:
    if time:
        return timestamp(datetime.fromisoformat(time.replace("Z", "+00:00")).astimezone(UTC).timestamp())
    return timestamp(now - int(seconds)) if seconds else ""


async def _texts(blocks: AsyncIterator[list[bytes]], timestamps: bool, limit: int | None) -> AsyncIterator[bytes]:
    left = limit
    async for lines in blocks:
        text = b"".join(shown(line, timestamps=timestamps) for line in lines)[:left]
        if left is not None:
            left -= len(text)
        if text:
            yield text
        if left == 0:
            return


def _ended(code: int) -> Object:
    if code == 0:
        return SUCCESS
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: command terminated with exit code {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _not_started(error: Exception) -> Object:
    """Return the Status of a program that didn't start, in containerd's and runc's words.

    https://github.com/containerd/containerd/blob/main/docs/cri/architecture.md
    """
    why = "error executing command in container: failed to exec in container: "
    if isinstance(error, KeyError):
        why += EXITED
    else:
        why += f'failed to start exec "{secrets.token_hex(32)}": OCI runtime exec failed: exec failed: '
        why += f"unable to start container process: {said(error)}"
    return _failed(why)


def _failed(why: str) -> Object:
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {why}",
        "reason": "InternalError",
        "details": {"causes": [{"message": why}]},
        "code": 500,
    }
