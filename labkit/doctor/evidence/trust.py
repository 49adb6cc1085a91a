"""The role's trust policy, as STS evaluates it for this service account's tokens."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

from labkit.policy import Decision, Policy, evaluate_trust, resource_tags
from labkit.policy.trust import WEB_IDENTITY, of_provider_and_time
from labkit.policy.wildcards import wildcard
from labkit.policy.written import (
    StatementDocument,
    WrittenCondition,
    allows_action,
    conditions_of,
    federated_of,
    name_of,
    principals_of,
    statements_of,
)

# A service account and an audience that no trust policy for this service account should admit.
STRANGER = "system:serviceaccount:somewhere-else:somebody-else"
NOBODY = "somebody-else"
EVERYBODY = "every service account of the cluster"
CLAIMS = ("sub", "aud")
PROVIDER_ARN = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:oidc-provider/\S+", re.ASCII)


@dataclass(eq=False)
class Trust:
    """A role's trust policy, evaluated for one service account's token. Without a role, the policy is empty."""

    document: dict[str, Any]
    """The trust policy. If it isn't a dict, it admits no one."""
    role_name: str
    provider_arn: str
    """The OIDC provider of the cluster's issuer."""
    subject: str
    """The token's `sub`."""
    audience: str
    """The token's `aud`."""
    tags: Mapping[str, str]
    """The role's tags."""
    now: float
    """The time of AWS, in epoch seconds."""
    audiences: Collection[str] = ()
    """The audiences that the provider accepts; empty if unknown."""

    def __post_init__(self) -> None:
        if not isinstance(cast("object", self.document), dict):
            self.document = {}
        self._policy = self._read(self.document)

    @property
    def statements(self) -> list[StatementDocument]:
        """The policy's statements."""
        return statements_of(self.document)

    @property
    def allows(self) -> list[StatementDocument]:
        """The Allow statements."""
        return [statement for statement in self.statements if statement.get("Effect") == "Allow"]

    @property
    def size(self) -> int:
        """The policy's length in characters without white space, as IAM counts it."""
        return self._policy.size

    @cached_property
    def decision(self) -> Decision:
        """STS's decision on the service account's token.

        https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
        """
        return self._decide(self._policy)

    @property
    def admits(self) -> bool:
        """Whether the policy admits the service account's token."""
        return self.decision.allowed

    @cached_property
    def undecided(self) -> list[WrittenCondition]:
        """The conditions on the request (such as on `aws:SourceIp`) that decide whether the policy admits the token.

        Empty if `admits` is true, or if the policy refuses the token for a reason other than these conditions.
        """
        if self.admits:
            return []
        likely = {number: self._if_let_in(each) for number, each in enumerate(self.statements)}
        if not replace(
            self, document={**self.document, "Statement": [each for each in likely.values() if each]}
        ).admits:
            return []
        return [
            condition
            for number, statement in enumerate(self.statements)
            if likely[number] != statement and (self.denies(statement) or self.statement_admits(likely[number] or {}))
            for condition in conditions_of(statement)
            if condition.is_of_request and (statement.get("Effect") == "Deny" or not self.holds(condition))
        ]

    def admits_other(self, *, subject: str = "", audience: str = "") -> bool:
        """Whether the policy admits the service account's token if the token had this `subject` or `audience`."""
        return self._decide(self._policy, subject, audience).allowed

    def statement_admits(self, statement: StatementDocument, *, audience: str = "") -> bool:
        """Whether a policy with only this statement admits the service account's token, if it had this `audience`."""
        return self._decide(self._alone(statement), audience=audience).allowed

    def denies(self, statement: StatementDocument) -> bool:
        """Whether a statement explicitly denies the service account's token."""
        return self._decide(self._alone(statement)).outcome == "explicitDeny"

    @cached_property
    def nearest(self) -> StatementDocument | None:
        """The Allow statement that is closest to admitting the token; None if the policy admits the token.

        Findings are about this statement only, because one statement that admits the token is enough.
        """
        if not self.allows or self.admits:
            return None
        return max(self.allows, key=self._nearness)

    @cached_property
    def others(self) -> list[str]:
        """The callers, besides this service account, that may assume the role, as the Allow statements name them.

        A caller is a service, an account, a provider, a token's subject, or a pattern for subjects.
        """
        names = [name for statement in self.allows for name in self._others_in(statement)]
        return list(dict.fromkeys(names))

    def is_own(self, statement: StatementDocument) -> bool:
        """Whether an Allow statement is for this service account alone. With a pattern for `sub`, it isn't."""
        subjects = [condition for condition in conditions_of(statement) if condition.claim == "sub"]
        if not subjects or any(each.values != (self.subject,) or not each.is_literal for each in subjects):
            return False
        if principals_of(statement, "AWS") or principals_of(statement, "Service") or statement.get("Principal") == "*":
            return False
        return all(arn == self.provider_arn or _never_holds(statement, arn) for arn in federated_of(statement))

    def is_meant(self, statement: StatementDocument) -> bool:
        """Whether an Allow statement would admit the service account, if its other conditions held.

        This is the case if it's for this service account alone, or if the token meets each condition that lists
        subjects to admit. The statement must have a condition on `sub`.
        """
        subjects = [condition for condition in conditions_of(statement) if condition.claim == "sub"]
        return self.is_own(statement) or (
            bool(subjects) and all(self.holds(each) for each in subjects if each.compares_text)
        )

    def conditions(self, claim: str) -> list[WrittenCondition]:
        """Return the conditions on `claim` in the statement `self.nearest`. A condition's key may name any issuer."""
        return [condition for condition in conditions_of(self.nearest or {}) if condition.claim == claim]

    def holds(self, condition: WrittenCondition) -> bool:
        """Whether the token meets the condition. For `sub` and `aud`, the issuer in the key doesn't matter."""
        key = f"{name_of(self.provider_arn)}:{condition.claim}" if condition.claim in CLAIMS else condition.key
        statement: StatementDocument = {
            "Effect": "Allow",
            "Principal": {"Federated": self.provider_arn},
            "Action": WEB_IDENTITY,
            "Condition": {condition.operator: {key: list(condition.values)}},
        }
        return self._decide(self._alone(statement)).allowed

    def names_subject(self, statement: StatementDocument) -> bool:
        """Whether a condition on `sub` names the service account, with any operator and for any issuer."""
        return any(
            condition.claim == "sub" and any(wildcard(value)(self.subject) for value in condition.values)
            for condition in conditions_of(statement)
        )

    def _if_let_in(self, statement: StatementDocument) -> StatementDocument | None:
        """Return the statement without its conditions on the request, such as a condition on `aws:SourceIp`.

        Return None for a Deny statement that has such conditions. Return a faulty statement unchanged.
        """
        if self._alone(statement).statements[0].fault or not any(c.is_of_request for c in conditions_of(statement)):
            return statement
        if statement.get("Effect") == "Deny":
            return None
        kept = {
            operator: {
                key: value for key, value in block.items() if not WrittenCondition(operator, key, ()).is_of_request
            }
            for operator, block in statement["Condition"].items()
        }
        return {**statement, "Condition": {operator: block for operator, block in kept.items() if block}}

    def _others_in(self, statement: StatementDocument) -> list[str]:
        """Return the callers that a statement admits, except this service account."""
        principal = statement.get("Principal")
        names = [name for kind in ("AWS", "Service") for name in principals_of(statement, kind)]
        for arn in federated_of(statement):
            if _never_holds(statement, arn) or (arn == self.provider_arn and self._wants_no_audience(statement)):
                continue
            if arn != self.provider_arn:
                names.append(name_of(arn) or arn)
            else:
                names += self._other_subjects(statement)
        return [*names, *(self._other_subjects(statement) if principal == "*" else [])]

    def _wants_no_audience(self, statement: StatementDocument) -> bool:
        """Whether a statement refuses each audience that the provider accepts, so that it admits no token.

        If the provider doesn't accept this service account's audience, it's itself faulty, and its list says nothing.
        """
        wanted = [each for each in conditions_of(statement) if each.claim == "aud"]
        trusts = [replace(self, audience=each) for each in self.audiences]
        return self.audience in self.audiences and not any(all(map(each.holds, wanted)) for each in trusts)

    def _other_subjects(self, statement: StatementDocument) -> list[str]:
        """Return the subjects and patterns that a statement admits, each with those that the statement excludes."""
        conditions = [each for each in conditions_of(statement) if each.claim == "sub"]
        subjects = [each for each in conditions if each.compares_text]
        excluded = [account_of(value) for each in conditions if each.is_negated for value in each.values]
        but = f" except {' and '.join(excluded)}" if excluded else ""
        if not subjects:
            return [EVERYBODY + but]
        # Compared literally, a value with a wildcard matches no one.
        values = [
            value for each in subjects for value in each.values if not (each.is_literal and {*value} & {"*", "?"})
        ]
        names = [EVERYBODY if wildcard(value)(STRANGER) else value for value in values if value != self.subject]
        return [name if "*" not in name and name != EVERYBODY else name + but for name in names]

    def _nearness(self, statement: StatementDocument) -> tuple[bool, int, bool, int]:
        failed = [condition for condition in conditions_of(statement) if not self.holds(condition)]
        return self.names_subject(statement), self._trusted(statement), allows_action(statement), -len(failed)

    def _trusted(self, statement: StatementDocument) -> int:
        """Rank the statement by the similarity between its principal and the cluster's OIDC provider."""
        federated = federated_of(statement)
        if self.provider_arn in federated:
            return 3
        last = name_of(self.provider_arn).rpartition("/")[2]
        if any(name_of(arn).rpartition("/")[2] == last for arn in federated):
            return 2
        return 1 if federated else 0

    def _alone(self, statement: StatementDocument) -> Policy:
        return self._read({**self.document, "Statement": [statement]})

    def _read(self, document: dict[str, Any]) -> Policy:
        return Policy.read(document, kind="trust", name=self.role_name)

    def _decide(self, policy: Policy, subject: str = "", audience: str = "") -> Decision:
        issuer = name_of(self.provider_arn)
        claims = {f"{issuer}:sub": subject or self.subject, f"{issuer}:aud": audience or self.audience}
        known = of_provider_and_time(self.provider_arn, self.now)
        context = {**resource_tags(self.tags, "iam"), **known, **claims}
        return evaluate_trust(policy, provider_arn=self.provider_arn, action=WEB_IDENTITY, context=context)


def account_of(subject: str) -> str:
    """Return `subject` without the prefix `system:serviceaccount:`, for example `shop:cart`.

    A subject without this prefix is returned unchanged.
    """
    return subject.removeprefix("system:serviceaccount:")


def _never_holds(statement: StatementDocument, provider_arn: str) -> bool:
    """Whether this provider's tokens never meet the conditions, because a condition names another issuer.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_iam-condition-keys.html#condition-keys-wif
    """
    if ":saml-provider/" in provider_arn:
        return False
    issuer = (name_of(provider_arn) or provider_arn).lower()
    return any(
        condition.claim in CLAIMS and condition.compares_text and condition.issuer.lower() != issuer
        for condition in conditions_of(statement)
        if not condition.operator.lower().endswith("ifexists") and "forallvalues" not in condition.operator.lower()
    )
