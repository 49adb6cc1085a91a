"""Rules for one field of an object, and tables of them. A rule returns the field's errors in the API server's words.

A table has the fields in the order in which the API server reports their errors.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from labkit.simulator.kubernetes.objects.kinds import Object
from labkit.simulator.kubernetes.objects.status import StatusCause, invalid_value, required, unsupported


class FieldRule(Protocol):
    def __call__(self, field: str, value: Any, /) -> list[StatusCause]:
        """Return the errors of a field with this value; None if the object doesn't have the field."""


def errors(obj: Mapping[str, object], path: str, rules: dict[str, FieldRule]) -> list[StatusCause]:
    """Return the errors of the object at this path."""
    return [cause for key, rule in rules.items() for cause in rule(f"{path}.{key}", obj.get(key))]


def items(obj: Object, path: str, key: str) -> Iterator[tuple[str, Object]]:
    """Iterate over a list of the object: each item's path, and the item."""
    where = f"{path}.{key}" if path else key
    return ((f"{where}[{i}]", item) for i, item in enumerate(obj.get(key) or ()))


def needed(rule: FieldRule | None = None, more: str = "") -> FieldRule:
    """Return the rule that the field has a value, and that the value keeps the given rule."""
    return lambda field, value: [required(field, more)] if not value else rule(field, value) if rule else []


def optional(rule: FieldRule) -> FieldRule:
    """Return the rule that a value, if there is one, keeps the given rule."""
    return lambda field, value: rule(field, value) if value else []


def one_of(*choices: str) -> FieldRule:
    return lambda field, value: [] if value is None or value in choices else [unsupported(field, value, choices)]


def between(least: float, most: float, text: str) -> FieldRule:
    return lambda field, value: [] if least <= value <= most else [invalid_value(field, value, text)]


def matching(pattern: str, text: str) -> FieldRule:
    return lambda field, value: [] if re.fullmatch(pattern, value) else [invalid_value(field, value, text)]


def not_negative(field: str, value: int | None) -> list[StatusCause]:
    return (
        [invalid_value(field, value, "must be greater than or equal to 0")] if value is not None and value < 0 else []
    )
