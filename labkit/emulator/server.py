"""The one background process of a lab: the gate, the metadata service, the public issuer and the clusters."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from labkit.emulator import certificates, environment
from labkit.emulator.aws.gate import Gate
from labkit.emulator.aws.sessions import Keys
from labkit.emulator.aws.trail import Trail
from labkit.emulator.cluster import ACCOUNT_ID, REGION, Clusters
from labkit.emulator.folder import Folder
from labkit.emulator.identifiers import Identifiers
from labkit.emulator.kubernetes.issuer import Issuer
from labkit.emulator.listener import Listener, Scope, bind
from labkit.emulator.process import State

LOOPBACK = {"127.0.0.1", "localhost"}
IDLE_SECONDS = 8 * 3600


def main() -> None:
    """``python -m labkit.emulator FOLDER READY_FD [--bare]``: serves until it is ended; says ready on READY_FD."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # uvicorn takes a WebSocket that is refused by an answer, as ASGI allows, for a fault of the application.
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: "without completing handshake" not in record.getMessage()
    )
    folder, ready = Folder(Path(sys.argv[1])), int(sys.argv[2])
    # Whoever starts a server has made sure that there is none; the lock may be held a moment by one who asks.
    with folder.lock("server.lock"):
        asyncio.run(Server(folder, bare="--bare" in sys.argv).serve(ready))


class Server:
    """Everything of a lab that listens, in one event loop. Clusters of a ``bare`` one have no webhook and no node."""

    def __init__(self, folder: Folder, *, bare: bool):
        self.folder = folder
        self.bare = bare
        self.ports = Ports(folder)
        self.identifiers = Identifiers(folder.seed)
        self.last_call = time.monotonic()
        self.ended = asyncio.Event()
        self.why = "was ended"
        self.listeners: list[Listener] = []

    async def serve(self, ready: int) -> None:
        """Comes up, writes one line on the descriptor ``ready``, and serves until it is ended or nobody calls."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ended.set)
        await self._come_up()
        os.write(ready, b"ready\n")
        os.close(ready)
        self.clusters.prepare()
        preparing = asyncio.create_task(self.gate.backend.prepare("eks", "iam"))
        await self._until_ended()
        preparing.cancel()
        self.state = replace(self.state, ended=self.why)
        self.state.write(self.folder)
        await self.clusters.stop()
        await asyncio.gather(*(listener.stop() for listener in self.listeners))

    async def _come_up(self) -> None:
        folder = self.folder
        keys = Keys(
            "AKIA" + self.identifiers.base32("access-key", "administrator", 16), _secret_access_key(folder.secret)
        )
        self.clusters = Clusters(server=self)
        self.gate = Gate(
            account_id=ACCOUNT_ID,
            region=REGION,
            clock=folder.clock,
            identifiers=self.identifiers,
            trail=Trail(folder.trail_file),
            clusters=self.clusters,
            administrator=keys,
        )
        # Providers and roles are gone with the lab that had them; what was published for it goes, too.
        folder.published.clear()
        self.issuer = Issuer(folder.published)
        gate = await self.listen(self.ports.bind("gate"), self.gate, on_call=self.called)
        environment.write_aws_files(folder, REGION, keys.access_key_id, keys.secret_access_key)
        self.state = State(
            pid=os.getpid(),
            account_id=ACCOUNT_ID,
            region=REGION,
            endpoint_url=f"http://127.0.0.1:{gate.port}",
            access_key_id=keys.access_key_id,
            secret_access_key=keys.secret_access_key,
            issuers={},
            ca_file=folder.ca_file,
            kubeconfig=folder.kubeconfig,
            notes=self.ports.notes,
        )
        await self.listen_as_issuer(REGION)
        self.clusters.write_kubeconfig()
        self.state.write(folder)

    async def listen_as_issuer(self, region: str) -> None:
        """Answers by the name that EKS's issuers have in this region; the gate finds it by that name."""
        host = f"oidc.eks.{region}.amazonaws.com"
        if host in self.state.issuers:
            return
        authority = self.folder.authority
        certificate = authority.issue(host, dns=[host])
        listener = await self.listen(
            self.ports.bind(f"issuer/{region}"), self.issuer, hosts={host}, certificate=certificate
        )
        edition = self.folder.published.edition
        self.gate.map_host(host, ("127.0.0.1", listener.port), authority.certificate_pem, edition)
        self.state = replace(self.state, issuers={**self.state.issuers, host: listener.port})

    async def listen(
        self,
        port_socket: socket.socket,
        app: Callable,
        *,
        hosts: set[str] | None = None,
        certificate: certificates.Certificate | None = None,
        client_authority: certificates.Authority | None = None,
        on_call: Callable[[Scope], None] | None = None,
    ) -> Listener:
        """A started listener, which ends with the server."""
        listener = Listener(
            app,
            port_socket=port_socket,
            hosts=hosts or LOOPBACK,
            certificate=certificate,
            client_authority=client_authority,
            on_call=on_call,
        )
        await listener.start()
        self.listeners.append(listener)
        return listener

    async def close(self, listener: Listener) -> None:
        """Ends one listener; its port stays its own."""
        self.listeners.remove(listener)
        await listener.stop()

    def called(self, scope: Scope) -> None:
        """Notes that a client called; what the lab's own parts ask of each other does not count."""
        peer = scope["state"]["peer"]
        if peer is None or not peer.common_name.startswith("system:"):
            self.last_call = time.monotonic()

    async def _until_ended(self) -> None:
        while True:
            idle = time.monotonic() - self.last_call
            if idle >= IDLE_SECONDS:
                self.why = "ended after 8 hours without a call"
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), IDLE_SECONDS - idle)
                return


class Ports:
    """The lab's ports: chosen once and kept; one that is taken is replaced, and that is noted."""

    def __init__(self, folder: Folder):
        self.folder = folder
        self.ports: dict[str, int] = folder.read_json("ports.json")
        self.notes: list[str] = []

    def bind(self, name: str, address: str = "127.0.0.1") -> socket.socket:
        """A socket on the port of ``name``. Raises OSError where the address is none of this machine's."""
        wanted = self.ports.get(name, 0)
        try:
            bound = bind(wanted, address)
        except OSError:
            bound = bind(0, address)
            self.notes.append(f"Port {wanted} was in use: the lab's {name} listens on {bound.getsockname()[1]} now.")
        if (port := bound.getsockname()[1]) != wanted:
            self.ports[name] = port
            self.folder.write_json("ports.json", self.ports)
        return bound


def _secret_access_key(secret: bytes) -> str:
    import base64
    import hashlib

    return base64.b64encode(hashlib.sha256(secret + b"administrator").digest()).decode()[:40].replace("=", "x")
