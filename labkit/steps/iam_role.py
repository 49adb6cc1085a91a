"""Step 2: make a role with a trust policy that admits one service account."""

import json
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from labkit import documents
from labkit.errors import LabError
from labkit.showing import few
from labkit.steps.ownership import OwnedResource, Owner, of_role, of_tags, run_of, trusted_instead

if TYPE_CHECKING:
    from types_boto3_iam.type_defs import RoleTypeDef

    from labkit.workspace import Workspace

TITLE = "the IAM role"
# The paths of roles that AWS services and IAM Identity Center create. Accounts have many, and no run creates one.
OF_AWS = ("/aws-service-role/", "/aws-reserved/")
build = documents.trust_policy


class RoleOfAnotherRun(LabError):
    """Someone else's role has the name that this run needs. The lab never changes that role.

    In the lab's own account, an untagged role is someone else's only if its trust policy names other service accounts
    and not the run's own (`trusted_instead`).
    """


def ensure(lab: "Workspace") -> None:
    """Create the role, or restore its trust policy and permissions. Raises `RoleOfAnotherRun`."""
    iam = lab.aws.client("iam")
    name, wanted = lab.parameters.role_name, build(lab.parameters, lab.provider_arn)
    try:
        present = iam.get_role(RoleName=name)["Role"]
    except iam.exceptions.NoSuchEntityException:
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(wanted), Tags=lab.tags)
        iam.attach_role_policy(RoleName=name, PolicyArn=lab.parameters.policy_arn)
        return
    owner = _owner(lab, present)
    # Compare the text, so that a different order counts: notebooks print the policy in its stored order.
    if json.dumps(present["AssumeRolePolicyDocument"]) != json.dumps(wanted):
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(wanted))
    if owner is Owner.NOBODY:
        iam.tag_role(RoleName=name, Tags=lab.tags)
    if "PermissionsBoundary" in present:
        iam.delete_role_permissions_boundary(RoleName=name)
    _set_policies(iam, name, [lab.parameters.policy_arn])


def resources(lab: "Workspace") -> Iterator[OwnedResource]:
    """Yield the account's roles and policies, each with its owner."""
    iam = lab.aws.client("iam")
    for page in iam.get_paginator("list_roles").paginate():
        for listed in page["Roles"]:
            name = listed["RoleName"]
            if listed["Path"].startswith(OF_AWS):
                continue
            try:
                tags = iam.list_role_tags(RoleName=name)["Tags"]
            except iam.exceptions.NoSuchEntityException:
                continue  # someone deleted it a moment ago
            owner = of_role(lab, listed, tags, same_name=name == lab.parameters.role_name)
            others = _trusted_instead(lab, listed) if owner is Owner.UNTAGGED else ""
            yield OwnedResource(f"role {name}", owner, partial(delete, iam, name), others)
    for page in iam.get_paginator("list_policies").paginate(Scope="Local"):
        for listed in page["Policies"]:
            tags = iam.list_policy_tags(PolicyArn=listed["Arn"])["Tags"]
            owner = of_tags(lab, tags, same_name=False)
            yield OwnedResource(
                f"policy {listed['PolicyName']}", owner, partial(iam.delete_policy, PolicyArn=listed["Arn"])
            )


def make_way(lab: "Workspace") -> list[str]:
    """Raise `RoleOfAnotherRun` if the role exists but isn't this run's. Return an empty list: no role is deleted."""
    iam = lab.aws.client("iam")
    try:
        present = iam.get_role(RoleName=lab.parameters.role_name)["Role"]
    except iam.exceptions.NoSuchEntityException:
        return []
    _owner(lab, present)
    return []


def delete(iam: Any, name: str) -> None:
    """Delete a role and its permissions. Raises `NoSuchEntityException` if the role doesn't exist.

    https://docs.aws.amazon.com/IAM/latest/APIReference/API_DeleteRole.html
    """
    _set_policies(iam, name, [])
    iam.delete_role(RoleName=name)


def _set_policies(iam: Any, role_name: str, wanted: list[str]) -> None:
    attached = iam.list_attached_role_policies(RoleName=role_name)["AttachedPolicies"]
    present = [policy["PolicyArn"] for policy in attached]
    for name in iam.list_role_policies(RoleName=role_name)["PolicyNames"]:
        iam.delete_role_policy(RoleName=role_name, PolicyName=name)
    for arn in present:
        if arn not in wanted:
            iam.detach_role_policy(RoleName=role_name, PolicyArn=arn)
    for arn in wanted:
        if arn not in present:
            iam.attach_role_policy(RoleName=role_name, PolicyArn=arn)


def _owner(lab: "Workspace", present: "RoleTypeDef") -> Owner:
    """Return the owner of the role with this run's name. Raises `RoleOfAnotherRun` if the role isn't this run's."""
    tags = present.get("Tags", [])
    owner = of_role(lab, present, tags, same_name=True)
    if owner is Owner.ANOTHER_RUN:
        whose = f"belongs to another run, {run_of(tags)}"
    elif owner is Owner.UNTAGGED:
        whose = f"carries no tag of the lab{_trusted_instead(lab, present)}"
    else:
        return owner
    raise RoleOfAnotherRun(
        f"role-belongs-to-another-run: the role {lab.parameters.role_name} {whose}. It was left unchanged.",
        where=lab.role_arn,
        next="choose another role_name, and run again",
    )


def _trusted_instead(lab: "Workspace", role: "RoleTypeDef") -> str:
    """Return the end of a sentence about an untagged role: the service accounts that it trusts instead of this one."""
    others = few(trusted_instead(lab, role))
    own = f"{lab.parameters.namespace}/{lab.parameters.service_account}"
    return f", and its trust policy names {others}, not {own}" if others else ""
