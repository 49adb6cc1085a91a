"""Check that an EKS cluster knows the caller, and that it allows the caller everything that a run does."""

from typing import TYPE_CHECKING, Any

from kubernetes.client import (
    AuthorizationV1Api,
    CoreV1Api,
    V1ResourceAttributes,
    V1SelfSubjectAccessReview,
    V1SelfSubjectAccessReviewSpec,
)
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from labkit.errors import LabError
from labkit.targets.eks.cluster import region
from labkit.targets.eks.operator_policy import GROUP, needed_in_the_cluster

if TYPE_CHECKING:
    from kubernetes.client import ApiClient
    from types_boto3_eks.type_defs import ClusterTypeDef

    from labkit.run_parameters import Parameters
    from labkit.targets.eks.account import Identity


class NotLetIn(LabError):
    """The cluster doesn't know the caller, or refuses the caller an action that a run needs."""


class AllowedTooLittle(NotLetIn):
    """The cluster knows the caller, but doesn't allow everything that a run does."""


def require_access(api: "ApiClient", cluster: "ClusterTypeDef", caller: "Identity", parameters: "Parameters") -> None:
    """Raise `NotLetIn` if the cluster doesn't accept the caller, and `LabError` if its API server doesn't answer."""
    name = cluster["name"]
    try:
        CoreV1Api(api).list_namespace(limit=1)
    except ApiException as error:
        raise _not_let_in(error, cluster, caller, parameters.namespace) from None
    except HTTPError:
        private = not (cluster.get("resourcesVpcConfig") or {}).get("endpointPublicAccess", True)
        why = "can be reached only from inside its VPC" if private else "does not answer"
        raise LabError(
            f"The API server of the cluster {name} {why}: {cluster['endpoint']}",
            where="the network between here and the cluster; nothing was changed",
            next="connect to the VPC's network"
            if private
            else f"kubectl --context {cluster['arn']} get --raw /version",
        ) from None


def require_rights(api: "ApiClient", cluster: "ClusterTypeDef", caller: "Identity", parameters: "Parameters") -> None:
    """Raise `AllowedTooLittle`, with the missing permissions, if the cluster would refuse a part of the run.

    https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access
    """
    needed = needed_in_the_cluster(parameters, makes_namespace=not _has_namespace(api, parameters.namespace))
    if lacks := [_words(attributes) for attributes in needed if not _may(api, attributes)]:
        raise AllowedTooLittle(
            f"The cluster {cluster['name']} lets {caller.principal} in, but doesn't allow a run. These permissions "
            f"are missing: {', '.join(lacks)}.",
            where="SelfSubjectAccessReview, the cluster's own answer; nothing was changed",
            next=_allow_more(cluster, caller, parameters.namespace),
        )


def _has_namespace(api: "ApiClient", name: str) -> bool:
    try:
        CoreV1Api(api).read_namespace(name)
    except ApiException as error:
        if error.status not in (403, 404):
            raise
        return bool(error.status == 403)
    return True


def _may(api: "ApiClient", attributes: dict[str, str]) -> bool:
    # One review for each permission: the review of all rules doesn't know EKS's access policies.
    spec = V1SelfSubjectAccessReviewSpec(resource_attributes=V1ResourceAttributes.model_validate(attributes))
    answer = AuthorizationV1Api(api).create_self_subject_access_review(V1SelfSubjectAccessReview(spec=spec))
    return bool(answer.status and answer.status.allowed)


def _words(attributes: dict[str, str]) -> str:
    what = "/".join(filter(None, (attributes["resource"], attributes["subresource"])))
    named = f" {attributes['name']}" if attributes["name"] else ""
    return f"{attributes['verb']} {what}{named}" + (f" in {attributes['namespace']}" if attributes["namespace"] else "")


def _not_let_in(error: Any, cluster: "ClusterTypeDef", caller: "Identity", namespace: str) -> NotLetIn:
    name = cluster["name"]
    if error.status == 401:
        lacks = "no line of aws-auth" if _keeps_config_map(cluster) else "no access entry"
        return NotLetIn(
            f"The cluster {name} does not know {caller.principal}: {lacks} names this caller.",
            where="the cluster's API (401 Unauthorized); nothing was changed",
            next=f"ask the cluster's administrator to run:  {_let_in(cluster, caller)}\n"
            f"       and, for group {GROUP}'s permissions:   {_allow(namespace)}",
        )
    return AllowedTooLittle(
        f"The cluster {name} lets {caller.principal} in, but doesn't allow a run: {error.status} {error.reason}.",
        where="the cluster's API; nothing was changed",
        next=_allow_more(cluster, caller, namespace),
    )


def _let_in(cluster: "ClusterTypeDef", caller: "Identity") -> str:
    """Return the command that lets the caller into the cluster.

    https://docs.aws.amazon.com/eks/latest/userguide/grant-k8s-access.html
    """
    if _keeps_config_map(cluster):
        return f"eksctl create iamidentitymapping {_mapping(cluster, caller)} --group {GROUP} --username {GROUP}"
    return f"aws eks create-access-entry {_entry(cluster, caller)} --kubernetes-groups {GROUP}"


def _allow_more(cluster: "ClusterTypeDef", caller: "Identity", namespace: str) -> str:
    """Return the commands that give the caller the missing permissions for a run.

    https://docs.aws.amazon.com/eks/latest/APIReference/API_UpdateAccessEntry.html
    """
    next_step = f"ask the cluster's administrator to run:  {_allow(namespace)}\n"
    if _keeps_config_map(cluster):
        return (
            f"{next_step}       to see your lines in aws-auth:           "
            f"eksctl get iamidentitymapping {_mapping(cluster, caller)}\n"
            f"       to add {GROUP} to your groups there:    kubectl edit configmap aws-auth -n kube-system"
        )
    return (
        f"{next_step}       to see your present groups:              "
        f"aws eks describe-access-entry {_entry(cluster, caller)}\n"
        f"       to keep them, and add {GROUP}:          "
        f"aws eks update-access-entry {_entry(cluster, caller)} --kubernetes-groups {GROUP} <PRESENT_GROUPS>"
    )


def _allow(namespace: str) -> str:
    return f"labkit policy --kubernetes -p namespace={namespace} | kubectl apply -f -"


def _keeps_config_map(cluster: "ClusterTypeDef") -> bool:
    """Return whether the cluster's authentication mode is `CONFIG_MAP`.

    In this mode, the cluster uses the ConfigMap aws-auth, but no access entries.

    https://docs.aws.amazon.com/eks/latest/userguide/setting-up-access-entries.html
    """
    return (cluster.get("accessConfig") or {}).get("authenticationMode") == "CONFIG_MAP"


def _entry(cluster: "ClusterTypeDef", caller: "Identity") -> str:
    return f"--cluster-name {cluster['name']} --principal-arn {caller.arn} --region {region(cluster)}"


def _mapping(cluster: "ClusterTypeDef", caller: "Identity") -> str:
    return f"--cluster {cluster['name']} --region {region(cluster)} --arn {caller.arn_without_path}"
