"""Wildcards and policy variables in a policy's texts.

For every pattern, the time to match a text grows linearly with the text's length.

`*` stands for any number of characters, even none, and `?` for exactly one.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_resource.html

A policy variable is `${aws:username}`, or `${aws:PrincipalTag/team, 'none'}` with a default value. `${*}`, `${?}` and
`${$}` stand for the characters `*`, `?` and `$`.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

Matcher = Callable[[str], bool]


class Wild(Enum):
    ANY = "*"
    ONE = "?"


Token = str | Wild


def wildcard(pattern: str) -> Matcher:
    """Return a function that tells whether a whole text matches `pattern`."""
    return matcher(tokens(pattern))


def tokens(pattern: str) -> list[Token]:
    """Split `pattern` into literal texts and wildcards."""
    return [Wild(part) if part in ("*", "?") else part for part in re.split(r"([*?])", pattern) if part]


def literal_text(pattern: Iterable[Token]) -> str:
    """Return the literal texts of a pattern, joined, without its wildcards."""
    return "".join(token for token in pattern if isinstance(token, str))


def prefix(pattern: Iterable[Token]) -> str | None:
    """Return the text before the `*` at a pattern's end, such as `s3:Get` for `s3:Get*`.

    None if the pattern has another wildcard, or if it doesn't end with `*`.
    """
    pattern = _joined(pattern)
    if pattern == [Wild.ANY]:
        return ""
    return pattern[0] if len(pattern) == 2 and isinstance(pattern[0], str) and pattern[1] is Wild.ANY else None


def matcher(pattern: Iterable[Token]) -> Matcher:
    """Return a function that tests whether a whole text matches the pattern. Only `Wild` tokens are wildcards."""
    pattern = _joined(pattern)
    if Wild.ONE in pattern:
        return _automaton(pattern)
    literals = [token for token in pattern if isinstance(token, str)]
    if Wild.ANY not in pattern:
        return (literals[0] if literals else "").__eq__
    head = literals.pop(0) if pattern[0] is not Wild.ANY else ""
    tail = literals.pop() if literals and pattern[-1] is not Wild.ANY else ""
    start = prefix(pattern)
    if start is not None:
        return lambda text: text.startswith(start)
    return _pieces(head, literals, tail)


def arn_matcher(pattern: Iterable[Token]) -> Matcher:
    """Return a matcher of ARNs that follows AWS's rules for the Resource element.

    An ARN has six segments, separated by colons. The pattern is matched segment by segment if both of these are true:

    - The pattern has six segments.
    - One of the pattern's first five segments contains a `?`, or contains a `*` that isn't at the segment's end.

    Otherwise, the pattern is matched with the whole ARN, and a `*` can match text that contains colons.
    """
    pattern = _joined(pattern)
    segments = [_joined(segment) for segment in split(pattern, ":", 5)]
    inside = any(isinstance(token, Wild) for segment in segments[:-1] for token in segment[:-1])
    inside = inside or any(segment and segment[-1] is Wild.ONE for segment in segments[:-1])
    if len(segments) < 6 or not inside:
        return matcher(pattern)
    return segments_matcher(segments)


def segments_matcher(segments: Iterable[list[Token]]) -> Matcher:
    """Return a matcher of ARNs that compares each of the six segments separately.

    A text with fewer segments doesn't match.
    """
    matchers = [matcher(segment) for segment in segments]

    def matches(text: str) -> bool:
        parts = text.split(":", 5)
        return len(parts) == 6 and all(match(part) for match, part in zip(matchers, parts, strict=True))

    return matches


def split(pattern: Iterable[Token], separator: str, maxsplit: int) -> list[list[Token]]:
    """Split a pattern at each separator in its literal texts, at most `maxsplit` times."""
    parts: list[list[Token]] = [[]]
    for token in pattern:
        if isinstance(token, Wild):
            parts[-1].append(token)
            continue
        first, *others = token.split(separator, maxsplit - len(parts) + 1) if len(parts) <= maxsplit else [token]
        parts[-1].append(first)
        parts.extend([other] for other in others)
    return parts


def _joined(pattern: Iterable[Token]) -> list[Token]:
    result: list[Token] = []
    for token in pattern:
        if token == "":
            continue
        if result and isinstance(token, str) and isinstance(result[-1], str):
            result[-1] += token
        elif not (token is Wild.ANY and result and result[-1] is Wild.ANY):
            result.append(token)
    return result


def _pieces(head: str, middle: list[str], tail: str) -> Matcher:
    """Return a matcher for texts that begin with `head`, contain the `middle` pieces in order, and end with `tail`."""
    least = len(head) + len(tail)

    def matches(text: str) -> bool:
        end = len(text) - len(tail)
        if len(text) < least or not text.startswith(head) or not text.endswith(tail):
            return False
        position = len(head)
        for piece in middle:
            # The leftmost place leaves the most text for the next pieces.
            position = text.find(piece, position, end)
            if position < 0:
                return False
            position += len(piece)
        return True

    return matches


def _automaton(pattern: list[Token]) -> Matcher:
    """Return a matcher for `pattern` that uses the shift-and algorithm."""
    symbols: list[str | None] = []
    loops = 0
    for token in pattern:
        if token is Wild.ANY:
            loops |= 1 << len(symbols)
        elif token is Wild.ONE:
            symbols.append(None)
        else:
            symbols.extend(token)
    anything = sum(1 << place for place, symbol in enumerate(symbols) if symbol is None)
    accepts: dict[str, int] = {}
    for place, symbol in enumerate(symbols):
        if symbol is not None:
            accepts[symbol] = accepts.get(symbol, anything) | 1 << place
    final = 1 << len(symbols)

    def matches(text: str) -> bool:
        # Bit n is 1 if the text so far matches the first n symbols of the pattern.
        places = 1
        for character in text:
            places = (places & accepts.get(character, anything)) << 1 | places & loops
            if not places:
                return False
        return bool(places & final)

    return matches


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


def parse_template(text: str, *, variables: bool, wildcards: bool) -> Template:
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
