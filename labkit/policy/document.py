"""A policy document. It's parsed once and can then be evaluated many times.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import unquote

from labkit.policy import validation
from labkit.policy.conditions import Condition, compile_condition, known_operator
from labkit.policy.principals import Principals, compile_principals
from labkit.policy.validation import Kind, MalformedPolicy
from labkit.policy.wildcards import (
    Matcher,
    Template,
    Token,
    Unreadable,
    Values,
    Wild,
    arn_matcher,
    literal_text,
    matcher,
    parse_template,
    prefix,
    tokens,
)

__all__ = ["Kind", "MalformedPolicy", "Policy", "Statement", "decode_document"]


def decode_document(text: str) -> str:
    """Return a policy document without the URL encoding (RFC 3986) of IAM's raw answers."""
    return unquote(text)


@dataclass(frozen=True, slots=True)
class Names:
    """Patterns of actions (in lower case) or of ARNs, grouped by how they are matched.

    `exact` has the patterns without a wildcard. `prefixes` has the patterns with a single wildcard, a `*` at the end;
    the `*` is removed. `matchers` has all other patterns.
    """

    exact: frozenset[str]
    prefixes: tuple[str, ...]
    matchers: tuple[Matcher, ...]

    @classmethod
    def of(
        cls, patterns: Iterable[Sequence[Token]], compile_pattern: Callable[[Sequence[Token]], Matcher] = matcher
    ) -> "Names":
        exact, prefixes, matchers = [], [], []
        for pattern in patterns:
            start = prefix(pattern)
            if start is not None:
                prefixes.append(start)
            elif any(isinstance(token, Wild) for token in pattern):
                matchers.append(compile_pattern(pattern))
            else:
                exact.append(literal_text(pattern))
        return cls(frozenset(exact), tuple(prefixes), tuple(matchers))

    def match(self, name: str) -> bool:
        if name in self.exact or name.startswith(self.prefixes):
            return True
        for match in self.matchers:  # noqa: SIM110 - half the time of any()
            if match(name):
                return True
        return False


@dataclass(frozen=True, slots=True)
class ResourcePatterns:
    """A Resource or NotResource element, prepared for evaluation. ARNs are case-sensitive."""

    names: Names
    templates: tuple[Template, ...]

    def match(self, resource: str, values: Values) -> bool | None:
        """Return whether the element names the resource; None if that depends on a policy variable without a value."""
        if self.names.match(resource):
            return True
        unresolved = False
        for template in self.templates:
            filled = template.fill(values)
            if filled is None:
                unresolved = True
            elif arn_matcher(filled)(resource):
                return True
        return None if unresolved else False


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    sid: str
    position: int  # from 1
    allow: bool
    actions: Names = field(repr=False)
    not_action: bool
    resources: ResourcePatterns | None = field(repr=False)  # None: any resource, as in a trust policy
    not_resource: bool
    principals: Principals | None = field(repr=False)  # None: the identity that the policy is attached to
    not_principal: bool
    conditions: tuple[Condition, ...] = field(repr=False)
    by_principal_arn: bool  # whether the statement has a condition on aws:PrincipalArn
    raw: dict[str, Any] = field(repr=False)  # the statement as written in the document
    fault: str | None = None  # why the statement can't be evaluated

    def written(self, element: str) -> tuple[str, ...]:
        """Return the strings of an element, such as `Action`, as written; empty if the statement lacks the element."""
        return tuple(validation.listed(self.raw[element])) if element in self.raw else ()

    def __str__(self) -> str:
        return f'statement "{self.sid}"' if self.sid else f"statement {self.position}"


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """A policy document. It never changes, so requests and threads may share it."""

    name: str
    kind: Kind
    version: Literal["2008-10-17", "2012-10-17"]
    statements: tuple[Statement, ...] = field(repr=False)
    size: int  # characters without white space, as IAM counts them
    document: dict[str, Any] = field(repr=False)
    text: str = field(repr=False)

    @classmethod
    def parse(cls, document: str | dict[str, object], *, kind: Kind, name: str) -> "Policy":
        """Return the policy in a document.

        Raises `MalformedPolicy`, with IAM's code and words, if IAM would refuse the document.
        """
        return _compile(*validation.validate(document, kind), kind, name)

    @classmethod
    def read(cls, document: str | dict[str, object], *, kind: Kind, name: str) -> "Policy":
        """Return the policy in a document that is already stored. Unlike `parse`, this never raises `MalformedPolicy`.

        A malformed statement allows nothing. If its effect isn't Allow, it denies everything.
        """
        try:
            loaded = validation.load(document, kind)
        except MalformedPolicy as malformed:
            fault = _faulty({}, 1, str(malformed))
            return cls(name, kind, "2012-10-17", (fault,), 0, {}, "")
        return _compile(*loaded, kind, name)


def _compile(document: dict[str, Any], text: str, size: int, kind: Kind, name: str) -> Policy:
    version = document.get("Version", "2008-10-17")
    statements = document.get("Statement")
    statements = statements if isinstance(statements, list) else [statements]
    compiled = tuple(_statement(raw, number, kind, version) for number, raw in enumerate(statements, 1))
    return Policy(name, kind, version, compiled, size, document, text)


def _statement(written: object, position: int, kind: Kind, version: str) -> Statement:
    variables = version == "2012-10-17"
    try:
        validation.check_version(version, kind)
        raw = validation.check_shape(written, kind)
        action = "NotAction" if "NotAction" in raw else "Action"
        resource = "NotResource" if "NotResource" in raw else "Resource"
        principal = "NotPrincipal" if "NotPrincipal" in raw else "Principal"
        conditions = _conditions(raw.get("Condition", {}), variables)
        return Statement(
            raw.get("Sid", ""),
            position,
            raw["Effect"] == "Allow",
            Names.of(tokens(name.lower()) for name in validation.listed(raw[action])),
            action == "NotAction",
            _resources(validation.listed(raw[resource]), variables) if resource in raw else None,
            resource == "NotResource",
            compile_principals(raw[principal]) if principal in raw else None,
            principal == "NotPrincipal",
            conditions,
            any(condition.key.lower() == "aws:principalarn" for condition in conditions),
            raw,
        )
    except (MalformedPolicy, Unreadable, ValueError) as fault:
        return _faulty(written, position, str(fault))


def _faulty(written: object, position: int, fault: str) -> Statement:
    raw = written if isinstance(written, dict) else {}
    allow = raw.get("Effect") == "Allow"
    return Statement("", position, allow, Names.of([]), False, None, False, None, False, (), False, raw, fault)


def _resources(names: list[str], variables: bool) -> ResourcePatterns:
    read_names = [parse_template(_complete(name), variables=variables, wildcards=True) for name in names]
    templates = tuple(template for template in read_names if template.pattern is None)
    plain = (template.pattern for template in read_names if template.pattern is not None)
    return ResourcePatterns(Names.of(plain, arn_matcher), templates)


def _complete(arn: str) -> str:
    """Return an ARN with `*` for each missing part."""
    return arn + ":*" * (5 - arn.count(":")) if arn.startswith("arn:") and "${" not in arn else arn


def _conditions(element: dict[str, Any], variables: bool) -> tuple[Condition, ...]:
    conditions = []
    for name, block in element.items():
        # An unknown operator counts even without keys: it makes the statement impossible to evaluate.
        keys = block if block or known_operator(name) else {"": []}
        conditions += [
            compile_condition(name, key, tuple(validation.texts(wanted)), variables=variables)
            for key, wanted in keys.items()
        ]
    return tuple(conditions)


Position = tuple[int, int]
"""The line and column of the character after the position. Both count from 1."""

_decoder = json.JSONDecoder()


@lru_cache(maxsize=256)
def statement_positions(text: str) -> tuple[tuple[Position, Position], ...]:
    """Return the start and end of each statement in the text of a valid policy.

    In a list, the first statement starts after the bracket. Each later statement starts where the previous one ends.
    Lines and columns are those of IAM's policy simulator.

    https://docs.aws.amazon.com/IAM/latest/APIReference/API_Position.html
    """
    at = _after(text, "{", 0)
    while at < len(text) and text[at] == '"':
        name, at = _decoder.raw_decode(text, at)
        at = _after(text, ":", at)
        if name == "Statement":
            return tuple((_position(text, start), _position(text, end)) for start, end in _spans(text, at))
        at = _after(text, ",", _decoder.raw_decode(text, at)[1])
    return ()


def _spans(text: str, at: int) -> list[tuple[int, int]]:
    if text[at] != "[":
        return [(at + 1, _decoder.raw_decode(text, at)[1])]
    spans, end = [], at + 1
    while (at := _after(text, ",", end)) < len(text) and text[at] != "]":
        start, end = end, _decoder.raw_decode(text, at)[1]
        spans.append((start, end))
    return spans


def _after(text: str, mark: str, at: int) -> int:
    while at < len(text) and (text[at].isspace() or text[at] == mark):
        at += 1
    return at


def _position(text: str, at: int) -> Position:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
