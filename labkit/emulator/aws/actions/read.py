"""IAM's and EKS's calls that only read: which action on which resource each needs.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_awsidentityandaccessmanagementiam.html
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonelastickubernetesservice.html
"""

from labkit.emulator.aws.actions.permission import CannotDerive, Permission
from labkit.emulator.aws.backend import Backend
from labkit.emulator.aws.call import Call

ROLE = {"GetRole", "GetRolePolicy", "ListRolePolicies", "ListAttachedRolePolicies", "ListRoleTags"}
POLICY = {"GetPolicy", "GetPolicyVersion", "ListPolicyVersions", "ListPolicyTags", "ListEntitiesForPolicy"}
PROVIDER = {"GetOpenIDConnectProvider", "ListOpenIDConnectProviderTags"}
LISTS = {
    "ListRoles": "role/",
    "ListUsers": "user/",
    "ListPolicies": "policy path /",
    "ListOpenIDConnectProviders": "oidc-provider/",
}


def derive(call: Call, backend: Backend) -> Permission:
    """The permission that a reading call of IAM or EKS needs. Raises :class:`CannotDerive` for any other call."""
    if call.service == "iam" and call.family == "query":
        return Permission(f"iam:{call.operation}", _iam(call, backend))
    if call.service == "eks":
        if call.operation == "ListClusters":
            return Permission("eks:ListClusters", "*")
        if call.operation == "DescribeCluster":
            name = call.path.removeprefix("/clusters/")
            arn = f"arn:aws:eks:{call.region}:{backend.account_id}:cluster/{name}"
            return Permission("eks:DescribeCluster", arn)
    raise CannotDerive(f"{call.service}:{call.operation}")


def _iam(call: Call, backend: Backend) -> str:
    account = f"arn:aws:iam::{backend.account_id}:"
    form = call.form
    if call.operation in ROLE and "RoleName" in form:
        iam = backend.iam(backend.account_id)
        arns = [role.arn for role in list(iam.roles.values()) if role.name == form["RoleName"]]
        return arns[0] if arns else f"{account}role/{form['RoleName']}"
    if call.operation in POLICY and "PolicyArn" in form:
        return form["PolicyArn"]
    if call.operation in PROVIDER and "OpenIDConnectProviderArn" in form:
        return form["OpenIDConnectProviderArn"]
    if call.operation in LISTS and not form.get("PathPrefix", "/").strip("/"):
        return account + LISTS[call.operation]
    raise CannotDerive(f"iam:{call.operation}")
