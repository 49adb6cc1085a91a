"""A listening API server and a node with a minimal kubelet."""

import asyncio
import base64
import contextlib
import itertools
import json
import ssl
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from kubernetes import client
from kubernetes.config import new_client_from_config

from labkit.simulator.certificates import Authority
from labkit.simulator.clock import Clock
from labkit.simulator.identifiers import Identifiers
from labkit.simulator.kubernetes.server import ApiServer
from labkit.simulator.listener import Listener, bind
from tests.simulator.kubernetes.node_kubectl import Kubectl
from tests.simulator.kubernetes.node_lab import Host, ended, short_folder, started

ISSUER = "https://oidc.eks.us-east-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"
NODE = "ip-10-0-0-1.ec2.internal"
numbers = itertools.count(1)


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, awaitable: Awaitable):
        return asyncio.run_coroutine_threadsafe(awaitable, self.loop).result(20)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


@dataclass
class Kubelet:
    """A kubelet with fixed logs. Its exec sends the command back on stdout and the input on stderr."""

    peers: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    lines: asyncio.Queue = field(default_factory=asyncio.Queue)

    async def __call__(self, scope, receive, send) -> None:
        self.peers.append(scope["state"]["peer"])
        query = parse_qsl(scope["query_string"].decode())
        self.requests.append((scope["path"], query))
        if scope["type"] == "http":
            await self._logs(dict(query), send)
        else:
            await self._exec(scope, query, receive, send)

    async def _logs(self, query: dict, send) -> None:
        if query.get("previous"):
            body = b'previous terminated container "main" in pod "p" not found'
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": body})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first\n", "more_body": True})
        if query.get("follow"):
            while line := await self.lines.get():
                await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _exec(self, scope, query: list, receive, send) -> None:
        await receive()
        command = [value for key, value in query if key == "command"]
        if command == ["missing"]:
            headers = [(b"content-type", b"text/plain")]
            await send({"type": "websocket.http.response.start", "status": 404, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": b'container "main" has ended'})
            return
        await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][0]})
        await send({"type": "websocket.send", "bytes": b"\x01" + " ".join(command).encode() + b"\n"})
        if ("input", "1") in query:
            message = await receive()
            while not message.get("bytes", b"").startswith(b"\x00"):
                message = await receive()
            await send({"type": "websocket.send", "bytes": b"\x02" + message["bytes"][1:]})
        status = {"metadata": {}, "status": "Success"}
        if command == ["false"]:
            causes = [{"reason": "ExitCode", "message": "7"}]
            status = {
                "metadata": {},
                "status": "Failure",
                "reason": "NonZeroExitCode",
                "message": "command terminated with non-zero exit code",
                "details": {"causes": causes},
            }
        await send({"type": "websocket.send", "bytes": b"\x03" + json.dumps(status).encode()})
        await send({"type": "websocket.close", "code": 1000})


@dataclass
class Cluster:
    """The running API server, with its clients, clock and kubelet."""

    api: ApiServer
    authority: Authority
    clock: Clock
    loop: Loop
    url: str
    folder: Path
    kubelet: Kubelet
    kubelet_port: int

    def http(self, common_name: str = "", *organizations: str, token: str = "") -> httpx.Client:
        """A client with a certificate of that name, with a token, or with neither."""
        context = ssl.create_default_context(cadata=self.authority.certificate_pem.decode())
        if common_name:
            context.load_cert_chain(self.keep(common_name, *organizations))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, verify=context, headers=headers, trust_env=False, timeout=60)

    def keep(self, common_name: str, *organizations: str) -> Path:
        file = self.folder / f"{common_name.replace(':', '-')}.pem"
        if not file.exists():
            issued = self.authority.issue(common_name, organizations=organizations, client=True)
            file.write_bytes(issued.certificate_pem + issued.key_pem)
        return file

    @property
    def kubeconfig(self) -> Path:
        file = self.folder / "kubeconfig"
        if not file.exists():
            chain = str(self.keep("admin", "system:masters"))
            (self.folder / "ca.pem").write_bytes(self.authority.certificate_pem)
            cluster = {"server": self.url, "certificate-authority": str(self.folder / "ca.pem")}
            config = {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "lab",
                "clusters": [{"name": "lab", "cluster": cluster}],
                "users": [{"name": "admin", "user": {"client-certificate": chain, "client-key": chain}}],
                "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "admin"}}],
            }
            file.write_text(json.dumps(config))
        return file

    def kubectl(self, *arguments: str, given: object = None, code: int = 0) -> subprocess.CompletedProcess:
        """Run kubectl; ``given`` goes to its standard input, as JSON unless it is text."""
        text = given if isinstance(given, str) or given is None else json.dumps(given)
        done = subprocess.run(
            ["kubectl", "--kubeconfig", self.kubeconfig, "--cache-dir", self.folder / "cache", *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done


@contextlib.contextmanager
def listening(loop: Loop, app: Callable, authority: Authority, *, clients: Authority | None = None) -> Iterator[int]:
    """The port that the app answers on, over TLS."""
    certificate = authority.issue("server", ips=["127.0.0.1"])

    async def listener() -> Listener:
        made = Listener(
            app,
            port_socket=bind(0),
            hosts={"127.0.0.1"},
            certificate=certificate,
            client_authority_pem=clients.certificate_pem if clients else None,
        )
        await made.start()
        return made

    running = loop.run(listener())
    yield running.port
    loop.run(running.stop())


@pytest.fixture(scope="session")
def signing_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, signing_key: bytes) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    authority, clock, loop = Authority.create("kubernetes"), Clock(folder / "clock"), Loop()

    async def made() -> tuple[ApiServer, Kubelet]:
        api = ApiServer(
            authority=authority,
            signing_key_pem=signing_key,
            issuer=ISSUER,
            clock=clock,
            identifiers=Identifiers("seed"),
            kubelet_certificate=authority.issue("kube-apiserver-kubelet-client", client=True),
        )
        return api, Kubelet()

    api, kubelet = loop.run(made())
    with (
        listening(loop, api, authority, clients=authority) as port,
        listening(loop, kubelet, authority, clients=authority) as kubelet_port,
    ):
        api.paths.address = f"127.0.0.1:{port}"
        url = f"https://127.0.0.1:{port}"
        yield Cluster(api, authority, clock, loop, url, folder, kubelet, kubelet_port)
        loop.run(api.close())
    loop.close()


@pytest.fixture(scope="session")
def admin(cluster: Cluster) -> Iterator[httpx.Client]:
    with cluster.http("admin", "system:masters") as session:
        yield session


@pytest.fixture(scope="session")
def typed(cluster: Cluster) -> client.CoreV1Api:
    return client.CoreV1Api(new_client_from_config(str(cluster.kubeconfig)))


@pytest.fixture
def namespace(admin: httpx.Client) -> str:
    name = f"test-{next(numbers)}"
    assert admin.post("/api/v1/namespaces", json={"metadata": {"name": name}}).status_code == 201
    return name


@pytest.fixture
def lab_time(cluster: Cluster) -> Iterator[Clock]:
    yield cluster.clock
    cluster.clock.reset()


@pytest.fixture
def node(cluster: Cluster, admin: httpx.Client) -> Iterator[str]:
    """A node that is ready, with the kubelet above."""
    status = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": cluster.kubelet_port}},
    }
    made = admin.post("/api/v1/nodes", json={"metadata": {"name": NODE}, "status": status})
    assert made.status_code == 201, made.text
    yield NODE
    assert admin.delete(f"/api/v1/nodes/{NODE}").status_code == 200


def pod(name: str, **spec: object) -> dict:
    containers = [{"name": "main", "image": "amazon/aws-cli", "command": ["sleep", "3600"]}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers, **spec}}


def base64_text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.fixture(scope="module", params=["private", "mapped"])
def host(request) -> Iterator[Host]:
    """An API server and a node, with private mounts and with mapped paths."""
    host = started(short_folder(request.param), request.param)
    assert host.mounts == request.param
    yield host
    out = (host.folder / "out").read_text()
    ended(host)
    assert "Traceback" not in out


@pytest.fixture(scope="module")
def kubectl(host) -> Kubectl:
    return Kubectl(host)
