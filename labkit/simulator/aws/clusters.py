"""The lab's clusters, as EKS's answers describe them. The Kubernetes half of the lab runs the clusters."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from labkit.simulator.aws.access_entries import AccessEntries
from labkit.simulator.aws.identity_provider_configs import IdentityProviderConfigs
from labkit.simulator.aws.own_state import OwnState
from labkit.simulator.aws.pod_identity import PodIdentityAssociations
from labkit.simulator.database import NotWritten


@dataclass(frozen=True)
class Instance:
    """A cluster's node, as EC2 describes it."""

    id: str
    name: str
    """The name of the node in the cluster."""
    role_arn: str
    region: str
    zone: str
    type = "m5.large"
    image_id = "ami-0123456789abcdef0"

    @property
    def profile_arn(self) -> str:
        """The ARN of the instance profile, which has the role's name."""
        return self.role_arn.replace(":role/", ":instance-profile/")


class MetadataOptions:
    """The options of a node's instance metadata service. ``stored`` is the hop limit.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceMetadataOptionsResponse.html
    """

    def __init__(self, stored: object = 1):
        self.hop_limit = stored if isinstance(stored, int) else 1
        """How many networks an answer with a token may pass. A pod is two away, or one on its node's own network."""

    @property
    def stored(self) -> int:
        return self.hop_limit


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
    metadata: MetadataOptions = field(default_factory=MetadataOptions)
    instance: Instance | None = None
    """The cluster's node; None if the lab runs no node for the cluster."""

    @property
    def associated(self) -> dict[str, object]:
        """The fields in `ASSOCIATED`, as JSON can have them, without the Pod Identity associations."""
        return {name: getattr(self, name).stored for name in ASSOCIATED if name != "pod_identity"}

    def keep(self, own: OwnState) -> None:
        """Store `associated`. If that fails, undo the changes since the last time, and raise `NotWritten`."""
        try:
            for identifier in self.pod_identity.used:
                own.keep_part(f"{self.arn}/{identifier}", self.pod_identity.find(identifier))
            own.keep_part(self.arn, self.associated)
            self.pod_identity.used.clear()
        except NotWritten:
            known = associated(own, self.arn)
            for name, kind in ASSOCIATED.items():
                getattr(self, name).__dict__ = (known.get(name) or kind()).__dict__
            raise


ASSOCIATED = {
    "access": AccessEntries,
    "identity_providers": IdentityProviderConfigs,
    "pod_identity": PodIdentityAssociations,
    "metadata": MetadataOptions,
}


def associated(own: OwnState, arn: str) -> dict[str, Any]:
    """Return a cluster's fields in `ASSOCIATED`, which `ClusterFacts.keep` stored; an empty dict for a new cluster."""

    def read(stored: dict[str, Any]) -> dict[str, Any]:
        known = stored.get("pod_identity") or {}  # as one value, in the folder of version 0.1.0
        entries = known | {str(one["associationId"]): one for one in own.entries(arn)}
        fields = {name: kind(stored[name]) for name, kind in ASSOCIATED.items() if name in stored}
        return fields | {"pod_identity": PodIdentityAssociations(entries, used=known)}

    return own.part(arn, read) or {}


class EksClusters(Protocol):
    """The clusters of the lab, by region and name."""

    async def create(self, region: str, name: str, request: dict[str, object]) -> ClusterFacts:
        """Run a new cluster, and return its facts once it answers. ``request`` has the parameters of CreateCluster."""

    async def delete(self, region: str, name: str) -> None:
        """Stop the cluster and everything that runs in it."""

    def get(self, region: str, name: str) -> ClusterFacts | None:
        """The cluster's facts; None if the cluster doesn't exist or isn't ready yet."""

    def nodes(self, region: str) -> dict[str, ClusterFacts]:
        """The facts of the region's clusters that have a node, by the node's instance id."""

    def tell_clients(self) -> None:
        """Write the facts that clients read from the lab's folder."""
