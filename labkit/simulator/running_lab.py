"""The parts of the running lab that its clusters use: folder, ports, listeners, the gate and the public issuer."""

import asyncio
import time
from dataclasses import replace

from starlette.types import Scope

from labkit.simulator.aws.gate import Gate
from labkit.simulator.folder import Folder
from labkit.simulator.identifiers import Identifiers
from labkit.simulator.kubernetes.issuer import PublicIssuer
from labkit.simulator.listener import Listener
from labkit.simulator.ports import Ports
from labkit.simulator.process import State

# Seconds in which the lab's public issuer must answer STS. Both run in this process. If all pods of a class start at
# once, this issuer needs longer than a real one.
OWN_ISSUER_WITHIN = 30.0


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
