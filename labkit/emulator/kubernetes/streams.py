"""What the API server passes on to a node's kubelet: logs, and exec over WebSocket.

https://kubernetes.io/docs/concepts/architecture/control-plane-node-communication/#api-server-to-kubelet
https://kubernetes.io/docs/reference/using-api/api-concepts/#websockets (the channel.k8s.io subprotocols)
"""

import asyncio
import contextlib
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import websockets
from websockets.asyncio.client import connect

from labkit.emulator.certificates import Authority, Certificate
from labkit.emulator.kubernetes.kinds import NODE, POD
from labkit.emulator.kubernetes.requests import Request, Response
from labkit.emulator.kubernetes.status import ApiError, bad_request, internal, not_found
from labkit.emulator.kubernetes.storage import Storage, Stored

SUBPROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
EXEC = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
LOG = ("follow", "previous", "timestamps", "tailLines", "sinceSeconds", "sinceTime", "limitBytes", "stream")
LARGEST = 32 * 1024 * 1024


class Kubelets:
    """Speaks to the nodes' kubelets with the API server's own client certificate."""

    def __init__(self, storage: Storage, authority: Authority, certificate: Certificate):
        self.storage = storage
        self._context = ssl.create_default_context(cadata=authority.certificate_pem.decode())
        with tempfile.TemporaryDirectory() as folder:
            chain = Path(folder) / "chain.pem"
            chain.touch(mode=0o600)
            chain.write_bytes(certificate.certificate_pem + certificate.key_pem)
            self._context.load_cert_chain(chain)
        self._client: httpx.AsyncClient | None = None

    async def close(self) -> None:
        if self._client:
            await self._client.aclose()
            self._client = None

    async def log(self, request: Request) -> Response:
        """`GET …/pods/NAME/log`: the container's output, to its end where `follow` is asked for."""
        pod = self.storage.get(POD, request.namespace, request.name)
        container = _container(pod, request.query.get("container", ""))
        node = pod.object["spec"].get("nodeName")
        if not node:
            return Response(200, content_type="text/plain")
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
        return Response(200, content_type="text/plain", stream=_closing(answer))

    def target(self, request: Request) -> str:
        """The kubelet's address for an exec. Raises ``ApiError`` for a pod or container where none is possible."""
        pod = self.storage.get(POD, request.namespace, request.name)
        if (phase := (pod.object.get("status") or {}).get("phase")) in ("Succeeded", "Failed"):
            raise bad_request(f"cannot exec into a container in a completed pod; current phase is {phase}")
        container = _container(pod, request.query.get("container", ""), default=True)
        node = pod.object["spec"].get("nodeName")
        if not node:
            raise bad_request(f"pod {pod.name} does not have a host assigned")
        if not any(key == "command" for key, _ in request.queries):
            raise bad_request("you must specify at least 1 command for the container")
        query = [(EXEC[key], "1") for key in EXEC if request.query.get(key, "").lower() in ("true", "1")]
        query += [("command", value) for key, value in request.queries if key == "command"]
        return f"wss://{self._address(node)}/exec/{pod.namespace}/{pod.name}/{container}?{urlencode(query)}"

    def refuse_without_websocket(self, request: Request) -> ApiError:
        """What to say to an exec that is no WebSocket: kubectl asks so again where the WebSocket was refused."""
        self.target(request)
        pod = self.storage.get(POD, request.namespace, request.name)
        container = _container(pod, request.query.get("container", ""), default=True)
        status = pod.object.get("status") or {}
        statuses = (status.get("containerStatuses") or []) + (status.get("initContainerStatuses") or [])
        if any(each["name"] == container and "running" in (each.get("state") or {}) for each in statuses):
            return bad_request("Upgrade request required")
        return internal(f'unable to upgrade connection: container not found ("{container}")')

    async def exec(
        self,
        url: str,
        scope: MutableMapping[str, Any],
        receive: Callable,
        send: Callable,
        refuse: Callable,
    ) -> None:
        """Joins the client's WebSocket with one to the kubelet, to the end of either. ``refuse`` answers an error."""
        offered = scope.get("subprotocols") or []
        chosen = next((protocol for protocol in offered if protocol in SUBPROTOCOLS), None)
        if chosen is None:
            await refuse(bad_request(f"unable to upgrade: unsupported subprotocols {offered}"))
            return
        try:
            kubelet = await connect(
                url, ssl=self._context, subprotocols=[chosen], max_size=LARGEST, compression=None, proxy=None
            )
        except websockets.InvalidStatus as error:
            text = (error.response.body or b"").decode("utf-8", "replace").strip()
            await refuse(_kubelet_error(error.response.status_code, text))
            return
        except (OSError, websockets.InvalidHandshake, TimeoutError) as error:
            await refuse(internal(f"error dialing backend: {error}"))
            return
        async with kubelet:
            await send({"type": "websocket.accept", "subprotocol": kubelet.subprotocol})
            up = asyncio.create_task(_up(receive, kubelet))
            down = asyncio.create_task(_down(send, kubelet))
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    def _address(self, name: str) -> str:
        node = self.storage.find(NODE, "", name)
        if node is None:
            raise not_found(POD, name)  # the real server, too, calls a missing node a pod
        status = node.object.get("status") or {}
        addresses = {address["type"]: address["address"] for address in status.get("addresses") or ()}
        port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port", 10250)
        for kind in ("InternalIP", "ExternalIP", "Hostname", "InternalDNS"):
            if kind in addresses:
                return f"{addresses[kind]}:{port}"
        raise internal(f"no preferred addresses found; known addresses: {list(addresses)}")


def _container(pod: Stored, wanted: str, *, default: bool = False) -> str:
    spec = pod.object["spec"]
    names = [container["name"] for container in spec["containers"]]
    others = [container["name"] for container in spec.get("initContainers") or ()]
    if wanted:
        if wanted not in names + others:
            raise bad_request(f"container {wanted} is not valid for pod {pod.name}")
        return wanted
    if len(names) > 1 and not default:
        choices = f", choose one of: [{' '.join(names)}]"
        if others:
            choices += f" or one of the init containers: [{' '.join(others)}]"
        raise bad_request(f"a container name must be specified for pod {pod.name}{choices}")
    return names[0]


def _kubelet_error(code: int, text: str) -> ApiError:
    if code == 400:
        return bad_request(text)
    if code == 404:
        return ApiError(404, "NotFound", text or "the server could not find the requested resource", {})
    if code in (401, 403):
        return ApiError(code, "Forbidden" if code == 403 else "Unauthorized", text)
    return internal(text or f"the kubelet answered {code}")


async def _closing(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for part in answer.aiter_raw():
            yield part
    except httpx.HTTPError:
        return  # the node went away: what came so far is what there is
    finally:
        await answer.aclose()


async def _up(receive: Callable, kubelet: Any) -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        if message["type"] == "websocket.receive":
            # Some clients send text as text: what is in a channel is bytes.
            data = message["bytes"] if message.get("bytes") is not None else message["text"].encode()
            with contextlib.suppress(websockets.ConnectionClosed):
                await kubelet.send(data)


async def _down(send: Callable, kubelet: Any) -> None:
    code, reason = 1000, ""
    try:
        async for message in kubelet:
            key = "text" if isinstance(message, str) else "bytes"
            await send({"type": "websocket.send", key: message})
    except websockets.ConnectionClosedError as error:
        code = error.rcvd.code if error.rcvd else 1011
        reason = error.rcvd.reason if error.rcvd else ""
    await send({"type": "websocket.close", "code": code, "reason": reason})
