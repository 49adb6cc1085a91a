"""The running lab, for its clusters: its folder, ports and listeners, its AWS and its public issuer."""

import asyncio
import time
from dataclasses import replace

from starlette.types import Scope

from labkit.emulator.aws.gate import Gate
from labkit.emulator.folder import Folder
from labkit.emulator.identifiers import Identifiers
from labkit.emulator.kubernetes.issuer import Issuer
from labkit.emulator.listener import Listener
from labkit.emulator.ports import Ports
from labkit.emulator.process import State

# Seconds: it answers in this process, later than an issuer elsewhere may where a class's pods all start at once.
OWN_ISSUER_WITHIN = 30.0


class RunningLab:
    """The parts that all clusters share. Clusters of a ``bare`` lab have no webhook and no node, and aren't kept.

    The server sets ``gate`` and ``state`` at its start, before the first cluster is created.
    """

    gate: Gate
    state: State

    def __init__(self, folder: Folder, *, bare: bool):
        self.folder = folder
        self.bare = bare
        self.ports = Ports(folder)
        self.identifiers = Identifiers(folder.seed, None if bare else folder.path / "aws-serials.db")
        # For the clusters and the objects in them. A bare lab keeps nothing.
        self.kubernetes_identifiers = Identifiers(folder.seed, None if bare else folder.path / "clusters/serials.db")
        self.issuer = Issuer(folder.published)
        self.last_call = time.monotonic()
        self._listeners: list[Listener] = []

    async def listen_as_issuer(self, region: str) -> None:
        """Serve the name of EKS's issuers in this region, and tell the gate where to find it."""
        host = f"oidc.eks.{region}.amazonaws.com"
        if host in self.state.issuers:
            return
        authority = self.folder.authority
        own = authority.issue(host, dns=[host])
        # A provider's thumbprint is of the top certificate, which stays the same when the lab starts again.
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
        """Start a listener, and return it. It ends with the lab."""
        await listener.start()
        self._listeners.append(listener)
        return listener

    async def close(self, listener: Listener) -> None:
        """End one listener. Its port stays reserved."""
        self._listeners.remove(listener)
        await listener.stop()

    def called(self, scope: Scope) -> None:
        """Note a client's call. Calls between the lab's own parts don't count."""
        peer = scope["state"]["peer"]
        if peer is None or not peer.common_name.startswith("system:"):
            self.last_call = time.monotonic()

    async def stop(self) -> None:
        """End every listener, and close the folder's files."""
        await asyncio.gather(*(listener.stop() for listener in self._listeners))
        await self.gate.close()
        self.identifiers.close()
        self.kubernetes_identifiers.close()
