"""Faults of the role's permissions."""

from labkit.faults.fault import fault
from labkit.faults.situation import Situation

ATTACHED = ("the role's policies",)


@fault(finding="role-policy-not-attached", hides=("role-lacks-permission",), changes=ATTACHED)
def policy_detached(situation: Situation) -> None:
    """The role's permissions were reviewed."""
    attached = situation.role.get("Attached", [])
    situation.role["Attached"] = [arn for arn in attached if arn != situation.parameters.policy_arn]


@fault(finding="role-lacks-permission")
def permission_denied_by_an_inline_policy(situation: Situation) -> None:
    """Someone added another policy to the role, for safety."""
    denied = {"Effect": "Deny", "Action": "s3:List*", "Resource": "*"}
    situation.role.setdefault("Inline", {})["no-lists"] = {"Version": "2012-10-17", "Statement": [denied]}


@fault(finding="role-denied-by-boundary")
def boundary_without_the_permission(situation: Situation) -> None:
    """The company's rules for roles were applied to all roles."""
    situation.role["PermissionsBoundary"] = f"arn:{situation.partition}:iam::aws:policy/CloudWatchReadOnlyAccess"


@fault(finding="role-denied-by-bucket-policy")
def bucket_policy_denies_the_role(situation: Situation) -> None:
    """The bucket got a policy."""
    bucket = f"arn:{situation.partition}:s3:::{situation.parameters.bucket}"
    denied = {
        "Effect": "Deny",
        "Principal": {"AWS": situation.role_arn},
        "Action": "s3:*",
        "Resource": [bucket, f"{bucket}/*"],
    }
    situation.bucket_policy = {"Version": "2012-10-17", "Statement": [denied]}


@fault(finding="role-is-administrator", changes=(), works=True)
def administrator_attached(situation: Situation) -> None:
    """The role got more and more permissions, until the pod worked."""
    arn = f"arn:{situation.partition}:iam::aws:policy/AdministratorAccess"
    situation.role["Attached"] = sorted({*situation.role.get("Attached", []), arn})
