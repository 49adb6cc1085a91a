"""Label and field selectors (https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#api)."""

import re
from collections.abc import Callable

from labkit.emulator.kubernetes.objects.kinds import Kind, Object
from labkit.emulator.kubernetes.objects.status import bad_request

Matcher = Callable[[Object], bool]
TOKEN = re.compile(r"\s*(==|!=|=|!|\(|\)|,|<|>|[^\s=!(),<>]+)")


def label_selector(text: str) -> Matcher | None:
    """What matches an object's labels, or None where everything does. Raises BadRequest with the server's words."""
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
        found = tokens[at] if at < len(tokens) else ""
        raise bad_request(f"unable to parse requirement: found '{found}' expected: '('")
    end = at + 1
    while end < len(tokens) and tokens[end] != ")":
        end += 1
    if end == len(tokens):
        raise bad_request("found '', expected: ',' or ')'")
    return set(tokens[at + 1 : end]) - {","}, end + 1


def _unparsable(found: str, expected: str) -> Exception:
    return bad_request(f"found '{found}', expected: {expected}")


def object_selector(selector: Object | None) -> Matcher:
    """A LabelSelector of an object (matchLabels, matchExpressions), as webhooks have them."""
    selector = selector or {}
    wanted = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or []

    def matches(labels: Object) -> bool:
        if not wanted.items() <= labels.items():
            return False
        for expression in expressions:
            key, values = expression["key"], expression.get("values") or []
            good = {
                "In": labels.get(key) in values,
                "NotIn": labels.get(key) not in values,
                "Exists": key in labels,
                "DoesNotExist": key not in labels,
            }[expression["operator"]]
            if not good:
                return False
        return True

    return matches


def selector_text(selector: Object) -> str:
    """A LabelSelector of an object as queries and people write it, e.g. ``app=web,tier in (a,b)``."""
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
    """What matches an object by its fields, or None. Raises BadRequest for a field that cannot be selected by."""
    tests = []
    for part in filter(None, re.split(r"(?<!\\),", text)):
        found = re.match(r"\s*([^=!\s]+)\s*(==|!=|=)(.*)$", part)
        if not found:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        path, operator, value = found.groups()
        if path not in ("metadata.name", "metadata.namespace", *kind.fields):
            raise bad_request(f"field label not supported: {path}")
        tests.append((path, operator != "!=", value))
    if not tests:
        return None
    return lambda obj: all((_field(obj, path) == value) is wanted for path, wanted, value in tests)


def _field(obj: Object, path: str) -> str:
    if path == "source":
        return (obj.get("source") or {}).get("component", "")
    value: object = obj
    for key in path.split("."):
        value = value.get(key, "") if isinstance(value, dict) else ""
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)
