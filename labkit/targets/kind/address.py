"""The one address of this machine that the containers of a cluster reach, beside loopback."""

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface

import psutil

from labkit.errors import LabError

LOOPBACK = "127.0.0.1"


class NoAddress(LabError):
    """It cannot be found out by what address containers reach this machine, or what was given is none."""


def find(node_addresses: Iterable[str]) -> str:
    """The IPv4 address of this machine in the network of the nodes, found in its interfaces. Raises `NoAddress`."""
    found = {_beside(IPv4Address(address)) for address in node_addresses if _is_ipv4(address)}
    if len(found) == 1 and (address := next(iter(found))):
        return address
    raise unknown("its nodes are in several networks" if len(found) > 1 else "no interface here is in their network")


def unknown(why: str) -> NoAddress:
    """The address has to be named."""
    return NoAddress(
        f"It cannot be found out by which address the cluster's containers reach this machine: {why}.",
        where="nothing was changed",
        next="labkit up --target kind … --aws-host ADDRESS\n"
        "       With Docker Desktop it is what this prints:  docker run --rm busybox nslookup host.docker.internal\n"
        "       and with rootless Podman:  podman run --rm busybox nslookup host.containers.internal",
    )


def checked(address: str) -> str:
    """The address that was given. Raises `NoAddress` where it is none that containers could call.

    A name would not do: S3's clients put a bucket's name before it.
    """
    if not _is_ipv4(address) or IPv4Address(address).is_unspecified or IPv4Address(address).is_multicast:
        raise NoAddress(
            f"{address!r} is no IPv4 address that a container can call.",
            where="--aws-host; nothing was changed",
            next="--aws-host 172.18.0.1, or whatever containers call this machine by   (not a name, and not 0.0.0.0)",
        )
    return address


def _beside(node: IPv4Address) -> str | None:
    """The address of this machine in the node's network; loopback's own for a node on loopback."""
    if node.is_loopback:
        return LOOPBACK
    own = [interface for interface in _interfaces() if not interface.ip.is_loopback]
    at = next((one for one in own if one.ip == node), None) or next((one for one in own if node in one.network), None)
    return str(at.ip) if at else None


def _interfaces() -> list[IPv4Interface]:
    return [
        IPv4Interface((one.address, one.netmask or 32))
        for addresses in psutil.net_if_addrs().values()
        for one in addresses
        if one.family == socket.AF_INET
    ]


def _is_ipv4(address: str) -> bool:
    try:
        IPv4Address(address)
    except ValueError:
        return False
    return True
