"""A listener of the lab: an ASGI application on a port, protected from web pages and DNS rebinding."""

import asyncio
import contextlib
import hashlib
import socket
import ssl
from collections.abc import Callable, Set
from dataclasses import dataclass, field

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import get_remote_addr
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets import http11

from labkit.simulator.certificates import Certificate
from labkit.webhook.serving import EmbeddedServer, bound

LOOPBACK = frozenset({"127.0.0.1", "localhost"})
LONGEST_HEAD = 1024 * 1024  # bytes of a request's first line and headers, the limit of a Kubernetes API server
MOST_PARAMETERS = 10_000  # the most parameters of a query
# This library reads a WebSocket's head once more, with lower limits by default. An exec has its command in the head.
http11.MAX_LINE_LENGTH = http11.MAX_NUM_HEADERS = LONGEST_HEAD


@dataclass(frozen=True)
class Peer:
    """The subject of a verified TLS client certificate."""

    common_name: str
    organizations: tuple[str, ...]
    sha256: str = field(default="", compare=False)  # of the certificate, in hex


class Listener:
    """Serve ``app`` on a bound socket, over TLS if there is a ``certificate``.

    So that no web page can call the lab, the listener refuses two kinds of requests: those whose ``Host`` is not in
    ``hosts`` (421), and those with an ``Origin`` (403). The exception is a WebSocket with the listener's own https
    address as its ``Origin``. The listener also refuses a head that is too long (431), and a query with too many
    parameters (414).

    With ``client_authority_pem``, clients may present a certificate. ``scope["state"]["peer"]`` is then the
    :class:`Peer`; None for a client without a certificate. ``on_call`` is called for every accepted request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        port_socket: socket.socket,
        hosts: Set[str] = LOOPBACK,
        certificate: Certificate | None = None,
        client_authority_pem: bytes | None = None,
        on_call: Callable[[Scope], None] | None = None,
    ):
        self.app = app
        self.hosts = hosts
        self.port: int = port_socket.getsockname()[1]
        self._socket = port_socket
        self._on_call = on_call
        self._peers: dict[tuple[str, int], Peer] = {}
        self._ready = asyncio.Event()
        self._server = EmbeddedServer(self._config(certificate, client_authority_pem), self._ready.set)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start serving; return when connections are accepted."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        started = asyncio.create_task(self._ready.wait())
        await asyncio.wait({self._serving, started}, return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done():
            started.cancel()
            self._serving.result()

    async def stop(self) -> None:
        """Close the socket. Running requests have one second to end."""
        self._server.should_exit = True
        if self._serving:
            with contextlib.suppress(asyncio.CancelledError):
                await self._serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        # The Kubernetes client for Python opens exec with the server's own address as the origin. No web page has that
        # origin, because the listeners serve no web pages.
        own_origin = b"https://" + headers.get(b"host", b"") if scope["type"] == "websocket" else None
        app = self.app
        if _host_name(headers.get(b"host", b"").decode("latin-1")) not in self.hosts:
            hosts = " or ".join(sorted(self.hosts))
            app = _refusal(scope, 421, f"this listener of the lab only answers requests to {hosts}")
        elif headers.get(b"origin", own_origin) != own_origin:
            app = _refusal(scope, 403, "this listener of the lab does not answer requests from web pages")
        elif scope["query_string"].count(b"&") >= MOST_PARAMETERS:
            app = _refusal(scope, 414, f"a query may have at most {MOST_PARAMETERS} parameters")
        else:
            scope["state"] = {**scope.get("state", {}), "peer": self._peers.get(tuple(scope["client"] or ()))}
            if self._on_call:
                self._on_call(scope)
        await app(scope, receive, send)

    def _config(self, certificate: Certificate | None, client_authority_pem: bytes | None) -> uvicorn.Config:
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
            ws_ping_interval=None,  # if a program doesn't read its exec's input, the client can't answer a ping
        )
        config.load()
        if certificate:
            config.ssl = _context(certificate, client_authority_pem)
        return config


def bind(port: int, address: str = "127.0.0.1") -> socket.socket:
    """Return a socket bound to ``port`` (0: any free port) of this IPv4 address. Raises OSError if that fails."""
    return bound(socket.AF_INET, (address, port))


def _protocols(peers: dict[tuple[str, int], Peer]) -> tuple[type, type]:
    """Return uvicorn's HTTP and WebSocket protocols, which store the clients' certificates in ``peers``."""

    class Remembering(asyncio.Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
            super().connection_made(transport)
            self._address = get_remote_addr(transport) or ("", 0)
            if peer := _peer(transport):
                peers[self._address] = peer

        def connection_lost(self, error: Exception | None) -> None:
            peers.pop(self._address, None)
            super().connection_lost(error)

    return type("Http", (Remembering, _Bounded), {}), type("WebSocket", (Remembering, WebSocketsSansIOProtocol), {})


class _Bounded(HttpToolsProtocol):
    """uvicorn's protocol for HTTP, with a limit for the head's length."""

    _in_head = True
    _head = 0  # bytes of the head that is being read

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head += len(data)
            if self._head > LONGEST_HEAD:
                self._refuse_head()
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head, self._head = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()

    def _refuse_head(self) -> None:
        if not self.transport.is_closing():
            message = f"a request's first line and headers may have at most {LONGEST_HEAD} bytes"
            head = f"content-type: text/plain\r\ncontent-length: {len(message)}\r\nconnection: close"
            self.transport.write(f"HTTP/1.1 431 Request Header Fields Too Large\r\n{head}\r\n\r\n{message}".encode())
            self.transport.close()


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


def _context(certificate: Certificate, client_authority_pem: bytes | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.load_into(context)
    if client_authority_pem:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=client_authority_pem.decode())
    return context


def _host_name(host: str) -> str:
    """Return the name in a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _refusal(scope: Scope, status: int, message: str) -> ASGIApp:
    return WebSocketClose(1008, message) if scope["type"] == "websocket" else PlainTextResponse(f"{message}\n", status)
