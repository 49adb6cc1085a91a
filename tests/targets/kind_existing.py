"""An existing cluster: `python -m tests.targets.kind_existing FOLDER ISSUER KEY` runs one until it is ended.

It has the simulator's API server and node, but no webhook, no issuer and no AWS. So whatever leads its pods to a lab
comes from outside. It prints `ready` once FOLDER/kubeconfig is written. `running` forks one instead. `flagged` changes
the API server's flags while it runs.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from labkit.simulator import aws_cli
from labkit.simulator.certificates import Authority
from labkit.simulator.clock import Clock
from labkit.simulator.cluster import NOWHERE_ELSE
from labkit.simulator.identifiers import Identifiers
from labkit.simulator.kubernetes.node.images import of_this_environment
from labkit.simulator.kubernetes.node.node import Node
from labkit.simulator.kubernetes.server import ApiServer
from labkit.simulator.listener import Listener, bind
from tests import forked

# The default issuer of clusters made by kind, k3d, minikube or kubeadm.
ISSUER = "https://kubernetes.default.svc.cluster.local"
NODE = "existing-control-plane"
# Only these hosts are reached directly. For all others, the proxy is an address where nothing listens.
HERE = "127.0.0.1,127.0.0.2,localhost"
# The kubeconfig's contexts with their users: an administrator, and a user without permissions.
USERS = {"existing": ("admin", ["system:masters"]), "stranger": ("stranger", [])}


class Flagged(ApiServer):
    """An API server whose issuer flags can change while it runs, as if it were restarted with other flags."""

    def __init__(self, folder: Path, **given: Any):
        super().__init__(**given)
        self._folder, self._usual = folder, self.tokens.issuer
        self._document = self.tokens.discovery_document

    async def __call__(self, *connection: Any) -> None:
        flags = flags_of(self._folder)
        self.tokens.issuer = flags.get("service-account-issuer", self._usual)
        self.tokens.discovery_document = lambda keys: self._document(flags.get("service-account-jwks-uri", keys))
        await super().__call__(*connection)


def flagged(folder: Path, **flags: Any) -> None:
    """Give the API server these flags, and remove all others."""
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / "flags.new"
    new.write_text(json.dumps({name.replace("_", "-"): value for name, value in flags.items()}))
    new.replace(folder / "flags")


def flags_of(folder: Path) -> dict[str, Any]:
    file = folder / "flags"
    return json.loads(file.read_text()) if file.exists() else {}


async def main(folder: Path, issuer: str, key: str, ready: Callable[[], None]) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    folder.mkdir(parents=True, exist_ok=True)
    authority, clock = Authority.create("kubernetes"), Clock(folder / "clock")
    clock.reset()
    port_socket = bind(0)
    address = f"127.0.0.1:{port_socket.getsockname()[1]}"
    api = Flagged(
        folder,
        authority=authority,
        signing_key_pem=Path(key).read_bytes() if key else signing_key(),
        issuer=issuer,
        clock=clock,
        identifiers=Identifiers("existing"),
        kubelet_certificate=authority.issue("kube-apiserver-kubelet-client", client=True),
        address=address,
    )
    listener = Listener(
        api,
        port_socket=port_socket,
        hosts={"127.0.0.1"},
        certificate=authority.issue("kube-apiserver", ips=["127.0.0.1"]),
        client_authority_pem=authority.certificate_pem,
    )
    await listener.start()
    node = Node(
        name=NODE,
        api_url=f"https://{address}",
        ca_pem=authority.certificate_pem,
        client=authority.issue(f"system:node:{NODE}", organizations=["system:nodes"], client=True),
        kubelet_socket=bind(0),
        kubelet_certificate=authority.issue(NODE, ips=["127.0.0.1"]),
        folder=folder / "node",
        clock_file=folder / "clock",
        environment={**NOWHERE_ELSE, "NO_PROXY": HERE, "no_proxy": HERE, **flags_of(folder).get("pods", {})},
        images=of_this_environment(),
        home={".aws/config": aws_cli.CONFIG},
    )
    await node.start()
    write_kubeconfig(folder, f"https://{address}", authority)
    ready()
    await ended.wait()
    await node.stop()
    await listener.stop()
    await api.close()


def signing_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem, pkcs8, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(pem, pkcs8, plain)


def write_kubeconfig(folder: Path, server: str, authority: Authority) -> None:
    """Write a kubeconfig that names its certificate files by relative paths."""
    (folder / "ca.pem").write_bytes(authority.certificate_pem)
    users, contexts = [], []
    for name, (user, groups) in USERS.items():
        issued = authority.issue(user, organizations=groups, client=True)
        (folder / f"{name}.pem").write_bytes(issued.certificate_pem + issued.key_pem)
        users.append({"name": name, "user": {"client-certificate": f"{name}.pem", "client-key": f"{name}.pem"}})
        contexts.append({"name": name, "context": {"cluster": "existing", "user": name}})
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "existing",
        "clusters": [{"name": "existing", "cluster": {"server": server, "certificate-authority": "ca.pem"}}],
        "users": users,
        "contexts": contexts,
    }
    (folder / "kubeconfig").write_text(json.dumps(config))


@contextlib.contextmanager
def running(folder: Path, issuer: str = ISSUER, **flags: Any) -> Iterator[Path]:
    """Run such a cluster until the block ends, and yield its kubeconfig.

    The flag `pods` holds variables that its node gives to every container, without any manifest naming them.
    """
    flagged(folder, **flags)
    reading, writing = forked.FORKING.Pipe(duplex=False)
    cluster = forked.Forked(_run, folder, issuer, {**os.environ}, writing)
    writing.close()
    (folder / "pid").write_text(str(cluster.pid))
    try:
        reading.recv()
        yield folder / "kubeconfig"
    finally:
        cluster.terminate()
        cluster.wait()


def _run(folder: Path, issuer: str, variables: dict[str, str], ready: Connection, begun: Connection) -> None:
    forked.become([__name__, str(folder)], variables, None, begun)
    asyncio.run(main(folder, issuer, "", lambda: ready.send(None)))


@contextlib.contextmanager
def silent(kubeconfig: Path) -> Iterator[None]:
    """Let the cluster accept connections without answering, until the block ends."""
    cluster = psutil.Process(int(kubeconfig.with_name("pid").read_text()))
    cluster.suspend()
    try:
        yield
    finally:
        cluster.resume()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:], lambda: print("ready", flush=True)))
