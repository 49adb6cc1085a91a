"""The managers of an object's fields (metadata.managedFields), and server-side apply.

https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

import copy
import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from labkit.simulator.kubernetes.api.patches import merged
from labkit.simulator.kubernetes.objects.kinds import Object
from labkit.simulator.kubernetes.objects.schema import Field, struct
from labkit.simulator.kubernetes.objects.status import ApiError
from labkit.simulator.kubernetes.objects.storage import dump

Path = tuple[str, ...]
SERVERS_OWN = {
    *("creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "generation", "managedFields"),
    *("name", "namespace", "resourceVersion", "selfLink", "uid"),
}


@dataclass(frozen=True)
class Writer:
    """Who wrote some fields: the manager's name, the operation (Apply or Update), and the subresource."""

    manager: str
    operation: str
    api_version: str
    subresource: str = ""


def updated(managers: bytes, type_name: str, old: Object, new: Object, writer: Writer, *, now: str) -> bytes:
    """Return the managers of an object's fields after a write that isn't an apply.

    ``managers`` are the managers before the write. ``writer`` now manages all fields that it changed.
    """
    before, after = _leaves(type_name, old), _leaves(type_name, new)
    changed = {path for path, value in after.items() if path not in before or before[path] != value}
    removed = before.keys() - after.keys()
    if not changed and not removed:
        return managers
    known, times = _read(managers)
    owned = {who: paths - changed - removed for who, paths in known.items()}
    if changed:
        owned[writer] = owned.get(writer, set()) | changed
        times[writer] = now
    return _write(owned, times)


def applied(
    managers: bytes, type_name: str, old: Object, wanted: Object, writer: Writer, *, now: str, force: bool
) -> tuple[Object, bytes]:
    """Return the object ``old`` after ``writer`` has applied the fields in ``wanted``, and the object's new managers.

    Without ``force``, raises Conflict if another writer manages a field that would change.
    """
    there, mine = _leaves(type_name, old), _leaves(type_name, wanted)
    owned, times = _read(managers)
    contested = {
        path: who
        for who, paths in owned.items()
        if who != writer
        for path in paths & mine.keys()
        if path in there and there[path] != mine[path]
    }
    if contested and not force:
        raise _conflict(contested)
    result = merged(type_name, old, wanted)
    others = set().union(*(paths for who, paths in owned.items() if who != writer))
    given_up = owned.get(writer, set()) - mine.keys() - others
    if given_up:
        result = copy.deepcopy(result)
        for path in sorted(given_up, key=len, reverse=True):
            _remove(result, path, others | mine.keys())
    owned = {who: paths - contested.keys() for who, paths in owned.items()}
    if owned.get(writer) != set(mine):
        times[writer] = now
    owned[writer] = set(mine)
    return result, _write(owned, times)


def named(entries: list[Object] | None, managers: bytes) -> bytes:
    """Return the managers after a write that sets metadata.managedFields to ``entries``.

    `[{}]` removes all managers. With no entries, or with an entry that can't be read, return ``managers`` unchanged.

    https://kubernetes.io/docs/reference/using-api/server-side-apply/#clearing-managedfields
    """
    if entries == [{}]:
        return b""
    return dump(entries) if entries and all(map(_is_readable, entries)) else managers


def _is_readable(entry: Object) -> bool:
    if entry.get("operation") not in ("Apply", "Update") or entry.get("fieldsType") != "FieldsV1":
        return False
    if not all(entry.get(key) for key in ("manager", "apiVersion", "time", "fieldsV1")):
        return False
    try:
        paths = _flat(entry["fieldsV1"], ())
        return all(
            _is_step(step) or (step == "." and at == len(path)) for path in paths for at, step in enumerate(path, 1)
        )
    except (AttributeError, ValueError, RecursionError):
        return False


def _is_step(step: str) -> bool:
    """Whether the text is a step of a path in managedFields, such as `f:spec` or `k:{"name":"app"}`."""
    kind, _, text = step.partition(":")
    if kind == "f":
        return True
    return kind in ("k", "v") and (isinstance(json.loads(text), dict) or kind == "v")


def _leaves(type_name: str, obj: Object) -> dict[Path, object]:
    """Return the object's values by their path in managedFields."""
    leaves: dict[Path, object] = {}
    fields = struct(type_name).fields
    for key, value in obj.items():
        if key == "metadata":
            inner = {name: item for name, item in value.items() if name not in SERVERS_OWN}
            _struct(struct("meta.ObjectMeta").fields, inner, ("f:metadata",), leaves)
        elif key in fields:
            _field(fields[key], value, (f"f:{key}",), leaves)
    return leaves


def _struct(fields: dict[str, Field], value: Object, path: Path, leaves: dict[Path, object]) -> None:
    for key, inner in value.items():
        where = (*path, f"f:{key}")
        if key in fields:
            _field(fields[key], inner, where, leaves)
        else:
            leaves[where] = inner


def _field(field: Field, value: Any, path: Path, leaves: dict[Path, object]) -> None:
    is_struct = "." in field.element
    if field.atomic or not value:
        leaves[path] = value
    elif field.shape == "{}" and isinstance(value, dict):
        leaves.update({(*path, f"f:{key}"): item for key, item in value.items()})
    elif field.shape == "[]" and field.list_type == "map" and is_struct:
        for item in value:
            key = {name: item.get(name, "TCP" if name == "protocol" else None) for name in field.keys}
            where = (*path, "k:" + json.dumps(key, separators=(",", ":")))
            leaves[(*where, ".")] = True
            _struct(struct(field.element).fields, item, where, leaves)
    elif field.shape == "[]" and field.list_type == "set":
        leaves.update({(*path, f"v:{json.dumps(item)}"): True for item in value})
    elif field.shape == "" and is_struct and isinstance(value, dict):
        _struct(struct(field.element).fields, value, path, leaves)
    else:
        leaves[path] = value


def _read(managers: bytes) -> tuple[dict[Writer, set[Path]], dict[Writer, str]]:
    """Return the fields that each writer manages, and the time of each writer's last write."""
    owned, times = {}, {}
    for entry in json.loads(managers) if managers else ():
        who = Writer(entry["manager"], entry["operation"], entry["apiVersion"], entry.get("subresource", ""))
        owned[who], times[who] = set(_flat(entry["fieldsV1"], ())), entry["time"]
    return owned, times


def _flat(tree: Object, path: Path) -> list[Path]:
    if not tree:
        return [path]
    return [leaf for key, inner in tree.items() for leaf in _flat(inner, (*path, key))]


def _write(owned: dict[Writer, set[Path]], times: dict[Writer, str]) -> bytes:
    entries = []
    for who, paths in owned.items():
        if not paths:
            continue
        tree: Object = {}
        for path in sorted(paths):
            node = tree
            for step in path:
                node = node.setdefault(step, {})
        entry = {
            "manager": who.manager,
            "operation": who.operation,
            "apiVersion": who.api_version,
            "time": times[who],
            "fieldsType": "FieldsV1",
            "fieldsV1": tree,
            **({"subresource": who.subresource} if who.subresource else {}),
        }
        entries.append(entry)
    return dump(entries) if entries else b""


def _remove(obj: Object, path: Path, kept: set[Path]) -> None:
    """Remove the field at ``path``. A list item with a key stays if ``kept`` has its path, or that of a field in it."""
    *way, last = path
    parent: object = None
    node: object = obj
    for step in way:
        parent, node = node, _step(node, step)
        if node is None:
            return
    if last == "." and isinstance(parent, list):
        if not any(other[: len(way)] == path[:-1] for other in kept):
            parent.remove(node)
    elif last.startswith("f:") and isinstance(node, dict):
        node.pop(last[2:], None)
        if not node and isinstance(parent, dict):
            parent.pop(way[-1][2:], None)
    elif last.startswith("v:") and isinstance(node, list):
        node[:] = [item for item in node if item != json.loads(last[2:])]


def _step(node: object, step: str) -> object:
    if step.startswith("f:"):
        return node.get(step[2:]) if isinstance(node, dict) else None
    if not step.startswith("k:") or not isinstance(node, list):
        return None
    wanted = json.loads(step[2:])
    return next((item for item in node if all(item.get(k) == v for k, v in wanted.items() if v != "TCP")), None)


def _conflict(contested: dict[Path, Writer]) -> ApiError:
    by_writer: dict[Writer, list[str]] = defaultdict(list)
    for path, who in sorted(contested.items(), key=lambda item: item[0]):
        by_writer[who].append(_shown(path))
    texts, causes = [], []
    for who, fields in sorted(by_writer.items(), key=lambda item: item[0].manager):
        using = f' with subresource "{who.subresource}"' if who.subresource else ""
        using += f" using {who.api_version}" if who.operation == "Update" else ""
        one = f'conflict with "{who.manager}"{using}'
        texts += [f'conflicts with "{who.manager}"{using}:', *(f"- {field}" for field in fields)]
        causes += [{"reason": "FieldManagerConflict", "message": one, "field": field} for field in fields]
    if len(causes) == 1:
        texts = [f"{causes[0]['message']}: {causes[0]['field']}"]
    count = f"{len(causes)} conflict{'s' if len(causes) > 1 else ''}"
    message = f"Apply failed with {count}: " + "\n".join(texts)
    return ApiError(409, "Conflict", message, {"causes": causes})


def _shown(path: Path) -> str:
    """Return a path as people write it, e.g. ``.spec.containers[name="main"].image``."""
    text = ""
    for step in path:
        if step.startswith("f:"):
            text += f".{step[2:]}"
        elif step.startswith("k:"):
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in json.loads(step[2:]).items()) + "]"
        elif step.startswith("v:"):
            text += f"[={step[2:]}]"
    return text
