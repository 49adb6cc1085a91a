"""The IAM role: is it there, is it this run's, and may it do anything?"""

from typing import TYPE_CHECKING

from labkit.findings import Finding

if TYPE_CHECKING:
    from labkit.evidence import Evidence

LEARN = "02-iam-role.ipynb"


def missing(evidence: "Evidence") -> Finding | None:
    """No role of this name. STS does not say so: it answers as if the trust policy had refused."""
    if evidence.role is not None:
        return None
    return Finding(
        id="role-missing",
        summary="The role does not exist.",
        expected=evidence.role_arn,
        found="no such role",
        source="iam:GetRole",
        repair=f"{evidence.commands.create_role()}\n{evidence.commands.attach_policy()}",
        learn=LEARN,
    )


def of_another_run(evidence: "Evidence") -> Finding | None:
    """A role of this name bears another run's tag; the lab never takes one over."""
    owner = evidence.role_run
    if owner in (None, evidence.parameters.run):
        return None
    return Finding(
        id="role-belongs-to-another-run",
        summary=f"The role {evidence.parameters.role_name} was made by another run of the lab.",
        expected=f"labkit:run = {evidence.parameters.run}",
        found=f"labkit:run = {owner}",
        source="iam:GetRole, Tags",
        repair=f"# choose another role_name; this one shows whose it is:\n{evidence.commands.list_role_tags()}",
        learn=LEARN,
    )


def policy_not_attached(evidence: "Evidence") -> Finding | None:
    """The role lacks its permissions policy: the pod becomes the role and may do nothing."""
    if evidence.role is None or evidence.parameters.policy_arn in evidence.attached_policies:
        return None
    return Finding(
        id="role-policy-not-attached",
        summary="The policy that says what the role may do is not attached to it.",
        expected=evidence.parameters.policy_arn,
        found=", ".join(evidence.attached_policies) or "no policy attached",
        source="iam:ListAttachedRolePolicies",
        repair=evidence.commands.attach_policy(),
        learn=LEARN,
    )
