"""The API's error answers: `Status` objects in the words of a real API server.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from labkit.simulator.kubernetes.objects.kinds import Kind, Object

UNPRINTABLE = re.compile(r'["\\]|[^ -~]')
# https://pkg.go.dev/strconv#Quote
ESCAPES = {
    **{'"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f"},
    **{"\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"},
}
MOST_SENT = 2 * 1024 * 1024  # bytes: the limit of etcd's client


class ApiError(Exception):
    """The API server refuses a request. ``status()`` is the body of the answer."""

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None):
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details

    def status(self) -> Object:
        return {
            **{"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message},
            **({"reason": self.reason} if self.reason else {}),
            **({"details": self.details} if self.details is not None else {}),
            "code": self.code,
        }


@dataclass(frozen=True)
class StatusCause:
    """One error in an object: the field, and the API server's text."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"


def required(field: str, more: str = "") -> StatusCause:
    return StatusCause(field, f"Required value{': ' + more if more else ''}", "FieldValueRequired")


def invalid_value(field: str, value: object, more: str) -> StatusCause:
    return StatusCause(field, f"Invalid value: {quote(value)}: {more}")


def duplicate(field: str, value: object) -> StatusCause:
    return StatusCause(field, f"Duplicate value: {quote(value)}", "FieldValueDuplicate")


def unsupported(field: str, value: object, supported: Iterable[str]) -> StatusCause:
    choices = ", ".join(quote(choice) for choice in supported)
    return StatusCause(
        field, f"Unsupported value: {quote(value)}: supported values: {choices}", "FieldValueNotSupported"
    )


def forbidden_field(field: str, more: str) -> StatusCause:
    return StatusCause(field, f"Forbidden: {more}", "FieldValueForbidden")


def quote(value: object) -> str:
    """Return a string as Go's %q prints it, and any other value as JSON."""
    if isinstance(value, str):
        return f'"{UNPRINTABLE.sub(_escaped, value)}"'
    if isinstance(value, list):
        return "[" + ", ".join(quote(item) for item in value) + "]"
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _escaped(match: re.Match[str]) -> str:
    character, number = match[0], ord(match[0])
    if character in ESCAPES:
        return ESCAPES[character]
    if character == " " or character.isprintable():
        return character
    return f"\\x{number:02x}" if number < 0x80 else f"\\u{number:04x}" if number < 1 << 16 else f"\\U{number:08x}"


def details_of(name: str, group: str, kind: str) -> Object:
    """Return the details of a Status, without empty fields."""
    return {key: value for key, value in (("name", name), ("group", group), ("kind", kind)) if value}


def _details(kind: Kind, name: str = "") -> Object:
    return details_of(name, kind.group, kind.plural)


def not_found(kind: Kind, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{kind.resource} "{name}" not found', _details(kind, name))


def already_exists(kind: Kind, name: str) -> ApiError:
    return ApiError(409, "AlreadyExists", f'{kind.resource} "{name}" already exists', _details(kind, name))


def conflict(kind: Kind, name: str, why: str, *, called: str = "") -> ApiError:
    """Return the error 409 Conflict. ``why`` is the end of its message.

    The message names the resource, e.g. `pods`. ``called`` replaces this name.
    """
    details = _details(kind, name) | ({"kind": called} if called else {})
    message = f'Operation cannot be fulfilled on {called or kind.resource} "{name}": {why}'
    return ApiError(409, "Conflict", message, details)


def modified(kind: Kind, name: str) -> ApiError:
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(kind, name, why)


def forbidden(kind: Kind, name: str, why: str) -> ApiError:
    subject = f'{kind.resource} "{name}"' if name else kind.resource
    return ApiError(403, "Forbidden", f"{subject} is forbidden: {why}", _details(kind, name))


def invalid(kind_name: str, group: str, name: str, causes: list[StatusCause]) -> ApiError:
    """Return the error 422 with all causes, e.g. ``Pod "p" is invalid: spec.containers: Required value``."""
    texts = [*dict.fromkeys(f"{cause.field}: {cause.message}" for cause in causes)]
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    reported = [{"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes]
    details = details_of(name, group, kind_name) | {"causes": reported}
    qualified = f"{kind_name}.{group}" if group else kind_name
    return ApiError(422, "Invalid", f'{qualified} "{name}" is invalid: {text}', details)


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def unknown_path() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def method_not_allowed() -> ApiError:
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def not_acceptable(available: str) -> ApiError:
    message = f"406: Not Acceptable\n\nAvailable representations: {available}"
    return ApiError(406, "NotAcceptable", message, {})


def unsupported_media_type() -> ApiError:
    return ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})


def too_large(limit: int) -> ApiError:
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}", {})


def too_large_to_store(size: int) -> ApiError:
    """Return the error for an object that is too large for etcd. ``size`` is in bytes.

    https://github.com/kubernetes/kubernetes/issues/74600
    """
    message = "etcdserver: request is too large"
    if size > MOST_SENT:
        why = f"trying to send message larger than max ({size} vs. {MOST_SENT})"
        message = f"rpc error: code = ResourceExhausted desc = {why}"
    return ApiError(500, "", message)


def expired(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def internal(message: str) -> ApiError:
    causes = {"causes": [{"message": message}]}
    return ApiError(500, "InternalError", f"Internal error occurred: {message}", causes)
