"""Except one action on one resource from a Deny statement of an identity-based policy.

Everything else that the statement denies stays denied, and nothing new is denied.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_notaction.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_notresource.html
"""

from typing import Literal

from labkit.diagnosis.evidence.reading import Document
from labkit.diagnosis.evidence.trust import listed
from labkit.policy.wildcards import arn_matcher, tokens, wildcard

EVERYTHING = "*"


def excepting(statement: Document, action: str, resource: str) -> list[Document] | None:
    """Return the statements that replace a Deny statement which denies `action` on `resource`.

    One statement denies all other actions, and one denies the action on all other resources. The list is empty if the
    Deny denies nothing else. Return None if statements can't express that: no pattern names all actions of `s3:*`
    except one, and `NotAction` would also deny the actions of all other services.
    """
    others, elsewhere = _without(statement, "Action", action), _without(statement, "Resource", resource)
    if others is None or elsewhere is None:
        return None
    made = [others] if others else []
    if elsewhere:
        # A Sid may occur only once in a policy.
        gone = ("Action", "NotAction", *(["Sid"] if made else []))
        made.append({**{key: value for key, value in elsewhere.items() if key not in gone}, "Action": action})
    return made


def _without(statement: Document, element: Literal["Action", "Resource"], name: str) -> Document | None:
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
    if name != EVERYTHING and EVERYTHING in covering:
        return {**rest, negated: name}
    if not covering or any(not _is_same(each, element, name) for each in covering):
        return None
    kept = [each for each in present if each not in covering]
    return {**rest, element: kept} if kept else {}


def _covers(pattern: str, element: str, name: str) -> bool:
    if element == "Action":
        return wildcard(pattern.lower())(name.lower())
    return pattern == EVERYTHING or arn_matcher(tokens(pattern))(name)


def _is_same(pattern: str, element: str, name: str) -> bool:
    return pattern.lower() == name.lower() if element == "Action" else pattern == name
