"""The permissions that IAM's operations need.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsidentityandaccessmanagementiam.html
"""

from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from labkit.policy import resource_tags
from labkit.policy.reference import actions_on, unlisted_keys
from labkit.simulator.aws.answers import Refusal
from labkit.simulator.aws.backend import Backend, find, get_service_model, service_linked_role
from labkit.simulator.aws.call import CannotDerive, Context, ParsedRequest, Permission, as_dict, pass_role, tag_keys

# The parameters that name a resource, and the resource's kind. If an operation has several, the first one here counts.
KINDS = {
    "InstanceProfileName": "instance profile",
    "GroupName": "group",
    "RoleName": "role",
    "UserName": "user",
    "OpenIDConnectProviderArn": "provider",
    "SAMLProviderArn": "provider",
    "PolicyArn": "policy",
    "PolicyName": "policy",
    "Url": "provider",
    "PolicySourceArn": "principal",
}
# Only an administrator may call these.
NOT_DERIVED = {"DeleteServiceLinkedRole", "UpdateOpenIDConnectProvider"}
# Operations that list the resources below a path, and the kind of resource. IAM checks the ARN that ends with the path.
LISTS = {
    "ListGroups": "group",
    "ListInstanceProfiles": "instance-profile",
    "ListOpenIDConnectProviders": "oidc-provider",
    "ListRoles": "role",
    "ListSAMLProviders": "saml-provider",
    "ListServerCertificates": "server-certificate",
    "ListUsers": "user",
}
# Operations that create a resource. IAM's denial shows the ARN that the resource would have.
MADE = {"CreateGroup", "CreateInstanceProfile", "CreateRole", "CreateUser"}
BOUNDARY = "iam:permissionsboundary"
# The condition keys that the lab knows. If no derived operation has a key, it is absent. IAM's other keys are about
# security keys or credentials.
KNOWN = frozenset({
    "iam:accountpropertynamespaces", "iam:associatedresourcearn", "iam:awsservicename", "iam:delegationduration",
    "iam:delegationrequestowner", "iam:notificationchannel", "iam:organizationspolicyid", "iam:passedtoservice",
    BOUNDARY, "iam:policyarn", "iam:resourcetag/", "iam:roletemplatearn", "iam:templatearn",
})  # fmt: skip
# moto's stores of the IAM objects that are identified by their names, by kind of object.
BY_NAME = {"group": "groups", "instance profile": "instance_profiles", "role": "roles", "user": "users"}


@dataclass(frozen=True)
class IamResource:
    """The fields of an IAM object that permissions depend on."""

    arn: str
    path: str
    """The path with its slashes; ``/`` for an object without a path."""
    boundary_arn: str
    """The ARN of the object's permissions boundary; empty if the object has no boundary."""
    tags: dict[str, str]


def permissions(request: ParsedRequest, backend: Backend) -> list[Permission]:
    """Return the permissions that an operation of IAM needs."""
    operation, parameters = request.operation, request.parameters
    account, resource = f"arn:aws:iam::{request.account_id}:", partial(_resource, backend, request.account_id)
    if operation == "ListPolicies":
        return [_permission(operation, "*", {}, f"policy path {parameters.get('PathPrefix', '/')}")]
    if operation in LISTS:
        return [_permission(operation, f"{account}{LISTS[operation]}{parameters.get('PathPrefix', '/')}", {})]
    if operation in actions_on("iam", ""):
        return [_permission(operation, "*", {})]
    if operation == "CreateServiceLinkedRole":
        return [_service_linked(account, parameters)]
    parameter = _named_by(operation)
    kind = KINDS[parameter]
    if kind == "user" and parameter not in parameters:
        raise Refusal(400, "ValidationError", "Must specify userName when calling with non-User credentials")
    name = parameters[parameter]
    named = resource(kind, name) if kind in BY_NAME else None
    arn, shown = _arn(operation, account, parameter, parameters, named)
    thing = named if kind in BY_NAME else resource(kind, arn)
    context = _context(request, kind, thing)
    needed = [_permission(operation, arn, context, shown)]
    if operation.startswith("Create") and parameters.get("Tags"):
        # https://docs.aws.amazon.com/IAM/latest/UserGuide/id_tags.html
        needed.append(_permission(f"Tag{operation.removeprefix('Create')}", arn, context, shown))
    if operation in ("UpdateGroup", "UpdateUser"):
        # Renaming needs the permission on both names.
        renamed = parameters.get(f"New{parameter}", name)
        path = parameters.get("NewPath") or (thing.path if thing else "/")
        needed.append(_permission(operation, f"{account}{kind}{path}{renamed}", context, f"{kind} {renamed}"))
    if operation == "AddRoleToInstanceProfile":
        role = resource("role", parameters["RoleName"])
        passed = role.arn if role else f"{account}role/{parameters['RoleName']}"
        # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_iam-condition-keys.html
        instances = f"arn:aws:ec2:*:{request.account_id}:instance/*"
        needed.append(pass_role(passed, "ec2.amazonaws.com", instances))
    if thing and thing.boundary_arn and not _is_bounded(operation):
        # AWS has no such key for this operation. An Allow that asks for another boundary must not count here.
        return [replace(each, doubted=frozenset({BOUNDARY})) for each in needed]
    return needed


def _is_bounded(operation: str) -> bool:
    """Whether AWS has the condition key `iam:PermissionsBoundary` for the operation: its role's or user's boundary."""
    return BOUNDARY not in unlisted_keys(f"iam:{operation}")


def _service_linked(account: str, parameters: dict[str, Any]) -> Permission:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_create-service-linked-role.html"""
    service = parameters["AWSServiceName"]
    if (name := service_linked_role(service, parameters.get("CustomSuffix", ""))) is None:
        raise CannotDerive(f"iam:CreateServiceLinkedRole for {service}")
    arn = f"{account}role/aws-service-role/{service}/{name}"
    return _permission("CreateServiceLinkedRole", arn, {"iam:AWSServiceName": service})


@cache
def _named_by(operation: str) -> str:
    """Return the parameter that names an operation's resource, such as `RoleName` for `GetRole`."""
    shape = get_service_model("iam").operation_model(operation).input_shape
    parameter = next((name for name in KINDS if name in shape.members), None) if shape else None
    if parameter is None or operation in NOT_DERIVED:
        raise CannotDerive(f"iam:{operation}")
    return parameter


def _arn(
    operation: str, account: str, parameter: str, parameters: dict[str, Any], thing: IamResource | None
) -> tuple[str, str | None]:
    """Return the ARN of an operation's resource, and IAM's name for the resource in a denial.

    Without such a name, IAM's denial shows the ARN.
    """
    kind, name = KINDS[parameter], parameters[parameter]
    if parameter == "Url":
        return f"{account}oidc-provider/{name.partition('://')[2]}", None
    if parameter.endswith("Arn"):
        return name, f"policy {name}" if kind == "policy" else None
    arn = thing.arn if thing else f"{account}{kind.replace(' ', '-')}{parameters.get('Path') or '/'}{name}"
    return arn, None if operation in MADE else f"{kind} {name}"


def _context(request: ParsedRequest, kind: str, thing: IamResource | None) -> Context:
    parameters = request.parameters
    context = tag_keys(as_dict(parameters.get("Tags")), parameters.get("TagKeys"))
    if "PolicyArn" in parameters and kind != "policy":
        context["iam:PolicyARN"] = parameters["PolicyArn"]
    boundary = parameters.get("PermissionsBoundary")
    if boundary is None and _is_bounded(request.operation):
        boundary = thing.boundary_arn if thing else ""
    if boundary:
        context["iam:PermissionsBoundary"] = boundary
    return context | resource_tags(thing.tags if thing else {}, "iam")


def _permission(operation: str, resource: str, context: Context, shown: str | None = None) -> Permission:
    return Permission(f"iam:{operation}", resource, context, KNOWN, shown=shown)


def _resource(backend: Backend, account_id: str, kind: str, name: str) -> IamResource | None:
    """Return an object of IAM; None if it doesn't exist. For a policy or a provider, ``name`` is its ARN."""
    iam = backend.iam(account_id)
    if iam is None:
        return None
    by_arn: dict[str, dict[str, Any]] = {"policy": iam.managed_policies, "provider": iam.open_id_providers}
    resource = find(iam, BY_NAME[kind], name) if kind in BY_NAME else by_arn.get(kind, {}).get(name)
    if resource is None:
        return None
    boundary_arn, path = getattr(resource, "permissions_boundary_arn", None), getattr(resource, "path", None)
    # moto keeps a user's tags outside the user, and those of other objects as a list or by key.
    tags: Any = getattr(resource, "tags", [])
    listed = tags.values() if isinstance(tags, dict) else tags
    of_user = iam.tagger.get_tag_dict_for_resource(resource.arn) if kind == "user" else None
    given = {tag["Key"]: tag["Value"] for tag in listed} if of_user is None else dict(of_user)
    return IamResource(resource.arn, path or "/", boundary_arn or "", given)
