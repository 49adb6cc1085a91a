"""The conditions in a statement's Condition element.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-single-vs-multi-valued-context-keys.html

A condition holds (True), doesn't hold (False), or can't be evaluated (None). If a condition can't be evaluated, an
Allow statement allows nothing, and a Deny statement denies.
"""

import base64
import binascii
import ipaddress
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache, partial
from typing import Any

from labkit.policy.wildcards import (
    Matcher,
    Template,
    Token,
    Unreadable,
    Values,
    Wild,
    literal_text,
    matcher,
    parse_template,
    segments_matcher,
    split,
)

Compare = Callable[[str, Values], bool | None]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Parse = Callable[[str], object]  # returns None for a text that it can't parse


@dataclass(frozen=True, slots=True)
class ConditionResult:
    """The result of a condition for one request.

    `wanted` has the values in the condition, and `actual` the request's values. `actual` is empty if the request
    doesn't have the key.
    """

    operator: str
    key: str
    wanted: tuple[str, ...]
    actual: tuple[str, ...]
    matched: bool
    problem: str | None = None  # why the condition can't be evaluated


@dataclass(frozen=True, slots=True)
class Condition:
    operator: str
    key: str
    wanted: tuple[str, ...]
    test: Callable[[Values], bool | None]
    problem: str | None = None

    def result(self, values: Values) -> ConditionResult:
        actual, holds = values.get(self.key.lower(), ()), self.test(values)
        problem = (self.problem or self._problem(actual)) if holds is None else None
        return ConditionResult(self.operator, self.key, self.wanted, actual, holds is True, problem)

    def _problem(self, actual: tuple[str, ...]) -> str:
        if len(actual) > 1 and ":" not in self.operator:
            return (
                f"{self.key} has {len(actual)} values, but without ForAnyValue: or ForAllValues:, {self.operator} "
                "compares only one"
            )
        return f"{self.operator} cannot compare {quoted(actual)} with {quoted(self.wanted)}"


def compile_condition(name: str, key: str, wanted: tuple[str, ...], *, variables: bool) -> Condition:
    """Return a condition that can be tested for many requests.

    `name` is the operator, such as `StringEquals`. `wanted` has the values in the policy. The condition's test returns
    None if the operator is unknown, or if a policy variable has a syntax error.
    """
    if not known_operator(name):
        problem = f"the condition operator {name} is unknown"
        return Condition(name, key, wanted, lambda _: None, problem)
    quantifier, base, if_exists = _parse_operator(name)
    lower = key.lower()
    if base == "Null":
        return Condition(name, key, wanted, partial(_presence, lower, tuple(value.lower() for value in wanted)))
    kind = _OPERATORS[base]
    try:
        compares = kind.prepare(wanted, variables)
    except Unreadable as unreadable:
        return Condition(name, key, wanted, lambda _: None, str(unreadable))
    test = partial(_TESTS[quantifier], lower, compares, kind.negated, if_exists)
    return Condition(name, key, wanted, test)


def known_operator(name: str) -> bool:
    return _parse_operator(name)[1] in _NAMES and not (name.endswith("IfExists") and _parse_operator(name)[1] == "Null")


def quoted(values: tuple[str, ...]) -> str:
    """Return the values in quotation marks, joined by `or`; `nothing` if there are no values."""
    return " or ".join(f'"{value}"' for value in values) if values else "nothing"


def resource_tags(tags: Mapping[str, str], service: str = "") -> dict[str, str | list[str]]:
    """Return the condition keys of a resource's tags. With a ``service``, add the keys ``SERVICE:ResourceTag/…``.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/access_tags.html
    """
    services = ["aws", service] if service else ["aws"]
    return {f"{each}:ResourceTag/{name}": value for each in services for name, value in tags.items()}


def of_time(now: float) -> dict[str, str]:
    """Return the condition keys of the time. `now` is in epoch seconds.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html#condition-keys-currenttime
    """
    current = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"aws:CurrentTime": current, "aws:EpochTime": str(int(now))}


def _parse_operator(name: str) -> tuple[str, str, bool]:
    quantifier, colon, base = name.rpartition(":")
    if colon and quantifier not in ("ForAnyValue", "ForAllValues"):
        return "", "", False
    return quantifier, base.removesuffix("IfExists"), base.endswith("IfExists")


# Combine the results for a key's values.


def _one(key: str, compares: tuple[Compare, ...], negated: bool, if_exists: bool, values: Values) -> bool | None:
    actual = values.get(key)
    if not actual:
        return negated or if_exists
    if len(actual) > 1:
        return None
    return _holds(compares, negated, actual[0], values)


def _for_any(key: str, compares: tuple[Compare, ...], negated: bool, if_exists: bool, values: Values) -> bool | None:
    actual = values.get(key)
    if not actual:
        return if_exists
    results = [_holds(compares, negated, value, values) for value in actual]
    return True if True in results else None if None in results else False


def _for_all(key: str, compares: tuple[Compare, ...], negated: bool, _if_exists: bool, values: Values) -> bool | None:
    actual = values.get(key)
    if not actual or not any(actual):
        return True
    results = [_holds(compares, negated, value, values) for value in actual]
    return False if False in results else None if None in results else True


_TESTS = {"": _one, "ForAnyValue": _for_any, "ForAllValues": _for_all}


def _holds(compares: tuple[Compare, ...], negated: bool, actual: str, values: Values) -> bool | None:
    """Return whether the condition holds for the request's value `actual`, or None if unknown."""
    unknown = not compares
    for compare in compares:
        result = compare(actual, values)
        if result:
            return not negated
        if result is None:
            unknown = True
    return None if unknown else negated


def _presence(key: str, wanted: tuple[str, ...], values: Values) -> bool | None:
    if not wanted or any(value not in ("true", "false") for value in wanted):
        return None
    return ("false" if values.get(key) else "true") in wanted


# Compare one value with one wanted value.


def _string_equals(wanted: tuple[str, ...], variables: bool, *, fold: bool = False) -> tuple[Compare, ...]:
    literals: set[str] = set()
    compares: list[Compare] = []
    for text in wanted:
        template = parse_template(text, variables=variables, wildcards=False)
        if template.pattern is None:
            compares.append(partial(_equals_template, template, fold))
        else:
            literal = literal_text(template.pattern)
            literals.add(literal.lower() if fold else literal)
    if literals:
        compares.insert(0, _among(frozenset(literals), fold))
    return tuple(compares)


def _among(literals: frozenset[str], fold: bool) -> Compare:
    return (lambda actual, _: actual.lower() in literals) if fold else (lambda actual, _: actual in literals)


def _equals_template(template: Template, fold: bool, actual: str, values: Values) -> bool:
    filled = template.fill(values)
    if filled is None:
        return False
    text = literal_text(filled)
    return text.lower() == actual.lower() if fold else text == actual


def _string_like(wanted: tuple[str, ...], variables: bool) -> tuple[Compare, ...]:
    return tuple(_like(text, variables) for text in wanted)


def _like(text: str, variables: bool) -> Compare:
    template = parse_template(text, variables=variables, wildcards=True)
    if template.pattern is not None:
        match = matcher(template.pattern)
        return lambda actual, _: match(actual)

    def compare(actual: str, values: Values) -> bool:
        filled = template.fill(values)
        return filled is not None and matcher(filled)(actual)

    return compare


def _arn_like(wanted: tuple[str, ...], variables: bool) -> tuple[Compare, ...]:
    return tuple(_arn(text, variables) for text in wanted)


def _arn(text: str, variables: bool) -> Compare:
    template = parse_template(text, variables=variables, wildcards=True)
    prepared = None if template.pattern is None else _segments(template.pattern)

    def compare(actual: str, values: Values) -> bool | None:
        match = prepared
        if match is None:
            filled = template.fill(values)
            if filled is None:
                return False
            match = _segments(filled)
        return match(actual) if actual.startswith("arn:") and actual.count(":") >= 5 else None

    return compare


def _segments(pattern: Iterable[Token]) -> Matcher:
    """Return a matcher that compares each of an ARN's six segments separately."""
    parts = split(pattern, ":", 5)
    return segments_matcher(parts + [[Wild.ANY]] * (6 - len(parts)))


def _parsed(
    parse: Parse, test: Callable[[Any, Any], bool], wanted: tuple[str, ...], _variables: bool
) -> tuple[Compare, ...]:
    """Return a comparison for each wanted value, without expanding policy variables."""
    return tuple(_compare_parsed(parse, test, parse(text)) for text in wanted)


def _compare_parsed(parse: Parse, test: Callable[[Any, Any], bool], right: object) -> Compare:
    def compare(actual: str, _: Values) -> bool | None:
        left = parse(actual)
        return None if left is None or right is None else test(left, right)

    return compare


def _number(text: str) -> Decimal | None:
    return Decimal(text) if len(text) < 64 and re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?", text) else None


@lru_cache(maxsize=1024)
def _date(text: str) -> float | None:
    """Return an ISO 8601 date, or a number of seconds, as seconds since 1970."""
    if len(text) < 20 and re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return float(text)
    try:
        date = datetime.fromisoformat(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _boolean(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text.lower())


def _binary(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


@lru_cache(maxsize=1024)
def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _inside(address: Network, network: Network) -> bool:
    # `subnet_of` is four times as slow, and raises if one network is IPv4 and the other IPv6.
    return address.prefixlen >= network.prefixlen and address.network_address in network


READERS: dict[str, Parse] = {"binary": _binary, "boolean": _boolean, "date": _date, "ip": _network, "numeric": _number}
"""The functions that parse a text, by type. They return None if the text isn't a value of the type."""


@dataclass(frozen=True, slots=True)
class _Operator:
    prepare: Callable[[tuple[str, ...], bool], tuple[Compare, ...]]
    negated: bool = False


_NUMBER, _DATE = partial(_parsed, _number), partial(_parsed, _date)
_FOLDED = partial(_string_equals, fold=True)

_OPERATORS: dict[str, _Operator] = {
    "StringEquals": _Operator(_string_equals),
    "StringNotEquals": _Operator(_string_equals, negated=True),
    "StringEqualsIgnoreCase": _Operator(_FOLDED),
    "StringNotEqualsIgnoreCase": _Operator(_FOLDED, negated=True),
    "StringLike": _Operator(_string_like),
    "StringNotLike": _Operator(_string_like, negated=True),
    "NumericEquals": _Operator(partial(_NUMBER, operator.eq)),
    "NumericNotEquals": _Operator(partial(_NUMBER, operator.eq), negated=True),
    "NumericLessThan": _Operator(partial(_NUMBER, operator.lt)),
    "NumericLessThanEquals": _Operator(partial(_NUMBER, operator.le)),
    "NumericGreaterThan": _Operator(partial(_NUMBER, operator.gt)),
    "NumericGreaterThanEquals": _Operator(partial(_NUMBER, operator.ge)),
    "DateEquals": _Operator(partial(_DATE, operator.eq)),
    "DateNotEquals": _Operator(partial(_DATE, operator.eq), negated=True),
    "DateLessThan": _Operator(partial(_DATE, operator.lt)),
    "DateLessThanEquals": _Operator(partial(_DATE, operator.le)),
    "DateGreaterThan": _Operator(partial(_DATE, operator.gt)),
    "DateGreaterThanEquals": _Operator(partial(_DATE, operator.ge)),
    "Bool": _Operator(partial(_parsed, _boolean, operator.eq)),
    "BinaryEquals": _Operator(partial(_parsed, _binary, operator.eq)),
    "IpAddress": _Operator(partial(_parsed, _network, _inside)),
    "NotIpAddress": _Operator(partial(_parsed, _network, _inside), negated=True),
    # As in AWS, ArnEquals also expands wildcards, like ArnLike.
    "ArnEquals": _Operator(_arn_like),
    "ArnLike": _Operator(_arn_like),
    "ArnNotEquals": _Operator(_arn_like, negated=True),
    "ArnNotLike": _Operator(_arn_like, negated=True),
}
_NAMES = {*_OPERATORS, "Null"}
