"""What a lesson needs of its target, and the error for a target that lacks it."""

from typing import TYPE_CHECKING

from labkit.errors import LabError, UnknownName

if TYPE_CHECKING:
    from labkit.workspace import Workspace

# Fields of `Connection`. The value None means that the target lacks it.
CAPABILITIES = {
    "clock": "a clock of its own that can be moved",
    "trail": "a trail that holds the reason of each decision",
    "hop_limit": "nodes of its own, whose hop limit you can change",
    "pod_identity": "an EKS Pod Identity Agent of the lab's own",
    "other_account": "a second account that you administer",
    "any_cluster": "clusters that exist as soon as you name them",
}
# In labkit 0.1.0, pods always reached the node's credentials. Its notebooks ask for this.
NODE_IDENTITY = "node_identity"


def has(lab: "Workspace", capability: str) -> bool:
    """Return whether the lab's target has this capability. Raises `UnknownName`."""
    capability = "hop_limit" if capability == NODE_IDENTITY else capability
    if capability not in CAPABILITIES:
        raise UnknownName("capability of a target", capability, CAPABILITIES)
    return getattr(lab.connection, capability) is not None


def lacks(lab: "Workspace", capability: str) -> str:
    """Return the sentence about a capability that the lab's target lacks."""
    return f"The target {lab.parameters.target} lacks {CAPABILITIES.get(capability, CAPABILITIES['hop_limit'])}."


def no_trail(lab: "Workspace") -> str:
    """Return the sentence about a target that records no calls to AWS; empty if the target records them.

    https://docs.aws.amazon.com/awscloudtrail/latest/userguide/view-cloudtrail-events-cli.html
    """
    if lab.connection.trail:
        return ""
    return f"{lacks(lab, 'trail')} CloudTrail has the calls, some minutes later: aws cloudtrail lookup-events"


def require(lab: "Workspace", capability: str) -> None:
    """Raise `LabError` if the lab's target lacks this capability."""
    if not has(lab, capability):
        raise LabError(
            lacks(lab, capability),
            where="this cell, and those that build on it",
            next='skip them, or set target = "moto", and run the notebook again',
        )
    if capability == NODE_IDENTITY and lab.connection.hop_limit and lab.connection.hop_limit() < 2:
        raise LabError(
            "This copy of the notebook is older than this labkit, whose nodes keep pods from the node's credentials.",
            where="this cell; nothing was changed",
            next="labkit lab --fresh NUMBER, which starts the notebook over; or, for this copy:  labkit up --imds open",
        )


def require_own_cluster(lab: "Workspace") -> None:
    """Raise `LabError` if the cluster isn't the lab's own, because faults may hurt other people."""
    if not lab.takes_untagged:
        raise LabError(
            f"The target {lab.parameters.target} lacks a cluster of the lab's own, which can be broken.",
            where="this cell, and those that build on it",
            next='set target = "moto", and run the notebook again',
        )


def require_exercises(lab: "Workspace") -> None:
    """Raise `LabError` if the cluster and the account aren't the lab's own, because exercises break things."""
    if not lab.connection.is_embedded:
        raise LabError(
            f"The target {lab.parameters.target} lacks exercises, which break things. Nothing was changed.",
            where="this cell and the next one",
            next='skip them, or set target = "moto", and run the notebook again',
        )
