"""Policy variables, such as `${aws:username}`, or `${aws:PrincipalTag/team, 'none'}` with a default value.

`${*}`, `${?}` and `${$}` stand for the characters `*`, `?` and `$`.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from labkit.policy.wildcards import Token, tokens

Values = Mapping[str, tuple[str, ...]]
"""A request's condition keys, in lower case, with their values."""


class Unreadable(Exception):
    """A policy variable has a syntax error, so the condition or resource that uses it can't be evaluated."""


@dataclass(frozen=True, slots=True)
class Variable:
    key: str
    default: str | None

    def value(self, values: Values) -> str | None:
        """Return the key's value; the default if the request lacks the key or has several values for it."""
        present = values.get(self.key)
        return present[0] if present is not None and len(present) == 1 else self.default


@dataclass(frozen=True, slots=True)
class Template:
    """A text from a policy, split into literal texts, wildcards and policy variables."""

    parts: tuple[Token | Variable, ...]
    pattern: tuple[Token, ...] | None
    """The parts of a text without variables: one pattern that serves all requests. None for a text with variables."""

    def fill(self, values: Values) -> list[Token] | None:
        """Return the template's parts, with each variable's value as literal text; None if a variable has no value."""
        filled: list[Token] = []
        for part in self.parts:
            token = part.value(values) if isinstance(part, Variable) else part
            if token is None:
                return None
            filled.append(token)
        return filled


def read(text: str, *, variables: bool, wildcards: bool) -> Template:
    """Split `text` into literal texts, wildcards and policy variables.

    `variables=False`, for a policy of version 2008-10-17, keeps `${` as literal text. `wildcards=False` keeps `*` and
    `?` as literal text. Raises `Unreadable` if a variable has a syntax error.
    """
    literal: Callable[[str], Sequence[Token]] = tokens if wildcards else lambda piece: [piece]
    parts: list[Token | Variable] = []
    position = 0
    while variables and (start := text.find("${", position)) >= 0:
        end = _end(text, start)
        parts += literal(text[position:start])
        content = text[start + 2 : end]
        parts.append(content if content in ("*", "?", "$") else _variable(content))
        position = end + 1
    parts += literal(text[position:])
    pattern = tuple(part for part in parts if not isinstance(part, Variable))
    return Template(tuple(parts), pattern if len(pattern) == len(parts) else None)


def _end(text: str, start: int) -> int:
    end = text.find("}", start)
    quote = text.find("'", start)
    if 0 <= quote < end:
        # A default may contain a closing brace.
        end = text.find("}", text.find("'", quote + 1) + 1)
    if end < 0:
        raise Unreadable(f"the variable {text[start : start + 40]!r} has no closing brace")
    return end


def _variable(content: str) -> Variable:
    key, comma, default = content.partition(",")
    key, default = key.strip().lower(), default.strip()
    quoted = len(default) >= 2 and default[0] == default[-1] == "'"
    if not key or "{" in key or "$" in key or (comma and not quoted):
        raise Unreadable(f"${{{content}}} is not a policy variable")
    return Variable(key, default[1:-1] if comma else None)
