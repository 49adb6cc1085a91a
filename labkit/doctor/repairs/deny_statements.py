"""Except one action on one resource from a Deny statement.

Everything else that the statement denies stays denied, and nothing new is denied.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_notaction.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_notresource.html
"""

from collections.abc import Mapping
from typing import Literal

from labkit.policy.wildcards import arn_matcher, tokens, wildcard
from labkit.policy.written import listed

Element = Literal["Action", "Resource"]
Whole = Mapping[Element, Mapping[str, str]]
"""The patterns that stand for all names of an element, or for all except one: the pattern's value, if not empty."""
EVERYTHING = "*"
OF_IDENTITY: Whole = {"Action": {EVERYTHING: ""}, "Resource": {EVERYTHING: ""}}


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
    others = _without(statement, "Action", action, whole["Action"])
    elsewhere = _without(statement, "Resource", resource, whole["Resource"])
    if others is None or elsewhere is None:
        return None
    made = [others] if others else []
    if elsewhere:
        # A Sid may occur only once in a policy.
        gone = ("Action", "NotAction", *(["Sid"] if made else []))
        made.append({**{key: value for key, value in elsewhere.items() if key not in gone}, "Action": action})
    return made


def _without(
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
        return {**rest, negated: [*listed(statement[negated]), name]}
    present = [str(each) for each in listed(statement.get(element))]
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
