"""A policy document, read once and prepared for evaluation.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
"""

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote

from labkit.policy import validation
from labkit.policy.conditions import Condition, compile_condition
from labkit.policy.principals import Principals, compile_principals
from labkit.policy.validation import Kind, MalformedPolicy
from labkit.policy.variables import Template, Unreadable, Values, has_variables, read
from labkit.policy.wildcards import Matcher, matcher, wildcard

__all__ = ["Kind", "MalformedPolicy", "Policy", "Statement", "decode_document"]


def decode_document(text: str) -> str:
    """Returns a document that IAM gave URL-encoded (RFC 3986), as `GetRole` does on the wire; boto3 decodes it."""
    return unquote(text)


@dataclass(frozen=True, slots=True)
class Actions:
    """Action or NotAction. Actions are case-insensitive."""

    names: frozenset[str]
    matchers: tuple[Matcher, ...]

    def match(self, action: str) -> bool:
        """Whether the lower-case action is among them."""
        if action in self.names:
            return True
        for match in self.matchers:  # noqa: SIM110 - half the time of any()
            if match(action):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Resources:
    """Resource or NotResource. ARNs are case-sensitive."""

    names: frozenset[str]
    matchers: tuple[Matcher, ...]
    templates: tuple[Template, ...]

    def match(self, resource: str, values: Values) -> bool | None:
        """Whether the resource is among them; None where it is not, and a variable has no value."""
        if resource in self.names:
            return True
        for match in self.matchers:
            if match(resource):
                return True
        unresolved = False
        for template in self.templates:
            filled = template.fill(values)
            if filled is None:
                unresolved = True
            elif matcher(filled)(resource):
                return True
        return None if unresolved else False


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    sid: str
    position: int  # from 1
    allow: bool
    actions: Actions = field(repr=False)
    not_action: bool
    resources: Resources | None = field(repr=False)  # None: any, as in a trust policy
    not_resource: bool
    principals: Principals | None = field(repr=False)  # None: whoever the policy is attached to
    not_principal: bool
    conditions: tuple[Condition, ...] = field(repr=False)
    fault: str | None = None  # why nothing in it can be evaluated

    def __str__(self) -> str:
        return f'statement "{self.sid}"' if self.sid else f"statement {self.position}"


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """A policy document. It does not change, so it may be kept and shared between requests and threads."""

    name: str
    kind: Kind
    version: Literal["2008-10-17", "2012-10-17"]
    statements: tuple[Statement, ...] = field(repr=False)
    size: int  # characters without white space, as IAM counts them
    document: dict = field(repr=False)

    @classmethod
    def parse(cls, document: str | dict, *, kind: Kind, name: str) -> "Policy":
        """Returns the policy that somebody wants to write, where IAM would take it.

        Raises `MalformedPolicy` with IAM's code and words where it would not.
        """
        parsed, size = validation.validate(document, kind)
        return _compile(parsed, size, kind, name)

    @classmethod
    def read(cls, document: str | dict, *, kind: Kind, name: str) -> "Policy":
        """Returns a policy that is stored somewhere, whatever is wrong with it.

        A statement that cannot be understood never allows, and denies everything if it is not an Allow.
        """
        try:
            parsed, size = validation.load(document, kind)
        except MalformedPolicy as malformed:
            fault = _faulty({}, 1, str(malformed))
            return cls(name, kind, "2012-10-17", (fault,), 0, {})
        return _compile(parsed, size, kind, name)


def _compile(document: dict, size: int, kind: Kind, name: str) -> Policy:
    version = document.get("Version", "2008-10-17")
    statements = document.get("Statement")
    statements = statements if isinstance(statements, list) else [statements]
    compiled = tuple(_statement(raw, number, kind, version) for number, raw in enumerate(statements, 1))
    return Policy(name, kind, version, compiled, size, document)


def _statement(raw: object, position: int, kind: Kind, version: str) -> Statement:
    variables = version == "2012-10-17"
    try:
        validation.check_version(version, kind)
        validation.check_shape(raw, kind)
        action = "NotAction" if "NotAction" in raw else "Action"
        resource = "NotResource" if "NotResource" in raw else "Resource"
        principal = "NotPrincipal" if "NotPrincipal" in raw else "Principal"
        return Statement(
            raw.get("Sid", ""),
            position,
            raw["Effect"] == "Allow",
            _actions(validation.listed(raw[action])),
            action == "NotAction",
            _resources(validation.listed(raw[resource]), variables) if resource in raw else None,
            resource == "NotResource",
            compile_principals(raw[principal]) if principal in raw else None,
            principal == "NotPrincipal",
            _conditions(raw.get("Condition", {}), variables),
        )
    except (MalformedPolicy, Unreadable, ValueError) as fault:
        return _faulty(raw, position, str(fault))


def _faulty(raw: object, position: int, fault: str) -> Statement:
    allow = isinstance(raw, dict) and raw.get("Effect") == "Allow"
    return Statement("", position, allow, _actions([]), False, None, False, None, False, (), fault)


def _actions(names: list[str]) -> Actions:
    names = [name.lower() for name in names]
    plain = frozenset(name for name in names if "*" not in name and "?" not in name)
    return Actions(plain, tuple(wildcard(name) for name in names if name not in plain))


def _resources(names: list[str], variables: bool) -> Resources:
    plain, matchers, templates = set(), [], []
    for name in names:
        template = read(_complete(name), variables=variables, wildcards=True)
        if has_variables(template):
            templates.append(template)
        elif all(isinstance(part, str) for part in template.parts):
            plain.add("".join(template.parts))
        else:
            matchers.append(matcher(template.parts))
    return Resources(frozenset(plain), tuple(matchers), tuple(templates))


def _complete(arn: str) -> str:
    """An ARN with fewer than six parts is completed with wildcards."""
    missing = 5 - arn.count(":")
    return arn + ":*" * missing if arn.startswith("arn:") and missing > 0 and "${" not in arn else arn


def _conditions(element: dict, variables: bool) -> tuple[Condition, ...]:
    return tuple(
        compile_condition(name, key, tuple(validation.texts(wanted)), variables=variables)
        for name, block in element.items()
        for key, wanted in block.items()
    )
