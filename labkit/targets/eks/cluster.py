"""Reach an EKS cluster: get its description, and call its API with a token made from AWS credentials."""

import base64
import time
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import yaml
from botocore.config import Config
from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException

from labkit.connection import configured, core_api, patient
from labkit.errors import LabError, UnknownName
from labkit.policy.arn import Arn
from labkit.targets.eks.account import explained

if TYPE_CHECKING:
    import boto3
    from types_boto3_eks.type_defs import ClusterTypeDef

    from labkit.run_parameters import Parameters

CLUSTER_HEADER = "x-k8s-aws-id"
PREFIX = "k8s-aws-v1."
FRESH_FOR = 600  # seconds; the cluster accepts a token for 900
NODE_WITHIN = 210  # seconds until a new machine accepts pods


class NoCluster(LabError):
    """The cluster doesn't exist, or can't be used in its present state."""


class ClusterGone(NoCluster):
    """The account has no cluster of this name in the region."""


def describe(session: "boto3.Session", name: str, account_id: str) -> "ClusterTypeDef":
    """Return the active cluster as EKS describes it. Raises `NoCluster` or `NotAllowed`.

    https://docs.aws.amazon.com/eks/latest/APIReference/API_DescribeCluster.html
    """
    region = session.region_name
    with explained():
        eks = session.client("eks")
    try:
        with explained("reading the cluster (eks:DescribeCluster)"):
            cluster: ClusterTypeDef = eks.describe_cluster(name=name)["cluster"]
    except eks.exceptions.ResourceNotFoundException:
        raise ClusterGone(
            f"The account {account_id} has no EKS cluster {name} in {region}.",
            where="parameters cluster and region; nothing was changed",
            next=f"aws eks list-clusters --region {region}",
        ) from None
    if cluster["status"] not in ("ACTIVE", "UPDATING"):
        until = "deleted" if cluster["status"] == "DELETING" else "active"
        raise NoCluster(
            f"The cluster {name} is {cluster['status']}, and not ACTIVE.",
            where="eks:DescribeCluster; nothing was changed",
            next=f"aws eks wait cluster-{until} --name {name} --region {region}",
        )
    if not ((cluster.get("identity") or {}).get("oidc") or {}).get("issuer"):
        raise NoCluster(
            f"The cluster {name} has no OIDC issuer.",
            where="eks:DescribeCluster, cluster.identity.oidc; nothing was changed",
            next=f"choose a cluster whose control plane runs in AWS:  aws eks list-clusters --region {region}",
        )
    return cluster


def api_client(session: "boto3.Session", cluster: "ClusterTypeDef") -> ApiClient:
    """Return a client of the cluster's API. The client renews its token before the token expires.

    https://docs.aws.amazon.com/eks/latest/userguide/cluster-auth.html
    """
    name: str = cluster["name"]
    where = {
        "server": cluster["endpoint"],
        "certificate-authority-data": cluster["certificateAuthority"]["data"],
    }
    kubeconfig = {
        "clusters": [{"name": name, "cluster": where}],
        "users": [{"name": name, "user": {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    configuration: Any = configured(kubeconfig)  # its declared type lacks refresh_api_key_hook
    made_at: float | None = None

    def renew(configuration: Any) -> None:
        nonlocal made_at
        # Use the wall clock, which goes on while a laptop sleeps: the token gets older meanwhile, too.
        if made_at is None or not 0 <= time.time() - made_at < FRESH_FOR:
            configuration.api_key["authorization"] = f"Bearer {token(session, name)}"
            made_at = time.time()

    renew(configuration)
    configuration.refresh_api_key_hook = renew
    configuration.retries = 1
    return patient(ApiClient(configuration))


def kubectl(parameters: "Parameters", cluster: "ClusterTypeDef") -> str:
    """Return the kubectl command for the cluster, with the context in the parameters.

    If the parameters name no context, the command uses the context that the AWS CLI creates.

    Raises `UnknownName` if the kubeconfig in the parameters doesn't have the context.
    https://docs.aws.amazon.com/eks/latest/userguide/create-kubeconfig.html
    """
    file, context = parameters.kubeconfig, parameters.context or cluster["arn"]
    if not file:
        return f"kubectl --context {quote(context)}"
    path = Path(file).expanduser()
    try:
        known = [entry["name"] for entry in yaml.safe_load(path.read_text())["contexts"]]
    except (yaml.YAMLError, OSError, ValueError, KeyError, TypeError):
        known = []
    if context not in known:
        add = f"aws eks update-kubeconfig --name {cluster['name']} --region {parameters.region}"
        raise UnknownName(
            "context of the kubeconfig",
            context,
            known,
            where=f"{path}; nothing was changed",
            next=f"{add} --kubeconfig {quote(str(path))}",
        )
    return f"kubectl --kubeconfig {quote(str(path))} --context {quote(context)}"


def token(session: "boto3.Session", cluster: str) -> str:
    """Return the token that `aws eks get-token` prints. Raises `LabError`.

    The token is a signed GetCallerIdentity request that names this cluster. The cluster sends the request to STS.
    https://github.com/kubernetes-sigs/aws-iam-authenticator#api-authorization-from-outside-a-cluster
    """
    with explained():
        sts = session.client("sts", config=Config())  # a client of its own, because it adds a header
        sts.meta.events.register(
            "before-sign.sts.GetCallerIdentity",
            lambda request, **_: request.headers.add_header(CLUSTER_HEADER, cluster),
        )
        url = sts.generate_presigned_url("get_caller_identity", ExpiresIn=60, HttpMethod="GET")
    return PREFIX + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


def node_count(api: ApiClient) -> int | None:
    """Return the number of nodes that accept pods; None if the caller may not list nodes.

    https://kubernetes.io/docs/concepts/architecture/nodes/#condition
    """
    try:
        nodes = core_api(api).list_node().items
    except ApiException as error:
        if error.status != 403:
            raise
        return None
    return sum(not node.spec.unschedulable and _is_ready(node) for node in nodes)


def require_nodes(count: int | None, cluster: "ClusterTypeDef") -> None:
    """Raise `NoCluster` if no node accepts pods, and the cluster doesn't create nodes itself."""
    name = cluster["name"]
    if count == 0 and not makes_nodes(cluster):
        raise NoCluster(
            f"The cluster {name} has no node that accepts pods.",
            where="kubectl get nodes; nothing was changed",
            next=f"eksctl create nodegroup --cluster {name} --region {region(cluster)}",
        )


def makes_nodes(cluster: "ClusterTypeDef") -> bool:
    """Return whether the cluster is in Auto Mode, in which EKS creates a node when a pod needs one.

    https://docs.aws.amazon.com/eks/latest/userguide/automode.html
    """
    return bool((cluster.get("computeConfig") or {}).get("enabled"))


def _is_ready(node: Any) -> bool:
    return any(condition.type == "Ready" and condition.status == "True" for condition in node.status.conditions or [])


def region(cluster: "ClusterTypeDef") -> str:
    """Return the region that the cluster is in."""
    arn: str = cluster["arn"]
    return Arn.parse(arn).region
