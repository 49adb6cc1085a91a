"""IAM's limits for a role's trust policy: did IAM refuse the last update, and is the present policy nearly too long?"""

from labkit.doctor import stages
from labkit.doctor.evidence import Evidence, kinds
from labkit.doctor.evidence.account import PastCall, document
from labkit.doctor.finding import Symptom, any_found, cause
from labkit.doctor.repairs import advice, pod_commands
from labkit.doctor.repairs.advice import QUOTA
from labkit.doctor.repairs.commands import Commands
from labkit.policy.written import StatementDocument, conditions_of, statements_of

LEARN = "02-iam-role.ipynb"
NEAR = 1843  # characters of a trust policy without white space: nine tenths of IAM's default limit


@cause("trust-policy-condition-key-with-scheme", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def condition_key_with_scheme(evidence: Evidence) -> Symptom | None:
    expected = evidence.expected
    refused = _refused_write(evidence)
    if refused is None or not str(refused["errorCode"]).startswith("MalformedPolicyDocument"):
        return None
    keys = [c.key for s in _statements_of(refused) for c in conditions_of(s) if "://" in c.key]
    if not keys:
        return None
    return Symptom(
        f"IAM refused the last trust policy for {expected.role_name}: the condition key {keys[0]} has a scheme.",
        expected=f"{expected.provider_name}:sub",
        found=", ".join(keys),
        source=_source(refused),
        repair=pod_commands.with_new_sessions(evidence, Commands(evidence).admit_or_create()),
    )


@cause("trust-policy-too-long", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def too_long(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-entity-length"""
    refused = _refused_write(evidence)
    told = str((refused or {}).get("errorMessage"))
    if refused is None or not str(refused["errorCode"]).startswith("LimitExceeded") or "ACLSizePerRole" not in told:
        return None
    return Symptom(
        f"IAM refused the last trust policy for {evidence.expected.role_name}: it is longer than {QUOTA} characters.",
        expected=f"at most {QUOTA} characters without white space",
        found=told,
        source=_source(refused),
        repair=pod_commands.with_new_sessions(evidence, Commands(evidence).admit_or_create()),
    )


@cause("trust-policy-near-size-limit", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def near_size_limit(evidence: Evidence) -> Symptom | None:
    """The trust policy is nearly as long as IAM allows. IAM may refuse a policy with one more service account."""
    aws = evidence.aws
    if aws.role is None or aws.trust.size <= NEAR:
        return None
    return Symptom(
        f"The trust policy of {aws.role['RoleName']} has {aws.trust.size} characters. IAM's usual limit is {QUOTA}.",
        expected=f"at most {NEAR} of {QUOTA} characters, without white space",
        found=f"{aws.trust.size} characters",
        source="iam:GetRole, AssumeRolePolicyDocument",
        severity="warning",
        repair=advice.length_stays(),
    )


REFUSED = (condition_key_with_scheme, too_long)


def was_refused(evidence: Evidence) -> bool:
    """Whether a finding says that IAM refused a newer trust policy for the role."""
    return any_found(evidence, *REFUSED)


def _refused_write(evidence: Evidence) -> PastCall | None:
    """Return the newest attempt to write the trust policy, if IAM refused that attempt."""
    if evidence.aws.role is not None and evidence.aws.trust.admits:
        return None
    # For a deleted role, all that counts is whether it could be created again.
    names = ("CreateRole",) if evidence.aws.role is None else ("UpdateAssumeRolePolicy", "CreateRole")
    tries = [
        record
        for name in names
        for record in evidence.aws.role_account.calls(name)
        if (record.get("requestParameters") or {}).get("roleName") == evidence.expected.role_name
    ]
    # Both lists begin with the newest, and the sort is stable within a second.
    newest = next(iter(sorted(tries, key=lambda record: record["eventTime"], reverse=True)), None)
    return newest if newest and newest["errorCode"] else None


def _statements_of(record: PastCall) -> list[StatementDocument]:
    parameters = record.get("requestParameters") or {}
    return statements_of(document(parameters.get("policyDocument") or parameters.get("assumeRolePolicyDocument")))


def _source(record: PastCall) -> str:
    return f"cloudtrail:LookupEvents, {record['eventName']} at {record['eventTime']}: {record['errorCode']}"
