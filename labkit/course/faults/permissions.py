"""Faults of the role's permissions."""

from labkit.course.faults.fault import fault
from labkit.course.faults.situation import Situation

ATTACHED = ("the role's policies",)


@fault(
    "The role's permissions were reviewed.",
    finding="role-policy-not-attached",
    hides=("role-lacks-permission",),
    changes=ATTACHED,
)
def policy_detached(situation: Situation) -> None:
    attached = situation.role.get("Attached", [])
    situation.role["Attached"] = [arn for arn in attached if arn != situation.parameters.policy_arn]


@fault("Someone added another policy to the role, for safety.", finding="role-lacks-permission")
def permission_denied_by_an_inline_policy(situation: Situation) -> None:
    denied = {"Effect": "Deny", "Action": "s3:List*", "Resource": "*"}
    situation.role.setdefault("Inline", {})["no-lists"] = {"Version": "2012-10-17", "Statement": [denied]}


@fault("The company's rules for roles were applied to all roles.", finding="role-denied-by-boundary")
def boundary_without_the_permission(situation: Situation) -> None:
    situation.role["PermissionsBoundary"] = f"arn:{situation.partition}:iam::aws:policy/CloudWatchReadOnlyAccess"


@fault("The bucket got a policy.", finding="role-denied-by-bucket-policy")
def bucket_policy_denies_the_role(situation: Situation) -> None:
    bucket = f"arn:{situation.partition}:s3:::{situation.parameters.bucket}"
    denied = {
        "Effect": "Deny",
        "Principal": {"AWS": situation.role_arn},
        "Action": "s3:*",
        "Resource": [bucket, f"{bucket}/*"],
    }
    situation.bucket_policy = {"Version": "2012-10-17", "Statement": [denied]}


@fault(
    "The role got more and more permissions, until the pod worked.",
    finding="role-is-administrator",
    changes=(),
    works=True,
)
def administrator_attached(situation: Situation) -> None:
    arn = f"arn:{situation.partition}:iam::aws:policy/AdministratorAccess"
    situation.role["Attached"] = sorted({*situation.role.get("Attached", []), arn})
