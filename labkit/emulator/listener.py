"""One of the lab's listeners: an ASGI application on a loopback port, guarded against browsers and rebound names."""

import asyncio
import contextlib
import hashlib
import socket
import ssl
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import get_remote_addr
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from labkit.emulator.certificates import Authority, Certificate

Scope = MutableMapping[str, Any]


@dataclass(frozen=True)
class Peer:
    """Whom a verified TLS client certificate names."""

    common_name: str
    organizations: tuple[str, ...]
    sha256: str = field(default="", compare=False)
    """Of the certificate, in hex."""


class Listener:
    """Serves ``app`` on a socket that is already bound, over TLS when it has a certificate.

    A request whose ``Host`` is not in ``hosts`` is refused with 421, one with a browser's ``Origin`` with 403: no page
    on the web can talk to the lab, not by a name that was rebound to 127.0.0.1 either. With ``client_authority`` a
    client certificate is asked for (not required) and verified; ``scope["state"]["peer"]`` is then its :class:`Peer`,
    or None. ``on_call`` is told of every request that was let through.
    """

    def __init__(
        self,
        app: Callable,
        *,
        port_socket: socket.socket,
        hosts: set[str],
        certificate: Certificate | None = None,
        client_authority: Authority | None = None,
        on_call: Callable[[Scope], None] | None = None,
    ):
        self.app = app
        self.hosts = hosts
        self.port: int = port_socket.getsockname()[1]
        self._socket = port_socket
        self._on_call = on_call
        self._peers: dict[tuple[str, int], Peer] = {}
        self._server = _Server(self._config(certificate, client_authority))
        self._serving: asyncio.Task | None = None

    async def start(self) -> None:
        """Returns when connections are answered."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        started = asyncio.create_task(self._server.ready.wait())
        await asyncio.wait({self._serving, started}, return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done():
            started.cancel()
            self._serving.result()

    async def stop(self) -> None:
        """Returns when the socket is closed; requests in flight get a second to end."""
        self._server.should_exit = True
        if self._serving:
            with contextlib.suppress(asyncio.CancelledError):
                await self._serving

    async def __call__(self, scope: Scope, receive: Callable, send: Callable) -> None:
        headers = dict(scope["headers"])
        if _host_name(headers.get(b"host", b"").decode("latin-1")) not in self.hosts:
            await _refuse(scope, send, 421, f"this listener of the lab answers to {', '.join(sorted(self.hosts))} only")
        elif b"origin" in headers and not _is_own_origin(scope, headers):
            await _refuse(scope, send, 403, "this listener of the lab answers no request of a browser's page")
        else:
            scope["state"] = {**scope.get("state", {}), "peer": self._peers.get(tuple(scope["client"] or ()))}
            if self._on_call:
                self._on_call(scope)
            await self.app(scope, receive, send)

    def _config(self, certificate: Certificate | None, client_authority: Authority | None) -> uvicorn.Config:
        http, websocket = _protocols(self._peers)
        config = uvicorn.Config(
            self,
            loop="asyncio",
            http=http,
            ws=websocket,
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
            ws_per_message_deflate=False,
            ws_ping_interval=None,  # who is held up (an exec whose program does not read) cannot answer one
        )
        config.load()
        if certificate:
            config.ssl = _context(certificate, client_authority)
        return config


def bind(port: int, address: str = "127.0.0.1") -> socket.socket:
    """A socket bound to ``port`` of the loopback address, or of another IPv4 address of this machine.

    0 chooses a free one. Raises OSError where it is taken.
    """
    # asyncio sends small answers at once (TCP_NODELAY) only on a socket that names its protocol.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((address, port))
    except OSError:
        bound.close()
        raise
    return bound


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the process and says when it is up."""

    def __init__(self, config: uvicorn.Config):
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


def _protocols(peers: dict[tuple[str, int], Peer]) -> tuple[type, type]:
    """uvicorn's protocols, which remember in ``peers`` whose client certificate a connection came with."""

    class Remembering:
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            if peer := _peer(transport):
                peers[get_remote_addr(transport)] = peer

        def connection_lost(self, error: Exception | None) -> None:
            peers.pop(self.client if hasattr(self, "client") else get_remote_addr(self.transport), None)
            super().connection_lost(error)

    return (
        type("Http", (Remembering, HttpToolsProtocol), {}),
        type("WebSocket", (Remembering, WebSocketsSansIOProtocol), {}),
    )


def _peer(transport: asyncio.Transport) -> Peer | None:
    certificate = transport.get_extra_info("peercert")
    if not certificate:
        return None
    subject = [pair for relative in certificate["subject"] for pair in relative]
    return Peer(
        common_name=next((value for name, value in subject if name == "commonName"), ""),
        organizations=tuple(value for name, value in subject if name == "organizationName"),
        sha256=hashlib.sha256(transport.get_extra_info("ssl_object").getpeercert(binary_form=True)).hexdigest(),
    )


def _context(certificate: Certificate, client_authority: Authority | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.load_into(context)
    if client_authority:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=client_authority.certificate_pem.decode())
    return context


def _is_own_origin(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    # The Kubernetes client for Python opens exec with its server's own address as the origin. No page has that one:
    # the listeners serve none.
    return scope["type"] == "websocket" and headers[b"origin"] == b"https://" + headers[b"host"]


def _host_name(host: str) -> str:
    """The name in a Host header: without its port, without the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


async def _refuse(scope: Scope, send: Callable, status: int, message: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": message})
        return
    body = message.encode() + b"\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
