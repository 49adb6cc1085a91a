"""A container's variables and arguments, from its pod's spec.

https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
"""

import base64
import math
import os
import re
from collections import ChainMap
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal

from labkit.simulator.kubernetes.objects.kinds import Object
from labkit.simulator.kubernetes.objects.quantities import quantity

Room = dict[str, str]  # a node's capacity: resource -> quantity
Fetch = Callable[[str, str], Awaitable[Object | None]]  # (kind, name) -> a ConfigMap or Secret of the pod's namespace

LONGEST = os.sysconf("SC_ARG_MAX")  # the most bytes that a program's variables and arguments may have
_TOO_LONG = f"the container's variables and arguments are longer than this machine allows ({LONGEST} bytes)"
_REFERENCE = re.compile(r"\$\$|\$\(([^()]*)\)")


class ConfigError(Exception):
    """Something in the spec is missing, isn't supported, or is too long."""


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Return the text with each known `$(NAME)` replaced. `$$(NAME)` becomes `$(NAME)`.

    Raises ConfigError if the text becomes too long for a program.
    """
    length = 0

    def replacement(match: re.Match[str]) -> str:
        nonlocal length
        value = "$" if match[0] == "$$" else variables.get(match[1], match[0])
        length += len(value)
        if length > LONGEST:
            raise ConfigError(_TOO_LONG)
        return value

    return _REFERENCE.sub(replacement, text)


async def variables_of(
    container: Object,
    pod: Object,
    given: dict[str, str],
    fetch: Callable[[str, str], Awaitable[Object | None]],
    room: Room,
) -> dict[str, str]:
    """Return the container's variables from `envFrom` and `env`. `$(NAME)` may also name a variable in `given`.

    `given` are the node's variables. `room` is the node's capacity. If a `resourceFieldRef` names a limit that isn't
    set, the variable's value comes from the node's capacity. Raises ConfigError.
    """
    made: dict[str, str] = {}
    known = ChainMap(made, given)
    length = 0

    def add(name: str, value: str) -> None:
        nonlocal length
        length += len(name) + len(value)
        if length > LONGEST:
            raise ConfigError(_TOO_LONG)
        made[name] = value

    for source in container.get("envFrom") or ():
        kind, field = ("configmap", "configMapRef") if "configMapRef" in source else ("secret", "secretRef")
        reference = source[field]
        for key, text in (await _texts(kind, reference, fetch)).items():
            add(source.get("prefix", "") + key, text)
    for variable in container.get("env") or ():
        source = variable.get("valueFrom")
        if not source:
            add(variable["name"], expanded(variable.get("value") or "", known))
            continue
        value = await _value(source, container, pod, fetch, room)
        if value is not None:
            add(variable["name"], value)
    return made


def field_value(pod: Object, path: str) -> str:
    """Return the downward API's value for a field path. Raises ConfigError for an unknown path.

    https://kubernetes.io/docs/concepts/workloads/pods/downward-api/
    """
    metadata, spec = pod["metadata"], pod["spec"]
    address = (pod.get("status") or {}).get("podIP", "127.0.0.1")
    known: dict[str, str] = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "metadata.labels": _listed(metadata.get("labels")),
        "metadata.annotations": _listed(metadata.get("annotations")),
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.hostIP": "127.0.0.1",
        "status.hostIPs": "127.0.0.1",
        "status.podIP": address,
        "status.podIPs": address,
    }
    if path in known:
        return known[path]
    if entry := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return str((metadata.get(entry[1]) or {}).get(entry[2], ""))
    raise ConfigError(f"unsupported fieldPath: {path}")


def resource_value(pod: Object, reference: Object, room: Room, container: Object | None = None) -> str:
    """Return the limit or request that ``reference`` names, divided by the reference's divisor and rounded up.

    If the reference names no container, use `container`. A missing limit is the node's capacity (`room`). A missing
    request is 0.

    Raises ConfigError if the container doesn't exist.
    https://kubernetes.io/docs/tasks/inject-data-application/downward-api-volume-expose-pod-information/
    """
    spec = pod["spec"]
    if name := reference.get("containerName"):
        there = [*(spec.get("initContainers") or ()), *spec["containers"]]
        container = next((each for each in there if each["name"] == name), None)
    if container is None:
        raise ConfigError(f"container {name} not found" if name else "the resourceFieldRef names no container")
    kind, _, resource = reference["resource"].partition(".")
    resources = container.get("resources") or {}
    value = (resources.get(kind) or {}).get(resource)
    if value is None:
        value = room.get(resource, "0") if kind == "limits" else "0"
    divisor = quantity(reference.get("divisor") or "1") or Decimal(1)
    return str(math.ceil(quantity(value) / divisor))


async def _value(source: Object, container: Object, pod: Object, fetch: Fetch, room: Room) -> str | None:
    if "fieldRef" in source:
        return field_value(pod, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        return resource_value(pod, source["resourceFieldRef"], room, container)
    for kind, field in (("configmap", "configMapKeyRef"), ("secret", "secretKeyRef")):
        if field in source:
            reference = source[field]
            entries = await _texts(kind, reference, fetch)
            if reference["key"] not in entries and not reference.get("optional"):
                shown = "ConfigMap" if kind == "configmap" else "Secret"
                named = f"{shown} {pod['metadata']['namespace']}/{reference['name']}"
                raise ConfigError(f"couldn't find key {reference['key']} in {named}")
            return entries.get(reference["key"])
    raise ConfigError(f"the moto target doesn't support valueFrom.{next(iter(source))}")


async def _texts(kind: str, reference: Object, fetch: Fetch) -> dict[str, str]:
    data = (await referenced(kind, reference, fetch)).get("data") or {}
    if kind == "secret":
        return {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}
    return data


async def referenced(kind: str, reference: Object, fetch: Fetch) -> Object:
    """Return the ConfigMap or Secret that ``reference`` names.

    If the object is missing, return {} for an optional reference, and raise ConfigError for a required one.
    """
    obj = await fetch(kind, reference.get("name", ""))
    if obj is None and not reference.get("optional"):
        raise ConfigError(f'{kind} "{reference.get("name", "")}" not found')
    return obj or {}


def _listed(entries: Object | None) -> str:
    return "\n".join(f'{key}="{value}"' for key, value in sorted((entries or {}).items()))
