"""Find the mistakes in the principal and the action of the trust policy's nearest statement.

The nearest statement is the Allow statement that comes closest to admitting the token.
"""

import json

from labkit.doctor import stages
from labkit.doctor.evidence import Evidence, kinds
from labkit.doctor.evidence.trust import PROVIDER_ARN
from labkit.doctor.finding import Severity, Symptom, any_found, cause
from labkit.doctor.findings import provider
from labkit.doctor.findings.trust_writes import was_refused
from labkit.doctor.repairs.commands import Commands
from labkit.doctor.repairs.repair import Repair
from labkit.policy.arn import Arn
from labkit.policy.trust import WEB_IDENTITY
from labkit.policy.written import (
    StatementDocument,
    WrittenCondition,
    actions_of,
    allows_action,
    conditions_of,
    federated_of,
    listed,
    name_of,
    principals_of,
)
from labkit.showing import few

LEARN = "02-iam-role.ipynb"
SOURCE = "iam:GetRole, AssumeRolePolicyDocument"
POD_IDENTITY = "pods.eks.amazonaws.com"


# The principal.


@cause("trust-policy-of-pod-identity", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def of_pod_identity(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/eks/latest/userguide/pod-id-role.html"""
    statement = refusing(evidence)
    if statement is None or POD_IDENTITY not in principals_of(statement, "Service"):
        return None
    return symptom(
        evidence,
        "The trust policy admits only EKS Pod Identity, but the service account's annotation asks for IRSA.",
        expected=f"Federated {evidence.expected.provider_arn}",
        found=f"Service {', '.join(principals_of(statement, 'Service'))}",
    )


@cause("trust-policy-of-a-service", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def of_a_service(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_create_for-service.html"""
    statement = refusing(evidence)
    services = principals_of(statement or {}, "Service")
    if not services or federated_of(statement or {}) or POD_IDENTITY in services:
        return None
    return symptom(
        evidence,
        f"The trust policy admits {few(services)}, but no pods.",
        expected=f"Federated {evidence.expected.provider_arn}",
        found=f"Service {', '.join(services)}",
    )


@cause("trust-policy-principal-not-a-provider", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def principal_not_a_provider(evidence: Evidence) -> Symptom | None:
    """The principal isn't an OIDC provider's ARN: it's a bare URL, a role or an account, or it's missing.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html#principal-federated-web-identity
    """
    statement = refusing(evidence)
    if statement is None or principals_of(statement, "Service") or statement.get("Principal") == "*":
        return None
    if any(PROVIDER_ARN.fullmatch(arn) for arn in federated_of(statement)):
        return None
    return symptom(
        evidence,
        f"The trust policy trusts {_principal(statement)}, not the ARN of an OIDC provider.",
        expected=f"Federated {evidence.expected.provider_arn}",
        found=json.dumps(statement.get("Principal", "no Principal")),
    )


@cause("trust-policy-issuer-host-wrong", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def issuer_host_wrong(evidence: Evidence) -> Symptom | None:
    """The policy names the issuer's path under another host.

    Usually, it's another region's host, or `oidc.REGION.eks` instead of `oidc.eks.REGION`.
    """
    statement = refusing(evidence)
    if statement is None:
        return None
    named = [*map(name_of, federated_of(statement)), *(condition.issuer for condition in about_tokens(statement))]
    wrong = [name for name in dict.fromkeys(named) if has_other_host(evidence, name)]
    if not wrong:
        return None
    return symptom(
        evidence,
        f"The trust policy names the host {wrong[0].partition('/')[0]}, but the host of the cluster's issuer is "
        f"{evidence.expected.provider_name.partition('/')[0]}.",
        expected=evidence.expected.provider_name,
        found=", ".join(wrong),
    )


@cause("trust-policy-provider-mismatch", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def provider_mismatch(evidence: Evidence) -> Symptom | None:
    statement = refusing(evidence)
    providers = [arn for arn in federated_of(statement or {}) if PROVIDER_ARN.fullmatch(arn)]
    if not providers or evidence.expected.provider_arn in providers:
        return None
    if any(has_other_host(evidence, name_of(arn)) for arn in providers):
        return None
    if any_found(evidence, provider.cluster_rebuilt, provider.in_another_account):
        return None
    trusted = f"{few([*map(name_of, providers)])}, not this cluster's issuer"
    if elsewhere := [Arn.parse(arn).account for arn in providers if name_of(arn) == evidence.expected.provider_name]:
        mine = Arn.parse(evidence.expected.provider_arn).account
        trusted = f"the cluster's OIDC provider in the account {few(elsewhere)}, not the one in {mine}"
    return symptom(
        evidence,
        f"The trust policy trusts {trusted}.",
        expected=evidence.expected.provider_arn,
        found=", ".join(providers),
    )


# The action.


@cause("trust-policy-action-wrong", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def action_wrong(evidence: Evidence) -> Symptom | None:
    """The statement doesn't allow the action that exchanges the token.

    Most often, it allows `sts:AssumeRole` instead, the action for AWS's own services.

    https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
    """
    statement = refusing(evidence)
    if statement is None or allows_action(statement):
        return None
    # A role for a service has a service's action. Another cause reports it.
    if principals_of(statement, "Service"):
        return None
    return symptom(
        evidence,
        f"The trust policy allows {few(actions_of(statement)) or 'no action'}, not {WEB_IDENTITY}.",
        expected=WEB_IDENTITY,
        found=", ".join(actions_of(statement)) or "no Action",
    )


def _principal(statement: StatementDocument) -> str:
    principal = statement.get("Principal")
    named = [str(name) for names in principal.values() for name in listed(names)] if isinstance(principal, dict) else []
    return few(named) or "nobody"


# `trust_conditions` and `trust_policy` use these functions, too.


def refusing(evidence: Evidence) -> StatementDocument | None:
    """Return the trust policy's Allow statement that is closest to admitting the token.

    Return None in four cases: the role doesn't exist; the policy admits the token; the policy has no Allow statement;
    another finding says that IAM refused a newer trust policy.
    """
    if evidence.aws.role is None or evidence.aws.trust.nearest is None or was_refused(evidence):
        return None
    return evidence.aws.trust.nearest


def about_tokens(statement: StatementDocument) -> list[WrittenCondition]:
    """Return the statement's conditions on `sub` and `aud`."""
    return [condition for condition in conditions_of(statement) if condition.claim in ("sub", "aud")]


def has_other_host(evidence: Evidence, name: str) -> bool:
    """Whether `name` has the issuer's path, but another host."""
    host, _, path = evidence.expected.provider_name.partition("/")
    other, _, same = name.partition("/")
    return bool(path) and same.lower() == path.lower() and other.lower() != host.lower()


def symptom(
    evidence: Evidence,
    summary: str,
    *,
    expected: str,
    found: str,
    severity: Severity = "error",
    repair: str | Repair = "",
) -> Symptom:
    """Return a symptom for a mistake in the trust policy.

    If `repair` is empty, the symptom's repair makes the policy admit the service account.
    """
    return Symptom(
        summary=summary,
        expected=expected,
        found=found,
        source=SOURCE,
        repair=repair or Commands(evidence).admit(),
        severity=severity,
    )
