"""JSON patches that the API server refuses if somebody changed the object after the doctor read it.

https://datatracker.ietf.org/doc/html/rfc6902
"""

import json
import shlex
from collections.abc import Mapping
from typing import Any

Operation = dict[str, object]

CHANGED = "changed since: run labkit doctor again"
"""The end of the line that a patch prints if the API server refuses it."""


def patched(kubectl: str, name: str, operations: list[Operation], then: str = "") -> str:
    """Return the shell line that patches the object `name`, such as `deployment/cart -n shop`.

    If a test among the operations fails, kubectl only says that the request is invalid. So the line says what to do.
    The command `then` runs only after a successful patch.
    """
    refused = shlex.quote(
        f"{name.split(' -n ', maxsplit=1)[0]} was not changed. If the request is invalid, it {CHANGED}"
    )
    patch = f"{kubectl} patch {name} --type=json -p {shlex.quote(json.dumps(operations))}"
    return f"{patch} || {{ echo {refused}; false; }} &&\n{then}" if then else f"{patch} || echo {refused}"


def unchanged(metadata: Mapping[str, object]) -> list[Operation]:
    """Return the test that nobody changed the object's spec since the doctor read `metadata`.

    The API server increments `generation` at each such change.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/#System
    """
    return [tested("/metadata/generation", metadata["generation"])] if "generation" in metadata else []


def tested(path: str, value: object) -> Operation:
    """Return the operation that fails if `path` doesn't hold this value."""
    return {"op": "test", "path": path, "value": value}


def escaped(key: str) -> str:
    """Return a key as a part of a path. https://datatracker.ietf.org/doc/html/rfc6901#section-3"""
    return key.replace("~", "~0").replace("/", "~1")


def difference(before: Mapping[str, object], after: Mapping[str, object], path: str) -> list[Operation]:
    """Return the operations that turn the value `before` at `path` into `after`."""
    operations: list[Operation] = [
        {"op": "remove", "path": f"{path}/{escaped(key)}"} for key in before if key not in after
    ]
    for key, value in after.items():
        at = f"{path}/{escaped(key)}"
        operations += _change(before[key], value, at) if key in before else [{"op": "add", "path": at, "value": value}]
    return operations


def _change(before: Any, after: Any, path: str) -> list[Operation]:
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        return difference(before, after, path)
    if isinstance(before, list) and isinstance(after, list) and (operations := _items(before, after, path)) is not None:
        return operations
    return [{"op": "replace", "path": path, "value": after}]


def _items(before: list[Any], after: list[Any], path: str) -> list[Operation] | None:
    """Return the operations for a list; None if the kept items don't keep their order."""
    old, new = [_key(item) for item in before], [_key(item) for item in after]
    kept = [key for key in old if key in new]
    if new[: len(kept)] != kept:
        return None
    operations: list[Operation] = [
        {"op": "remove", "path": f"{path}/{i}"} for i in reversed(range(len(old))) if old[i] not in new
    ]
    for position, item in enumerate(after):
        if position < len(kept):
            operations += _change(before[old.index(kept[position])], item, f"{path}/{position}")
        else:
            operations.append({"op": "add", "path": f"{path}/-", "value": item})
    return operations


def _key(item: Any) -> Any:
    """Return what identifies an item of a list. Mounts of one volume differ in their path."""
    return (item.get("name"), item.get("mountPath")) if isinstance(item, dict) and "name" in item else repr(item)
