"""Corrected policies: a trust policy that also admits this service account, and a Deny that excepts one action.

Nobody else gains or loses access, and nothing new is denied.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_notaction.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_notresource.html
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Literal

from labkit import documents
from labkit.doctor.evidence import Evidence
from labkit.doctor.evidence.reading import Document
from labkit.doctor.evidence.trust import CLAIMS, NOBODY
from labkit.policy import written
from labkit.policy.wildcards import arn_matcher, tokens, wildcard

Element = Literal["Action", "Resource"]
Whole = Mapping[Element, Mapping[str, str]]
"""The patterns that stand for all names of an element, or for all except one: the pattern's value, if not empty."""
EVERYTHING = "*"
OF_IDENTITY: Whole = {"Action": {EVERYTHING: ""}, "Resource": {EVERYTHING: ""}}


# The trust policy.


def alone(evidence: Evidence) -> written.PolicyDocument:
    """Return a policy that admits only this service account."""
    document = documents.trust_policy(evidence.parameters, evidence.expected.provider_arn)
    document["Statement"][0]["Condition"]["StringEquals"][f"{evidence.expected.provider_name}:aud"] = (
        evidence.expected.audience
    )
    return document


def corrected(evidence: Evidence) -> Document:
    """Return the present policy, changed so that it also admits this service account.

    Where possible, existing statements are corrected. Otherwise, a new statement is appended.
    """
    trust, own = evidence.aws.trust, f"{evidence.expected.provider_name}:sub"
    statements = [
        without(statement, "StringNotEquals", own, evidence.expected.subject) if trust.denies(statement) else statement
        for statement in trust.statements
    ]
    if any(trust.statement_admits(statement) for statement in statements):
        return with_audience(evidence, statements) or _with(evidence, statements)
    at = next((number for number, each in enumerate(statements) if each is trust.nearest), None)
    better = _better(evidence, statements[at]) if at is not None else None
    if at is not None and better is not None:
        statements[at] = better
    else:
        statements.append(_right(evidence))
    return with_audience(evidence, statements) or _with(evidence, statements)


def with_audience(evidence: Evidence, present: list[written.StatementDocument]) -> Document | None:
    """Return the policy of the `present` statements, with a condition on `aud` added to some of them.

    These are the statements that admit the service account without a check of its token's audience.
    Return None if a new condition could lock out a caller that has access now.

    https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetOpenIDConnectProvider.html
    """
    statements = copy.deepcopy(present)
    for statement in statements:
        if evidence.aws.trust.statement_admits(statement, audience=NOBODY):
            if not is_for_one_audience(evidence, statement):
                return None
            condition = statement.setdefault("Condition", {})
            condition.setdefault("StringEquals", {})[f"{evidence.expected.provider_name}:aud"] = (
                evidence.expected.audience
            )
    return _with(evidence, statements)


def is_for_one_audience(evidence: Evidence, statement: written.StatementDocument) -> bool:
    """Whether a statement is for the cluster's OIDC provider alone, and this provider accepts only one audience."""
    audiences = evidence.aws.provider["ClientIDList"] if evidence.aws.provider else []
    is_for_provider = statement.get("Principal") == {"Federated": evidence.expected.provider_arn}
    return is_for_provider and audiences == [evidence.expected.audience]


def restrictions(evidence: Evidence) -> Iterator[tuple[int, written.WrittenCondition]]:
    """Yield each condition that keeps the service account out, except conditions that list a `sub` or `aud` to admit.

    A condition that excludes the service account, such as `StringNotEquals` on `sub`, is a restriction. The number in
    each pair is the position of the condition's statement in the trust policy, counted from 1. Only the trust policy's
    author may remove these conditions.
    """
    trust = evidence.aws.trust
    for position, statement in enumerate(trust.statements, 1):
        if trust.denies(statement):
            restricting = [each for each in written.conditions_of(statement) if each.claim not in CLAIMS]
        elif statement is trust.nearest and trust.is_meant(statement):
            failed = [each for each in written.conditions_of(statement) if not trust.holds(each)]
            restricting = [each for each in failed if each.claim not in CLAIMS or not each.compares_text]
        else:
            restricting = []
        yield from ((position, condition) for condition in restricting)


def without(statement: written.StatementDocument, operator: str, key: str, value: str) -> written.StatementDocument:
    """Return a copy of a Deny statement. The copy doesn't apply to requests that have ``value`` for the condition key.

    ``operator`` is a negated operator, such as `StringNotEquals`. With such an operator, a condition doesn't hold for
    the values that it lists. So the copy's condition also lists ``value``.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-logic-multiple-context-keys-or-values.html
    """
    made = copy.deepcopy(statement)
    block = made.setdefault("Condition", {}).setdefault(operator, {})
    values = [*written.listed(block.get(key)), value]
    block[key] = values if len(values) > 1 else value
    return made


def _better(evidence: Evidence, nearest: written.StatementDocument) -> written.StatementDocument | None:
    """Return a statement to replace `nearest`; None if `nearest` can't be corrected.

    Compared with `nearest`, the returned statement admits only one more caller: this service account.
    """
    if evidence.aws.trust.is_own(nearest):
        return _like(nearest, _right(evidence))
    if evidence.expected.provider_arn not in written.federated_of(nearest):
        return None
    named = copy.deepcopy(nearest)
    for each in list(written.conditions_of(nearest)):
        if each.claim == "sub" and each.compares_text and not evidence.aws.trust.holds(each):
            named["Condition"][each.operator][each.key] = [*each.values, evidence.expected.subject]
    return named if evidence.aws.trust.statement_admits(named) else None


def _right(evidence: Evidence) -> written.StatementDocument:
    (right,) = written.statements_of(alone(evidence))
    return right


def _like(present: written.StatementDocument, right: written.StatementDocument) -> written.StatementDocument:
    """Return a copy of `right` that can replace `present` in the policy.

    The copy has the Sid of `present`, if any. It also has the Action of `present`, if that allows the exchange and
    contains no `*`.
    """
    made: written.StatementDocument = {"Sid": present["Sid"], **right} if "Sid" in present else {**right}
    if (
        "Action" in present
        and written.allows_action(present)
        and not any("*" in action for action in written.actions_of(present))
    ):
        made["Action"] = present["Action"]
    return made


def _with(evidence: Evidence, statements: list[written.StatementDocument]) -> Document:
    present = evidence.aws.trust.document
    rest = {key: value for key, value in present.items() if key not in ("Version", "Statement")}
    return {"Version": present.get("Version", "2012-10-17"), **rest, "Statement": statements}


# A Deny statement.


def of_bucket(arn: str) -> Whole:
    """Return the patterns that stand for everything in the policy of the bucket `arn`: it's only about that bucket."""
    return {
        "Action": {EVERYTHING: "", "s3:*": ""},
        "Resource": {EVERYTHING: "", f"{arn}*": "", f"{arn}/*": arn},
    }


def excepting(
    statement: Mapping[str, object], action: str, resource: str, *, whole: Whole = OF_IDENTITY
) -> list[dict[str, object]] | None:
    """Return the statements that replace a Deny statement which denies `action` on `resource`.

    One statement denies all other actions, and one denies the action on all other resources. The list is empty if the
    Deny denies nothing else. Return None if statements can't express that: in a role's policy, no pattern names all
    actions of `s3:*` except one, and `NotAction` would also deny the actions of all other services.
    """
    others = _no_longer_covering(statement, "Action", action, whole["Action"])
    elsewhere = _no_longer_covering(statement, "Resource", resource, whole["Resource"])
    if others is None or elsewhere is None:
        return None
    made = [others] if others else []
    if elsewhere:
        # A Sid may occur only once in a policy.
        gone = ("Action", "NotAction", *(["Sid"] if made else []))
        made.append({**{key: value for key, value in elsewhere.items() if key not in gone}, "Action": action})
    return made


def _no_longer_covering(
    statement: Mapping[str, object], element: Element, name: str, whole: Mapping[str, str]
) -> dict[str, object] | None:
    """Return a copy of the statement whose `element` no longer covers `name`; None if that can't be expressed.

    The copy is empty if it would cover nothing.
    """
    negated = f"Not{element}"
    rest = {key: value for key, value in statement.items() if key not in (element, negated)}
    if set(name) & set("?$"):
        return None  # `name` would be read as a pattern
    if negated in statement:
        return {**rest, negated: [*written.listed(statement[negated]), name]}
    present = [str(each) for each in written.listed(statement.get(element))]
    covering = [each for each in present if _covers(each, element, name)]
    if not covering:
        return None
    most = [each for each in map(str.lower if element == "Action" else str, present) if each in whole]
    if name != EVERYTHING and most:
        # S3 rejects a statement with an action that applies to none of its resources, so don't list what is left.
        left_out = [each for each in {whole[pattern] for pattern in most} if not _covered(present, element, each)]
        return {**rest, negated: [name, *left_out] if left_out else name}
    if not all(_is_same(each, element, name) for each in covering):
        return None
    kept = [each for each in present if each not in covering]
    return {**rest, element: kept} if kept else {}


def _covered(patterns: list[str], element: Element, name: str) -> bool:
    return not name or any(_covers(each, element, name) for each in patterns)


def _covers(pattern: str, element: Element, name: str) -> bool:
    if element == "Action":
        return wildcard(pattern.lower())(name.lower())
    return pattern == EVERYTHING or arn_matcher(tokens(pattern))(name)


def _is_same(pattern: str, element: Element, name: str) -> bool:
    return pattern.lower() == name.lower() if element == "Action" else pattern == name
