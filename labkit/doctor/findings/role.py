"""The IAM role: did IAM refuse its last trust policy, does it exist, and does the pod try to assume it twice?"""

from labkit.doctor import stages
from labkit.doctor.evidence import Evidence, kinds, known
from labkit.doctor.evidence.account import PastCall, document
from labkit.doctor.evidence.pod_spec import AwsConfig, PodSpec
from labkit.doctor.finding import Symptom, any_finding, cause
from labkit.doctor.findings import service_account
from labkit.doctor.repairs import advice, pod_commands
from labkit.doctor.repairs.advice import QUOTA
from labkit.doctor.repairs.commands import Commands, annotate, patch_config_map
from labkit.doctor.repairs.repair import Repair
from labkit.policy.arn import Arn
from labkit.policy.wildcards import wildcard
from labkit.policy.written import StatementDocument, actions_of, conditions_of, principals_of, statements_of

LEARN = "02-iam-role.ipynb"
# The settings that make a profile assume a role.
# https://docs.aws.amazon.com/sdkref/latest/guide/feature-assume-role-credentials.html
ASSUMING = (
    "role_arn",
    "source_profile",
    "credential_source",
    "role_session_name",
    "external_id",
    "duration_seconds",
    "mfa_serial",
)
NEAR = 1843  # characters of a trust policy without white space: nine tenths of IAM's default limit


@cause("trust-policy-condition-key-with-scheme", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def condition_key_with_scheme(evidence: Evidence) -> Symptom | None:
    expected = evidence.expected
    refused = _refused_write(evidence)
    if refused is None or not str(refused["errorCode"]).startswith("MalformedPolicyDocument"):
        return None
    keys = [c.key for s in _statements_of(refused) for c in conditions_of(s) if c.key.count(":") > 1]
    if not keys:
        return None
    has = "has a scheme" if "://" in keys[0] else "is an ARN" if keys[0].startswith("arn:") else "has two colons"
    return Symptom(
        f"IAM refused the last trust policy for {expected.role_name}: the condition key {keys[0]} {has}.",
        expected=f"{expected.provider_name}:sub",
        found=", ".join(keys),
        source=_source(refused),
        repair=pod_commands.with_new_sessions(evidence, Commands(evidence).admit_or_create()),
    )


@cause("trust-policy-too-long", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def too_long(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-entity-length"""
    refused = _refused_write(evidence)
    message = str((refused or {}).get("errorMessage"))
    if refused is None or not str(refused["errorCode"]).startswith("LimitExceeded") or "ACLSizePerRole" not in message:
        return None
    return Symptom(
        f"IAM refused the last trust policy for {evidence.expected.role_name}: it is longer than {QUOTA} characters.",
        expected=f"at most {QUOTA} characters without white space",
        found=message,
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


@cause("role-missing", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def missing(evidence: Evidence) -> Symptom | None:
    """The role doesn't exist. STS doesn't say so: it answers as if the trust policy had refused the token."""
    expected = evidence.expected
    if evidence.aws.role is not None or was_refused(evidence):
        return None
    renamed = _renamed(evidence)
    return Symptom(
        summary=f"The role {expected.role_name} doesn't exist in the account {expected.role_account_id}.",
        expected=renamed or expected.role_arn,
        found=f"no such role: {expected.role_arn}" if renamed else "no such role",
        source="iam:GetRole",
        repair=_another_role(evidence)
        or pod_commands.with_new_sessions(
            evidence, Repair.of(Commands(evidence).create_role(), Commands(evidence).attach_policy())
        ),
    )


@cause("role-assumes-itself", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def assumes_itself(evidence: Evidence) -> Symptom | None:
    """An AWS config in the pod assumes the role that the pod already has, and the role doesn't allow that.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-assume-role-credentials.html
    """
    expected = evidence.expected
    spec = evidence.pod.spec if evidence.aws.role is not None else None
    if spec is None or _trusts_itself(evidence):
        return None
    for container in spec.containers:
        for config in container.aws_configs:
            for name, settings in config.profiles.items():
                # A profile with a token's file is the exchange itself.
                if settings.get("role_arn") == expected.role_arn and "web_identity_token_file" not in settings:
                    return Symptom(
                        summary=f"The AWS profile {name} assumes {expected.role_name}, but the pod already has it.",
                        expected=f"no role_arn in the profile {name}",
                        found=f"{config.path} in container {container.name}: role_arn = {expected.role_arn}",
                        source=f"kubectl get configmap {config.config_map} -o yaml",
                        repair=_without_assuming(evidence, spec, config, name),
                    )
    return None


REFUSED = (condition_key_with_scheme, too_long)


def was_refused(evidence: Evidence) -> bool:
    """Whether a finding says that IAM refused a newer trust policy for the role."""
    return any_finding(evidence, *REFUSED)


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


def _trusts_itself(evidence: Evidence) -> bool:
    return any(
        evidence.expected.role_arn in principals_of(statement, "AWS")
        and any(wildcard(action.lower())("sts:assumerole") for action in actions_of(statement))
        for statement in evidence.aws.trust.allows
    )


def _without_assuming(evidence: Evidence, spec: PodSpec, config: AwsConfig, profile: str) -> Repair:
    kept, inside = [], False
    for line in spec.config_map(config.config_map)[config.key].splitlines(keepends=True):
        if line.lstrip().startswith("["):
            inside = line.strip().strip("[]").removeprefix("profile ").strip() == profile
        if not (inside and line.partition("=")[0].strip() in ASSUMING):
            kept.append(line)
    patch = patch_config_map(evidence, config.config_map, {config.key: "".join(kept)})
    # A pod reads its config only when it starts.
    return Repair.of(patch, pod_commands.replaced(evidence))


def _another_role(evidence: Evidence) -> str | Repair:
    """Return the repair that annotates the service account with a role that trusts the service account."""
    if service_account.is_role_of_its_own(evidence):
        return (
            f"# did you mean the role that the annotation names?  --role {Arn.parse(evidence.cluster.annotation).name}"
        )
    if renamed := _renamed(evidence):
        return Repair.of(annotate(evidence, renamed), pod_commands.replaced(evidence))
    return annotate(evidence, "") if _trusting(evidence) else ""


def _renamed(evidence: Evidence) -> str:
    """Return the ARN of the only role that trusts the service account."""
    trusting = _trusting(evidence)
    return trusting[0] if len(trusting) == 1 else ""


def _trusting(evidence: Evidence) -> list[str]:
    return [] if evidence.expected.role_is_known else known(lambda: evidence.expected.roles_that_trust_it) or []
