"""Policy variables: `${aws:username}`; with a default, `${aws:PrincipalTag/team, 'none'}`; and `${*}`, `${?}`, `${$}`.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from labkit.policy.wildcards import Token, tokens

Values = Mapping[str, tuple[str, ...]]
"""A request's context: its values by lower-case key."""


class Unreadable(Exception):
    """A variable has a wrong syntax, so its condition or resource can't be evaluated."""


@dataclass(frozen=True, slots=True)
class Variable:
    key: str
    default: str | None

    def value(self, values: Values) -> str | None:
        """Return the key's value, or the default if the key is missing or has several values."""
        found = values.get(self.key)
        return found[0] if found is not None and len(found) == 1 else self.default


@dataclass(frozen=True, slots=True)
class Template:
    """A text of a policy, split at its variables."""

    parts: tuple[Token | Variable, ...]
    pattern: tuple[Token, ...] | None
    """The parts of a text without variables, because that is the same for every request; None with variables."""

    def fill(self, values: Values) -> list[Token] | None:
        """Return the tokens, with each variable's value as literal text; None if a variable has no value."""
        filled: list[Token] = []
        for part in self.parts:
            token = part.value(values) if isinstance(part, Variable) else part
            if token is None:
                return None
            filled.append(token)
        return filled


def read(text: str, *, variables: bool, wildcards: bool) -> Template:
    """Split `text` into literals, wildcards and variables. `variables`: False for version 2008-10-17, which has none.

    Raises `Unreadable` if a variable has a wrong syntax.
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
