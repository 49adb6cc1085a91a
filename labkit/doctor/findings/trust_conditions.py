"""The trust policy's conditions on `sub` and `aud`: which of them refuses the service account's token, and why?

Only the nearest statement is examined: the Allow statement that comes closest to admitting the token.
"""

import re

from labkit.doctor import stages
from labkit.doctor.evidence import Evidence, kinds
from labkit.doctor.evidence.trust import account_of
from labkit.doctor.finding import Cause, Symptom, any_found, cause
from labkit.doctor.findings import provider
from labkit.doctor.findings.trust_statement import LEARN, about_tokens, has_other_host, refusing, symptom
from labkit.doctor.repairs import advice
from labkit.doctor.repairs.commands import Commands
from labkit.doctor.repairs.repair import Repair
from labkit.policy.wildcards import wildcard
from labkit.policy.written import WrittenCondition
from labkit.showing import few

SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):(.+)")


@cause("trust-policy-condition-key-of-another-issuer", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def condition_key_of_another_issuer(evidence: Evidence) -> Symptom | None:
    """A condition's key, such as `ISSUER:sub`, names another issuer.

    A request with this cluster's token doesn't have that key, so the condition never holds.
    """
    statement = refusing(evidence)
    if statement is None or any_found(evidence, provider.cluster_rebuilt):
        return None
    for condition in about_tokens(statement):
        if condition.issuer.lower() == evidence.expected.provider_name.lower() or condition.is_negated:
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
        admitted, mine = few([*map(account_of, condition.values)]), account_of(evidence.expected.subject)
        summary = f"The trust policy admits {admitted}, not {mine}{why}."
        repair = Repair.of(advice.roles_by_a_pattern(evidence), Commands(evidence).admit())
        return symptom(evidence, summary, expected=evidence.expected.subject, found=_shown(condition), repair=repair)

    return cause(id, stages.ROLE, LEARN, reads=(kinds.ROLE,))(look)


sub_of_another_namespace = wrong_subject(
    "trust-policy-sub-of-another-namespace",
    "another namespace",
    " (another namespace)",
)
# A chart puts its release's name before or after the service account's name.
sub_renamed = wrong_subject(
    "trust-policy-sub-renamed",
    "renamed",
    " (the name differs by a prefix or suffix, such as a Helm release's name)",
)
sub_mismatch = wrong_subject(
    "trust-policy-sub-mismatch",
    "another account",
    "",
)


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
    """Return the conditions on `claim` that the service account's token doesn't meet."""
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
