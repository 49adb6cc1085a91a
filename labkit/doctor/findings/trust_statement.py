"""Find the mistakes in the trust policy's nearest statement: in its principal, its action, or a condition.

The nearest statement is the Allow statement that comes closest to admitting the token. Before that: does the role
belong to another run of the lab? If so, nothing else is reported about the role.
"""

import json
import re

from labkit.doctor import stages
from labkit.doctor.evidence import Evidence, kinds
from labkit.doctor.evidence.trust import PROVIDER_ARN, account_of
from labkit.doctor.finding import Cause, Severity, Symptom, any_finding, cause
from labkit.doctor.findings import provider
from labkit.doctor.findings.role import was_refused
from labkit.doctor.repairs import advice
from labkit.doctor.repairs.commands import Commands
from labkit.doctor.repairs.repair import Repair
from labkit.policy.arn import Arn
from labkit.policy.trust import WEB_IDENTITY
from labkit.policy.wildcards import wildcard
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
SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):(.+)")


@cause("role-belongs-to-another-run", stages.ROLE, LEARN, reads=(kinds.ROLE,), ends=(stages.ROLE, stages.PERMISSIONS))
def of_another_run(evidence: Evidence) -> Symptom | None:
    """The role carries another run's tag. The lab never takes over such a role."""
    owner = evidence.aws.role_run
    if owner in (None, evidence.parameters.run) or not evidence.expected.role_is_known:
        return None
    return Symptom(
        summary=f"The role {evidence.parameters.role_name} belongs to another run of the lab: {owner}.",
        expected=f"labkit:run = {evidence.parameters.run}",
        found=f"labkit:run = {owner}",
        source="iam:GetRole, Tags",
        repair=f"# choose another role_name; this shows the role's owner:\n{Commands(evidence).list_role_tags()}",
    )


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
    if any_finding(evidence, provider.cluster_rebuilt, provider.in_another_account):
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


# `trust_policy` uses these functions, too.


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


# The conditions on `sub` and `aud`.


@cause("trust-policy-condition-key-of-another-issuer", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def condition_key_of_another_issuer(evidence: Evidence) -> Symptom | None:
    """A condition's key, such as `ISSUER:sub`, names another issuer.

    A request with this cluster's token doesn't have that key, so the condition never holds.
    """
    statement = refusing(evidence)
    if statement is None or any_finding(evidence, provider.cluster_rebuilt):
        return None
    for condition in about_tokens(statement):
        if condition.issuer.lower() == evidence.expected.provider_name.lower() or condition.is_negated:
            continue
        # If the whole statement is for another cluster, that is one mistake.
        is_of_its_provider = condition.issuer in map(name_of, federated_of(statement))
        if is_of_its_provider and any_finding(evidence, provider_mismatch):
            continue
        if not has_other_host(evidence, condition.issuer):
            return symptom(
                evidence,
                f"The trust policy is about tokens of {condition.issuer}, which is not this cluster's issuer.",
                expected=f"{evidence.expected.provider_name}:{condition.claim}",
                found=condition.key,
            )
    return None


@cause("trust-policy-sub-wildcard-under-string-equals", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def sub_wildcard_under_string_equals(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html"""
    for condition in _failed(evidence, "sub"):
        wild = [value for value in condition.values if "*" in value or "?" in value]
        if wild and condition.is_literal:
            return symptom(
                evidence,
                f"The wildcard {few([*map(account_of, wild)])} in the trust policy admits nobody: "
                f"{condition.operator} compares letter by letter.",
                expected=f"StringEquals {evidence.expected.subject}",
                found=f"{condition.operator} {', '.join(wild)}",
            )
    return None


def wrong_subject(id: str, mistake: str, why: str) -> Cause:
    """Return the cause for a condition on `sub` that names another service account.

    `mistake` says how the service accounts differ: "another namespace", "renamed" or "another account". `why` ends the
    finding's summary.
    """

    def look(evidence: Evidence) -> Symptom | None:
        condition = _wrong_subject(evidence)
        if condition is None or _mistake(evidence, condition) != mistake:
            return None
        admitted, mine = few([*map(account_of, condition.values)]), evidence.expected.account
        summary = f"The trust policy admits {admitted}, not {mine}{why}."
        repair = Repair.of(advice.roles_by_a_pattern(evidence), Commands(evidence).admit())
        return symptom(evidence, summary, expected=evidence.expected.subject, found=_shown(condition), repair=repair)

    return cause(id, stages.ROLE, LEARN, reads=(kinds.ROLE,))(look)


sub_of_another_namespace = wrong_subject(
    "trust-policy-sub-of-another-namespace", "another namespace", " (another namespace)"
)
# A chart puts its release's name before or after the service account's name.
sub_renamed = wrong_subject(
    "trust-policy-sub-renamed",
    "renamed",
    " (the name differs by a prefix or suffix, such as a Helm release's name)",
)
sub_mismatch = wrong_subject("trust-policy-sub-mismatch", "another account", "")


@cause("trust-policy-aud-mismatch", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def aud_mismatch(evidence: Evidence) -> Symptom | None:
    expected = evidence.expected
    for condition in _failed(evidence, "aud"):
        return symptom(
            evidence,
            f"The trust policy requires audience {few(condition.values)}, but the token is for {expected.audience}.",
            expected=expected.audience,
            found=_shown(condition),
        )
    return None


def _failed(evidence: Evidence, claim: str) -> list[WrittenCondition]:
    if refusing(evidence) is None:
        return []
    return [c for c in evidence.aws.trust.conditions(claim) if c.compares_text and not evidence.aws.trust.holds(c)]


def _wrong_subject(evidence: Evidence) -> WrittenCondition | None:
    """Return the condition on `sub` that names another service account."""
    for condition in _failed(evidence, "sub"):
        # Another cause reports a pattern such as `shop:*` under `StringEquals`.
        if not (condition.is_literal and any(wildcard(value)(evidence.expected.subject) for value in condition.values)):
            return condition
    return None


def _mistake(evidence: Evidence, condition: WrittenCondition) -> str:
    """Return how the service accounts in a condition on `sub` differ from the service account in `evidence.parameters`.

    The result is "another namespace", "renamed" or "another account".
    """
    mine = evidence.parameters
    matches = [match for value in condition.values if (match := SERVICE_ACCOUNT.fullmatch(value))]
    accounts = [(wildcard(match[1])(mine.namespace), match[2]) for match in matches]
    here = [name for is_here, name in accounts if is_here]
    elsewhere = [name for is_here, name in accounts if not is_here]
    # `pay:*` is hardly the mistake if the condition also names accounts of this namespace.
    if any(wildcard(name)(mine.service_account) and not (here and name == "*") for name in elsewhere):
        return "another namespace"
    if any(_is_relative(mine.service_account, name) for name in here):
        return "renamed"
    return "another account"


def _is_relative(mine: str, other: str) -> bool:
    pairs = ((mine, other), (other, mine))
    return any(long.startswith(f"{short}-") or long.endswith(f"-{short}") for long, short in pairs)


def _shown(condition: WrittenCondition) -> str:
    return f"{', '.join(condition.values)} ({condition.operator})"
