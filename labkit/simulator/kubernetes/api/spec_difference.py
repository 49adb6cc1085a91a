"""The difference between two pod specs, as an API server prints it when it refuses a change.

A real server converts both specs to its internal types, and compares their JSON line by line. ``internal_pod.json``
lists the fields of the internal types in order.
https://github.com/kubernetes/kubernetes/blob/v1.36.0/pkg/apis/core/types.go
"""

import difflib
import json
from functools import cache
from pathlib import Path
from typing import Any, cast

from labkit.simulator.kubernetes.objects.kinds import Object

# For clients, these fields are beside the security context. In the server's types they are inside it.
IN_SECURITY_CONTEXT = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers")
ZERO = {"string": "", "bool": False, "int32": 0, "int64": 0, "Quantity": "0", "IntOrString": 0}


def difference(old: Object, new: Object) -> str:
    """Return a unified diff of two pod specs, with three lines of context and no file names; "" if no line differs."""
    lines = difflib.unified_diff(_lines(old), _lines(new), lineterm="")
    return "".join(f"{line}\n" for line in [*lines][2:])  # without the diff's two lines with file names


def _lines(spec: Object) -> list[str]:
    context = (spec.get("securityContext") or {}) | {key: spec[key] for key in IN_SECURITY_CONTEXT if key in spec}
    shown = internal("PodSpec", {**spec, "securityContext": context})
    text = json.dumps(shown, indent=1, ensure_ascii=False)
    for sign in "<>&":  # Go's encoder escapes these for HTML
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text.splitlines()


def internal(type_: str, value: Any) -> object:
    """Convert a value from a client's object to the API server's internal type ``type_``, such as `PodSpec`."""
    if type_.startswith("*"):
        return None if value is None else internal(type_[1:], value)
    if type_.startswith("[]"):
        return [internal(type_[2:], item) for item in value] if value else None
    if type_.startswith("map["):
        inner = type_.partition("]")[2]
        return {key: internal(inner, value[key]) for key in sorted(value)} if value else None
    if type_ not in _types():
        return ZERO.get(type_) if value is None else value
    named = {key.lower(): item for key, item in (value or {}).items()}
    return dict(_fields(type_, named))


def _fields(type_: str, named: dict[str, object]) -> list[tuple[str, object]]:
    fields: list[tuple[str, object]] = []
    for label, element in _types()[type_]:
        name, _, rule = label.partition(",")
        if not name:
            fields += _fields(element, named)
        elif named.get(name.lower()) is not None or not rule:
            fields.append((name, internal(element, named.get(name.lower()))))
    return fields


@cache
def _types() -> dict[str, list[list[str]]]:
    return cast("dict[str, list[list[str]]]", json.loads(Path(__file__).with_name("internal_pod.json").read_text()))
