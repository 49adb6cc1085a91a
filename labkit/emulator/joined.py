"""A cluster that is not the lab's own, joined to the lab: the lab is its AWS, and gives its pods their roles.

What the cluster is, stands in the lab's folder; `eks:CreateCluster` with the tag `labkit:target=kind` joins it, and
`eks:DeleteCluster` or the lab's end takes away what was registered in it.
"""

import asyncio
import base64
import hashlib
import json
import logging
import shutil
import socket
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from labkit.emulator import lab_network
from labkit.emulator.aws.clusters import ClusterFacts
from labkit.emulator.aws.errors import Refusal
from labkit.emulator.aws.issuers import API_KEYS, DISCOVERY
from labkit.emulator.folder import Folder
from labkit.emulator.process import TARGET_TAG, State, context
from labkit.errors import LabError
from labkit.webhook import Accounts, WebhookServer, mutating_webhook_configuration
from labkit.webhook.connection import connect

if TYPE_CHECKING:
    from labkit.emulator.server import Server

JOINED = "kind"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
TAKEN_BACK_WITHIN = 5  # seconds for a cluster to forget the lab's webhooks; it may be gone itself
LOOPBACK = "127.0.0.1"
FOLDER_LABEL = "labkit/folder"

log = logging.getLogger(__name__)


def is_joined(request: dict[str, Any]) -> bool:
    """Whether this request of `eks:CreateCluster` joins a cluster that exists, and makes none."""
    return (request.get("tags") or {}).get(TARGET_TAG) == JOINED


@dataclass(frozen=True)
class Facts:
    """What the lab has to know of the cluster, beside its kubeconfig."""

    aws_host: str
    """The IPv4 address by which its containers reach this machine."""
    image: str = ""
    """The image of pods; empty: the usual one."""
    source: str = ""
    """Where the kubeconfig came from, for people."""
    kubectl: str = ""
    """How kubectl is called with the kubeconfig that was given."""
    made: str = ""
    """The name under which the lab made it with the program kind; empty where it was there before."""
    public_issuer: bool = False
    """Whether its issuer publishes its own documents, so that STS asks it by its name and not the API server."""


class Kept:
    """What the lab's folder keeps of one joined cluster, in a folder of its own."""

    def __init__(self, folder: Folder, cluster: str, region: str):
        self._folder = folder
        self.cluster, self.region = cluster, region
        self.path = folder.path / "joined" / f"{cluster}@{region}"
        self.kubeconfig = self.path / "kubeconfig"
        self.webhooks = self.path / "webhooks.yaml"
        """The manifests of both webhooks, for `kubectl apply`."""

    @classmethod
    def all(cls, folder: Folder) -> "list[Kept]":
        """Of every cluster that joined, and was not forgotten."""
        return [
            cls(folder, *facts.parent.name.rsplit("@", 1)) for facts in sorted(folder.path.glob("joined/*/facts.json"))
        ]

    @classmethod
    def joined(cls, folder: Folder) -> "dict[str, Kept]":
        """Of every cluster that is in the lab that runs, by its context."""
        state = State.read(folder) if folder.is_running() else None
        if state is None:
            return {}
        remembered = {state.context(kept.cluster, kept.region): kept for kept in cls.all(folder) if kept.facts}
        return {name: kept for name, kept in remembered.items() if name in state.clusters}

    @property
    def facts(self) -> Facts | None:
        """None where nothing is kept, or by another version of labkit."""
        try:
            return Facts(**self._folder.read_json(f"joined/{self.path.name}/facts.json"))
        except TypeError:
            return None

    def keep(self, facts: Facts, kubeconfig: dict[str, Any]) -> None:
        """Keeps the facts, and the kubeconfig of the cluster, which has one context."""
        self._folder.write_private(self.kubeconfig, yaml.safe_dump(kubeconfig).encode())
        self.keep_facts(facts)

    def keep_facts(self, facts: Facts) -> None:
        """Keeps the facts alone: of a cluster that is still being made, or with another image."""
        self._folder.write_private(self.path / "facts.json", json.dumps(asdict(facts)).encode())

    def keep_webhooks(self, manifests: list[dict[str, Any]]) -> None:
        """Keeps the manifests."""
        self._folder.write_private(self.webhooks, yaml.safe_dump_all(manifests, sort_keys=False).encode())

    def forget(self) -> None:
        """Keeps nothing any more."""
        shutil.rmtree(self.path, ignore_errors=True)


def is_of_this_lab(configuration: dict[str, Any], folder: Folder) -> bool:
    """Whether a MutatingWebhookConfiguration that is in a cluster was registered by the lab of this folder."""
    return (configuration["metadata"].get("labels") or {}).items() >= labels(folder).items()


def is_of_a_lab(configuration: dict[str, Any]) -> bool:
    """Whether a lab registered it, whichever."""
    return FOLDER_LABEL in (configuration["metadata"].get("labels") or {})


def labels(folder: Folder) -> dict[str, str]:
    """What the webhooks of the lab of this folder bear: no two folders have the same authority."""
    from labkit.parameters import LAB, LAB_LABEL  # it takes long to load, and few labs need it here

    authority = hashlib.sha256(folder.authority.certificate_pem).hexdigest()
    return {LAB_LABEL: LAB, FOLDER_LABEL: authority[:16]}


def selector(folder: Folder) -> str:
    """The same for `kubectl -l`."""
    return ",".join(f"{name}={value}" for name, value in labels(folder).items())


@dataclass(frozen=True)
class Entry:
    """The cluster's entry in the lab's kubeconfig: the way to it, and the credentials, as they were given."""

    name: str
    arn: str
    cluster: dict[str, Any]
    user: dict[str, Any]


class JoinedCluster:
    """A cluster that exists, as the lab's other parts see one; it has no node of the lab's."""

    node = None

    def __init__(self, region: str, name: str, server: "Server"):
        self.region = region
        self.name = name
        self.server = server
        self.context = context(name, region, server.state.region)
        self.folder: Folder = server.folder
        self.kept = Kept(server.folder, name, region)
        self.endings: list[Callable[[], Awaitable[Any]]] = []

    async def start(self, request: dict[str, Any]) -> None:
        """Returns when the cluster's pods can take roles. Raises `Refusal`; nothing is left of the attempt then."""
        joined = self.kept.facts
        if joined is None:
            told = f"The lab was told of no cluster {self.name}: labkit up --target kind --cluster {self.name}"
            raise Refusal(400, "InvalidParameterException", told)
        try:
            await self._start(joined, request)
        except (httpx.HTTPError, LabError, OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s could not be joined", self.context, exc_info=error)
            told = f"The cluster {self.name} could not be joined: {str(error) or type(error).__name__}"
            raise Refusal(400, "InvalidRequestException", told) from error

    async def stop(self) -> None:
        """Takes away what was registered in the cluster, and ends what was started, the newest first."""
        for end in reversed(self.endings):
            try:
                await end()
            except (httpx.HTTPError, TimeoutError, OSError) as error:
                log.warning("%s could not leave: %s", self.context, str(error) or type(error).__name__)
        self.endings = []

    def kubeconfig_entry(self) -> Entry:
        """What the lab's kubeconfig says of the cluster."""
        config = yaml.safe_load(self.kept.kubeconfig.read_text())
        return Entry(self.context, self.facts.arn, config["clusters"][0]["cluster"], config["users"][0]["user"])

    async def _start(self, joined: Facts, request: dict[str, Any]) -> None:
        api = self.api = await asyncio.to_thread(connect, self.kept.kubeconfig)
        self.endings.append(api.aclose)
        version = await self._get("/version")
        discovery = await self._get(DISCOVERY)
        await self._lead_sts(joined, discovery)
        pods_endpoint = await self._listen_as_aws(joined.aws_host)
        manifests = await self._serve_webhooks(joined.aws_host, pods_endpoint)
        for manifest in manifests:
            await self._register(manifest)
        self.kept.keep_webhooks(manifests)
        account_id = self.server.gate.account_id
        self.facts = ClusterFacts(
            name=self.name,
            arn=f"arn:aws:eks:{self.region}:{account_id}:cluster/{self.name}",
            endpoint=str(api.base_url).rstrip("/"),
            certificate_authority_pem=self._authority(),
            issuer=discovery["issuer"],
            version=f"{version['major']}.{version['minor'].rstrip('+')}",
            created_at=self.folder.clock.now(),
            role_arn=request.get("roleArn", ""),
            tags=request.get("tags") or {},
        )

    async def _lead_sts(self, joined: Facts, discovery: dict[str, Any]) -> None:
        """Leads STS to the cluster's keys: the lab's own issuer, the issuer's own host, or the API server."""
        issuer, gate = discovery["issuer"], self.server.gate
        if joined.made:
            path = urlsplit(issuer).path
            await self.server.listen_as_issuer(self.region)
            published = {**discovery, "jwks_uri": f"{issuer}/keys"}
            self.server.issuer.publish(path, published, await self._get(API_KEYS))

            async def withdraw() -> None:
                self.server.issuer.withdraw(path)
                gate.forget_keys(issuer)

            self.endings.append(withdraw)
            return
        gate.issuers.join(issuer, None if joined.public_issuer else self.api)

        async def leave() -> None:
            gate.issuers.leave(issuer)

        self.endings.append(leave)

    async def _listen_as_aws(self, host: str) -> str:
        """The URL at which the cluster's containers reach the gate."""
        server = self.server
        if host == LOOPBACK:
            return server.state.endpoint_url
        listener = await server.listen(self._bind("aws", host), server.gate, hosts={host}, on_call=server.called)
        self.endings.append(lambda: server.close(listener))
        return f"http://{host}:{listener.port}"

    async def _serve_webhooks(self, host: str, endpoint_url: str) -> list[dict[str, Any]]:
        """The manifests of both webhooks, which answer now."""
        accounts = Accounts(self.api)
        self.endings.append(accounts.stop)
        await accounts.start()
        added = lab_network.variables(endpoint_url)

        async def lab_network_answer(request: Request) -> Response:
            return await lab_network.answer(request, added)

        network = Route("/lab-network", lab_network_answer, methods=["POST"])
        identity = Mount("/pod-identity", WebhookServer(accounts, region=self.region))
        listener = await self.server.listen(
            self._bind("webhooks", host),
            Starlette(routes=[network, identity]),
            hosts={host},
            certificate=self.folder.authority.issue("labkit webhooks", ips=[host]),
        )
        self.endings.append(lambda: self.server.close(listener))
        at, bundle = f"https://{host}:{listener.port}", self.folder.authority.certificate_pem
        manifests = [
            mutating_webhook_configuration(f"{at}/pod-identity/mutate", bundle),
            lab_network.mutating_webhook_configuration(f"{at}/lab-network", bundle),
        ]
        for manifest in manifests:
            manifest["metadata"]["labels"] = labels(self.folder)
        return manifests

    async def _register(self, manifest: dict[str, Any]) -> None:
        name = manifest["metadata"]["name"]
        answer = await self.api.post(WEBHOOKS, json=manifest)
        if answer.status_code == 409:
            # Of a server of this lab that was killed; another's is never taken over.
            there = await self._get(f"{WEBHOOKS}/{name}")
            if not is_of_this_lab(there, self.folder):
                told = f"The cluster has a MutatingWebhookConfiguration {name} that is not of this lab."
                raise Refusal(409, "ResourceInUseException", told)
            metadata = manifest["metadata"] | {"resourceVersion": there["metadata"]["resourceVersion"]}
            answer = await self.api.put(f"{WEBHOOKS}/{name}", json=manifest | {"metadata": metadata})
        answer.raise_for_status()
        self.endings.append(lambda: self._take_back(name))

    async def _take_back(self, name: str) -> None:
        async with asyncio.timeout(TAKEN_BACK_WITHIN):
            answer = await self.api.get(f"{WEBHOOKS}/{name}")
            if answer.status_code == 200 and is_of_this_lab(answer.json(), self.folder):
                (await self.api.delete(f"{WEBHOOKS}/{name}")).raise_for_status()

    async def _get(self, path: str) -> dict[str, Any]:
        accepted = {"Accept": "application/json, application/jwk-set+json"}
        return (await self.api.get(path, headers=accepted)).raise_for_status().json()

    def _bind(self, what: str, host: str) -> socket.socket:
        """A socket at the address that containers call, or on loopback, to which something forwards what they send."""
        name = f"{self.context}/{what}"
        try:
            return self.server.ports.bind(name, host)
        except OSError:
            return self.server.ports.bind(name)

    def _authority(self) -> bytes:
        cluster = yaml.safe_load(self.kept.kubeconfig.read_text())["clusters"][0]["cluster"]
        if file := cluster.get("certificate-authority"):
            return Path(file).read_bytes()
        return base64.b64decode(cluster.get("certificate-authority-data", ""))


def is_public(discovery: dict[str, Any]) -> bool:
    """Whether the issuer publishes its own documents, at a host that has a name outside the cluster, too.

    https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
    """
    issuer, keys = urlsplit(discovery["issuer"]), urlsplit(discovery.get("jwks_uri") or "")
    if issuer.netloc != keys.netloc:
        return False  # the keys are at the API server, and so is the document
    try:
        return bool(socket.getaddrinfo(issuer.hostname, issuer.port or 443))
    except OSError:
        return False
