"""Names made from the names of clusters, for systems that allow fewer names; and the policies of a node's role.

EKS distinguishes upper and lower case in a cluster's name. Kubernetes allows only lower case in a node's name. IAM and
some file systems ignore case.
"""

import hashlib
import re

CLUSTER_NAME = re.compile(r"[0-9A-Za-z][A-Za-z0-9_-]{0,99}")  # what EKS allows
# https://docs.aws.amazon.com/eks/latest/userguide/create-node-role.html
NODE_POLICIES = [
    "arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy",
    "arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy",
    "arn:aws:iam::aws:policy/AmazonEC2ContainerRegistryReadOnly",
]
# The most characters that come from the cluster's name. A certificate's subject has at most 64 characters, and the
# node's subject is "system:node:…-node-1". IAM allows 64 characters, too, for "…-node-role".
LONGEST_OF_CLUSTER = 45


def node_name(cluster: str) -> str:
    """Return the name of the cluster's only node."""
    return f"{lower_case(cluster, LONGEST_OF_CLUSTER)}-node-1"


def node_role_name(cluster: str) -> str:
    """Return the name of the node's role."""
    return f"{lower_case(cluster, LONGEST_OF_CLUSTER)}-node-role"


def lower_case(name: str, longest: int) -> str:
    """Return the name in at most ``longest`` lower-case letters, digits and hyphens.

    A name that has to be changed for this ends with a hash of the original, so that it's different from other names.
    """
    allowed = re.sub(r"[^a-z0-9-]", "-", name.lower())
    if allowed == name and len(name) <= longest:
        return name
    return f"{allowed[: longest - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def file_name(name: str) -> str:
    """Return the name with ``=x`` instead of each capital ``X``. It must not contain an equals sign."""
    return re.sub("[A-Z]", lambda capital: f"={capital[0].lower()}", name)


def of_file(name: str) -> str:
    """Return the name from which `file_name` made this name."""
    return re.sub("=(.)", lambda escaped: escaped[1].upper(), name)
