"""The permissions that EKS's operations need, on a cluster or on its resources, such as nodegroups and access entries.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelastickubernetesservice.html
"""

from typing import Any

from labkit.policy import resource_tags
from labkit.policy.arn import Arn
from labkit.policy.reference import actions_on
from labkit.simulator.aws.access_entries import entry_arn
from labkit.simulator.aws.backend import Backend
from labkit.simulator.aws.call import (
    CannotDerive,
    Context,
    ParsedRequest,
    Permission,
    as_text,
    pass_role,
    tag_keys,
)
from labkit.simulator.aws.clusters import ClusterFacts
from labkit.simulator.aws.identity_provider_configs import config_arn
from labkit.simulator.aws.pod_identity import association_arn
from labkit.simulator.names import CLUSTER_NAME

ON_IDENTITY_PROVIDER_CONFIG = {"DescribeIdentityProviderConfig", "DisassociateIdentityProviderConfig"}
# Only an administrator may call these: they also pass a role, to services that the lab doesn't know.
NOT_DERIVED = {"CreateCapability", "RegisterCluster"}
# The operations that pass a role to a service: the role's parameter, and the service.
PASSED = {
    "CreateAddon": ("serviceAccountRoleArn", "eks.amazonaws.com"),
    "CreateCluster": ("roleArn", "eks.amazonaws.com"),
    "CreateFargateProfile": ("podExecutionRoleArn", "eks-fargate-pods.amazonaws.com"),
    "CreateNodegroup": ("nodeRole", "ec2.amazonaws.com"),
    "CreatePodIdentityAssociation": ("roleArn", "pods.eks.amazonaws.com"),
    "UpdatePodIdentityAssociation": ("roleArn", "pods.eks.amazonaws.com"),
}
# Condition keys that have the value of the request's parameter with the same name.
FROM_PARAMETERS = ("clusterName", "kubernetesGroups", "policyArn", "principalArn", "username")
# Condition keys that have the value of a cluster's setting, and the place of this setting in the request.
SETTINGS = {
    "authenticationMode": "accessConfig.authenticationMode",
    "blockStorageEnabled": "storageConfig.blockStorage.enabled",
    "bootstrapClusterCreatorAdminPermissions": "accessConfig.bootstrapClusterCreatorAdminPermissions",
    "bootstrapSelfManagedAddons": "bootstrapSelfManagedAddons",
    "computeConfigEnabled": "computeConfig.enabled",
    "controlPlaneEgressMode": "resourcesVpcConfig.controlPlaneEgressMode",
    "controlPlaneScalingTier": "controlPlaneScalingConfig.tier",
    "deletionProtection": "deletionProtection",
    "elasticLoadBalancingEnabled": "kubernetesNetworkConfig.elasticLoadBalancing.enabled",
    "endpointPrivateAccess": "resourcesVpcConfig.endpointPrivateAccess",
    "endpointPublicAccess": "resourcesVpcConfig.endpointPublicAccess",
    "kubernetesVersion": "version",
    "supportType": "upgradePolicy.supportType",
    "zonalShiftEnabled": "zonalShiftConfig.enabled",
}
# These condition keys say whether the request has the setting with the same name.
PRESENT = ("kubeApiServerConfig", "kubeControllerManagerConfig", "kubeSchedulerConfig")
CONFIGURING = ("CreateCluster", "UpdateClusterConfig", "UpdateClusterVersion")
KNOWN = frozenset(f"eks:{name.lower()}" for name in (*FROM_PARAMETERS, *SETTINGS, *PRESENT)) | {
    "eks:accessentrytype", "eks:accessscope", "eks:clientid", "eks:encryptionconfigproviderkeyarns", "eks:issuerurl",
    "eks:loggingtype/", "eks:namespaces",
}  # fmt: skip


def permissions(request: ParsedRequest, backend: Backend) -> list[Permission]:
    """Return the permissions that an operation of EKS needs, with ``iam:PassRole`` if the operation passes a role."""
    operation, parameters = request.operation, request.parameters
    account = f"arn:aws:eks:{request.region}:{request.account_id}:"
    if operation == "ListClusters":
        return [_permission(operation, f"{account}cluster/*", {})]
    if operation in actions_on("eks", "") - {"CreateCluster", *NOT_DERIVED}:
        return [_permission(operation, "*", {}, shown="")]
    store = backend.store("eks", request.region, request.account_id)
    context = _from_parameters(operation, parameters) | tag_keys(parameters.get("tags"), parameters.get("tagKeys"))
    if "resourceArn" in parameters:
        return [_on_arn(request, context, backend)]
    # In operations on the cluster itself, EKS calls the parameter `name` instead of `clusterName`.
    name = parameters.get("clusterName") or parameters["name"]
    if not CLUSTER_NAME.fullmatch(name):
        raise CannotDerive(f"eks:{operation} with an invalid cluster name")
    resource, tagged = f"{account}cluster/{name}", store.clusters.get(name)
    if operation in actions_on("eks", "cluster") - NOT_DERIVED or operation == "CreateCluster":
        return _needed(operation, parameters, resource, context | _tags(tagged))
    if "principalArn" in parameters:
        if not (arn := entry_arn(resource, parameters["principalArn"])):
            raise CannotDerive(f"eks:{operation} with a principalArn that is not the ARN of a user or role")
        facts = backend.clusters.get(request.region, name)
        return [_permission(operation, arn, _of_entry(parameters["principalArn"], facts) | context)]
    if "associationId" in parameters or operation in ON_IDENTITY_PROVIDER_CONFIG:
        resource, tags = _associated(resource, parameters, backend.clusters.get(request.region, name))
        return _needed(operation, parameters, resource, context | resource_tags(tags or {}))
    if "nodegroupName" in parameters or "fargateProfileName" in parameters:
        resource, part = _part(name, parameters, tagged, account)
        return [_permission(operation, resource, context | _tags(part))]
    raise CannotDerive(f"eks:{operation}")


def _on_arn(request: ParsedRequest, context: Context, backend: Backend) -> Permission:
    operation, arn = request.operation, request.parameters["resourceArn"]
    if not (name := cluster_of(arn, request.region, request.account_id)):
        raise CannotDerive(f"eks:{operation} on a resource that is not part of a cluster in this account and region")
    facts = backend.clusters.get(request.region, name)
    if facts and (entry := facts.access.of_arn(arn, facts.arn)):
        whose = {"eks:clusterName": name, "eks:principalArn": entry.principal_arn, "eks:accessEntryType": "STANDARD"}
        return _permission(operation, arn, context | whose | _of_entry(entry.principal_arn, facts))
    return _permission(operation, arn, context | resource_tags(tags_of(arn, backend) or {}))


def _needed(operation: str, parameters: dict[str, Any], resource: str, context: Context) -> list[Permission]:
    needed = [_permission(operation, resource, context)]
    if operation in PASSED and (role := parameters.get(PASSED[operation][0])):
        needed.append(pass_role(role, PASSED[operation][1], resource))
    return needed


def _of_entry(principal_arn: str, facts: ClusterFacts | None) -> Context:
    entry = facts.access.get(principal_arn) if facts else None
    if entry is None:
        return {}
    context: Context = {"eks:username": entry.username, "eks:kubernetesGroups": entry.groups}
    return context | resource_tags(entry.tags)


def _settings(parameters: dict[str, Any]) -> Context:
    context: Context = {f"eks:{name}": as_text(name in parameters) for name in PRESENT}
    for name, path in SETTINGS.items():
        value: Any = parameters
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            context[f"eks:{name}"] = as_text(value)
    for setup in (parameters.get("logging") or {}).get("clusterLogging", []):
        context |= {f"eks:loggingType/{kind}": as_text(setup.get("enabled", False)) for kind in setup.get("types", [])}
    return context


def _associated(
    cluster_arn: str, parameters: dict[str, Any], facts: ClusterFacts | None
) -> tuple[str, dict[str, str] | None]:
    if "associationId" in parameters:
        identifier = parameters["associationId"]
        return association_arn(cluster_arn, identifier), facts.pod_identity.tags(identifier) if facts else None
    name = parameters["identityProviderConfig"]["name"]
    return config_arn(cluster_arn, name), facts.identity_providers.tags(name) if facts else None


def _part(name: str, parameters: dict[str, Any], cluster: Any, account: str) -> tuple[str, Any]:
    """Return the ARN and the moto object of a cluster's nodegroup or Fargate profile."""
    kind, key, store, arn = "nodegroup", "nodegroupName", "nodegroups", "arn"
    if "fargateProfileName" in parameters:
        kind, key, store = "fargateprofile", "fargateProfileName", "fargate_profiles"
        arn = "fargate_profile_arn"
    resource = getattr(cluster, store, {}).get(parameters[key])
    return getattr(resource, arn, f"{account}{kind}/{name}/{parameters[key]}/*"), resource


def _permission(operation: str, resource: str, context: Context, shown: str | None = None) -> Permission:
    return Permission(f"eks:{operation}", resource, context, KNOWN, shown=shown)


def _tags(thing: Any) -> Context:
    return resource_tags(dict(thing.tags or {})) if thing is not None else {}


def _from_parameters(operation: str, parameters: dict[str, Any]) -> Context:
    context: Context = _settings(parameters) if operation in CONFIGURING else {}
    context |= {f"eks:{name}": parameters[name] for name in FROM_PARAMETERS if name in parameters}
    if oidc := parameters.get("oidc"):
        context |= {"eks:clientId": oidc.get("clientId", ""), "eks:issuerUrl": oidc.get("issuerUrl", "")}
    if "encryptionConfig" in parameters:
        keys = ((each.get("provider") or {}).get("keyArn", "") for each in parameters["encryptionConfig"])
        context["eks:encryptionConfigProviderKeyArns"] = list(keys)
    if scope := parameters.get("accessScope"):
        context |= {"eks:accessScope": scope.get("type", ""), "eks:namespaces": scope.get("namespaces", [])}
    if "principalArn" in parameters:
        context["eks:accessEntryType"] = parameters.get("type", "STANDARD")
    return context


def cluster_of(arn: str, region: str, account_id: str) -> str:
    """Return the cluster's name in an ARN of EKS; empty for an ARN of another service, region or account."""
    named = Arn.find(arn)
    if named is None or (named.service, named.region, named.account) != ("eks", region, account_id):
        return ""
    return named.resource.partition("/")[2].partition("/")[0]


def tags_of(arn: str, backend: Backend) -> dict[str, str] | None:
    """Return the tags of the EKS resource with this ARN, such as a cluster or a node group; None if it doesn't exist.

    If you change the returned dict, you change the resource's tags.
    """
    named = Arn.parse(arn)
    name = cluster_of(arn, named.region, named.account)
    if facts := backend.clusters.get(named.region, name):
        if entry := facts.access.of_arn(arn, facts.arn):
            return entry.tags
        for kept in (facts.pod_identity, facts.identity_providers):
            if (tags := kept.tags_of(arn)) is not None:
                return tags
    cluster = backend.store("eks", named.region, named.account).clusters.get(name)
    if cluster is None:
        return None
    known = {cluster.arn: cluster}
    known |= {group.arn: group for group in cluster.nodegroups.values()}
    known |= {profile.fargate_profile_arn: profile for profile in cluster.fargate_profiles.values()}
    return _moto_tags(known[arn]) if arn in known else None


def _moto_tags(thing: Any) -> dict[str, str]:
    if thing.tags is None:
        thing.tags = {}
    tags: dict[str, str] = thing.tags
    return tags
