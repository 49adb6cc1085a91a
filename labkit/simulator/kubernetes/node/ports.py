"""The ports of a node's containers. In a cluster, each pod has a network of its own; here, all share this machine's.

So two pods can't listen on one port. The second one isn't ready, and an event says why.
"""

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from labkit.simulator.kubernetes.node.addresses import Addresses

CLEAR, LOOK = 10.0, 0.2  # seconds: within which a program listens, and between two looks
LISTENS = "0A"  # https://docs.kernel.org/networking/proc_net_tcp.html


@dataclass(frozen=True, eq=False)
class Claim:
    """The TCP ports that one run of a container names, and the run's processes."""

    pod: str  # NAMESPACE/NAME
    address: str
    ports: set[int]
    processes: Callable[[], list[int]]


@dataclass
class PortClaims:
    """The claims of the containers that run on a node."""

    addresses: Addresses = field(default_factory=Addresses)
    _claims: set[Claim] = field(default_factory=set)
    _another: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.contextmanager
    def claimed(self, claim: Claim) -> Iterator[Claim]:
        """Keep a claim while the container runs."""
        self._claims.add(claim)
        self._another.set()
        self._another = asyncio.Event()
        try:
            yield claim
        finally:
            self._claims.discard(claim)

    def contested(self, claim: Claim) -> bool:
        """Whether another pod of the node names one of the ports, or a program listens on one."""
        wanted = any(other.ports & claim.ports for other in self._others(claim) if other.address == claim.address)
        return wanted or any(_sockets(port, claim.address) for port in claim.ports)

    async def follow(self, claim: Claim) -> AsyncIterator[tuple[bool, str]]:
        """Yield whether the pod has the ports or nobody else wants them, and else the conflict.

        End once the pod listens on the ports, or if nobody has done so for some seconds.
        """
        clear = time.monotonic() + CLEAR
        while claim.ports:
            early, another = time.monotonic() < clear, self._another
            if contested := self.contested(claim):
                yield False, ""  # until this is clear
            conflict, listens = await asyncio.to_thread(lambda: (self.conflict(claim), self._listens(claim)))
            free = not conflict and (listens or not early or not contested)
            if free or conflict:
                yield free, conflict
            if free and (listens or not early):
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(another.wait(), LOOK)

    def conflict(self, claim: Claim) -> str:
        """Return a sentence about one of the ports on which another pod or program listens; else ""."""
        for port in sorted(claim.ports):
            sockets = _sockets(port, claim.address)
            if sockets and not self._owned(claim.pod, sockets):
                owner = next((f"pod {each.pod}" for each in self._others(claim) if _owns(each, sockets)), "")
                return (
                    f"Port {port} is in use by {owner or 'another program of this machine'}: on the target moto, pods "
                    "share this machine's network. Use another port, or one replica with the strategy Recreate."
                )
        return ""

    def _listens(self, claim: Claim) -> bool:
        return all(self._owned(claim.pod, _sockets(port, claim.address)) for port in claim.ports)

    def _owned(self, pod: str, sockets: dict[str, int]) -> bool:
        """Whether a container of the pod has one of the sockets."""
        return any(_owns(each, sockets) for each in tuple(self._claims) if each.pod == pod)

    def _others(self, claim: Claim) -> list[Claim]:
        return [each for each in tuple(self._claims) if each.pod != claim.pod]


def _sockets(port: int, address: str) -> dict[str, int]:
    """Return the sockets that listen on a TCP port at an address: their names in `/proc/PID/fd`, and their users."""
    own = f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}"
    sockets = {}
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            fields = line.split()
            at, _, number = fields[1].rpartition(":")
            if fields[3] == LISTENS and int(number, 16) == port and (at.endswith(own) or not at.strip("0")):
                sockets[f"socket:[{fields[9]}]"] = int(fields[7])
    return sockets


def _owns(claim: Claim, sockets: dict[str, int]) -> bool:
    """Whether a process of the run has one of the sockets."""
    for process in claim.processes() if sockets else ():
        with contextlib.suppress(OSError):
            if not os.access(f"/proc/{process}/fd", os.R_OK):  # another user of the pod
                if Path(f"/proc/{process}").stat().st_uid in sockets.values():
                    return True
                continue
            for file in os.scandir(f"/proc/{process}/fd"):
                with contextlib.suppress(OSError):
                    if str(Path(file.path).readlink()) in sockets:
                        return True
    return False
