"""The lab's clusters, as EKS's answers describe them. The Kubernetes half of the lab runs the clusters."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from labkit.simulator.aws.access_entries import AccessEntries
from labkit.simulator.aws.identity_provider_configs import IdentityProviderConfigs
from labkit.simulator.aws.pod_identity import PodIdentityAssociations


@dataclass(frozen=True)
class ClusterFacts:
    """A cluster of the lab, as EKS describes it. ``created_at`` is in seconds since the epoch."""

    name: str
    arn: str
    endpoint: str
    certificate_authority_pem: bytes
    issuer: str
    version: str
    created_at: float
    role_arn: str
    tags: dict[str, str] = field(default_factory=dict)
    authentication_mode: str = "API"
    access: AccessEntries = field(default_factory=AccessEntries)
    """The access entries: the principals that the cluster lets in."""
    identity_providers: IdentityProviderConfigs = field(default_factory=IdentityProviderConfigs)
    pod_identity: PodIdentityAssociations = field(default_factory=PodIdentityAssociations)

    @property
    def associated(self) -> dict[str, object]:
        """`access`, `identity_providers` and `pod_identity`, as JSON can have them."""
        return {name: getattr(self, name).stored for name in ASSOCIATED}


ASSOCIATED = {
    "access": AccessEntries,
    "identity_providers": IdentityProviderConfigs,
    "pod_identity": PodIdentityAssociations,
}


def associated(stored: dict[str, object]) -> dict[str, Any]:
    """Return three fields of `ClusterFacts` from the value that `ClusterFacts.associated` had before."""
    return {name: kind(stored[name]) for name, kind in ASSOCIATED.items()}


class EksClusters(Protocol):
    """The clusters of the lab, by region and name."""

    async def create(self, region: str, name: str, request: dict[str, object]) -> ClusterFacts:
        """Run a new cluster, and return its facts once it answers. ``request`` has the parameters of CreateCluster."""

    async def delete(self, region: str, name: str) -> None:
        """Stop the cluster and everything that runs in it."""

    def get(self, region: str, name: str) -> ClusterFacts | None:
        """The cluster's facts; None if the cluster doesn't exist or isn't ready yet."""
