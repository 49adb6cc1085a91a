"""The trust policy: does it admit this service account, and only this one?

Whether it does is evaluated, as STS would; the causes below are asked only where the answer is no, and only of the
statement that comes nearest, since what one statement refuses another may allow.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from labkit.findings import Finding
from labkit.policy import Decision, Policy, evaluate_trust

if TYPE_CHECKING:
    from labkit.evidence import Evidence

ACTION = "sts:AssumeRoleWithWebIdentity"
LEARN = "02-iam-role.ipynb"
SOURCE = "iam:GetRole, AssumeRolePolicyDocument"
# A service account that no trust policy for this one should admit.
STRANGER = "system:serviceaccount:somewhere-else:somebody-else"


def action_wrong(evidence: "Evidence") -> Finding | None:
    """The statement allows another action, such as `sts:AssumeRole`, the one for AWS's own services."""
    statement = _refusing_statement(evidence)
    if statement is None or _allows_action(statement):
        return None
    return _finding(
        evidence,
        "trust-policy-action-wrong",
        "The trust policy allows another action than the one that a web identity token is exchanged with.",
        expected=ACTION,
        found=", ".join(_as_list(statement.get("Action"))) or "no Action",
    )


def provider_mismatch(evidence: "Evidence") -> Finding | None:
    """The principal is not the OIDC provider of this cluster's issuer."""
    statement = _refusing_statement(evidence)
    if statement is None or evidence.provider_arn in _federated(statement):
        return None
    principal = statement.get("Principal", "no Principal")
    found = ", ".join(_federated(statement)) or str(principal)
    return _finding(
        evidence,
        "trust-policy-provider-mismatch",
        "The trust policy trusts somebody else than the OIDC provider of this cluster's issuer.",
        expected=evidence.provider_arn,
        found=found,
    )


def condition_key_of_another_issuer(evidence: "Evidence") -> Finding | None:
    """A condition's key begins with another issuer: no token of this cluster has it, so the condition never holds."""
    for operator, key, values in _refusing_conditions(evidence):
        issuer, _, claim = key.rpartition(":")
        foreign = claim.lower() in ("sub", "aud") and issuer.lower() != evidence.provider_name.lower()
        if foreign and not _holds(evidence, operator, key, values):
            return _finding(
                evidence,
                "trust-policy-condition-key-of-another-issuer",
                "A condition of the trust policy is about the tokens of another issuer.",
                expected=f"{evidence.provider_name}:{claim}",
                found=key,
            )
    return None


def sub_wildcard_under_string_equals(evidence: "Evidence") -> Finding | None:
    """`StringEquals` takes `*` and `?` literally."""
    for operator, key, values in _refusing_conditions(evidence, "sub"):
        wild = [value for value in values if "*" in value or "?" in value]
        if wild and "equals" in operator.lower() and not _holds(evidence, operator, key, values):
            return _finding(
                evidence,
                "trust-policy-sub-wildcard-under-string-equals",
                f"{operator} compares letter by letter: the * or ? in the subject is no wildcard there.",
                expected=f"StringEquals {evidence.subject}, or StringLike with the wildcard",
                found=f"{operator} {', '.join(wild)}",
            )
    return None


def sub_mismatch(evidence: "Evidence") -> Finding | None:
    """The condition on `sub` names another service account or namespace."""
    if sub_wildcard_under_string_equals(evidence):
        return None
    for operator, key, values in _refusing_conditions(evidence, "sub"):
        if not _holds(evidence, operator, key, values):
            return _finding(
                evidence,
                "trust-policy-sub-mismatch",
                "The trust policy admits another service account than the pod's.",
                expected=evidence.subject,
                found=f"{', '.join(values)} ({operator})",
            )
    return None


def aud_mismatch(evidence: "Evidence") -> Finding | None:
    """The condition on `aud` wants another audience than the token's."""
    for operator, key, values in _refusing_conditions(evidence, "aud"):
        if not _holds(evidence, operator, key, values):
            return _finding(
                evidence,
                "trust-policy-aud-mismatch",
                "The trust policy wants another audience than the token has.",
                expected=evidence.audience,
                found=f"{', '.join(values)} ({operator})",
            )
    return None


def refuses(evidence: "Evidence") -> Finding | None:
    """The trust policy refuses for a reason that has no name of its own, such as an explicit deny."""
    named = (
        action_wrong,
        provider_mismatch,
        condition_key_of_another_issuer,
        sub_wildcard_under_string_equals,
        sub_mismatch,
        aud_mismatch,
    )
    if evidence.role is None or any(cause(evidence) for cause in named):
        return None
    decision = decide(evidence, evidence.trust_policy)
    if decision.allowed:
        return None
    return _finding(
        evidence,
        "trust-policy-refuses",
        "The trust policy does not admit the service account.",
        expected=f"{evidence.subject} is admitted",
        found=decision.reason,
    )


def sub_missing(evidence: "Evidence") -> Finding | None:
    """It admits every service account: there is no condition on `sub`, or one that anything meets."""
    if evidence.role is None or not _admits(evidence) or not _admits(evidence, STRANGER):
        return None
    subjects = [
        f"{operator} {', '.join(values)}"
        for statement in _statements(evidence.trust_policy)
        for operator, _, values in _conditions(statement, "sub")
    ]
    return _finding(
        evidence,
        "trust-policy-sub-missing",
        "The trust policy admits every service account of the cluster.",
        expected=f"StringEquals {evidence.provider_name}:sub = {evidence.subject}",
        found="; ".join(subjects) or "no condition on sub",
        severity="warning",
    )


CAUSES = (
    action_wrong,
    provider_mismatch,
    condition_key_of_another_issuer,
    sub_wildcard_under_string_equals,
    sub_mismatch,
    aud_mismatch,
    refuses,
    sub_missing,
)


def decide(evidence: "Evidence", document: dict[str, Any], subject: str = "") -> Decision:
    """How STS would decide for the service account's token.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
    """
    context = {
        f"{evidence.provider_name}:sub": subject or evidence.subject,
        f"{evidence.provider_name}:aud": evidence.audience,
    }
    trust = Policy.read(document, kind="trust", name=evidence.parameters.role_name)
    return evaluate_trust(trust, provider_arn=evidence.provider_arn, action=ACTION, context=context)


def subject_found(evidence: "Evidence") -> str:
    """The condition on `sub` as the policy has it, for the report of a check."""
    return _condition_found(evidence, "sub")


def audience_found(evidence: "Evidence") -> str:
    """The condition on `aud` as the policy has it, for the report of a check."""
    return _condition_found(evidence, "aud")


def _condition_found(evidence: "Evidence", claim: str) -> str:
    found = [
        f"{operator} {key} = {', '.join(values)}"
        for statement in _statements(evidence.trust_policy)
        for operator, key, values in _conditions(statement, claim)
    ]
    return "; ".join(found) or "no condition"


def principal_found(evidence: "Evidence") -> str:
    """Whom the policy trusts, for the report of a check."""
    found = [arn for statement in _statements(evidence.trust_policy) for arn in _federated(statement)]
    return ", ".join(found) or "no federated principal"


def actions_found(evidence: "Evidence") -> str:
    """What the policy allows, for the report of a check."""
    found = [action for statement in _statements(evidence.trust_policy) for action in _as_list(statement.get("Action"))]
    return ", ".join(found) or "no Action"


def _admits(evidence: "Evidence", subject: str = "") -> bool:
    return decide(evidence, evidence.trust_policy, subject).allowed


def _holds(evidence: "Evidence", operator: str, key: str, values: list[str]) -> bool:
    """Whether this one condition holds for the service account's token."""
    alone = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Federated": evidence.provider_arn},
                "Action": ACTION,
                "Condition": {operator: {key: values}},
            }
        ],
    }
    return decide(evidence, alone).allowed


def _refusing_statement(evidence: "Evidence") -> dict[str, Any] | None:
    """The Allow statement that comes nearest to admitting the service account, where none does."""
    if evidence.role is None or _admits(evidence):
        return None
    allowing = [statement for statement in _statements(evidence.trust_policy) if statement.get("Effect") == "Allow"]
    if not allowing:
        return None

    def nearness(statement: dict[str, Any]) -> tuple[bool, bool, int]:
        held = [_holds(evidence, *condition) for condition in _conditions(statement)]
        return evidence.provider_arn in _federated(statement), _allows_action(statement), -held.count(False)

    return max(allowing, key=nearness)


def _refusing_conditions(evidence: "Evidence", claim: str = "") -> list[tuple[str, str, list[str]]]:
    """The conditions of the refusing statement; with `claim`, those on this claim of the cluster's own issuer."""
    statement = _refusing_statement(evidence)
    if statement is None:
        return []
    if not claim:
        return list(_conditions(statement))
    own = f"{evidence.provider_name}:{claim}".lower()
    return [condition for condition in _conditions(statement, claim) if condition[1].lower() == own]


def _conditions(statement: dict[str, Any], claim: str = "") -> Iterator[tuple[str, str, list[str]]]:
    for operator, block in (statement.get("Condition") or {}).items():
        for key, values in block.items():
            if not claim or key.lower().endswith(f":{claim}"):
                yield operator, key, [str(value) for value in _as_list(values)]


def _statements(document: dict[str, Any]) -> list[dict[str, Any]]:
    return _as_list(document.get("Statement"))


def _federated(statement: dict[str, Any]) -> list[str]:
    principal = statement.get("Principal")
    return _as_list(principal.get("Federated")) if isinstance(principal, dict) else []


def _allows_action(statement: dict[str, Any]) -> bool:
    actions = [action.lower() for action in _as_list(statement.get("Action"))]
    return any(action in (ACTION.lower(), "sts:*", "*", "sts:assumerole*") for action in actions)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _finding(evidence: "Evidence", id: str, summary: str, *, expected: str, found: str, severity="error") -> Finding:
    return Finding(
        id=id,
        summary=summary,
        expected=expected,
        found=found,
        source=SOURCE,
        repair=evidence.commands.update_trust_policy(),
        learn=LEARN,
        severity=severity,
    )
