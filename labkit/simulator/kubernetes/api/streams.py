"""Pass requests for logs, exec and attach on to a node's kubelet. Exec and attach use WebSocket.

https://kubernetes.io/docs/concepts/architecture/control-plane-node-communication/#api-server-to-kubelet
https://kubernetes.io/docs/reference/using-api/api-concepts/#websockets (the channel.k8s.io subprotocols)
"""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime
from urllib.parse import urlencode

import httpx
import websockets
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from labkit.simulator.certificates import Authority, Certificate, client_context
from labkit.simulator.kubernetes.api import loopback
from labkit.simulator.kubernetes.api.requests import KubeRequest, KubeResponse
from labkit.simulator.kubernetes.objects.kinds import NODE, POD
from labkit.simulator.kubernetes.objects.status import (
    ApiError,
    bad_request,
    forbidden_field,
    internal,
    invalid,
    invalid_value,
    not_found,
    quote,
)
from labkit.simulator.kubernetes.objects.storage import Storage, Stored, dump

STREAMED = ("exec", "attach")
OUTPUTS, ERROR = (("stdout", 1), ("stderr", 2)), 3
TRANSLATED = Subprotocol("v5.channel.k8s.io")
SUBPROTOCOLS = (TRANSLATED, Subprotocol("v4.channel.k8s.io"))
Refuse = Callable[[ApiError], Awaitable[None]]
KUBELET_FLAGS = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
LOG = ("follow", "previous", "timestamps", "tailLines", "sinceSeconds", "sinceTime", "limitBytes")
LEAST = {"tailLines": 0, "limitBytes": 1, "sinceSeconds": 1}
LARGEST = 32 * 1024 * 1024


class Kubelets:
    """Call the nodes' kubelets, with the API server's own client certificate."""

    def __init__(self, storage: Storage, authority: Authority, certificate: Certificate):
        self.storage = storage
        self._context = client_context(authority.certificate_pem, certificate)
        self._client: httpx.AsyncClient | None = None

    async def close(self) -> None:
        if self._client:
            await self._client.aclose()
            self._client = None

    async def log(self, request: KubeRequest) -> KubeResponse:
        """Answer `GET …/pods/NAME/log` with the container's output.

        With `follow`, the answer continues until the container ends.
        """
        pod = self.storage.get(POD, request.namespace, request.name)
        _check_log_options(pod.name, request.query)
        container = _container(pod, request.query.get("container", ""))
        node = pod.object["spec"].get("nodeName")
        if not node:
            return KubeResponse(200, content_type="text/plain")
        query = {key: request.query[key] for key in LOG if key in request.query}
        url = f"https://{self._address(node)}/containerLogs/{pod.namespace}/{pod.name}/{container}"
        if self._client is None:
            self._client = httpx.AsyncClient(
                verify=self._context, trust_env=False, timeout=httpx.Timeout(10, read=None)
            )
        sent = self._client.build_request("GET", url, params=query)
        try:
            answer = await self._client.send(sent, stream=True)
        except httpx.HTTPError as error:
            raise internal(f'Get "{sent.url}": {error or type(error).__name__}') from error
        if answer.status_code != 200:
            text = (await answer.aread()).decode("utf-8", "replace").strip()
            await answer.aclose()
            raise _kubelet_error(answer.status_code, text)
        return KubeResponse(200, content_type="text/plain", stream=_closing(answer))

    def target(self, request: KubeRequest) -> str:
        """Return the kubelet's URL for an exec or attach.

        Raises ``ApiError`` if the pod has no node, or no container with the requested name.
        """
        pod = self.storage.get(POD, request.namespace, request.name)
        container = _container(pod, request.query.get("container", ""))
        node = _node_of(pod)
        query = [(flag, "1") for key, flag in KUBELET_FLAGS.items() if request.flag(key)]
        query += [("command", value) for key, value in request.queries if key == "command"]
        where = f"{self._address(node)}/{request.subresource}/{pod.namespace}/{pod.name}/{container}"
        return f"wss://{where}?{urlencode(query)}"

    def refuse_without_websocket(self, request: KubeRequest) -> ApiError:
        """Return the error for an exec or attach that isn't a WebSocket.

        After a refused WebSocket, kubectl sends a plain request, and shows the error of that request.
        """
        self.target(request)
        if b"upgrade" not in request.headers:
            return bad_request("Upgrade request required")
        return bad_request("unable to upgrade: this server has WebSocket, not SPDY; use kubectl 1.31 or newer")

    def refuse_port_forward(self, request: KubeRequest) -> ApiError:
        """Return the error for a port-forward. It says where the pod's ports are.

        Raises BadRequest if the pod has no node.
        """
        _node_of(self.storage.get(POD, request.namespace, request.name))
        return bad_request(
            "the lab forwards no ports: containers are processes of this machine, so use their ports at 127.0.0.1"
        )

    async def join(self, request: KubeRequest, scope: Scope, receive: Receive, send: Send, refuse: Refuse) -> None:
        """Connect the client's WebSocket to a WebSocket of the kubelet, until either WebSocket ends.

        With the subprotocol v5, the client's WebSocket is accepted before the kubelet gets the request. If the kubelet
        then refuses the request, the error goes to the client's error channel. With v4, the client gets the kubelet's
        HTTP answer instead. Until the client's WebSocket is accepted, ``refuse`` sends the API server's own
        errors.
        https://kep.k8s.io/4006
        """
        offered = scope.get("subprotocols") or []
        chosen = next((protocol for protocol in SUBPROTOCOLS if protocol in offered), None)
        if chosen is None:
            await refuse(bad_request(f"unable to upgrade: unsupported subprotocols {offered}"))
            return
        try:
            url = self.target(request)
        except ApiError as error:
            await refuse(error)
            return
        if chosen == TRANSLATED:
            await send({"type": "websocket.accept", "subprotocol": chosen})
            first = next((channel for name, channel in OUTPUTS if request.flag(name)), ERROR)
            await send({"type": "websocket.send", "bytes": bytes([first])})
        try:
            kubelet = await connect(
                url,
                ssl=self._context,
                subprotocols=[chosen],
                max_size=LARGEST,
                compression=None,
                proxy=None,
                ping_interval=None,  # pongs would wait, too, while the program doesn't read its input
            )
        except websockets.InvalidStatus as error:
            text = (error.response.body or b"").decode("utf-8", "replace").strip()
            if chosen == TRANSLATED:
                await _end(send, internal(f"unable to upgrade connection: {text}"))
            else:
                await _answer(send, error.response.status_code, text)
            return
        except (OSError, websockets.InvalidHandshake, TimeoutError) as error:
            failed = internal(f"error dialing backend: {error}")
            await (_end(send, failed) if chosen == TRANSLATED else refuse(failed))
            return
        async with kubelet:
            if chosen != TRANSLATED:
                await send({"type": "websocket.accept", "subprotocol": chosen})
            up = asyncio.create_task(_up(receive, kubelet))
            down = asyncio.create_task(_down(send, kubelet))
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if not down.done() or down.exception():
                kubelet.transport.abort()  # the client has left, so no one would get the rest
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    def _address(self, name: str) -> str:
        node = self.storage.find(NODE, "", name)
        if node is None:
            raise not_found(POD, name)  # the real server also calls a missing node a pod
        status = node.object.get("status") or {}
        addresses = {address["type"]: address["address"] for address in status.get("addresses") or ()}
        port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port", 10250)
        for kind in ("InternalIP", "ExternalIP", "Hostname", "InternalDNS"):
            if kind in addresses:
                if why := loopback.refusal(addresses[kind]):
                    raise internal(f"error dialing backend: dial tcp: {why}")
                return f"{addresses[kind]}:{port}"
        raise internal(f"no preferred addresses found; known addresses: {list(addresses)}")


def _container(pod: Stored, wanted: str) -> str:
    spec = pod.object["spec"]
    names = [container["name"] for container in (*(spec.get("initContainers") or ()), *spec["containers"])]
    if wanted:
        if wanted not in names:
            raise bad_request(f"container {wanted} is not valid for pod {pod.name}")
        return wanted
    if len(spec["containers"]) > 1:
        raise bad_request(f"a container name must be specified for pod {pod.name}, choose one of: [{' '.join(names)}]")
    return str(spec["containers"][0]["name"])


def _node_of(pod: Stored) -> str:
    if node := pod.object["spec"].get("nodeName"):
        return str(node)
    raise bad_request(f"pod {pod.name} does not have a host assigned")


def _check_log_options(pod: str, query: dict[str, str]) -> None:
    """https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.36/#podlogoptions-v1-core"""
    causes = []
    for name, least in LEAST.items():
        value = query.get(name, str(least))
        if not re.fullmatch(r"[+-]?\d+", value):
            raise bad_request(f"strconv.ParseInt: parsing {quote(value)}: invalid syntax")
        if int(value) < least:
            wanted = "greater than 0" if least else "greater than or equal to 0"
            causes.append(invalid_value(name, int(value), f"must be {wanted}"))
    if time := query.get("sinceTime"):
        try:
            datetime.fromisoformat(time)
        except ValueError as error:
            layout = '"2006-01-02T15:04:05Z07:00"'
            why = f'parsing time {quote(time)} as {layout}: cannot parse {quote(time)} as "2006"'
            raise bad_request(why) from error
        if "sinceSeconds" in query:
            causes.append(forbidden_field("", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    if "stream" in query:
        causes.append(forbidden_field("stream", "may not be specified"))
    if causes:
        raise invalid("PodLogOptions", "", pod, causes)


def _kubelet_error(code: int, text: str) -> ApiError:
    if code == 400:
        return bad_request(text)
    if code == 404:
        return ApiError(404, "NotFound", text or "the server could not find the requested resource", {})
    if code in (401, 403):
        return ApiError(code, "Forbidden" if code == 403 else "Unauthorized", text)
    return internal(text or f"the kubelet answered {code}")


async def _closing(answer: httpx.Response) -> AsyncGenerator[bytes]:
    try:
        async for part in answer.aiter_raw():
            yield part
    except httpx.HTTPError:
        return  # the node is gone: the client has got the log up to this point
    finally:
        await answer.aclose()


async def _answer(send: Send, code: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "websocket.http.response.start", "status": code, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": text.encode()})


async def _end(send: Send, error: ApiError) -> None:
    await send({"type": "websocket.send", "bytes": bytes([ERROR]) + dump(error.status())})
    await send({"type": "websocket.close", "code": 1000})


async def _up(receive: Receive, kubelet: ClientConnection) -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        if message["type"] == "websocket.receive":
            # Some clients send a text frame, but a channel carries bytes.
            data = message["bytes"] if message.get("bytes") is not None else message["text"].encode()
            with contextlib.suppress(websockets.ConnectionClosed):
                await kubelet.send(data)


async def _down(send: Send, kubelet: ClientConnection) -> None:
    code, reason = 1000, ""
    try:
        async for message in kubelet:
            frame = message if isinstance(message, bytes) else message.encode()
            if kubelet.subprotocol == TRANSLATED and frame[0] == ERROR:
                status = json.loads(frame[1:])
                if status.get("reason") == "InternalError":  # a real API server words this error itself
                    frame = bytes([ERROR]) + dump(internal(status["message"]).status())
            await send({"type": "websocket.send", "bytes": frame})
    except websockets.ConnectionClosedError as error:
        code = error.rcvd.code if error.rcvd else 1011
        reason = error.rcvd.reason if error.rcvd else ""
    await send({"type": "websocket.close", "code": code, "reason": reason})
