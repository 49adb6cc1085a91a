"""Compare RBAC rules with requests, and write rules as text for messages.

https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/role-v1/
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from labkit.simulator.kubernetes.objects.kinds import Object
from labkit.simulator.kubernetes.objects.storage import quoted_list

# A rule's lists, in the order in which messages write them.
PARTS = ("apiGroups", "resources", "nonResourceURLs", "resourceNames", "verbs")


@dataclass(frozen=True)
class Attributes:
    """What a user wants to do: a ``verb`` on a ``resource`` or, if ``resource`` is "", on a URL path (``path``)."""

    verb: str
    path: str = ""
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    fields: str = ""  # the field selector of a list or a watch

    @property
    def full_resource(self) -> str:
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def allows(rule: Object, wanted: Attributes) -> bool:
    """Whether the rule allows the request ``wanted``."""
    if not _has(rule, "verbs", wanted.verb):
        return False
    if not wanted.resource:
        return any(
            path in ("*", wanted.path) or (path.endswith("*") and wanted.path.startswith(path[:-1]))
            for path in rule.get("nonResourceURLs") or ()
        )
    names = rule.get("resourceNames")
    if not _has(rule, "apiGroups", wanted.group) or (names and wanted.name not in names):
        return False
    subresource = f"*/{wanted.subresource}" if wanted.subresource else "*"
    return _has(rule, "resources", wanted.full_resource) or subresource in (rule.get("resources") or ())


def missing(wanted: list[Object], held: list[Object]) -> list[Object]:
    """Return rules for those permissions of the ``wanted`` rules that no ``held`` rule grants.

    Verbs for the same resource are joined in one rule.
    """
    merged: dict[tuple[object, ...], Object] = {}
    for part in _parts(wanted):
        if any(_covers(rule, part) for rule in held):
            continue
        key: tuple[object, ...] = tuple((name, *part[name]) for name in PARTS if name in part and name != "verbs")
        if "nonResourceURLs" in part:
            key = (*key, *part["verbs"])
        elif key in merged:
            merged[key] = {**merged[key], "verbs": [*merged[key]["verbs"], *part["verbs"]]}
            continue
        merged[key] = part
    return list(merged.values())


def compact(rule: Object) -> str:
    """Return the rule in one line, e.g. ``{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}``."""
    names = {"apiGroups": "APIGroups", "nonResourceURLs": "NonResourceURLs"}
    parts = [
        f"{names.get(name, name[0].upper() + name[1:])}:{quoted_list(rule[name])}" for name in PARTS if rule.get(name)
    ]
    return f"{{{', '.join(parts)}}}"


def _parts(rules: Iterable[Object]) -> Iterator[Object]:
    """Split the rules into smaller rules, each with one verb.

    A smaller rule has one URL path, or one API group and one resource. With a resource, it has at most one object name.
    """
    for rule in rules:
        for verb in rule.get("verbs") or ():
            for group in rule.get("apiGroups") or ():
                for resource in rule.get("resources") or ():
                    part = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
                    names = rule.get("resourceNames") or ()
                    yield from [part | {"resourceNames": [name]} for name in names] if names else [part]
            for path in rule.get("nonResourceURLs") or ():
                yield {"nonResourceURLs": [path], "verbs": [verb]}


def _covers(rule: Object, part: Object) -> bool:
    """Whether the rule covers ``part``, a rule from `_parts`."""
    if "nonResourceURLs" in part:
        return allows(rule, Attributes(part["verbs"][0], path=part["nonResourceURLs"][0]))
    resource, _, subresource = part["resources"][0].partition("/")
    wanted = Attributes(
        part["verbs"][0],
        group=part["apiGroups"][0],
        resource=resource,
        subresource=subresource,
        name=part.get("resourceNames", [""])[0],
    )
    return allows(rule, wanted)


def _has(rule: Object, name: str, value: str) -> bool:
    values = rule.get(name) or ()
    return value in values or "*" in values
