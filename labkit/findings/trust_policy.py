"""The trust policy: does it admit this service account, and only this one?

Whether it does is evaluated, as STS would; the causes of a refusal are asked only where the answer is no, and only of
the statement that comes nearest. Each looks at one thing, so that two faults in a statement are two findings.
"""

import json
import re
from typing import TYPE_CHECKING, Any

from labkit.evidence.reading import NotRead
from labkit.evidence.trust import (
    NOBODY,
    PROVIDER_ARN,
    STRANGER,
    Condition,
    actions_of,
    allows_action,
    conditions_of,
    federated_of,
    listed,
    name_of,
    principals_of,
)
from labkit.findings import Finding, provider, trust_documents
from labkit.policy import Decision
from labkit.policy.trust import WEB_IDENTITY as ACTION
from labkit.policy.wildcards import wildcard

if TYPE_CHECKING:
    from labkit.evidence import Evidence

LEARN = "02-iam-role.ipynb"
SOURCE = "iam:GetRole, AssumeRolePolicyDocument"
POD_IDENTITY = "pods.eks.amazonaws.com"
SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):(.+)")
# Characters without white space that IAM takes by default, and how many of them are too near to that.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-entity-length
QUOTA, NEAR = 2048, 1843
QUOTA_CODE = "L-C07B4B0D"


# Whom it trusts.


def of_pod_identity(evidence: "Evidence") -> Finding | None:
    """The role is made for EKS Pod Identity, which is another way from a pod to a role.

    https://docs.aws.amazon.com/eks/latest/userguide/pod-id-role.html
    """
    statement = _refusing(evidence)
    if statement is None or POD_IDENTITY not in principals_of(statement, "Service"):
        return None
    return _finding(
        evidence,
        "trust-policy-of-pod-identity",
        "The trust policy is one for EKS Pod Identity, and the service account's annotation is IRSA's.",
        expected=f"Federated {evidence.provider_arn}",
        found=f"Service {', '.join(principals_of(statement, 'Service'))}",
    )


def of_a_service(evidence: "Evidence") -> Finding | None:
    """The trust policy is the one that a role for an AWS service has: nobody with a web identity is in it.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_create_for-service.html
    """
    statement = _refusing(evidence)
    services = principals_of(statement, "Service") if statement else []
    if not services or federated_of(statement) or POD_IDENTITY in services:
        return None
    return _finding(
        evidence,
        "trust-policy-of-a-service",
        "The trust policy lets a service of AWS take the role, and no pod.",
        expected=f"Federated {evidence.provider_arn}",
        found=f"Service {', '.join(services)}",
    )


def principal_not_a_provider(evidence: "Evidence") -> Finding | None:
    """The principal is no OIDC provider's ARN: a bare URL, a role, an account, or nothing.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html#principal-federated-web-identity
    """
    statement = _refusing(evidence)
    if statement is None or principals_of(statement, "Service") or statement.get("Principal") == "*":
        return None
    if any(PROVIDER_ARN.fullmatch(arn) for arn in federated_of(statement)):
        return None
    return _finding(
        evidence,
        "trust-policy-principal-not-a-provider",
        "The trust policy's principal is not the ARN of an OIDC provider.",
        expected=f"Federated {evidence.provider_arn}",
        found=json.dumps(statement.get("Principal", "no Principal")),
    )


def issuer_host_wrong(evidence: "Evidence") -> Finding | None:
    """The cluster's id under another host: another region's, or `oidc.REGION.eks` for `oidc.eks.REGION`."""
    statement = _refusing(evidence)
    if statement is None:
        return None
    named = [*map(name_of, federated_of(statement)), *(condition.issuer for condition in _about_tokens(statement))]
    wrong = [name for name in dict.fromkeys(named) if _has_other_host(evidence, name)]
    if not wrong:
        return None
    return _finding(
        evidence,
        "trust-policy-issuer-host-wrong",
        "The trust policy names the cluster's issuer with another host than it has.",
        expected=evidence.provider_name,
        found=", ".join(wrong),
    )


def provider_mismatch(evidence: "Evidence") -> Finding | None:
    """The principal is another OIDC provider than the one of this cluster's issuer."""
    statement = _refusing(evidence)
    providers = [arn for arn in federated_of(statement or {}) if PROVIDER_ARN.fullmatch(arn)]
    if not providers or evidence.provider_arn in providers:
        return None
    if any(_has_other_host(evidence, name_of(arn)) for arn in providers):
        return None
    if _is_told(evidence, provider.cluster_rebuilt, provider.in_another_account):
        return None
    return _finding(
        evidence,
        "trust-policy-provider-mismatch",
        "The trust policy trusts somebody else than the OIDC provider of this cluster's issuer.",
        expected=evidence.provider_arn,
        found=", ".join(providers),
    )


# For what.


def action_wrong(evidence: "Evidence") -> Finding | None:
    """The statement allows another action, such as `sts:AssumeRole`, the one for AWS's own services.

    https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
    """
    statement = _refusing(evidence)
    if statement is None or allows_action(statement):
        return None
    # A service's role has a service's action.
    if principals_of(statement, "Service"):
        return None
    return _finding(
        evidence,
        "trust-policy-action-wrong",
        "The trust policy allows another action than the one that a web identity token is exchanged with.",
        expected=ACTION,
        found=", ".join(actions_of(statement)) or "no Action",
    )


# Under which conditions.


def condition_key_of_another_issuer(evidence: "Evidence") -> Finding | None:
    """A condition's key begins with another issuer: no token of this cluster has it, so the condition never holds."""
    statement = _refusing(evidence)
    if statement is None or _is_told(evidence, provider.cluster_rebuilt):
        return None
    for condition in _about_tokens(statement):
        if condition.issuer.lower() == evidence.provider_name.lower() or condition.is_negated:
            continue
        if not _has_other_host(evidence, condition.issuer):
            return _finding(
                evidence,
                "trust-policy-condition-key-of-another-issuer",
                "A condition of the trust policy is about the tokens of another issuer.",
                expected=f"{evidence.provider_name}:{condition.claim}",
                found=condition.key,
            )
    return None


def sub_wildcard_under_string_equals(evidence: "Evidence") -> Finding | None:
    """`StringEquals` takes `*` and `?` literally.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
    """
    for condition in _failed(evidence, "sub"):
        wild = [value for value in condition.values if "*" in value or "?" in value]
        if wild and condition.is_literal:
            return _finding(
                evidence,
                "trust-policy-sub-wildcard-under-string-equals",
                f"{condition.operator} compares letter by letter: the * or ? in the subject is no wildcard there.",
                expected=f"StringEquals {evidence.subject}, or StringLike with the wildcard",
                found=f"{condition.operator} {', '.join(wild)}",
            )
    return None


def sub_of_another_namespace(evidence: "Evidence") -> Finding | None:
    """The condition on `sub` names a service account of this name, in another namespace."""
    condition = _wrong_subject(evidence)
    if condition is None or not _names_another_namespace(evidence, condition):
        return None
    return _finding(
        evidence,
        "trust-policy-sub-of-another-namespace",
        "The trust policy admits the service account of this name in another namespace.",
        expected=evidence.subject,
        found=_shown(condition),
    )


def sub_renamed(evidence: "Evidence") -> Finding | None:
    """The condition on `sub` names it without, or with, what a chart's release puts before or behind the name."""
    condition = _wrong_subject(evidence)
    if condition is None or _names_another_namespace(evidence, condition) or not _names_a_relative(evidence, condition):
        return None
    return _finding(
        evidence,
        "trust-policy-sub-renamed",
        "The trust policy has the service account's name without or with a prefix or suffix, as a release gives it.",
        expected=evidence.subject,
        found=_shown(condition),
    )


def sub_mismatch(evidence: "Evidence") -> Finding | None:
    """The condition on `sub` names another service account."""
    condition = _wrong_subject(evidence)
    if condition is None or _names_another_namespace(evidence, condition) or _names_a_relative(evidence, condition):
        return None
    return _finding(
        evidence,
        "trust-policy-sub-mismatch",
        "The trust policy admits another service account than the pod's.",
        expected=evidence.subject,
        found=_shown(condition),
    )


def aud_mismatch(evidence: "Evidence") -> Finding | None:
    """The condition on `aud` wants another audience than the token's."""
    for condition in _failed(evidence, "aud"):
        return _finding(
            evidence,
            "trust-policy-aud-mismatch",
            "The trust policy wants another audience than the token has.",
            expected=evidence.audience,
            found=_shown(condition),
        )
    return None


# What IAM refused to take.


def condition_key_with_scheme(evidence: "Evidence") -> Finding | None:
    """The trust policy that was to help was refused by IAM: `https://` stands in a condition's key."""
    refused = _refused_write(evidence)
    if refused is None or not str(refused["errorCode"]).startswith("MalformedPolicyDocument"):
        return None
    keys = [c.key for s in _statements_of(refused) for c in conditions_of(s) if "://" in c.key]
    if not keys:
        return None
    return _finding(
        evidence,
        "trust-policy-condition-key-with-scheme",
        "IAM refused the last trust policy that was written for the role: a condition's key begins with https://.",
        expected=f"{evidence.provider_name}:sub",
        found=", ".join(keys),
        source=_source(refused),
        repair=with_new_sessions(evidence, evidence.commands.write_trust_policy(trust_documents.corrected(evidence))),
    )


def too_long(evidence: "Evidence") -> Finding | None:
    """The trust policy that was to help was refused by IAM: it is longer than the quota.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-entity-length
    """
    refused = _refused_write(evidence)
    told = str((refused or {}).get("errorMessage"))
    if refused is None or not str(refused["errorCode"]).startswith("LimitExceeded") or "ACLSizePerRole" not in told:
        return None
    return _finding(
        evidence,
        "trust-policy-too-long",
        "IAM refused the last trust policy that was written for the role: it is too long.",
        expected=f"at most {QUOTA} characters without white space",
        found=told,
        source=_source(refused),
        repair=with_new_sessions(
            evidence, f"{_quota_comment()}\n{evidence.commands.write_trust_policy(trust_documents.alone(evidence))}"
        ),
    )


# What has no name of its own.


def refuses(evidence: "Evidence") -> Finding | None:
    """The trust policy refuses for a reason that has no name of its own, such as an explicit deny."""
    if evidence.role is None or evidence.trust.admits or any(_speaks(evidence, cause) for cause in NAMED):
        return None
    denied = any(evidence.trust.denies(statement) for statement in evidence.trust.statements)
    if not denied and _is_told(evidence, provider.cluster_rebuilt, provider.in_another_account):
        return None
    return _finding(
        evidence,
        "trust-policy-refuses",
        "The trust policy does not admit the service account.",
        expected=f"{evidence.subject} is admitted",
        found=evidence.trust.decision.reason,
    )


# What it admits, and should not.


def sub_missing(evidence: "Evidence") -> Finding | None:
    """It admits every service account: there is no condition on `sub`, or one that anything meets."""
    if not _admits_strangers(evidence):
        return None
    subjects = [
        f"{condition.operator} {', '.join(condition.values)}"
        for statement in evidence.trust.statements
        for condition in conditions_of(statement)
        if condition.claim == "sub"
    ]
    return _finding(
        evidence,
        "trust-policy-sub-missing",
        "The trust policy admits every service account of the cluster.",
        expected=f"StringEquals {evidence.provider_name}:sub = {evidence.subject}",
        found="; ".join(subjects) or "no condition on sub",
        severity="warning",
        repair=evidence.commands.update_trust_policy(trust_documents.narrowed(evidence)),
    )


def admits_others(evidence: "Evidence") -> Finding | None:
    """Other service accounts of the cluster may take the role, too."""
    if evidence.role is None or not evidence.trust.admits or _admits_strangers(evidence) or _is_exact(evidence):
        return None
    others = [subject for subject in _subjects(evidence) if evidence.trust.admits_other(subject=subject)]
    if not others:
        return None
    return _finding(
        evidence,
        "trust-policy-admits-others",
        "The trust policy admits other service accounts of the cluster, too.",
        expected=f"{evidence.subject} alone",
        found=", ".join(others),
        severity="warning",
        repair=evidence.commands.update_trust_policy(trust_documents.narrowed(evidence)),
    )


def aud_missing(evidence: "Evidence") -> Finding | None:
    """It admits tokens that were made for somebody else than STS: there is no condition on `aud`."""
    if evidence.role is None or not evidence.trust.admits or not evidence.trust.admits_other(audience=NOBODY):
        return None
    # Each repair is the whole document: the one that is run last must leave nothing of the other fault.
    narrow = _is_told(evidence, sub_missing, admits_others)
    right = trust_documents.narrowed(evidence) if narrow else trust_documents.with_audience(evidence)
    return _finding(
        evidence,
        "trust-policy-aud-missing",
        "The trust policy does not say for whom a token has to be made.",
        expected=f"StringEquals {evidence.provider_name}:aud = {evidence.audience}",
        found="no condition on aud",
        severity="warning",
        repair=evidence.commands.update_trust_policy(right),
    )


def near_size_limit(evidence: "Evidence") -> Finding | None:
    """One service account more, and IAM takes it no longer."""
    if evidence.role is None or evidence.trust.size <= NEAR:
        return None
    return _finding(
        evidence,
        "trust-policy-near-size-limit",
        "The trust policy is nearly as long as IAM takes one.",
        expected=f"at most {NEAR} characters without white space, of {QUOTA}",
        found=f"{evidence.trust.size} characters",
        severity="warning",
        repair=f"{_quota_comment()}\n{evidence.commands.update_trust_policy(trust_documents.alone(evidence))}",
    )


NAMED = (
    condition_key_with_scheme,
    too_long,
    of_pod_identity,
    of_a_service,
    principal_not_a_provider,
    issuer_host_wrong,
    provider_mismatch,
    action_wrong,
    condition_key_of_another_issuer,
    sub_wildcard_under_string_equals,
    sub_of_another_namespace,
    sub_renamed,
    sub_mismatch,
    aud_mismatch,
)
CAUSES = (*NAMED, refuses, sub_missing, admits_others, aud_missing, near_size_limit)


def decide(evidence: "Evidence") -> Decision:
    """How STS would decide for the service account's token.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
    """
    return evidence.trust.decision


def subject_found(evidence: "Evidence") -> str:
    """The condition on `sub` as the policy has it, for the report of a check."""
    return _condition_found(evidence, "sub")


def audience_found(evidence: "Evidence") -> str:
    """The condition on `aud` as the policy has it, for the report of a check."""
    return _condition_found(evidence, "aud")


def principal_found(evidence: "Evidence") -> str:
    """Whom the policy trusts, for the report of a check."""
    found = [arn for statement in evidence.trust.statements for arn in federated_of(statement)]
    return ", ".join(found) or "no federated principal"


def actions_found(evidence: "Evidence") -> str:
    """What the policy allows, for the report of a check."""
    found = [action for statement in evidence.trust.statements for action in actions_of(statement)]
    return ", ".join(found) or "no Action"


def was_refused(evidence: "Evidence") -> bool:
    """Whether a trust policy that IAM refused is what is wrong with the role, and not what the role has instead."""
    return _is_told(evidence, condition_key_with_scheme, too_long)


def with_new_sessions(evidence: "Evidence", repair: str) -> str:
    """The lines, and the pod made anew where they make the role: it may hold a session of the one that is gone.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids
    """
    from labkit.findings.pod_commands import replaced

    try:
        is_held = evidence.role is None and evidence.pod is not None
    except NotRead:
        is_held = False
    return f"{repair}\n{replaced(evidence)}" if is_held else repair


def _condition_found(evidence: "Evidence", claim: str) -> str:
    found = [
        f"{condition.operator} {condition.key} = {', '.join(condition.values)}"
        for statement in evidence.trust.statements
        for condition in conditions_of(statement)
        if condition.claim == claim
    ]
    return "; ".join(found) or "no condition"


def _refusing(evidence: "Evidence") -> dict[str, Any] | None:
    """The statement that comes nearest, where the policy refuses and nothing else explains it."""
    if evidence.role is None or evidence.trust.nearest is None or was_refused(evidence):
        return None
    return evidence.trust.nearest


def _about_tokens(statement: dict[str, Any]) -> list[Condition]:
    return [condition for condition in conditions_of(statement) if condition.claim in ("sub", "aud")]


def _failed(evidence: "Evidence", claim: str) -> list[Condition]:
    """The conditions on a claim whose values the token does not have, whichever issuer they are about."""
    if _refusing(evidence) is None:
        return []
    return [c for c in evidence.trust.conditions(claim) if c.compares_text and not evidence.trust.holds(c)]


def _wrong_subject(evidence: "Evidence") -> Condition | None:
    """The condition that names another service account, also were its wildcards wildcards."""
    for condition in _failed(evidence, "sub"):
        if not (condition.is_literal and any(wildcard(value)(evidence.subject) for value in condition.values)):
            return condition
    return None


def _names_another_namespace(evidence: "Evidence", condition: Condition) -> bool:
    for namespace, name in _accounts_of(condition):
        other = not wildcard(namespace)(evidence.parameters.namespace)
        if other and wildcard(name)(evidence.parameters.service_account):
            return True
    return False


def _names_a_relative(evidence: "Evidence", condition: Condition) -> bool:
    mine = evidence.parameters.service_account
    for namespace, name in _accounts_of(condition):
        related = any(
            longer.startswith(f"{shorter}-") or longer.endswith(f"-{shorter}")
            for longer, shorter in ((mine, name), (name, mine))
        )
        if related and wildcard(namespace)(evidence.parameters.namespace):
            return True
    return False


def _accounts_of(condition: Condition) -> list[tuple[str, str]]:
    """Namespace and name of the service accounts that the condition names."""
    matches = [SERVICE_ACCOUNT.fullmatch(value) for value in condition.values]
    return [(match[1], match[2]) for match in matches if match]


def _has_other_host(evidence: "Evidence", name: str) -> bool:
    """Whether it is the issuer's own path under another host."""
    host, _, path = evidence.provider_name.partition("/")
    other, _, same = name.partition("/")
    return bool(path) and same.lower() == path.lower() and other.lower() != host.lower()


def _admits_strangers(evidence: "Evidence") -> bool:
    return evidence.role is not None and evidence.trust.admits and evidence.trust.admits_other(subject=STRANGER)


def _is_exact(evidence: "Evidence") -> bool:
    """Whether no statement can admit another of the cluster's accounts: then nobody else needs to be looked for."""
    return all(
        any(c.claim == "sub" and c.is_literal and c.values == (evidence.subject,) for c in conditions_of(statement))
        for statement in evidence.trust.allows
        if evidence.provider_arn in federated_of(statement) or statement.get("Principal") == "*"
    )


def _subjects(evidence: "Evidence") -> list[str]:
    """The subjects of the cluster's other service accounts."""
    found = [
        f"system:serviceaccount:{account['metadata']['namespace']}:{account['metadata']['name']}"
        for account in evidence.cluster.all_service_accounts
    ]
    return [subject for subject in found if subject != evidence.subject]


def _refused_write(evidence: "Evidence") -> dict[str, Any] | None:
    """The newest try to write the role's trust policy, where IAM refused it and the role lacks what it was to have.

    Raises `NotRead` where CloudTrail may not be read.
    """
    if evidence.role is not None and evidence.trust.admits:
        return None
    # Of a role that is gone, only whether it could be made anew counts.
    names = ("CreateRole",) if evidence.role is None else ("UpdateAssumeRolePolicy", "CreateRole")
    tries = [
        record
        for name in names
        for record in evidence.role_account.calls(name)
        if (record.get("requestParameters") or {}).get("roleName") == evidence.role_name
    ]
    # Each list is the newest first; the sort keeps the order of what happened in one second.
    newest = next(iter(sorted(tries, key=lambda record: record["eventTime"], reverse=True)), None)
    return newest if newest and newest["errorCode"] else None


def _statements_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The statements of the trust policy that was refused."""
    from labkit.evidence.account import document

    parameters = record.get("requestParameters") or {}
    written = document(parameters.get("policyDocument") or parameters.get("assumeRolePolicyDocument") or {})
    statements = listed(written.get("Statement")) if isinstance(written, dict) else []
    return [statement for statement in statements if isinstance(statement, dict)]


def _source(record: dict[str, Any]) -> str:
    return f"cloudtrail:LookupEvents, {record['eventName']} at {record['eventTime']}: {record['errorCode']}"


def _is_told(evidence: "Evidence", *causes: Any) -> bool:
    """Whether one of these causes explains it; what cannot be read explains nothing."""
    return any(_speaks(evidence, cause) for cause in causes)


def _speaks(evidence: "Evidence", cause: Any) -> bool:
    try:
        return cause(evidence) is not None
    except NotRead:
        return False


def _quota_comment() -> str:
    return (
        "# first give the other service accounts roles of their own, or ask for a longer quota:\n"
        "# aws service-quotas request-service-quota-increase --service-code iam "
        f"--quota-code {QUOTA_CODE} --desired-value 4096"
    )


def _shown(condition: Condition) -> str:
    return f"{', '.join(condition.values)} ({condition.operator})"


def _finding(
    evidence: "Evidence",
    id: str,
    summary: str,
    *,
    expected: str,
    found: str,
    severity="error",
    source: str = SOURCE,
    repair: str = "",
) -> Finding:
    return Finding(
        id=id,
        summary=summary,
        expected=expected,
        found=found,
        source=source,
        repair=repair or evidence.commands.update_trust_policy(trust_documents.corrected(evidence)),
        learn=LEARN,
        severity=severity,
    )
