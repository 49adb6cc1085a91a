"""The policies of the resource: does a bucket, a key or a queue let the role do what the role's policies allow?

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

import json

from labkit.doctor import stages
from labkit.doctor.evidence import Evidence, kinds, known
from labkit.doctor.evidence.account import RESOURCE_POLICY, is_pattern
from labkit.doctor.evidence.matches import matches
from labkit.doctor.evidence.reading import NotRead, Read
from labkit.doctor.finding import Symptom, cause
from labkit.doctor.findings.permissions import LEARN, is_decided
from labkit.doctor.repairs import advice
from labkit.doctor.repairs.commands import Commands
from labkit.policy import RESOURCE_CONTROLLED, Policy, Request
from labkit.policy.arn import Arn
from labkit.policy.written import listed


@cause("role-denied-by-resource-control-policy", stages.PERMISSIONS, LEARN, reads=(kinds.ROLE,))
def denied_by_resource_control(evidence: Evidence) -> Symptom | None:
    """A resource control policy of the organization denies the action.

    IAM's simulator doesn't evaluate these policies, so the doctor reads them. You need permission for that.

    https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_policies_rcps.html
    """
    service = evidence.expected.action.partition(":")[0].lower()
    if evidence.aws.role is None or service not in RESOURCE_CONTROLLED or not is_decided(evidence):
        return None
    account = evidence.aws.role_account
    if "OrganizationsDecisionDetail" not in evidence.aws.simulated:
        return None  # without an organization
    attached = [each for each in account.control_policies("RESOURCE_CONTROL_POLICY") if not each["AwsManaged"]]
    if not attached or account.organization.get("MasterAccountId") in (None, account.account_id):
        return None
    documents = {policy["Name"]: account.control_policy(policy["Id"]) for policy in attached}
    policies = [Policy.read(content, kind="resource control", name=name) for name, content in documents.items()]
    request = evidence.aws.request(evidence.expected.action, evidence.expected.resource, account.organization["Id"])
    denied = matches(policies, request, allow=False)
    if not (denied.applying or denied.open) or not _is_of_the_role_s_account(evidence):
        return None
    if not denied.applying:
        raise denied.unknown(request)
    denials = [f"{policy.name}: {statement.raw}" for policy, statement in denied.applying]
    return Symptom(
        summary="A resource control policy of the organization blocks what the role's own policies allow.",
        expected=f"no resource control policy that denies {evidence.expected.action} on {evidence.expected.resource}",
        found="; ".join(denials),
        source="organizations:ListPoliciesForTarget, organizations:DescribePolicy",
        repair=advice.organization_stays(evidence, "RESOURCE_CONTROL_POLICY"),
    )


@cause("role-denied-by-bucket-policy", stages.PERMISSIONS, LEARN, reads=(kinds.ROLE,))
def denied_by_bucket_policy(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-policies.html"""
    bucket = _bucket(evidence)
    if evidence.aws.role is None or not bucket:
        return None
    document = evidence.aws.account.resource_policy(f"arn:aws:s3:::{bucket}")
    if not isinstance(document, dict):
        return None
    policy = Policy.read(document, kind="resource", name=f"the policy of {bucket}")
    denying = set[int]()
    for request in _requests(evidence, bucket):
        denied = matches([policy], request, allow=False)
        if denied.open and not denied.applying and evidence.expected.action:
            raise denied.unknown(request)
        denying |= {statement.position for _, statement in denied.applying}
    if not denying:
        return None
    statements = listed(document.get("Statement"))
    denials = [str(statement) for position, statement in enumerate(statements, 1) if position in denying]
    return Symptom(
        summary="The bucket's policy denies what the role's own policies allow.",
        expected=f"no Deny for {evidence.expected.role_arn} in the policy of {bucket}",
        found="; ".join(denials),
        source="s3:GetBucketPolicy",
        repair=Commands(evidence).exempt_in_bucket_policy(bucket, document, denying),
    )


@cause("role-not-admitted-by-resource-policy", stages.PERMISSIONS, LEARN, reads=(kinds.ROLE,))
def not_admitted_by_resource(evidence: Evidence) -> Symptom | None:
    """The resource's own policy denies the action. Or nothing in the policy admits the role, although that is needed.

    It's needed for a KMS key, for a role that the pod's role assumes, and for a resource of another account.

    https://docs.aws.amazon.com/kms/latest/developerguide/key-policies.html
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic-cross-account.html
    """
    arn = Arn.find(evidence.expected.resource)
    if evidence.aws.role is None or arn is None or arn.service == "s3" or not is_decided(evidence):
        return None
    is_assumed = arn.resource.startswith("role/") and evidence.expected.action.lower().startswith("sts:")
    must_admit = arn.service == "kms" or is_assumed or arn.account != evidence.expected.role_account_id
    if arn.service not in RESOURCE_POLICY or (arn.service == "iam" and not is_assumed):
        return None
    if is_pattern(arn):
        why = "this is an alias or a pattern, and only a resource has a policy"
        raise NotRead(Read("the policy of", str(arn), of="AWS"), why, "a --resource with the ARN of one resource")
    policy = evidence.aws.resource_policy
    if policy is None and not must_admit:
        return None
    request = evidence.aws.request(evidence.expected.action, evidence.expected.resource)
    denied, allowed = (matches([policy] if policy else [], request, allow=allow) for allow in (False, True))
    if not denied.applying and (allowed.applying or allowed.open or not must_admit):
        if denied.open or (must_admit and not allowed.applying):
            raise (denied if denied.open else allowed).unknown(request)
        return None
    action, resource = evidence.expected.action, evidence.expected.resource
    denials = "; ".join(json.dumps(statement.raw) for _, statement in denied.applying)
    own = f"The trust policy of {arn.name}" if is_assumed else "The resource's own policy"
    summary = f"{own} admits neither the role nor its account, so the role's policies aren't enough."
    actual = denials or f"no statement{' of the policy' if policy else ', because no policy is found,'} allows that"
    if denials:
        summary = f"{own} denies what the role's policies allow."
    elif resource == evidence.expected.role_arn:
        summary = f"The pod already acts as {arn.name}, and this role's trust policy doesn't let it assume itself."
    elif is_assumed and policy is None:
        summary = f"The pod can't assume the role {arn.name}: it doesn't exist in the account {arn.account}."
        actual = "no such role"
    return Symptom(
        summary=summary,
        expected=f"a policy of {resource} that lets {evidence.expected.role_arn} do {action}",
        found=actual,
        source=RESOURCE_POLICY[arn.service],
        repair=advice.resource_policy_stays(evidence, is_missing=is_assumed and policy is None),
    )


def _bucket(evidence: Evidence) -> str:
    if evidence.expected.action:
        is_of_s3 = evidence.expected.action.lower().startswith("s3:") and is_decided(evidence)
        named = Arn.find(evidence.expected.resource) if is_of_s3 else None
        return named.resource.partition("/")[0] if named else ""
    return evidence.parameters.bucket if evidence.aws.role_is_of_run else ""


def _requests(evidence: Evidence, bucket: str) -> list[Request]:
    arn = f"arn:{Arn.parse(evidence.expected.role_arn).partition}:s3:::{bucket}"
    wanted = [(evidence.expected.action, evidence.expected.resource)] if evidence.expected.action else []
    wanted = wanted or [("s3:ListBucket", arn), ("s3:GetObject", f"{arn}/object")]
    return [evidence.aws.request(action, resource) for action, resource in wanted]


def _is_of_the_role_s_account(evidence: Evidence) -> bool:
    account = arn.account if (arn := Arn.find(evidence.expected.resource)) else ""
    if account or not (bucket := _bucket(evidence)):
        return account in ("", evidence.expected.role_account_id)
    # A bucket's ARN doesn't name an account, but the account lists its buckets.
    # The same policy may also forbid listing them.
    return known(lambda: bucket in evidence.aws.role_account.buckets, True)
