"""The conditions of the statement that comes nearest, where the policy refuses: whose `sub` and `aud` they want."""

import re

from labkit.diagnosis import stages
from labkit.diagnosis.evidence import Evidence, kinds
from labkit.diagnosis.evidence.trust import Condition
from labkit.diagnosis.finding import Symptom, cause, is_told
from labkit.diagnosis.findings import provider
from labkit.diagnosis.findings.trust_statement import LEARN, about_tokens, has_other_host, refusing, symptom
from labkit.policy.wildcards import wildcard

SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):(.+)")


@cause("trust-policy-condition-key-of-another-issuer", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def condition_key_of_another_issuer(evidence: Evidence) -> Symptom | None:
    """A condition's key begins with another issuer: no token of this cluster has it, so the condition never holds."""
    statement = refusing(evidence)
    if statement is None or is_told(evidence, provider.cluster_rebuilt):
        return None
    for condition in about_tokens(statement):
        if condition.issuer.lower() == evidence.provider_name.lower() or condition.is_negated:
            continue
        if not has_other_host(evidence, condition.issuer):
            return symptom(
                evidence,
                "A condition of the trust policy is about the tokens of another issuer.",
                expected=f"{evidence.provider_name}:{condition.claim}",
                found=condition.key,
            )
    return None


@cause("trust-policy-sub-wildcard-under-string-equals", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def sub_wildcard_under_string_equals(evidence: Evidence) -> Symptom | None:
    """`StringEquals` takes `*` and `?` literally.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
    """
    for condition in _failed(evidence, "sub"):
        wild = [value for value in condition.values if "*" in value or "?" in value]
        if wild and condition.is_literal:
            return symptom(
                evidence,
                f"{condition.operator} compares letter by letter: the * or ? in the subject is no wildcard there.",
                expected=f"StringEquals {evidence.subject}, or StringLike with the wildcard",
                found=f"{condition.operator} {', '.join(wild)}",
            )
    return None


@cause("trust-policy-sub-of-another-namespace", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def sub_of_another_namespace(evidence: Evidence) -> Symptom | None:
    """The condition on `sub` names a service account of this name, in another namespace."""
    condition = _wrong_subject(evidence)
    if condition is None or not _names_another_namespace(evidence, condition):
        return None
    return symptom(
        evidence,
        "The trust policy admits the service account of this name in another namespace.",
        expected=evidence.subject,
        found=_shown(condition),
    )


@cause("trust-policy-sub-renamed", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def sub_renamed(evidence: Evidence) -> Symptom | None:
    """The condition on `sub` names it without, or with, what a chart's release puts before or behind the name."""
    condition = _wrong_subject(evidence)
    if condition is None or _names_another_namespace(evidence, condition) or not _names_a_relative(evidence, condition):
        return None
    return symptom(
        evidence,
        "The trust policy has the service account's name without or with a prefix or suffix, as a release gives it.",
        expected=evidence.subject,
        found=_shown(condition),
    )


@cause("trust-policy-sub-mismatch", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def sub_mismatch(evidence: Evidence) -> Symptom | None:
    """The condition on `sub` names another service account."""
    condition = _wrong_subject(evidence)
    if condition is None or _names_another_namespace(evidence, condition) or _names_a_relative(evidence, condition):
        return None
    return symptom(
        evidence,
        "The trust policy admits another service account than the pod's.",
        expected=evidence.subject,
        found=_shown(condition),
    )


@cause("trust-policy-aud-mismatch", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def aud_mismatch(evidence: Evidence) -> Symptom | None:
    """The condition on `aud` wants another audience than the token's."""
    for condition in _failed(evidence, "aud"):
        return symptom(
            evidence,
            "The trust policy wants another audience than the token has.",
            expected=evidence.audience,
            found=_shown(condition),
        )
    return None


def _failed(evidence: Evidence, claim: str) -> list[Condition]:
    """The conditions on a claim whose values the token does not have, whichever issuer they are about."""
    if refusing(evidence) is None:
        return []
    return [c for c in evidence.trust.conditions(claim) if c.compares_text and not evidence.trust.holds(c)]


def _wrong_subject(evidence: Evidence) -> Condition | None:
    """The condition that names another service account, also were its wildcards wildcards."""
    for condition in _failed(evidence, "sub"):
        if not (condition.is_literal and any(wildcard(value)(evidence.subject) for value in condition.values)):
            return condition
    return None


def _names_another_namespace(evidence: Evidence, condition: Condition) -> bool:
    for namespace, name in _accounts_of(condition):
        other = not wildcard(namespace)(evidence.parameters.namespace)
        if other and wildcard(name)(evidence.parameters.service_account):
            return True
    return False


def _names_a_relative(evidence: Evidence, condition: Condition) -> bool:
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


def _shown(condition: Condition) -> str:
    return f"{', '.join(condition.values)} ({condition.operator})"
