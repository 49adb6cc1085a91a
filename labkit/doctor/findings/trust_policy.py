"""The trust policy: does it admit this service account, and only this one?

The doctor evaluates the policy as STS would. If the policy refuses the token, the functions in `trust_statement`
look for the reason.
"""

from labkit.doctor import stages
from labkit.doctor.evidence import Evidence, NotRead, kinds
from labkit.doctor.evidence.trust import EVERYBODY, NOBODY, STRANGER, account_of
from labkit.doctor.finding import Symptom, any_finding, cause, causes_of
from labkit.doctor.findings import provider, role, trust_statement
from labkit.doctor.findings.trust_statement import LEARN, symptom
from labkit.doctor.repairs import advice, policies
from labkit.doctor.repairs.commands import Commands
from labkit.policy.written import StatementDocument, actions_of, conditions_of, federated_of
from labkit.showing import few

NAMED = causes_of(trust_statement)


@cause("trust-policy-refuses", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def refuses(evidence: Evidence) -> Symptom | None:
    """A statement explicitly denies the token, or the policy refuses it and no other finding explains why.

    The doctor can't evaluate conditions on the request, such as on `aws:SourceIp`. Where only such conditions decide,
    STS's answer counts: return None if the evidence shows that STS accepts the token.
    """
    if evidence.aws.role is None or evidence.aws.trust.admits or any_finding(evidence, *role.REFUSED):
        return None
    denied = any(evidence.aws.trust.denies(statement) for statement in evidence.aws.trust.statements)
    if not denied and any_finding(evidence, *NAMED, provider.cluster_rebuilt, provider.in_another_account):
        return None
    if evidence.aws.trust.undecided:
        outcome = _exchange(evidence)
        return None if outcome == "taken" else _undecided(evidence, outcome)
    reason = evidence.aws.trust.decision.reason
    return symptom(
        evidence,
        f"The trust policy doesn't admit {evidence.expected.account}: {reason}.",
        expected=f"{evidence.expected.subject} is admitted",
        found=reason,
    )


# Callers that the policy admits, but shouldn't.


@cause("trust-policy-sub-missing", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def sub_missing(evidence: Evidence) -> Symptom | None:
    """The trust policy has no condition on `sub`, or a condition that every service account meets."""
    if not _admits_strangers(evidence):
        return None
    subjects = [
        f"{condition.operator} {', '.join(condition.values)}"
        for statement in evidence.aws.trust.statements
        for condition in conditions_of(statement)
        if condition.claim == "sub"
    ]
    # The shortest names the fewest exceptions.
    everybody = min(
        (name for name in evidence.aws.trust.others if name.startswith(EVERYBODY)), key=len, default=EVERYBODY
    )
    return symptom(
        evidence,
        f"The trust policy of {evidence.expected.role_name} admits {everybody}.",
        expected=f"StringEquals {evidence.expected.provider_name}:sub = {evidence.expected.subject}",
        found="; ".join(subjects) or "no condition on sub",
        severity="warning",
        repair=advice.others_stay(evidence),
    )


@cause("trust-policy-admits-others", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def admits_others(evidence: Evidence) -> Symptom | None:
    if evidence.aws.role is None or not evidence.aws.trust.admits or _admits_strangers(evidence) or _is_exact(evidence):
        return None
    others = [subject for subject in _subjects(evidence) if evidence.aws.trust.admits_other(subject=subject)]
    if not others:
        return None
    return symptom(
        evidence,
        f"The trust policy of {evidence.expected.role_name} also admits {few([*map(account_of, others)])}.",
        expected=f"only {evidence.expected.subject}",
        found=", ".join(others),
        severity="note" if _are_listed(evidence, others) else "warning",
        repair=advice.others_stay(evidence),
    )


@cause("trust-policy-aud-missing", stages.ROLE, LEARN, reads=(kinds.ROLE,))
def aud_missing(evidence: Evidence) -> Symptom | None:
    if evidence.aws.role is None:
        return None
    expected, trust, refusing = evidence.expected, evidence.aws.trust, trust_statement.refusing(evidence)
    if not (_lacks_aud(evidence, refusing) if refusing else trust.admits and trust.admits_other(audience=NOBODY)):
        return None
    wanted = policies.with_audience(evidence, trust.statements)
    if refusing and not policies.is_for_one_audience(evidence, refusing):
        wanted = None
    comment = f"This makes the trust policy of {expected.role_name} require tokens for {expected.audience}."
    return symptom(
        evidence,
        f"The trust policy of {expected.role_name} {'would admit' if refusing else 'admits'} tokens for any audience: "
        "it has no condition on aud.",
        expected=f"StringEquals {expected.provider_name}:aud = {expected.audience}",
        found="no condition on aud",
        severity="warning",
        repair=advice.audiences_stay(evidence)
        if wanted is None
        else Commands(evidence).update_trust_policy(
            wanted, comment, "The OIDC provider accepts no other audience, so nobody loses access."
        )
        if refusing is None
        else Commands(evidence).admit(),
    )


# The report of a check.


def trusted_principals(evidence: Evidence) -> str:
    """Return the providers that the trust policy names, as text for a check's report."""
    arns = [arn for statement in evidence.aws.trust.statements for arn in federated_of(statement)]
    return ", ".join(arns) or "no federated principal"


def actions_in_policy(evidence: Evidence) -> str:
    """Return the actions that the trust policy names, as text for a check's report."""
    actions = [action for statement in evidence.aws.trust.statements for action in actions_of(statement)]
    return ", ".join(actions) or "no Action"


def conditions_on(evidence: Evidence, claim: str) -> str:
    """Return the trust policy's conditions on a claim (`sub` or `aud`), as text for a check's report."""
    conditions = [
        f"{condition.operator} {condition.key} = {', '.join(condition.values)}"
        for statement in evidence.aws.trust.statements
        for condition in conditions_of(statement)
        if condition.claim == claim
    ]
    return "; ".join(conditions) or "no condition"


def _lacks_aud(evidence: Evidence, statement: StatementDocument) -> bool:
    """Whether a statement is for the cluster's OIDC provider, without a condition on `aud`."""
    is_for_provider = evidence.expected.provider_arn in federated_of(statement)
    return is_for_provider and all(condition.claim != "aud" for condition in conditions_of(statement))


def _undecided(evidence: Evidence, outcome: str) -> Symptom:
    """Return the symptom that STS's answer depends on the request, for example on the sender's IP address."""
    named = few([f"{each.key} ({each.operator} {', '.join(each.values)})" for each in evidence.aws.trust.undecided])
    answer = "and STS refuses the request" if outcome == "refused" else "and the doctor can't see the pod's request"
    return symptom(
        evidence,
        f"The trust policy's decision about {evidence.expected.account} depends on {named}, {answer}.",
        expected=f"a request by {evidence.expected.subject} that meets these conditions",
        found=named,
        severity="error" if outcome == "refused" else "warning",
        repair=advice.request_decides(evidence, is_known=outcome == "refused"),
    )


def _exchange(evidence: Evidence) -> str:
    """Return STS's decision about the pod's token, `taken` or `refused`; empty if unknown."""
    try:
        if evidence.expected.role_is_assumed:
            return "taken"
        caller, exchange = evidence.pod.caller_if_known, evidence.pod.probe.exchange
    except NotRead:
        return ""
    if exchange and exchange.arn and not (caller and caller.error):
        return "taken"
    said = [caller.error if caller else "", exchange.code if exchange else ""]
    return "refused" if any("AccessDenied" in each for each in said) else ""


def _admits_strangers(evidence: Evidence) -> bool:
    return (
        evidence.aws.role is not None
        and evidence.aws.trust.admits
        and evidence.aws.trust.admits_other(subject=STRANGER)
    )


def _are_listed(evidence: Evidence, subjects: list[str]) -> bool:
    """Whether the trust policy's Allow statements contain the full name of each of these subjects.

    Whoever wrote the full names probably wanted to admit these subjects.
    """
    conditions = [each for statement in evidence.aws.trust.allows for each in conditions_of(statement)]
    named = {value for each in conditions if each.claim == "sub" and each.compares_text for value in each.values}
    return named.issuperset(subjects)


def _is_exact(evidence: Evidence) -> bool:
    """Whether every statement that trusts the cluster's provider names only this service account."""
    return all(
        any(
            c.claim == "sub" and c.is_literal and c.values == (evidence.expected.subject,)
            for c in conditions_of(statement)
        )
        for statement in evidence.aws.trust.allows
        if evidence.expected.provider_arn in federated_of(statement) or statement.get("Principal") == "*"
    )


def _subjects(evidence: Evidence) -> list[str]:
    subjects = [
        f"system:serviceaccount:{account['metadata']['namespace']}:{account['metadata']['name']}"
        for account in evidence.cluster.api.all_service_accounts
    ]
    return [subject for subject in subjects if subject != evidence.expected.subject]
