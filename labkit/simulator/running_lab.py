"""The parts of the running lab that its clusters use: folder, ports, listeners, the gate and the public issuer."""

import asyncio
import json
import socket
import time
from dataclasses import replace

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from labkit.simulator.aws.gate import Gate
from labkit.simulator.folder import Folder
from labkit.simulator.identifiers import Identifiers
from labkit.simulator.kubernetes.objects.kinds import Object
from labkit.simulator.listener import Listener, bind
from labkit.simulator.process import State
from labkit.simulator.published import IssuerAnswer, Published

# Seconds in which the lab's public issuer must answer STS. Both run in this process. If all pods of a class start at
# once, this issuer needs longer than a real one.
OWN_ISSUER_WITHIN = 30.0
# Key: a path below an issuer's own path. Value: the name of the document at that path.
PATHS = {"/.well-known/openid-configuration": "openid-configuration", "/keys": "keys"}


class RunningLab:
    """The parts of a running lab that all its clusters share, such as the ports and the issuer.

    The server sets ``gate`` and ``state`` before it creates the first cluster. In a ``bare`` lab, clusters have no
    webhook and no node. The next server doesn't start a bare lab's clusters again.
    """

    gate: Gate
    state: State

    def __init__(self, folder: Folder, *, bare: bool):
        self.folder = folder
        self.bare = bare
        self.ports = Ports(folder)
        self.identifiers = Identifiers(folder.seed, None if bare else folder.path / "aws-serials.db")
        # The ids of the clusters and of the objects in them. A bare lab keeps no serials.
        self.kubernetes_identifiers = Identifiers(folder.seed, None if bare else folder.path / "clusters/serials.db")
        self.issuer = PublicIssuer(folder.published)
        self.last_call = time.monotonic()
        self._listeners: list[Listener] = []

    async def listen_as_issuer(self, region: str) -> None:
        """Start the listener for the host name of EKS's issuers in this region."""
        host = f"oidc.eks.{region}.amazonaws.com"
        if host in self.state.issuers:
            return
        authority = self.folder.authority
        own = authority.issue(host, dns=[host])
        # A provider's thumbprint is that of the top certificate. Here it's the CA's, which stays the same when the lab
        # starts again.
        certificate = replace(own, certificate_pem=own.certificate_pem + authority.certificate_pem)
        port_socket = self.ports.bind(f"issuer/{region}")
        listener = await self.listen(
            Listener(self.issuer, port_socket=port_socket, hosts={host}, certificate=certificate)
        )
        edition = self.folder.published.edition
        self.gate.issuers.map_host(
            host, ("127.0.0.1", listener.port), authority.certificate_pem, edition, OWN_ISSUER_WITHIN
        )
        self.state = replace(self.state, issuers={**self.state.issuers, host: listener.port})

    async def listen(self, listener: Listener) -> Listener:
        """Start a listener, and return it. It stops when the lab ends."""
        await listener.start()
        self._listeners.append(listener)
        return listener

    async def close(self, listener: Listener) -> None:
        """Stop one listener. Its port stays reserved for the next listener with the same name."""
        self._listeners.remove(listener)
        await listener.stop()

    def called(self, scope: Scope) -> None:
        """Record the time of a client's call. The lab ends 8 hours after the last call.

        Calls between the lab's own parts don't count.
        """
        peer = scope["state"]["peer"]
        if peer is None or not peer.common_name.startswith("system:"):
            self.last_call = time.monotonic()

    async def stop(self) -> None:
        """Stop every listener, and close the folder's files."""
        await asyncio.gather(*(listener.stop() for listener in self._listeners))
        await self.gate.close()
        self.identifiers.close()
        self.kubernetes_identifiers.close()


class Ports:
    """The lab's ports, by name. If a port is in use, another port replaces it, and ``notes`` says so."""

    def __init__(self, folder: Folder):
        self.folder = folder
        # A damaged entry is ignored, so its port is chosen again.
        kept = folder.read_json("ports.json").items()
        self.ports: dict[str, int] = {name: port for name, port in kept if type(port) is int and 0 < port < 65536}
        self.notes: list[str] = []

    def bind(self, name: str, address: str = "127.0.0.1") -> socket.socket:
        """Return a socket bound to the port with this name. Raises OSError if this machine doesn't have ``address``."""
        wanted = self.ports.get(name, 0)
        try:
            bound = bind(wanted, address)
        except OSError:
            bound = bind(0, address)
            self.notes.append(f"Port {wanted} was in use: the lab's {name} now listens on {bound.getsockname()[1]}.")
        if (port := bound.getsockname()[1]) != wanted:
            self.ports[name] = port
            self.folder.write_json("ports.json", self.ports)
        return bound


class PublicIssuer:
    """The public OIDC issuer of all clusters, `https://oidc.eks.REGION.amazonaws.com`: an ASGI app.

    Anybody can read a cluster's discovery document and keys.
    https://openid.net/specs/openid-connect-discovery-1_0.html

    If ``published`` has an override for a document, the app serves the override instead of the document.
    """

    def __init__(self, published: Published) -> None:
        self._published = published
        self._documents: dict[str, Object] = {}

    def publish(self, path: str, discovery: Object, jwks: Object) -> None:
        """Serve both documents below ``path``, for example ``/id/0123456789ABCDEF0123456789ABCDEF``."""
        self._documents[path] = {"openid-configuration": discovery, "keys": jwks}

    def withdraw(self, path: str) -> None:
        """Stop serving the documents below ``path``. The cluster's tokens can no longer be verified."""
        self._documents.pop(path, None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] in ("GET", "HEAD"):
            answer = self._answer(scope["path"])
        else:
            answer = IssuerAnswer(405, '{"message":"Method Not Allowed"}')
        response = Response(answer.body, answer.status, media_type=answer.content_type)
        await response(scope, receive, send)

    def _answer(self, path: str) -> IssuerAnswer:
        for below, name in PATHS.items():
            issuer = path.removesuffix(below)
            if path.endswith(below) and (documents := self._documents.get(issuer)):
                return self._published.override(issuer, name).get() or IssuerAnswer(200, json.dumps(documents[name]))
        return IssuerAnswer(404, '{"message":"Not Found"}')
