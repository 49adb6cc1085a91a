"""Decode a protobuf body to the object that a JSON body would contain.

kubectl sends protobuf for `create namespace`, `create token` and others, and doesn't fall back to JSON. The server
never answers in protobuf. https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding
"""

import base64
import datetime
import struct as packing
from collections.abc import Iterator
from typing import Any

from labkit.simulator.kubernetes.objects.kinds import Object
from labkit.simulator.kubernetes.objects.schema import Field, Struct, struct

MAGIC = b"k8s\x00"
INVALID = "proto: cannot parse invalid wire-format data"
NUMBERS = ("int32", "int64", "bool", "float64")


class InvalidProtobuf(Exception):
    """The bytes aren't a Kubernetes protobuf message."""


def envelope(body: bytes) -> tuple[str, str, bytes]:
    """Return the apiVersion, the kind and the encoded object of a protobuf ``body``. Raises ``InvalidProtobuf``."""
    if not body.startswith(MAGIC):
        raise InvalidProtobuf(
            "the provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
        )
    try:
        message = dict(_fields(body[len(MAGIC) :]))
        type_meta, raw = dict(_fields(message.get(1, b""))), message.get(2, b"")
        api_version, kind = (type_meta.get(number, b"").decode() for number in (1, 2))
    except (AttributeError, TypeError, ValueError, packing.error) as error:
        raise InvalidProtobuf(INVALID) from error
    return api_version, kind, raw if isinstance(raw, bytes) else b""


def decode(type_name: str, raw: bytes) -> Object:
    """Return the encoded object in the form that it has in JSON. Raises ``InvalidProtobuf``."""
    try:
        return _message(struct(type_name), raw)
    except (AttributeError, IndexError, OSError, OverflowError, TypeError, ValueError, packing.error) as error:
        # A field has the wrong wire type, a text isn't UTF-8, or a time is invalid.
        raise InvalidProtobuf(INVALID) from error


def _message(kind: Struct, raw: bytes) -> Object:
    result: Object = {}
    for number, value in _fields(raw):
        field = kind.numbers.get(number)
        if field is None:
            continue
        if field.inline:
            result |= _message(struct(field.element), value)
        elif field.shape == "{}":
            entry = dict(_fields(value))
            item = entry.get(2, b"" if field.wrapped or field.element not in NUMBERS else 0)
            result.setdefault(field.name, {})[entry.get(1, b"").decode()] = (
                [text.decode() for _, text in _fields(item)] if field.wrapped else _scalar(field, item)
            )
        elif field.wrapped:
            result[field.name] = [text.decode() for _, text in _fields(value)]
        elif field.shape == "[]":
            result.setdefault(field.name, []).append(_scalar(field, value))
        else:
            new = _scalar(field, value)
            # Go writes every field that isn't a pointer, even if it isn't set.
            if field.pointer or new not in ("", 0, False, None, {}):
                result[field.name] = new
    return result


def _scalar(field: Field, value: Any) -> object:
    element = field.element
    if "." in element:
        return _message(struct(element), value)
    match element:
        case "string":
            return value.decode()
        case "bool":
            return bool(value)
        case "int32" | "int64":
            return value - (1 << 64) if value >> 63 else value
        case "bytes":
            return base64.b64encode(value).decode()
        case "time" | "microtime":
            return _time(value, element == "microtime")
        case "quantity":
            return next((text.decode() for number, text in _fields(value) if number == 1), "0")
        case "intstr":
            parts = dict(_fields(value))
            return parts[3].decode() if parts.get(1) else parts.get(2, 0)
        case "float64":
            return packing.unpack("<d", packing.pack("<Q", value))[0]
    return None


def _time(value: bytes, micro: bool) -> str | None:
    parts = dict(_fields(value))
    if not parts.get(1) or parts[1] >> 63:
        return None
    moment = datetime.datetime.fromtimestamp(parts[1] + parts.get(2, 0) / 1e9, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def _fields(raw: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the number and the value of each field in a protobuf message."""
    at = 0
    value: int | bytes
    while at < len(raw):
        tag, at = _varint(raw, at)
        match tag & 7:
            case 0:
                value, at = _varint(raw, at)
            case 1:
                value, at = packing.unpack_from("<Q", raw, at)[0], at + 8
            case 2:
                size, at = _varint(raw, at)
                value, at = raw[at : at + size], at + size
                if at > len(raw):
                    raise InvalidProtobuf("unexpected EOF")
            case 5:
                value, at = packing.unpack_from("<I", raw, at)[0], at + 4
            case wire:
                raise InvalidProtobuf(f"proto: illegal wireType {wire}")
        yield tag >> 3, value


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(raw):
            raise InvalidProtobuf("unexpected EOF")
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & ((1 << 64) - 1), at
        shift += 7
