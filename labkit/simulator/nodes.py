"""The names of a cluster's node and of its role, and the role's policies."""

from labkit.simulator.names import lower_case

# https://docs.aws.amazon.com/eks/latest/userguide/create-node-role.html
POLICIES = [
    "arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy",
    "arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy",
    "arn:aws:iam::aws:policy/AmazonEC2ContainerRegistryReadOnly",
]
# The most characters that come from the cluster's name. A certificate's subject has at most 64 characters, and the
# node's subject is "system:node:…-node-1". IAM allows 64 characters, too, for "…-node-role".
LONGEST = 45


def node_name(cluster: str) -> str:
    """Return the name of the cluster's only node."""
    return f"{lower_case(cluster, LONGEST)}-node-1"


def role_name(cluster: str) -> str:
    """Return the name of the node's role."""
    return f"{lower_case(cluster, LONGEST)}-node-role"
