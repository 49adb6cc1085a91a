"""The lab's EKS clusters. Each connects the simulator's AWS half with its Kubernetes half."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric import rsa

from labkit.connection import AGENT_URL
from labkit.simulator import aws_cli, kubeconfig, names
from labkit.simulator.aws import eks_tokens
from labkit.simulator.aws.clusters import ClusterFacts, Instance, MetadataOptions
from labkit.simulator.aws.metadata import InstanceMetadata
from labkit.simulator.aws.pod_identity_agent import PATH, PodIdentityAgent
from labkit.simulator.certificates import Certificate, client_context, private_pem
from labkit.simulator.cluster_folder import ClusterFolder, ClusterRecord
from labkit.simulator.joined_cluster import JoinedCluster
from labkit.simulator.joined_folder import is_joined
from labkit.simulator.kubernetes.access.authentication import AUTHENTICATED, User
from labkit.simulator.kubernetes.access.authorization import ClusterRoleGrant
from labkit.simulator.kubernetes.access.tokens import DAY
from labkit.simulator.kubernetes.node import images
from labkit.simulator.kubernetes.node.node import Node
from labkit.simulator.kubernetes.node.users import ids_of_pods
from labkit.simulator.kubernetes.server import ApiServer
from labkit.simulator.listener import Listener
from labkit.simulator.peer_credentials import same_user
from labkit.simulator.process import REGION, context
from labkit.simulator.running_lab import RunningLab
from labkit.webhook import ServiceAccounts, WebhookServer, mutating_webhook_configuration

if TYPE_CHECKING:
    import socket

KUBERNETES_VERSION = "1.36"
# A program that ignores AWS's variables (the SDK for Go 1) would call the real AWS. On a machine in a cloud, it would
# also reach the cloud's metadata service. So every call goes to a proxy address where nothing listens, except calls to
# loopback.
NOWHERE_ELSE = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9")
NOWHERE_ELSE |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
NODE_TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
# The uid of a caller with an AWS identity: this name, the account id, and the principal's id.
AWS_UID = "aws-iam-authenticator"
# For each of EKS's access policies, the ClusterRole that allows the same.
# https://docs.aws.amazon.com/eks/latest/userguide/access-policy-permissions.html
ACCESS_POLICIES = {
    "AmazonEKSAdminPolicy": "admin",
    "AmazonEKSClusterAdminPolicy": "cluster-admin",
    "AmazonEKSEditPolicy": "edit",
    "AmazonEKSViewPolicy": "view",
}
METADATA_ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
Started = TypeVar("Started", "Cluster", JoinedCluster)
log = logging.getLogger(__name__)


class Clusters:
    """The clusters that ``eks:CreateCluster`` created or joined. The gate (the lab's AWS) calls this class.

    The keys of ``running`` are the names of the clusters' contexts in the kubeconfig.
    """

    def __init__(self, lab: RunningLab):
        self.lab = lab
        self.running: dict[str, Cluster | JoinedCluster] = {}
        self._spare_key: asyncio.Task[bytes] | None = None

    def prepare(self) -> None:
        """Generate the first cluster's signing key in advance."""
        self._spare_key = asyncio.create_task(asyncio.to_thread(_new_signing_key))

    async def create(self, region: str, name: str, request: dict[str, object]) -> ClusterFacts:
        """Start a new cluster, or join an existing one. Return its facts as soon as pods can be created in it."""
        called, identifiers = context(name, region, REGION), self.lab.kubernetes_identifiers
        cluster: Cluster | JoinedCluster
        if is_joined(request):
            cluster = await self._start(JoinedCluster(region, name, self.lab), request)
        else:
            kept = ClusterFolder(self.lab.folder, called)
            kept.forget_contents()  # an earlier start may have been interrupted
            issuer_id = identifiers.hex("issuer", f"{called}/{identifiers.serial('issuer', called)}")
            record = ClusterRecord(region, name, issuer_id, self.lab.folder.clock.now(), request)
            cluster = await self._start(Cluster(record, self.lab, self._signing_key), request)
            if not self.lab.bare:
                kept.record(record)
        self.running[called] = cluster
        self.tell_clients()
        return cluster.facts

    async def delete(self, region: str, name: str) -> None:
        """Stop a cluster and its pods, and delete its objects.

        A cluster that joined the lab isn't stopped: it only leaves the lab.
        """
        cluster = self.running.pop(context(name, region, REGION))
        kept = ClusterFolder(self.lab.folder, cluster.context)
        kept.forget_record()
        await cluster.stop()
        kept.forget_contents()
        self.tell_clients()

    async def start_again(self) -> None:
        """Start every cluster that has a record in the lab's folder.

        A cluster that joined the lab has no record. `labkit up --target kind` makes the cluster join again.
        Raises `LabError` if a cluster's state is not usable.
        """
        records = ClusterFolder.records(self.lab.folder)
        clusters = [Cluster(record, self.lab, self._signing_key, again=True) for record in records]
        await asyncio.gather(
            *(self._start(cluster, record.request) for cluster, record in zip(clusters, records, strict=True))
        )
        self.running = {cluster.context: cluster for cluster in clusters}
        for record in records:
            await self.lab.gate.know_cluster(record.region, record.name, record.request)
        self.tell_clients()

    def get(self, region: str, name: str) -> ClusterFacts | None:
        """Return the facts of a running cluster; None if no such cluster runs."""
        cluster = self.running.get(context(name, region, REGION))
        return cluster.facts if cluster else None

    def nodes(self, region: str) -> dict[str, ClusterFacts]:
        """Return the facts of the region's clusters that have a node, by the node's instance id."""
        of_region = (cluster.facts for cluster in self.running.values() if cluster.region == region)
        return {facts.instance.id: facts for facts in of_region if facts.instance}

    async def stop(self) -> None:
        """Stop every cluster."""
        await asyncio.gather(*(cluster.stop() for cluster in self.running.values()))

    def write_kubeconfig(self) -> None:
        """Write the lab's kubeconfig, with one context for each cluster. Keep the entries that others added."""
        folder = self.lab.folder
        before = folder.kubeconfig.read_text() if folder.kubeconfig.exists() else ""
        entries = [cluster.kubeconfig_entry() for cluster in self.running.values()]
        folder.write_private(folder.kubeconfig, kubeconfig.merged(before, entries).encode())

    async def _start(self, cluster: Started, request: dict[str, Any]) -> Started:
        try:
            await cluster.start(request)
        except BaseException:
            await cluster.stop()
            raise
        return cluster

    async def _signing_key(self) -> bytes:
        spare, self._spare_key = self._spare_key, None
        return await spare if spare else _new_signing_key()

    def tell_clients(self) -> None:
        """Write the facts that clients read from the lab's folder."""
        self.write_kubeconfig()
        nodes = [cluster.node for cluster in self.running.values() if cluster.node]
        self.lab.state = replace(
            self.lab.state,
            clusters={
                name: {"issuer": facts.issuer, "endpoint": facts.endpoint}
                | ({"hop_limit": facts.metadata.hop_limit} if facts.instance else {})
                for name, facts in ((name, cluster.facts) for name, cluster in self.running.items())
            },
            mounts=next((node.mounts for node in nodes if node.mounts), self.lab.state.mounts),
            limits=next((node.limits for node in nodes if node.limits), self.lab.state.limits),
            users=next((node.users for node in nodes if node.users), self.lab.state.users),
            pod_clock=any(node.clock for node in nodes),
        )
        self.lab.state.write(self.lab.folder)


class Cluster:
    """One cluster: CA, signing key, issuer, API server, webhook, node and the node's role.

    ``again``: whether the cluster existed before the lab's server started. If so, the cluster keeps its stored state.
    """

    def __init__(
        self,
        record: ClusterRecord,
        lab: RunningLab,
        new_signing_key: Callable[[], Awaitable[bytes]],
        *,
        again: bool = False,
    ):
        self.region = record.region
        self.name = record.name
        self.context = record.context
        self.lab = lab
        self._record, self._again = record, again
        self._new_signing_key = new_signing_key
        self._kept = ClusterFolder(lab.folder, self.context)
        self.node_name = names.node_name(self.name)
        self._api_socket: socket.socket
        self._webhook_socket: socket.socket
        self.node: Node | None = None
        self.endings = AsyncExitStack()

    async def start(self, request: dict[str, Any]) -> None:
        """Start the cluster; return when a pod can be created. Raises `LabError` if the stored state isn't usable."""
        gate, folder = self.lab.gate, self.lab.folder
        self.authority = folder.named_authority(f"{self._kept.keys}/ca", "kubernetes")
        self.administrator = self._client("kubernetes-admin", "system:masters")
        issuer_path = f"/id/{self._record.issuer_id}"
        await self.lab.listen_as_issuer(self.region)
        issuer = f"https://oidc.eks.{self.region}.amazonaws.com{issuer_path}"
        if not self.lab.bare:
            self._webhook_socket = same_user(self.lab.ports.bind(f"{self.context}/webhook"), ids_of_pods())
            self.endings.callback(self._webhook_socket.close)
            # The API server answers before the webhook starts. A new pod waits until the webhook has started.
            self._webhook_socket.listen()
        self._api_socket = self.lab.ports.bind(f"{self.context}/api")
        self.endings.callback(self._api_socket.close)
        self.api_url = f"https://127.0.0.1:{self._api_socket.getsockname()[1]}"
        arn = f"arn:aws:eks:{self.region}:{gate.account_id}:cluster/{self.name}"
        self.facts = ClusterFacts(
            name=self.name,
            arn=arn,
            endpoint=self.api_url,
            certificate_authority_pem=self.authority.certificate_pem,
            issuer=issuer,
            version=request.get("version") or KUBERNETES_VERSION,
            created_at=self._record.created_at,
            role_arn=request.get("roleArn", ""),
            tags=request.get("tags") or {},
            authentication_mode=(request.get("accessConfig") or {}).get("authenticationMode", "API"),
            **{"metadata": MetadataOptions(folder.hop_limit), **gate.associated(arn)},
        )
        await self._start_api_server(issuer, issuer_path)
        if not self.lab.bare:
            await asyncio.gather(self._start_webhook(), self._start_node())

    async def stop(self) -> None:
        """Stop everything that `start` started, in reverse order."""
        await self.endings.aclose()

    def kubeconfig_entry(self) -> kubeconfig.Entry:
        """Return the cluster's entry for the lab's kubeconfig."""
        return kubeconfig.entry(
            self.context, self.facts.arn, self.api_url, self.authority.certificate_pem, self.administrator
        )

    async def _start_api_server(self, issuer: str, issuer_path: str) -> None:
        api_server = ApiServer(
            authority=self.authority,
            signing_key_pem=await self._signing_key(),
            issuer=issuer,
            clock=self.lab.folder.clock,
            identifiers=self.lab.kubernetes_identifiers,
            kubelet_certificate=self._client("kube-apiserver-kubelet-client", "system:masters"),
            address=self.api_url.removeprefix("https://"),
            file=None if self.lab.bare else self._kept.objects,
        )
        self.endings.push_async_callback(api_server.close)
        if not self.lab.bare:
            # As on EKS, a token is valid for one day at most.
            api_server.tokens.longest = DAY
        api_server.authentication.others.append(self._aws_user)
        api_server.authorization.others.append(self._aws_grants)
        tokens = api_server.tokens
        self.lab.issuer.publish(issuer_path, tokens.discovery_document(f"{issuer}/keys"), tokens.jwks())
        self.endings.callback(self.lab.gate.issuers.forget, issuer)
        self.endings.callback(self.lab.issuer.withdraw, issuer_path)
        listener = await self.lab.listen(
            Listener(
                api_server,
                port_socket=self._api_socket,
                certificate=self.authority.issue("kube-apiserver", dns=["localhost"], ips=["127.0.0.1"]),
                client_authority_pem=self.authority.certificate_pem,
                on_call=self.lab.called,
            )
        )
        self.endings.push_async_callback(self.lab.close, listener)

    async def _aws_user(self, token: str) -> User | None:
        """Return the user for a token from `aws eks get-token`."""
        if not token.startswith(eks_tokens.PREFIX):
            return None
        lab = self.lab
        try:
            identity = await eks_tokens.verify(
                token, cluster=self.name, gate=lab.gate, endpoint_url=lab.state.endpoint_url
            )
        except eks_tokens.RejectedToken as invalid:
            log.warning("%s: access denied: %s", self.context, invalid)
            return None
        entry = self.facts.access.find(identity.principal_id)
        if entry is None:
            log.warning("%s: access denied: no access entry lets %s in", self.context, identity.principal_arn)
            return None
        extra = {
            "accessKeyId": identity.access_key_id,
            "arn": identity.arn,
            "canonicalArn": identity.canonical_arn,
            "principalId": identity.principal_id,
            "sessionName": identity.session_name,
            "sigs.k8s.io/aws-iam-authenticator/principalId": identity.principal_id,
        }
        return User(
            entry.username_of(identity.session_name),
            (*entry.groups, AUTHENTICATED),
            f"{AWS_UID}:{identity.account_id}:{identity.principal_id}",
            {name: [value] for name, value in extra.items()},
        )

    def _aws_grants(self, user: User) -> Iterator[ClusterRoleGrant]:
        """Yield a grant for each access policy in the user's access entry."""
        authenticator, _, principal = user.uid.partition(":")
        entry = self.facts.access.find(principal.rpartition(":")[2])
        if authenticator != AWS_UID or entry is None:
            return
        for policy in entry.policies.values():
            binding = f'ClusterRoleBinding "{entry.principal_arn}+{policy.name}"'
            of = f'{binding} of ClusterRole "{policy.name}" to User "{entry.principal_id}"'
            reason = f"EKS Access Policy: allowed by {of}"
            yield ClusterRoleGrant(ACCESS_POLICIES[policy.name], policy.namespaces, reason)

    async def _start_webhook(self) -> None:
        client = self._api_client(self._client("system:pod-identity-webhook"))
        accounts = ServiceAccounts(client)
        await accounts.start()
        listener = await self.lab.listen(
            Listener(
                WebhookServer(
                    accounts,
                    region=self.region,
                    associated=lambda *account: self.facts.pod_identity.of(*account) is not None,
                ),
                port_socket=self._webhook_socket,
                certificate=self.authority.issue("pod-identity-webhook", ips=["127.0.0.1"]),
            )
        )
        self.endings.push_async_callback(client.aclose)
        self.endings.push_async_callback(accounts.stop)
        self.endings.push_async_callback(self.lab.close, listener)
        manifest = mutating_webhook_configuration(
            f"https://127.0.0.1:{listener.port}/mutate", self.authority.certificate_pem
        )
        file = f"{self._kept.keys}/webhook.json"
        before = self.lab.folder.read_json(file)
        # A user who has deleted the registration can apply this file.
        self.lab.folder.write_json(file, manifest)
        async with self._api_client(self.administrator) as api:
            if not self._again:
                (await api.post(WEBHOOKS, json=manifest)).raise_for_status()
            elif before != manifest:
                await self._lead_to_webhook(api, before, manifest)

    async def _lead_to_webhook(self, api: httpx.AsyncClient, before: dict[str, Any], now: dict[str, Any]) -> None:
        """Update the URL and the CA in the webhook's registration. Keep a URL or a CA that someone has changed."""
        answer = await api.get(f"{WEBHOOKS}/{now['metadata']['name']}")
        if answer.status_code == 404:
            return
        there = answer.raise_for_status().json()
        for name in ("url", "caBundle"):
            by_now = {
                old["clientConfig"][name]: new["clientConfig"][name]
                for old, new in zip(before.get("webhooks") or (), now["webhooks"], strict=False)
            }
            for webhook in there["webhooks"]:
                if new := by_now.get(webhook["clientConfig"].get(name)):
                    webhook["clientConfig"][name] = new
        (await api.put(f"{WEBHOOKS}/{now['metadata']['name']}", json=there)).raise_for_status()

    async def _start_node(self) -> None:
        lab, gate = self.lab, self.lab.gate
        instance = Instance(
            id="i-0" + lab.kubernetes_identifiers.hex("instance", f"{self.context}-node-1", 16).lower(),
            name=self.node_name,
            role_arn=await gate.ensure_role(names.node_role_name(self.name), NODE_TRUST, names.NODE_POLICIES),
            region=self.region,
            zone=f"{self.region}a",
        )
        self.facts = replace(self.facts, instance=instance)
        metadata, options = InstanceMetadata(gate, lab.folder.clock, instance), self.facts.metadata
        on_node = same_user(lab.ports.bind(f"{self.context}/metadata"), ids_of_pods())
        in_pods = lab.ports.bind(f"{self.context}/metadata-in-pods")
        in_pods = same_user(in_pods, ids_of_pods(), lambda: options.hop_limit > 1)
        endpoints = []
        for port_socket in on_node, in_pods:
            listener = await lab.listen(Listener(metadata, port_socket=port_socket))
            self.endings.push_async_callback(lab.close, listener)
            endpoints.append({METADATA_ENDPOINT: f"http://127.0.0.1:{listener.port}/"})
        agent = PodIdentityAgent(
            gate, lab.folder.clock, cluster=self.name, region=self.region, node_credentials=metadata.role_session
        )
        agent_socket = same_user(lab.ports.bind(f"{self.context}/pod-identity-agent"), ids_of_pods())
        agent_listener = await lab.listen(Listener(agent, port_socket=agent_socket))
        self.endings.push_async_callback(lab.close, agent_listener)
        self.node = Node(
            name=self.node_name,
            api_url=self.api_url,
            ca_pem=self.authority.certificate_pem,
            client=self._client(f"system:node:{self.node_name}", "system:nodes"),
            kubelet_socket=lab.ports.bind(f"{self.context}/kubelet"),
            kubelet_certificate=self.authority.issue(self.node_name, dns=["localhost"], ips=["127.0.0.1"]),
            folder=self._kept.node,
            clock_file=lab.folder.clock.file,
            environment={
                "AWS_ENDPOINT_URL": lab.state.endpoint_url,
                # The SDK for Go 2 uses only this variable when it exchanges a token for credentials.
                "AWS_ENDPOINT_URL_STS": lab.state.endpoint_url,
                **endpoints[1],
                **NOWHERE_ELSE,
            },
            on_host_network=endpoints[0],
            led={AGENT_URL: f"http://127.0.0.1:{agent_listener.port}{PATH}"},
            images=images.of_this_environment(),
            home={".aws/config": aws_cli.CONFIG},
            labels={"topology.kubernetes.io/region": self.region, "topology.kubernetes.io/zone": instance.zone},
            provider_id=f"aws:///{instance.zone}/{instance.id}",
        )
        lab.folder.pods.mkdir(exist_ok=True)
        lab.folder.pods.chmod(0o700)
        await self.node.start()
        self.endings.push_async_callback(self.node.stop)

    def _client(self, user: str, *groups: str) -> Certificate:
        return self.authority.issue(user, organizations=groups, client=True)

    def _api_client(self, certificate: Certificate) -> httpx.AsyncClient:
        context = client_context(self.authority.certificate_pem, certificate)
        return httpx.AsyncClient(base_url=self.api_url, verify=context, trust_env=False)

    async def _signing_key(self) -> bytes:
        file = self._kept.path / "sa.key"
        new = b"" if file.exists() and file.stat().st_size else await self._new_signing_key()
        return self.lab.folder.kept(f"{self._kept.keys}/sa.key", lambda: new)


def _new_signing_key() -> bytes:
    """Return an RSA key of the size that EKS uses."""
    return private_pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))
