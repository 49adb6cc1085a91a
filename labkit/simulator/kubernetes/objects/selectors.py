"""Label and field selectors (https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#api)."""

import re
from collections.abc import Callable, Iterable

from labkit.simulator.kubernetes.objects.kinds import Kind, Object
from labkit.simulator.kubernetes.objects.status import bad_request

Matcher = Callable[[Object], bool]
TOKEN = re.compile(r"\s*(==|!=|=|!|\(|\)|,|<|>|[^\s=!(),<>]+)")


def label_selector(text: str) -> Matcher | None:
    """Return a function that tells whether labels match the selector ``text``; None if the selector is empty.

    Raises BadRequest in the API server's words.
    """
    tokens = TOKEN.findall(text)
    if not tokens:
        return None
    requirements, at = [], 0
    while at < len(tokens):
        requirement, at = _requirement(tokens, at)
        requirements.append(requirement)
        if at < len(tokens):
            if tokens[at] != ",":
                raise _unparsable(tokens[at], "',' or 'end of string'")
            at += 1
            if at == len(tokens):
                raise _unparsable("", "identifier after ','")
    return lambda labels: all(requirement(labels) for requirement in requirements)


def _requirement(tokens: list[str], at: int) -> tuple[Matcher, int]:
    if negated := tokens[at] == "!":
        at += 1
    key = tokens[at] if at < len(tokens) else ""
    if not re.match(r"[A-Za-z0-9]", key):
        raise bad_request(f"unable to parse requirement: found '{key}', expected: identifier")
    at += 1
    if negated:
        return (lambda labels: key not in labels), at
    if at == len(tokens) or tokens[at] == ",":
        return (lambda labels: key in labels), at
    operator = tokens[at]
    at += 1
    if operator in ("=", "==", "!="):
        value = "" if at == len(tokens) or tokens[at] == "," else tokens[at]
        at += 1 if value else 0
        if operator == "!=":
            return (lambda labels: labels.get(key) != value), at
        return (lambda labels: labels.get(key) == value), at
    if operator in ("in", "notin"):
        values, at = _values(tokens, at)
        if operator == "in":
            return (lambda labels: labels.get(key) in values), at
        return (lambda labels: labels.get(key) not in values), at
    expected = "in, notin, =, ==, !=, gt, lt"
    raise bad_request(f"unable to parse requirement: found '{operator}', expected: {expected}")


def _values(tokens: list[str], at: int) -> tuple[set[str], int]:
    if at == len(tokens) or tokens[at] != "(":
        token = tokens[at] if at < len(tokens) else ""
        raise bad_request(f"unable to parse requirement: found '{token}' expected: '('")
    end = at + 1
    while end < len(tokens) and tokens[end] != ")":
        end += 1
    if end == len(tokens):
        raise bad_request("found '', expected: ',' or ')'")
    return set(tokens[at + 1 : end]) - {","}, end + 1


def _unparsable(token: str, expected: str) -> Exception:
    return bad_request(f"found '{token}', expected: {expected}")


def object_selector(selector: Object | None) -> Matcher:
    """Return a function that tells whether labels match a LabelSelector (matchLabels and matchExpressions).

    Without a ``selector``, all labels match.
    """
    selector = selector or {}
    wanted = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or ()
    return lambda labels: wanted.items() <= labels.items() and holds(expressions, labels)


def holds(expressions: Iterable[Object], values: Object) -> bool:
    """Whether the values (labels, or a node's fields) meet all of the expressions."""
    return all(_holds(expression, values.get(expression.get("key", ""))) for expression in expressions)


def _holds(expression: Object, value: str | None) -> bool:
    among = expression.get("values") or []
    match expression.get("operator"):
        case "In":
            return value in among
        case "NotIn":
            return value not in among
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:  # only node selectors have these
            try:
                number, bound = int(value or ""), int(among[0] if among else "")
            except ValueError:
                return False
            return number > bound if operator == "Gt" else number < bound
    return False


def selector_text(selector: Object) -> str:
    """Return a LabelSelector as text, e.g. ``app=web,tier in (a,b)``."""
    parts = [(key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or ():
        key, values = expression["key"], ",".join(sorted(expression.get("values") or ()))
        texts = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }
        parts.append((key, texts[expression["operator"]]))
    return ",".join(text for _, text in sorted(parts, key=lambda part: part[0]))


def field_selector(kind: Kind, text: str) -> Matcher | None:
    """Return a function that tells whether an object's fields match the selector ``text``; None without a selector.

    Raises BadRequest in the API server's words.
    """
    tests = []
    for part in filter(None, re.split(r"(?<!\\),", text)):
        match = re.match(r"\s*([^=!\s]+)\s*(==|!=|=)(.*)$", part)
        if not match:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        path, operator, value = match.groups()
        if path not in ("metadata.name", "metadata.namespace", *kind.fields):
            raise bad_request(f"field label not supported: {path}")
        tests.append((path, operator != "!=", value))
    if not tests:
        return None
    return lambda obj: all((_field(obj, path) == value) is wanted for path, wanted, value in tests)


def _field(obj: Object, path: str) -> str:
    value: object = obj
    for key in ("source.component" if path == "source" else path).split("."):
        value = value.get(key, "") if isinstance(value, dict) else ""
    return str(value).lower() if isinstance(value, bool) else str(value)
