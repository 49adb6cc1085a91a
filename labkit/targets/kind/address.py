"""The address of this machine that a cluster's containers can reach. The lab also listens on that address."""

import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from typing import TYPE_CHECKING, Any

import psutil

from labkit.connection import awaited, core_api
from labkit.errors import LabError, said_by_the_cluster
from labkit.run_parameters import LAB, LAB_LABEL, is_ipv4

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

LOOPBACK = "127.0.0.1"
TRIED_WITHIN = 120  # seconds; pulling the image can take most of it
# The AWS CLI's messages for an endpoint that doesn't answer.
NOT_CONNECTED = re.compile("Could not connect to the endpoint URL|[Tt]imeout on endpoint URL|Connection was closed")


class NoAddress(LabError):
    """The address by which containers reach this machine is unknown, or the given address can't be used."""


def find(node_addresses: Iterable[str]) -> str:
    """Return the IPv4 address of this machine's interface in the nodes' network. Raises `NoAddress`."""
    addresses = {_address_towards(IPv4Address(address)) for address in node_addresses if is_ipv4(address)}
    if len(addresses) == 1 and (address := next(iter(addresses))):
        return address
    raise unknown(
        "the nodes are in several networks" if len(addresses) > 1 else "this machine isn't in the nodes' network"
    )


def unknown(why: str) -> NoAddress:
    """Return the error that asks the user for the address."""
    return NoAddress(
        f"Could not find the address at which the cluster's containers reach this machine: {why}.",
        where="nothing was changed",
        next="labkit up --target kind … --aws-host ADDRESS\n"
        "       With Docker Desktop, this prints ADDRESS:    docker run --rm busybox nslookup host.docker.internal\n"
        "       With rootless Podman, this prints ADDRESS:   podman run --rm busybox nslookup host.containers.internal",
    )


def checked(address: str) -> str:
    """Return the address. Raises `NoAddress` if it isn't an IPv4 address that containers can call.

    A host name isn't accepted, because S3's clients put the bucket's name in front of it.
    """
    if not is_ipv4(address) or IPv4Address(address).is_unspecified or IPv4Address(address).is_multicast:
        raise NoAddress(
            f"{address!r} is not an IPv4 address that a container can call.",
            where="--aws-host; nothing was changed",
            next="--aws-host ADDRESS, such as 172.18.0.1   (the address of this machine that containers reach)",
        )
    return address


@dataclass(frozen=True)
class Trial:
    """The result of a pod's call to the lab."""

    is_reached: bool | None
    """Whether the pod reached the lab; None if the trial itself failed."""
    words: str = ""


def tried(api: "ApiClient", image: str) -> Trial:
    """Return the result of a call to the lab's AWS from a temporary pod in the namespace `default`."""
    from kubernetes.client.exceptions import ApiException

    core, name = core_api(api), ""
    try:
        name = core.create_namespaced_pod("default", _asking(image)).metadata.name
        ended = awaited(
            lambda: core.read_namespaced_pod(name, "default"),
            lambda pod: pod.status.phase in ("Succeeded", "Failed"),
            within=TRIED_WITHIN,
            every=0.5,
        )
        if ended.status.phase not in ("Succeeded", "Failed"):
            waiting = [each.state.waiting for each in ended.status.container_statuses or [] if each.state.waiting]
            why = f" ({waiting[0].reason})" if waiting else ""
            return Trial(None, f"the pod {name} did not run within {TRIED_WITHIN} s{why}.")
        said = " ".join(core.read_namespaced_pod_log(name, "default").split())
    except ApiException as error:
        return Trial(None, said_by_the_cluster(error))
    finally:
        if name:
            with suppress(ApiException):
                core.delete_namespaced_pod(name, "default", grace_period_seconds=0)
    # The lab refuses an unsigned call. The refusal shows that the pod reached it.
    if "An error occurred (" in said:
        return Trial(True)
    return Trial(False if NOT_CONNECTED.search(said) else None, said or "the pod printed nothing.")


def _asking(image: str) -> dict[str, Any]:
    call = (
        "aws sts get-caller-identity --no-sign-request --region us-east-1 --cli-connect-timeout 5 --cli-read-timeout 5"
    )
    container = {
        "name": "aws",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": call.split(),
        "env": [{"name": "AWS_MAX_ATTEMPTS", "value": "1"}],
    }
    return {
        "metadata": {"generateName": "labkit-asks-", "labels": {LAB_LABEL: LAB}},
        "spec": {"containers": [container], "restartPolicy": "Never", "automountServiceAccountToken": False},
    }


def _address_towards(node: IPv4Address) -> str | None:
    """Return this machine's address in the node's network."""
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
