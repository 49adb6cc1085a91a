"""The lab's EKS clusters: the only place where the AWS half and the Kubernetes half meet."""

import asyncio
import base64
import json
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from labkit.emulator import environment
from labkit.emulator.aws.clusters import ClusterFacts
from labkit.emulator.certificates import Authority
from labkit.emulator.folder import Folder
from labkit.emulator.kubernetes.api import ApiServer
from labkit.emulator.kubernetes.node import Node
from labkit.emulator.listener import Listener
from labkit.webhook import Accounts, WebhookServer, mutating_webhook_configuration

if TYPE_CHECKING:
    from labkit.emulator.server import Server

KUBERNETES_VERSION = "1.36"
# What EKS's documentation attaches to a node role: https://docs.aws.amazon.com/eks/latest/userguide/create-node-role.html
NODE_POLICIES = ("AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryReadOnly")


class Clusters:
    """The clusters that ``eks:CreateCluster`` made, as the gate asks for them."""

    def __init__(self, server: "Server"):
        self.server = server
        self.running: dict[str, Cluster] = {}

    async def create(self, name: str, request: dict[str, Any]) -> ClusterFacts:
        """Brings a cluster up; returns when its API server, webhook and node answer."""
        cluster = Cluster(name, self.server)
        self.running[name] = cluster
        try:
            await cluster.start(request)
        except BaseException:
            del self.running[name]
            await cluster.stop()
            raise
        self._tell_clients()
        return cluster.facts

    async def delete(self, name: str) -> None:
        """Ends a cluster and every process of its pods."""
        await self.running.pop(name).stop()
        self._tell_clients()

    def get(self, name: str) -> ClusterFacts | None:
        """The facts of a running cluster."""
        cluster = self.running.get(name)
        return cluster.facts if cluster else None

    def names(self) -> list[str]:
        """The names of the running clusters."""
        return sorted(self.running)

    async def stop(self) -> None:
        """Ends every cluster."""
        await asyncio.gather(*(cluster.stop() for cluster in self.running.values()))

    def write_kubeconfig(self) -> None:
        """One kubeconfig for the lab, a context a cluster; the newest cluster is the current one.

        https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
        """
        clusters = self.running.values()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": cluster.name, "cluster": cluster.kubeconfig_cluster()} for cluster in clusters],
            "users": [{"name": cluster.name, "user": cluster.kubeconfig_user()} for cluster in clusters],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}} for name in self.running],
            "current-context": next(reversed(self.running), ""),
        }
        folder = self.server.folder
        folder.write_private(folder.kubeconfig, yaml.safe_dump(config).encode())

    def _tell_clients(self) -> None:
        self.write_kubeconfig()
        self.server.state = replace(
            self.server.state,
            clusters={
                name: {"issuer": cluster.facts.issuer, "endpoint": cluster.facts.endpoint}
                for name, cluster in self.running.items()
            },
            mounts=next((cluster.node.mounts for cluster in self.running.values()), self.server.state.mounts),
            pod_clock=any(cluster.node.clock for cluster in self.running.values()),
        )
        self.server.state.write(self.server.folder)


class Cluster:
    """One cluster: CA, signing key, issuer, API server, webhook, node and the node's role."""

    def __init__(self, name: str, server: "Server"):
        self.name = name
        self.server = server
        self.keys = Path("clusters") / name
        self.node_name = f"{name}-node-1"
        self.listeners: list[Listener] = []
        self.parts: list[Any] = []

    async def start(self, request: dict[str, Any]) -> None:
        """Returns when a pod could be created."""
        server, folder = self.server, self.server.folder
        self.authority = folder.named_authority(f"{self.keys}/ca", "kubernetes")
        self.administrator = self.authority.issue("kubernetes-admin", organizations=["system:masters"], client=True)
        self.issuer_path = "/id/" + self._issuer_id()
        issuer = f"https://oidc.eks.{server.gate.region}.amazonaws.com{self.issuer_path}"
        await self._start_api_server(issuer)
        server.issuer.publish(self.issuer_path, self.api_server.discovery_document(), self.api_server.jwks())
        self.facts = ClusterFacts(
            name=self.name,
            arn=f"arn:aws:eks:{server.gate.region}:{server.gate.account_id}:cluster/{self.name}",
            endpoint=self.api_url,
            certificate_authority_pem=self.authority.certificate_pem,
            issuer=issuer,
            version=request.get("version") or KUBERNETES_VERSION,
            created_at=folder.clock.now(),
            role_arn=request.get("roleArn", ""),
            tags=request.get("tags") or {},
        )
        await self._start_webhook()
        await self._start_node()

    async def stop(self) -> None:
        """Ends what was started, the newest first; the issuer's keys are gone with the cluster."""
        for part in reversed(self.parts):
            await part.stop()
        await asyncio.gather(*(self.server.close(listener) for listener in self.listeners))
        self.server.issuer.withdraw(self.issuer_path)
        self.parts, self.listeners = [], []
