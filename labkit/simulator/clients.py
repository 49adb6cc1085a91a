"""Clients of a running lab: its AWS as the account's administrator, its clusters, and a cluster's API."""

import contextlib
from typing import TYPE_CHECKING, Any

from labkit.connection import configured, patient
from labkit.simulator.process import State

if TYPE_CHECKING:
    import boto3
    from kubernetes.client import ApiClient
    from types_boto3_eks.type_defs import ClusterTypeDef

    from labkit.simulator.sessions import BoundSession

CLUSTER_ROLE = "eks-cluster-role"


def session(state: State, region: str) -> "BoundSession":
    """Return an administrator's AWS session in this lab and this region."""
    from labkit.simulator.sessions import BoundSession

    return BoundSession(
        endpoint_url=state.endpoint_url,
        access_key_id=state.access_key_id,
        secret_access_key=state.secret_access_key,
        region=region,
    )


def ensure_cluster(aws: "BoundSession", name: str, account_id: str) -> "ClusterTypeDef":
    """Return the cluster as eks:DescribeCluster shows it; create it if it's missing.

    https://docs.aws.amazon.com/eks/latest/APIReference/API_CreateCluster.html
    """
    cluster: ClusterTypeDef
    eks = aws.client("eks")
    try:
        cluster = eks.describe_cluster(name=name)["cluster"]
    except eks.exceptions.ResourceNotFoundException:
        role_arn = f"arn:aws:iam::{account_id}:role/{CLUSTER_ROLE}"
        # Another notebook or terminal may have created it a moment ago.
        with contextlib.suppress(eks.exceptions.ResourceInUseException):
            cluster = eks.create_cluster(name=name, roleArn=role_arn, resourcesVpcConfig={})["cluster"]
            return cluster
        cluster = {"status": "CREATING"}
    return active_cluster(eks, name) if cluster["status"] == "CREATING" else cluster


def active_cluster(eks: Any, name: str) -> "ClusterTypeDef":
    """Wait until the cluster is active, 30 s at most. Return it as eks:DescribeCluster shows it."""
    eks.get_waiter("cluster_active").wait(name=name, WaiterConfig={"Delay": 0.2, "MaxAttempts": 150})
    cluster: ClusterTypeDef = eks.describe_cluster(name=name)["cluster"]
    return cluster


def set_hop_limit(aws: "boto3.Session", limit: int, cluster: str = "*") -> None:
    """Set the hop limit of the node of a cluster, or of all clusters in the session's region.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyInstanceMetadataOptions.html
    """
    ec2 = aws.client("ec2")
    of_cluster = {"Name": "tag:eks:cluster-name", "Values": [cluster]}
    for reservation in ec2.describe_instances(Filters=[of_cluster])["Reservations"]:
        for instance in reservation["Instances"]:
            ec2.modify_instance_metadata_options(InstanceId=instance["InstanceId"], HttpPutResponseHopLimit=limit)


def api_client(state: State, context: str) -> "ApiClient":
    """Return a client of the cluster's API that uses no proxy."""
    import yaml
    from kubernetes.client import ApiClient

    configuration = configured(yaml.safe_load(state.kubeconfig.read_text()), context)
    # Without this, exec would use the machine's proxy. No request goes through this proxy: no_proxy is *.
    configuration.proxy, configuration.no_proxy = "http://127.0.0.1:9", "*"
    return patient(ApiClient(configuration))
