"""A process that hosts an API server and a node, as the lab's server does: `node_host.py FOLDER [MOUNTS]`."""

import asyncio
import json
import signal
import sys
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from labkit.simulator.certificates import Authority
from labkit.simulator.clock import Clock
from labkit.simulator.identifiers import Identifiers
from labkit.simulator.kubernetes.node.images import of_this_environment
from labkit.simulator.kubernetes.node.node import Node
from labkit.simulator.kubernetes.server import ApiServer
from labkit.simulator.listener import Listener, bind

ISSUER = "https://oidc.eks.us-east-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"


async def host(folder: Path, mounts: str | None) -> None:
    authority = Authority.create("kubernetes")
    clock = Clock(folder / "clock")
    clock.reset()
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem, pkcs8, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    port_socket = bind(0)
    address = f"127.0.0.1:{port_socket.getsockname()[1]}"
    api = ApiServer(
        authority=authority,
        signing_key_pem=key.private_bytes(pem, pkcs8, plain),
        issuer=ISSUER,
        clock=clock,
        identifiers=Identifiers("seed"),
        kubelet_certificate=authority.issue("kube-apiserver-kubelet-client", client=True),
        address=address,
    )
    server = authority.issue("kube-apiserver", ips=["127.0.0.1"])
    listener = Listener(
        api,
        port_socket=port_socket,
        hosts={"127.0.0.1"},
        certificate=server,
        client_authority_pem=authority.certificate_pem,
    )
    await listener.start()
    node = Node(
        name="node-1",
        api_url=f"https://{address}",
        ca_pem=authority.certificate_pem,
        client=authority.issue("system:node:node-1", organizations=["system:nodes"], client=True),
        kubelet_socket=bind(0),
        kubelet_certificate=authority.issue("node-1", ips=["127.0.0.1"]),
        folder=folder / "node",
        clock_file=folder / "clock",
        environment={"AWS_ENDPOINT_URL": "http://127.0.0.1:4566"},
        images=of_this_environment(),
        mounts=mounts,
    )
    await node.start()
    administrator = authority.issue("admin", organizations=["system:masters"], client=True)
    (folder / "ca.pem").write_bytes(authority.certificate_pem)
    (folder / "admin.pem").write_bytes(administrator.certificate_pem + administrator.key_pem)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    (folder / "ready.new").write_text(
        json.dumps({"url": f"https://{address}", "mounts": node.mounts, "clock": node.clock})
    )
    (folder / "ready.new").rename(folder / "ready")
    await ended.wait()
    await node.stop()
    await listener.stop()
    await api.close()


if __name__ == "__main__":
    asyncio.run(host(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None))
