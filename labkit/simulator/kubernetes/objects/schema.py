"""The types of the Kubernetes API: their fields, how lists in them merge, and how they are encoded.

`tests/simulator/kubernetes/write_schema.py` writes `schema.json`. Unknown fields are explained in
https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation, and the protobuf encoding in
https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding.
"""

import json
import re
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn, cast

from labkit.simulator.kubernetes.objects.kinds import Object

# Key: a field's element. Value: the Python types that its JSON value may have. For other elements, any type is allowed.
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "bool": (bool,),
    "int32": (int,),
    "int64": (int,),
    "intstr": (str, int),
    "quantity": (str, int, float, bool),
    **dict.fromkeys(("bytes", "time", "microtime"), (str, NoneType)),
}
BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
NOT_BASE64 = re.compile("[^A-Za-z0-9+/]")
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
QUANTITY_TEXT = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
QUANTITY = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?P<suffix>[eEinumkKMGTP]*[-+]?[0-9]*)")
QUANTITY_SUFFIX = re.compile(r"[numkMGTPE]?|[KMGTPE]i|[eE][-+]?[0-9]+")


class WrongType(Exception):
    """A value doesn't fit its field. The error's text is the text of Go's decoder."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a type.

    ``shape`` is "[]" for a list, "{}" for a map, and "" for a single value. ``element`` is the type of the value, or of
    each item, e.g. "string" or "core.Container". ``number`` is the field's number in protobuf.
    """

    name: str
    shape: str
    element: str
    number: int
    pointer: bool = False
    wrapped: bool = False
    inline: bool = False
    patch: str = ""
    merge_key: str = ""
    list_type: str = ""
    keys: tuple[str, ...] = ()
    atomic: bool = False

    @property
    def go_type(self) -> str:
        element = self.element.rpartition(".")[2]
        element = f"v1.{element}" if "." in self.element else element
        return {"": "", "[]": "[]", "{}": "map[string]"}[self.shape] + element


@dataclass(frozen=True, slots=True)
class Struct:
    """A type: its fields by JSON name (with those of inlined types) and by protobuf number."""

    fields: dict[str, Field]
    numbers: dict[int, Field]


@cache
def _document() -> Object:
    return cast("Object", json.loads(Path(__file__).with_name("schema.json").read_text()))


@cache
def struct(name: str) -> Struct:
    """Return the type with this name, e.g. ``struct("core.Pod")``. Raises ``KeyError`` for an unknown name."""
    fields: dict[str, Field] = {}
    numbers: dict[int, Field] = {}
    for label, go, number, *extra in _document()[name]:
        field = _field(label, go, number, extra[0] if extra else {})
        numbers[number] = field
        if field.inline:
            fields |= struct(field.element).fields
        else:
            fields[label] = field
    return Struct(fields, numbers)


def _field(label: str, go: str, number: int, extra: Object) -> Field:
    shape = ""
    if pointer := go.startswith("*"):
        go = go[1:]
    if go.startswith(("[]", "{}")):
        shape, go = go[:2], go[2:]
    if wrapped := go.startswith("!"):
        # A named list ("ExtraValue") is a plain list in JSON, but a message around a list in protobuf.
        go = go[1:]
        if not shape:
            shape, go = "[]", go[2:]
    return Field(
        name=label,
        shape=shape,
        element=go.lstrip("*"),
        number=number,
        pointer=pointer,
        wrapped=wrapped,
        inline="inline" in extra,
        patch=extra.get("patch", ""),
        merge_key=extra.get("key", ""),
        list_type=extra.get("list", ""),
        keys=tuple(extra.get("keys", ())),
        atomic="atomic" in extra,
    )


def decode(type_name: str, value: Object) -> tuple[Object, list[str]]:
    """Return the object as the server stores it, and the paths of its unknown fields, which the server drops.

    Like Go's encoder, drop nulls, empty lists and empty maps. Raises ``WrongType`` if a value doesn't fit its field.
    """
    unknown: list[str] = []
    root = type_name.rpartition(".")[2]
    if not isinstance(value, dict):
        raise WrongType(f"json: cannot unmarshal {json_type(value)} into Go value of type v1.{root}")
    kept = _struct(struct(type_name), value, root, "", unknown, also=("kind", "apiVersion"))
    return kept, unknown


def _struct(
    kind: Struct, value: Object, owner: str, path: str, unknown: list[str], *, also: tuple[str, ...] = ()
) -> Object:
    kept = {}
    for key, inner in value.items():
        field = kind.fields.get(key)
        where = f"{path}.{key}" if path else key
        if field is None:
            if key in also:
                kept[key] = inner
            else:
                unknown.append(where)
        elif inner is not None:
            new = _value(field, inner, owner, where, unknown)
            if not (field.shape and not new):
                kept[key] = new
    return kept


def _value(field: Field, value: Any, owner: str, path: str, unknown: list[str]) -> object:
    if field.shape == "[]":
        if not isinstance(value, list):
            _refuse(value, owner, path, field.go_type)
        return [_element(field, item, owner, f"{path}[{i}]", unknown) for i, item in enumerate(value)]
    if field.shape == "{}":
        if not isinstance(value, dict):
            _refuse(value, owner, path, field.go_type)
        return {key: _element(field, item, owner, path, unknown) for key, item in value.items()}
    return _element(field, value, owner, path, unknown)


def _element(field: Field, value: Any, owner: str, path: str, unknown: list[str]) -> object:
    element = field.element
    if "." in element:
        if value is None:
            return {}
        if not isinstance(value, dict):
            _refuse(value, owner, path, f"v1.{element.rpartition('.')[2]}")
        return _struct(struct(element), value, element.rpartition(".")[2], path, unknown)
    if (types := TYPES.get(element)) and type(value) not in types:
        _refuse(value, owner, path, element)
    if element == "quantity":
        value = str(value)  # for a bool, the text isn't a quantity
    if value is not None and (check := READ_AS.get(element)):
        check(value)
    return value


def _base64(text: str) -> None:
    """Raise WrongType with the position at which Go's decoder stops, if the text isn't base64."""
    plain = text.replace("\r", "").replace("\n", "")
    good = BASE64.match(plain)
    if good and good.end() < len(plain):
        wrong = NOT_BASE64.search(plain, good.end(), good.end() + 4)
        raise WrongType(f"illegal base64 data at input byte {wrong.start() if wrong else good.end()}")


def _time(text: str) -> None:
    try:
        if RFC3339.fullmatch(text):
            datetime.fromisoformat(text)
            return
    except ValueError:
        pass
    raise WrongType(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse "{text}" as "2006"')


def _quantity(text: str) -> None:
    """https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/"""
    match = QUANTITY.fullmatch(text)
    if not match:
        raise WrongType(f"quantities must match the regular expression '{QUANTITY_TEXT}'")
    if not QUANTITY_SUFFIX.fullmatch(match["suffix"]):
        raise WrongType("unable to parse quantity's suffix")


READ_AS = {"bytes": _base64, "time": _time, "microtime": _time, "quantity": _quantity}


def _refuse(value: object, owner: str, path: str, go_type: str) -> NoReturn:
    plain = "".join(part.split("]")[-1] for part in path.split("["))
    raise WrongType(f"json: cannot unmarshal {json_type(value)} into Go struct field {owner}.{plain} of type {go_type}")


def json_type(value: object) -> str:
    """Return Go's name for the JSON type of the value, e.g. ``number`` or ``array``."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    names = ((str, "string"), (list, "array"), (dict, "object"))
    return next((name for type_, name in names if isinstance(value, type_)), "null")
