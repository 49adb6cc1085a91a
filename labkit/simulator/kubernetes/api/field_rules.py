"""Rules for the fields of an object, and tables of them. A rule returns the field's errors in the API server's words.

A table has the fields in the order in which the API server reports their errors. A missing field has no errors, unless
it's needed. The key "" stands for the object itself.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from labkit.simulator.kubernetes.objects.kinds import Object
from labkit.simulator.kubernetes.objects.status import StatusCause, invalid_value, required, unsupported


class FieldRule(Protocol):
    def __call__(self, field: str, value: Any, /) -> list[StatusCause]:
        """Return the errors of the field at this path, with this value."""


Rules = Mapping[str, FieldRule]


def errors(obj: Object, path: str, rules: Rules) -> list[StatusCause]:
    """Return the errors of the object at this path."""
    causes: list[StatusCause] = []
    for key, rule in rules.items():
        value = obj.get(key) if key else obj
        if value is not None or isinstance(rule, needed):
            causes += rule(f"{path}.{key}" if path and key else path + key, value)
    return causes


def numbered(field: str, items: Iterable[Object]) -> Iterator[tuple[str, Object]]:
    """Iterate over a list of objects: each object's path, and the object."""
    return ((f"{field}[{i}]", item) for i, item in enumerate(items))


def part(rules: Rules) -> FieldRule:
    """Return the rule that the field is an object that keeps these rules."""
    return lambda field, obj: errors(obj, field, rules)


def each(rules: Rules) -> FieldRule:
    """Return the rule that the field is a list of objects that keep these rules."""
    return lambda field, items: [cause for path, item in numbered(field, items) for cause in errors(item, path, rules)]


@dataclass(frozen=True)
class needed:
    """The rule that the field has a value, and that the value keeps the given rule."""

    rule: FieldRule | None = None
    more: str = ""

    def __call__(self, field: str, value: Any) -> list[StatusCause]:
        if not value:
            return [required(field, self.more)]
        return self.rule(field, value) if self.rule else []


def optional(rule: FieldRule) -> FieldRule:
    """Return the rule that a value that isn't empty keeps the given rule."""
    return lambda field, value: rule(field, value) if value else []


def one_of(*choices: str) -> FieldRule:
    return lambda field, value: [] if value in choices else [unsupported(field, value, choices)]


def between(least: float, most: float, text: str) -> FieldRule:
    return lambda field, value: [] if least <= value <= most else [invalid_value(field, value, text)]


def matching(pattern: str, text: str) -> FieldRule:
    matches = re.compile(pattern).fullmatch
    return lambda field, value: [] if matches(value) else [invalid_value(field, value, text)]


def no_longer_than(limit: int, rule: FieldRule | None = None) -> FieldRule:
    """Return the rule that a text has at most ``limit`` characters, and that such a text keeps the given rule."""
    return lambda field, value: (
        [too_long(field, value, limit)] if len(value) > limit else rule(field, value) if rule else []
    )


def too_long(field: str, value: str, limit: int) -> StatusCause:
    return StatusCause(field, f'Invalid value: "{value}": must be no more than {limit} bytes')


not_negative = between(0, float("inf"), "must be greater than or equal to 0")
