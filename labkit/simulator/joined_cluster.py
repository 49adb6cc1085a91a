"""An existing cluster that joined the lab: the cluster's pods get their roles from the lab's AWS.

`eks:CreateCluster` with the tag `labkit:target=kind` makes the cluster join. At `eks:DeleteCluster`, or when the lab
ends, the lab removes everything that it registered in the cluster.
"""

import asyncio
import base64
import logging
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import yaml
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from labkit.errors import LabError
from labkit.simulator import lab_network
from labkit.simulator.aws.answers import Refusal
from labkit.simulator.aws.clusters import ClusterFacts
from labkit.simulator.aws.issuers import API_KEYS, DISCOVERY
from labkit.simulator.joined_folder import LOOPBACK, Facts, JoinedFolder, is_of_this_lab, labels
from labkit.simulator.kubeconfig import Entry
from labkit.simulator.listener import Listener
from labkit.simulator.process import context
from labkit.simulator.running_lab import RunningLab
from labkit.webhook import ServiceAccounts, WebhookServer, mutating_webhook_configuration
from labkit.webhook.connection import connect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from labkit.simulator.folder import Folder

WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
TAKEN_BACK_WITHIN = 5  # seconds to remove the lab's webhooks from a cluster, which may no longer exist
log = logging.getLogger(__name__)


class JoinedCluster:
    """An existing cluster that joined the lab. The lab runs no node for it.

    The class has the same methods as `Cluster`.
    """

    node = None

    def __init__(self, region: str, name: str, lab: RunningLab):
        self.region = region
        self.name = name
        self.lab = lab
        self.context = context(name, region, lab.state.region)
        self.folder: Folder = lab.folder
        self.kept = JoinedFolder(lab.folder, name, region)
        self.endings: list[Callable[[], Awaitable[Any]]] = []

    async def start(self, request: dict[str, object]) -> None:
        """Join the cluster; return when its pods can get roles.

        Raises `Refusal` if the cluster can't be joined. The caller must call `stop` after that error.
        """
        joined = self.kept.facts
        if joined is None:
            unknown = (
                f"The lab does not know the cluster {self.name}. Run labkit up --target kind --cluster {self.name}"
            )
            raise Refusal(400, "InvalidParameterException", unknown)
        try:
            await self._start(joined, request)
        except (httpx.HTTPError, LabError, OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s could not be joined", self.context, exc_info=error)
            message = f"The cluster {self.name} could not be joined: {str(error) or type(error).__name__}"
            raise Refusal(400, "InvalidRequestException", message) from error

    async def stop(self) -> None:
        """Remove the lab's registrations from the cluster, and stop everything that `start` started, newest first."""
        for end in reversed(self.endings):
            try:
                await end()
            except (httpx.HTTPError, TimeoutError, OSError) as error:
                log.warning("%s could not leave: %s", self.context, str(error) or type(error).__name__)
        self.endings = []

    def kubeconfig_entry(self) -> Entry:
        """Return the cluster's entry for the lab's kubeconfig."""
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
        account_id = self.lab.gate.account_id
        arn = f"arn:aws:eks:{self.region}:{account_id}:cluster/{self.name}"
        self.facts = ClusterFacts(
            name=self.name,
            arn=arn,
            endpoint=str(api.base_url).rstrip("/"),
            certificate_authority_pem=self._authority(),
            issuer=discovery["issuer"],
            version=f"{version['major']}.{version['minor'].rstrip('+')}",
            created_at=self.folder.clock.now(),
            role_arn=request.get("roleArn", ""),
            tags=request.get("tags") or {},
            **self.lab.gate.associated(arn),
        )

    async def _lead_sts(self, joined: Facts, discovery: dict[str, Any]) -> None:
        """Tell STS where to fetch the cluster's keys."""
        issuer, gate = discovery["issuer"], self.lab.gate
        if joined.made:
            path = urlsplit(issuer).path
            await self.lab.listen_as_issuer(self.region)
            published = {**discovery, "jwks_uri": f"{issuer}/keys"}
            self.lab.issuer.publish(path, published, await self._get(API_KEYS))

            async def withdraw() -> None:
                self.lab.issuer.withdraw(path)
                gate.issuers.forget(issuer)

            self.endings.append(withdraw)
            return
        gate.issuers.join(issuer, None if joined.public_issuer else self.api)

        async def leave() -> None:
            gate.issuers.leave(issuer)

        self.endings.append(leave)

    async def _listen_as_aws(self, host: str) -> str:
        """Serve the lab's AWS at an address that the cluster's containers can reach, and return the URL."""
        lab = self.lab
        if host == LOOPBACK:
            return lab.state.endpoint_url
        listener = await lab.listen(
            Listener(lab.gate, port_socket=self._bind("aws", host), hosts={host}, on_call=lab.called)
        )
        self.endings.append(lambda: lab.close(listener))
        return f"http://{host}:{listener.port}"

    async def _serve_webhooks(self, host: str, endpoint_url: str) -> list[dict[str, Any]]:
        """Start the pod identity webhook and the webhook `lab-network`, and return their manifests."""
        accounts = ServiceAccounts(self.api)
        self.endings.append(accounts.stop)
        await accounts.start()
        added = lab_network.variables(endpoint_url)

        network = Route("/lab-network", partial(lab_network.answer, added=added), methods=["POST"])
        identity = Mount("/pod-identity", WebhookServer(accounts, region=self.region))
        listener = await self.lab.listen(
            Listener(
                Starlette(routes=[network, identity]),
                port_socket=self._bind("webhooks", host),
                hosts={host},
                certificate=self.folder.authority.issue("labkit webhooks", ips=[host]),
            )
        )
        self.endings.append(lambda: self.lab.close(listener))
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
            # A killed server of this lab may have left this webhook. Another lab's webhook is never replaced.
            there = await self._get(f"{WEBHOOKS}/{name}")
            if not is_of_this_lab(there, self.folder):
                message = f"The cluster has a MutatingWebhookConfiguration {name} that this lab did not register."
                raise Refusal(409, "ResourceInUseException", message)
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
        answer: dict[str, Any] = (await self.api.get(path, headers=accepted)).raise_for_status().json()
        return answer

    def _bind(self, what: str, host: str) -> socket.socket:
        name = f"{self.context}/{what}"
        try:
            return self.lab.ports.bind(name, host)
        except OSError:
            # This machine doesn't have the address. Another program forwards the containers' calls to 127.0.0.1.
            return self.lab.ports.bind(name)

    def _authority(self) -> bytes:
        cluster = yaml.safe_load(self.kept.kubeconfig.read_text())["clusters"][0]["cluster"]
        if file := cluster.get("certificate-authority"):
            return Path(file).read_bytes()
        return base64.b64decode(cluster.get("certificate-authority-data", ""))
