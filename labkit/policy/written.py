"""Read a trust policy's statements as their author wrote them, also those with faults.

`labkit.policy.document` reads a policy to evaluate it, and marks a faulty statement. Here each element is unchanged.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

from labkit.policy.arn import Arn
from labkit.policy.trust import WEB_IDENTITY
from labkit.policy.wildcards import wildcard

# Condition keys about a request or an organization, not about the token, the role or the time. Their values aren't
# known before someone sends the request.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_iam-condition-keys.html#condition-keys-sts
OF_REQUEST = (
    "aws:referer",
    "aws:requestedregion",
    "aws:requesttag/",
    "aws:resourceorg",
    "aws:sourceip",
    "aws:sourcevpc",
    "aws:tagkeys",
    "aws:useragent",
    "aws:vpcsourceip",
    "aws:vpce",
    "sts:rolesessionname",
    "sts:sourceidentity",
)


class StatementDocument(TypedDict, total=False):
    """A statement of a trust policy, as IAM returns it. The value of an element is a list or a single item.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_statement.html
    """

    Sid: str
    Effect: str
    Principal: Any
    NotPrincipal: Any
    Action: str | list[str]
    NotAction: str | list[str]
    Resource: str | list[str]
    Condition: dict[str, dict[str, Any]]


class PolicyDocument(TypedDict):
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html"""

    Version: str
    Statement: list[StatementDocument]


@dataclass(frozen=True)
class WrittenCondition:
    """One operator and key in a statement's `Condition`, with the values."""

    operator: str
    key: str
    values: tuple[str, ...]

    @property
    def issuer(self) -> str:
        """The part of the key before the last colon: a token's issuer, or a service's prefix such as `aws`."""
        return self.key.rpartition(":")[0]

    @property
    def claim(self) -> str:
        """The part of the key after the last colon, in lower case: `sub`, `aud`."""
        return self.key.rpartition(":")[2].lower()

    @property
    def is_negated(self) -> bool:
        """Whether the operator is negated (such as StringNotEquals), so that the condition excludes its values."""
        return "not" in self.operator.lower()

    @property
    def is_of_request(self) -> bool:
        """Whether the condition is about the request, not about the token in it."""
        return self.key.lower().startswith(OF_REQUEST)

    @property
    def compares_text(self) -> bool:
        """Whether the operator compares texts or ARNs, such as `StringLike` or `ArnEquals`.

        False for a negated operator.
        """
        return not self.is_negated and any(word in self.operator.lower() for word in ("string", "arn"))

    @property
    def is_literal(self) -> bool:
        """Whether the operator compares `*` and `?` literally."""
        return "stringequals" in self.operator.lower()


def statements_of(document: object) -> list[StatementDocument]:
    """Return the list of a policy's statements; an empty list if `document` isn't a policy.

    If the policy's `Statement` is an object instead of a list, return a list with this object.
    """
    statements: list[StatementDocument] = listed(document.get("Statement")) if isinstance(document, dict) else []
    return [each for each in statements if isinstance(each, dict)]


def listed(value: object) -> list[Any]:
    """Return a value in a policy as a list; for None, an empty list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def conditions_of(statement: StatementDocument) -> Iterator[WrittenCondition]:
    """Yield the conditions of a statement, except malformed ones."""
    element = statement.get("Condition")
    for operator, block in element.items() if isinstance(element, dict) else ():
        for key, values in block.items() if isinstance(block, dict) else ():
            yield WrittenCondition(operator, key, tuple(str(value) for value in listed(values)))


def federated_of(statement: StatementDocument) -> list[str]:
    """Return the federated principals of a statement."""
    return principals_of(statement, "Federated")


def principals_of(statement: StatementDocument, kind: str) -> list[str]:
    """Return the principals of a kind: `Federated`, `Service` or `AWS`."""
    principal = statement.get("Principal")
    return [str(name) for name in listed(principal.get(kind))] if isinstance(principal, dict) else []


def actions_of(statement: StatementDocument) -> list[str]:
    """Return the actions of a statement."""
    return [str(action) for action in listed(statement.get("Action"))]


def allows_action(statement: StatementDocument) -> bool:
    """Whether the statement covers the action that exchanges a web identity token."""
    if "NotAction" in statement:
        return not _matches(listed(statement["NotAction"]))
    return _matches(listed(statement.get("Action")))


def name_of(provider_arn: str) -> str:
    """Return the issuer (without `https://`) that a provider's ARN names; empty if `provider_arn` isn't an ARN."""
    return named.issuer if (named := Arn.find(provider_arn)) else ""


def _matches(actions: list[Any]) -> bool:
    return any(wildcard(str(action).lower())(WEB_IDENTITY.lower()) for action in actions)
