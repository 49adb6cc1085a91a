"""A real account and a real EKS cluster: a run makes nothing before you name the account and confirm the plan."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from shlex import quote
from typing import TYPE_CHECKING

import httpx

from labkit.connection import Connection
from labkit.errors import LabError
from labkit.targets.eks import access as eks_access
from labkit.targets.eks import account
from labkit.targets.eks import cluster as eks_cluster
from labkit.targets.eks.account import explained
from labkit.targets.eks.cluster import NoCluster
from labkit.targets.eks.inventory import Plan, things
from labkit.workspace import Workspace

if TYPE_CHECKING:
    import boto3
    from types_boto3_eks.type_defs import ClusterTypeDef

    from labkit.run_parameters import Parameters
    from labkit.targets.eks.account import Identity

WEBHOOK_RESTORED_BY = (
    "# EKS runs the webhook. Its registration is in your cluster. AWS shows how to create the registration again:\n"
    "# https://repost.aws/knowledge-center/eks-troubleshoot-irsa-errors"
)


class NotConfirmed(LabError):
    """The user hasn't confirmed the plan yet."""


def plan(parameters: "Parameters") -> str:
    """Return the plan: the resources that exist, and those that a run will make. Raises `LabError`."""
    return str(_look(parameters)[1])


def up(parameters: "Parameters") -> Connection:
    """Return the connection to the account and the cluster if the plan is confirmed. Create nothing.

    Raises:
        NotConfirmed: the parameter `confirm` is not `yes`; the error's text is the plan.
        LabError: the credentials, the account or the cluster can't be used, or another owner's resource has a
            name that the run needs.
    """
    connection, plan = _look(parameters)
    if parameters.confirm != "yes":
        raise NotConfirmed(
            f"{plan}\n\nNothing was made: the plan is not confirmed.",
            where="parameter confirm",
            next='set confirm = "yes", and run again   (in a terminal: labkit run … --yes)',
        )
    return replace(connection, note=str(plan))


def connect(parameters: "Parameters") -> Connection:
    """Return the connection. Ask for no confirmation, and create nothing.

    Raises `LabError`.
    """
    session, caller = _identified(parameters)
    return _connect(parameters, session, caller)[0]


def look(parameters: "Parameters") -> Connection:
    """Return the connection. Raises `LabError`.

    Unlike `connect`, accept a caller who lacks permissions that a run needs in the cluster.
    """
    session, caller = _identified(parameters)
    return _connect(parameters, session, caller, to_look=True)[0]


start_and_look = look  # this target has nothing to start


def to_remove(parameters: "Parameters") -> Connection:
    """Return the connection to AWS and to the cluster. If the cluster is gone, return a connection to AWS only.

    Raises `LabError`.
    """
    session, caller = _identified(parameters)
    try:
        return _connect(parameters, session, caller)[0]
    except eks_cluster.ClusterGone as gone:
        _refuse_another_region(session, parameters)
        return Connection(
            aws=session,
            kubernetes=None,
            issuer="",
            account_id=caller.account_id,
            partition=session.get_partition_for_region(parameters.region),
            shows_removal=True,
            note=f"{gone.what} labkit removes only the run's AWS resources.",
        )


def down() -> bool:
    """Do nothing, because `up` starts nothing on this target. Return False."""
    return False


def own_region() -> str:
    """Return the value of `AWS_REGION`; empty if it isn't set."""
    return os.environ.get("AWS_REGION", "")


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return all the variables unchanged: on this target, they should lead to the user's account."""
    return dict(variables)


def fetch(url: str) -> object:
    """Return the JSON at a URL of the cluster's public issuer, fetched as STS does. Raises `LabError`.

    https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfigurationRequest
    """
    try:
        return httpx.get(url, timeout=30).raise_for_status().json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise LabError(f"{url} could not be fetched: {error}", where="fetch", next=f"curl {quote(url)}") from None


def _look(parameters: "Parameters") -> tuple[Connection, Plan]:
    """Check that the run can start, and return its connection and plan."""
    session = account.open_session(parameters.region)
    caller = account.identify(session)
    account.require_account(parameters.account_id, caller)
    connection, cluster = _connect(parameters, session, caller)
    eks_access.require_rights(connection.api, cluster, caller, parameters)
    nodes = eks_cluster.node_count(connection.api)
    eks_cluster.require_nodes(nodes, cluster)
    plan = Plan(
        account_id=caller.account_id,
        principal=caller.principal,
        region=parameters.region,
        cluster=parameters.cluster,
        nodes=nodes,
        run=parameters.run,
        things=things(Workspace(parameters, connection)),
    )
    return connection, plan


def _refuse_another_region(session: "boto3.Session", parameters: "Parameters") -> None:
    """Raise `NoCluster` if the run's role trusts a cluster in another region, which may still exist."""
    iam, name = session.client("iam"), parameters.role_name
    try:
        with explained("reading the run's role (iam:GetRole)"):
            role = iam.get_role(RoleName=name)["Role"]
    except iam.exceptions.NoSuchEntityException:
        return
    trusted = re.findall(r"oidc-provider/oidc\.eks\.([a-z0-9-]+)\.", json.dumps(role["AssumeRolePolicyDocument"]))
    if trusted and parameters.region not in trusted:
        raise NoCluster(
            f"The role {name} trusts a cluster in {trusted[0]}, but the region {parameters.region} has no cluster "
            f"{parameters.cluster}.",
            where="parameters cluster and region; nothing was changed",
            next=f"labkit remove -p target=eks -p region={trusted[0]} …",
        )


def _identified(parameters: "Parameters") -> tuple["boto3.Session", "Identity"]:
    session = account.open_session(parameters.region)
    caller = account.identify(session)
    if parameters.account_id:
        account.require_account(parameters.account_id, caller)
    return session, caller


def _connect(
    parameters: "Parameters", session: "boto3.Session", caller: "Identity", *, to_look: bool = False
) -> "tuple[Connection, ClusterTypeDef]":
    cluster = eks_cluster.describe(session, parameters.cluster, caller.account_id)
    api = eks_cluster.api_client(session, cluster)
    try:
        eks_access.require_access(api, cluster, caller, parameters)
    except eks_access.AllowedTooLittle:
        if not to_look:
            raise
    connection = Connection(
        aws=session,
        kubernetes=api,
        issuer=cluster["identity"]["oidc"]["issuer"],
        account_id=caller.account_id,
        partition=session.get_partition_for_region(parameters.region),
        kubectl=eks_cluster.kubectl(parameters, cluster),
        webhook_restored_by=WEBHOOK_RESTORED_BY,
        shows_removal=True,
        # https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html#troubleshoot_general_eventual-consistency
        propagates_within=30,
        node_within=eks_cluster.NODE_WITHIN if eks_cluster.makes_nodes(cluster) else 0,
        fetch=fetch,
    )
    return connection, cluster
