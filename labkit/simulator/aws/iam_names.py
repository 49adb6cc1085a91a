"""Refuse names and ARNs that IAM would refuse, but moto would accept.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-names
"""

import re

from labkit.simulator.aws.backend import Backend, IAMBackend, every, find
from labkit.simulator.aws.call import AwsRequest
from labkit.simulator.aws.refusals import Refusal, fault
from labkit.simulator.aws.sessions import Caller

AWS_MANAGED = "arn:aws:iam::aws:policy/"
POLICY_ARN = re.compile(r"arn:(aws[a-z-]*):iam::(?:\d{12}|aws):policy/\S+", re.ASCII)
# The operations that change a policy itself. Customers can't change AWS's own policies.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_managed-vs-inline.html#aws-managed-policies
POLICY_WRITES = (
    "CreatePolicyVersion", "DeletePolicy", "DeletePolicyVersion", "SetDefaultPolicyVersion", "TagPolicy", "UntagPolicy",
)  # fmt: skip
ATTACHMENTS = ("AttachGroupPolicy", "AttachRolePolicy", "AttachUserPolicy")
# The operations on a role that IAM refuses for a service-linked role.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_terms-and-concepts.html#iam-term-service-linked-role
ROLE_WRITES = (
    "AttachRolePolicy", "DeleteRole", "DeleteRolePermissionsBoundary", "DeleteRolePolicy", "DetachRolePolicy",
    "PutRolePermissionsBoundary", "PutRolePolicy", "UpdateAssumeRolePolicy",
)  # fmt: skip
SERVICE_LINKED = "/aws-service-role/"
# moto's store of the objects that an operation makes, the parameter with the name, and IAM's message for a name in use.
MADE = {
    "CreateGroup": ("groups", "GroupName", "Group with name {} already exists."),
    "CreateInstanceProfile": ("instance_profiles", "InstanceProfileName", "Instance Profile {} already exists."),
    "CreatePolicy": ("managed_policies", "PolicyName", "A policy called {} already exists."),
    "CreateRole": ("roles", "RoleName", "Role with name {} already exists."),
    "CreateUser": ("users", "UserName", "User with name {} already exists."),
}


def check(request: AwsRequest, caller: Caller, backend: Backend) -> None:
    """Check the names and the policy's ARN in a call. Raises ``Refusal`` if IAM would refuse one of them."""
    parameters, iam = request.parameters, backend.iam(request.account_id)
    if request.operation == "CreateRole" and parameters.get("Path", "/").startswith(SERVICE_LINKED):
        message = f"Path prefix '{SERVICE_LINKED}' can only be used for AWS Service linked Roles"
        raise Refusal(400, "InvalidInput", message)
    if request.operation in MADE:
        _check_unused(request, iam)
    role = find(iam, "roles", parameters.get("RoleName")) if request.operation in ROLE_WRITES else None
    if role is not None and role.path.startswith(SERVICE_LINKED):
        message = (
            f"Cannot perform the operation on the protected role '{role.name}' - this role is only modifiable by AWS"
        )
        raise Refusal(400, "UnmodifiableEntity", message)
    if arn := parameters.get("PolicyArn"):
        _check_policy_arn(request, caller, arn)


def _check_unused(request: AwsRequest, iam: IAMBackend | None) -> None:
    """Refuse a name that differs only in upper and lower case from the name of another object of the same kind."""
    store, parameter, message = MADE[request.operation]
    name = request.parameters[parameter]
    others = (one.name for one in every(iam, store) if not one.arn.startswith(AWS_MANAGED))
    if any(other != name and other.lower() == name.lower() for other in others):
        raise Refusal(409, "EntityAlreadyExists", message.format(name))


def _check_policy_arn(request: AwsRequest, caller: Caller, arn: str) -> None:
    parts = POLICY_ARN.fullmatch(arn)
    if parts is None:
        raise Refusal(400, "InvalidInput", f"ARN {arn} is not valid.")
    if parts[1] != "aws":
        raise Refusal(400, "ValidationError", "Invalid ARN partition", f"{arn}: the lab's accounts are in aws")
    if request.operation in POLICY_WRITES and arn.startswith(AWS_MANAGED):
        message = f"User: {caller.arn} is not authorized to perform: iam:{request.operation} on resource: policy {arn}"
        raise fault(request, "denied", "nobody but AWS can change AWS's managed policies", message=message)
    if request.operation in ATTACHMENTS and arn.startswith(f"{AWS_MANAGED}{SERVICE_LINKED[1:]}"):
        raise Refusal(400, "PolicyNotAttachable", "Cannot attach a Service Role Policy to a Customer Role.")
