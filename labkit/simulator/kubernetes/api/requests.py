"""A request to the API server (its parameters, and its body as an object), and the response to a request.

https://kubernetes.io/docs/reference/using-api/api-concepts/#api-verbs
https://kubernetes.io/docs/reference/kubernetes-api/common-parameters/common-parameters/
"""

import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

import yaml
from starlette.types import Scope

from labkit.simulator.event_loop import in_thread_if_large
from labkit.simulator.kubernetes.access.authentication import ANONYMOUS, User
from labkit.simulator.kubernetes.access.rules import Attributes
from labkit.simulator.kubernetes.api import protobuf
from labkit.simulator.kubernetes.api.yaml_documents import yaml_value
from labkit.simulator.kubernetes.objects import schema
from labkit.simulator.kubernetes.objects.kinds import BY_NAME, SUBRESOURCES, Object
from labkit.simulator.kubernetes.objects.status import (
    ApiError,
    StatusCause,
    bad_request,
    forbidden_field,
    invalid,
    invalid_value,
    not_acceptable,
    too_large,
    unsupported,
)
from labkit.simulator.kubernetes.objects.storage import dump
from labkit.webhook.body import whole_characters

LIMIT = 3 * 1024 * 1024
MOST_VALUES = 50_000  # in a body: to parse more, Python needs over 100 ms, and nothing can interrupt it
LONGEST_YAML = 64 * 1024  # bytes: Python needs seconds to parse a megabyte of YAML, and kubectl sends JSON
JSON, YAML, PROTOBUF = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"
AVAILABLE = f"{JSON}, {YAML}, {PROTOBUF}, {JSON};stream=watch, {PROTOBUF};stream=watch"
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
NOT_OLDER = "NotOlderThan"
VALIDATIONS = ("", "Ignore", "Strict", "Warn")
SCHEME = '"pkg/api/legacyscheme/scheme.go:30"'
KNOWN_KINDS = set(BY_NAME) | {sub.kind for sub in SUBRESOURCES}
_yaml_dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass
class KubeResponse:
    """The answer to a request. For a watch or for logs, it has a ``stream`` instead of a ``body``."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    stream: AsyncGenerator[bytes] | None = None


def respond(body: object, status: int = 200) -> KubeResponse:
    return KubeResponse(status, body if isinstance(body, bytes) else dump(body))


async def in_media_type(response: KubeResponse, request: "KubeRequest") -> KubeResponse:
    """Return the answer, converted to YAML if the client wants YAML."""
    if b"yaml" in request.headers.get(b"accept", b"") and request.media_type()[0] == YAML:
        response.body = await in_thread_if_large(len(response.body), _as_yaml, response.body)
        response.content_type = YAML
    return response


def _as_yaml(body: bytes) -> bytes:
    return yaml.dump(json.loads(body), Dumper=_yaml_dumper).encode()


@dataclass
class KubeRequest:
    """A request with a parsed path. If the path isn't a resource's, ``resource`` is ""."""

    method: str
    path: str
    query: dict[str, str]
    queries: list[tuple[str, str]]
    headers: dict[bytes, bytes]
    body: bytes = b""
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    warnings: list[str] = field(default_factory=list)
    user: User = ANONYMOUS
    applies: bool = False

    @classmethod
    def of_scope(cls, scope: Scope) -> "KubeRequest":
        raw = scope.get("raw_path") or scope["path"].encode()
        path = raw.decode("latin-1").partition("?")[0]
        queries = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        request = cls(
            scope.get("method", "GET"), unquote(path), dict(reversed(queries)), queries, dict(scope["headers"])
        )
        request._read_path([unquote(part) for part in path.strip("/").split("/")])
        return request

    def _read_path(self, parts: list[str]) -> None:
        if parts[0] == "api" and len(parts) > 2:
            self.version, parts = parts[1], parts[2:]
        elif parts[0] == "apis" and len(parts) > 3:
            self.group, self.version, parts = parts[1], parts[2], parts[3:]
        else:
            return
        if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in ("status", "finalize"):
            self.namespace, parts = parts[1], parts[2:]
        self.resource = parts[0]
        self.name = parts[1] if len(parts) > 1 else ""
        self.subresource = "/".join(parts[2:])
        if self.resource == "namespaces" and not self.group:
            self.namespace = self.name

    def flag(self, name: str) -> bool:
        """Whether the query sets this parameter to true."""
        return self.query.get(name, "").lower() in ("true", "1")

    def integer(self, name: str) -> int:
        """Return a number from the query; 0 if the parameter is missing. Raises BadRequest if it isn't a number."""
        text = self.query.get(name) or "0"
        try:
            return int(text)
        except ValueError:
            raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None

    def resource_version(self, refusal: Callable[[str], ApiError]) -> int | None:
        """Return the query's resource version. For an invalid version, raises ``refusal(text)``."""
        text = self.query.get("resourceVersion", "")
        if not text:
            return None
        if not (text.isascii() and text.isdigit()):
            why = "invalid syntax"
        elif len(digits := text.lstrip("0") or "0") <= 20 and int(digits) < 1 << 64:
            return int(digits)
        else:
            why = "value out of range"
        raise refusal(f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": {why}')

    def check_list_options(self) -> None:
        """Raise Invalid if the query's options for a list or a watch contradict each other.

        https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
        """
        if causes := _watch_causes(self.query) if self.flag("watch") else _list_causes(self.query):
            raise invalid("ListOptions", "meta.k8s.io", "", causes)

    def options_version(self) -> str:
        """Return the apiVersion of the DeleteOptions in the body."""
        try:
            value, _ = parse(self.body, yaml_too=True)
            version = value.get("apiVersion") if isinstance(value, dict) else None
            return version if version and isinstance(version, str) else "v1"
        except ValueError:
            return "meta.k8s.io/v1" if self.body[:4] == b"k8s\x00" and b"meta.k8s.io/v1" in self.body[:40] else "v1"

    @property
    def verb(self) -> str:
        """The request's verb in RBAC's words, e.g. ``deletecollection``."""
        if not self.resource:
            return self.method.lower()
        if verb := VERBS.get(self.method):
            return verb if verb != "delete" or self.name else "deletecollection"
        if self.method not in ("GET", "HEAD"):
            return ""  # as kube-apiserver has it: only who may do everything gets to know that it isn't allowed
        return "watch" if self.flag("watch") else "get" if self.name else "list"

    @property
    def attributes(self) -> Attributes:
        if not self.resource:
            return Attributes(self.verb, path=self.path)
        selector = self.query.get("fieldSelector", "") if self.verb in ("list", "watch", "deletecollection") else ""
        return Attributes(
            self.verb,
            group=self.group,
            resource=self.resource,
            subresource=self.subresource,
            namespace=self.namespace,
            name=self.name or _only_name(selector),
            fields=selector,
        )

    @property
    def content_type(self) -> str:
        return self.headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()

    @property
    def manager(self) -> str:
        """The name of the manager for the fields that this request sets."""
        if manager := self.query.get("fieldManager"):
            return manager
        return self.headers.get(b"user-agent", b"unknown").decode("latin-1").partition("/")[0][:128] or "unknown"

    def dry_run(self, options: str) -> bool:
        """Return whether the write is a dry run, which the server must not store.

        ``options`` is the type of the options in the query, e.g. ``CreateOptions``. Raises Invalid if one of these
        options is wrong.
        """
        causes = [] if options == "DeleteOptions" else _field_manager(self.query.get("fieldManager", ""))
        given = [value for key, value in self.queries if key == "dryRun" and value]
        causes += dry_run_causes(given)
        if options != "DeleteOptions" and (mode := self.query.get("fieldValidation", "")) not in VALIDATIONS:
            causes.append(unsupported("fieldValidation", mode, VALIDATIONS))
        if causes:
            raise invalid(options, "meta.k8s.io", "", causes)
        return bool(given)

    @property
    def table(self) -> bool:
        """Whether the client prefers a Table to plain JSON."""
        return self.media_type()[1]

    def media_type(self) -> tuple[str, bool]:
        """Return the answer's format (JSON or YAML), and whether the client prefers a Table. Raises NotAcceptable."""
        accept = self.headers.get(b"accept", b"").decode("latin-1")
        if not accept.strip():
            return JSON, False
        for item in accept.split(","):
            kind, *parameters = [part.strip() for part in item.split(";")]
            if kind in (JSON, YAML):
                wanted = dict(part.partition("=")[::2] for part in parameters)
                if wanted.get("as") == "Table" and wanted.get("v") == "v1":
                    return kind, True
                if "as" not in wanted:
                    return kind, False
            if kind in ("*/*", "application/*"):
                return JSON, False
        raise not_acceptable(AVAILABLE)

    async def document(self, type_name: str, kind: str, api_version: str) -> Object:
        """Return the body as an object of this kind, without kind and apiVersion. Raises BadRequest.

        The query's `fieldValidation` decides whether unknown and repeated fields are refused, ignored or warned about.
        """
        return await in_thread_if_large(len(self.body), self._document, type_name, kind, api_version)

    def _document(self, type_name: str, kind: str, api_version: str) -> Object:
        given_version, given_kind, value, repeated = self._parse(type_name, kind)
        version = api_version.rpartition("/")[2]

        def unhandled(text: str, given: str = kind) -> ApiError:
            return bad_request(f'{given} in version "{version}" cannot be handled as a {kind}: {text}')

        if text := wrong_kind(given_version, given_kind, kind, api_version):
            raise unhandled(text, given_kind or kind)
        try:
            obj, unknown = schema.decode(type_name, value)
        except schema.WrongType as error:
            raise unhandled(str(error)) from error
        self.field_validation(unknown, repeated, unhandled)
        return {key: inner for key, inner in obj.items() if key not in ("kind", "apiVersion")}

    def field_validation(self, unknown: list[str], repeated: list[str], refusal: Callable[[str], ApiError]) -> None:
        texts = [f'unknown field "{path}"' for path in unknown] + [f'duplicate field "{path}"' for path in repeated]
        mode = self.query.get("fieldValidation") or "Warn"
        if texts and mode == "Strict":
            raise refusal(f"strict decoding error: {', '.join(texts)}")
        if mode == "Warn":
            self.warnings += texts

    def _parse(self, type_name: str, kind: str) -> tuple[str, str, Object, list[str]]:
        if self.content_type == PROTOBUF:
            try:
                given_version, given_kind, raw = protobuf.envelope(self.body)
                if given_kind == "DeleteOptions":
                    type_name = "meta.DeleteOptions"
                value = protobuf.decode(type_name, raw) if given_kind in (kind, "DeleteOptions") else {}
                _require_few(_count(value) if len(raw) > MOST_VALUES else 0)
            except protobuf.InvalidProtobuf as error:
                raise bad_request(str(error)) from error
            return given_version, given_kind, value, []
        if self.content_type not in ("", JSON, YAML, "text/json"):
            media = f"{JSON}, {YAML}, {PROTOBUF}"
            message = f"the body of the request was in an unknown format - accepted media types include: {media}"
            raise ApiError(415, "UnsupportedMediaType", message)

        def unrecognized(why: str) -> ApiError:
            what = f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind"
            return bad_request(f"{what}; json parse error: {why} ({_summary(self.body)})")

        try:
            value, repeated = parse(self.body, yaml_too=self.content_type == YAML)
        except ValueError as error:
            raise unrecognized(str(error)) from error
        if not isinstance(value, dict):
            fields = r'APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\""'
            of = schema.json_type(value)
            raise unrecognized(f"json: cannot unmarshal {of} into Go value of type struct {{ {fields} }}")
        for key in ("apiVersion", "kind"):
            if not isinstance(given := value.get(key, ""), str | None):
                of = schema.json_type(given)
                raise unrecognized(f"json: cannot unmarshal {of} into Go struct field .{key} of type string")
        return value.get("apiVersion") or "", value.get("kind") or "", value, repeated


def _watch_causes(query: dict[str, str]) -> list[StatusCause]:
    match, initial = query.get("resourceVersionMatch", ""), "sendInitialEvents" in query
    causes = []
    if initial and match != NOT_OLDER:
        causes.append(_forbidden_match(f"sendInitialEvents requires setting resourceVersionMatch to {NOT_OLDER}"))
    if match and not initial:
        causes.append(
            _forbidden_match("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
        )
    if match not in ("", NOT_OLDER):
        causes.append(unsupported("resourceVersionMatch", match, [NOT_OLDER]))
    if match and query.get("continue"):
        causes.append(_forbidden_match("resourceVersionMatch is forbidden when continue is provided"))
    return causes


def _list_causes(query: dict[str, str]) -> list[StatusCause]:
    match, version = query.get("resourceVersionMatch", ""), query.get("resourceVersion", "")
    causes = []
    if match and not version:
        causes.append(_forbidden_match("resourceVersionMatch is forbidden unless resourceVersion is provided"))
    if match and query.get("continue"):
        causes.append(_forbidden_match("resourceVersionMatch is forbidden when continue is provided"))
    if match not in (matches := ("Exact", NOT_OLDER, "")):
        causes.append(unsupported("resourceVersionMatch", match, matches))
    if match == "Exact" and version == "0":
        causes.append(_forbidden_match('resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    if "sendInitialEvents" in query:
        causes.append(forbidden_field("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    return causes


def _forbidden_match(more: str) -> StatusCause:
    return forbidden_field("resourceVersionMatch", more)


def wrong_kind(given_version: str, given: str, kind: str, api_version: str) -> str:
    """Return the error if an object's kind or apiVersion isn't the wanted one; "" if both are right.

    ``given`` is the object's kind, and ``given_version`` its apiVersion. Each may be missing ("").
    """
    if given and given != kind:
        if given not in KNOWN_KINDS:
            return f'no kind "{given}" is registered for version "{given_version}" in scheme {SCHEME}'
        package = api_version.rpartition("/")[0].split(".")[0] or "core"
        return f"converting (v1.{given}) to ({package}.{kind}): unknown conversion"
    if given_version and given_version != api_version:
        return f'no kind "{kind}" is registered for version "{given_version}" in scheme {SCHEME}'
    return ""


def dry_run_causes(given: list[str]) -> list[StatusCause]:
    """Return the errors in the values of a request's `dryRun`. Only ``All`` is valid."""
    return [] if all(value == "All" for value in given) else [unsupported("dryRun", given, ["All"])]


def _field_manager(name: str) -> list[StatusCause]:
    """https://kubernetes.io/docs/reference/using-api/server-side-apply/#managers"""
    causes = []
    if len(name.encode()) > 128:
        causes.append(StatusCause("fieldManager", "Too long: may not be more than 128 bytes", "FieldValueTooLong"))
    for i, character in enumerate(name):
        if not character.isprintable():
            at = len(name[:i].encode())
            more = f"invalid character U+{ord(character):04X} (at position {at})"
            causes.append(invalid_value("fieldManager", name, more))
    return causes


def _only_name(selector: str) -> str:
    """Return the name in a field selector such as ``metadata.name=web``; empty if the selector has no name.

    The client that sends such a selector needs permission only for the object with this name.
    """
    fields = (part.partition("=") for part in selector.split(",") if "!=" not in part)
    return next((value.removeprefix("=") for field, _, value in fields if field == "metadata.name"), "")


class _Repeated(Object):
    """A JSON object that has a key more than once."""

    keys_twice: tuple[str, ...] = ()


def parse(body: bytes, *, yaml_too: bool = False) -> tuple[Any, list[str]]:
    """Return a JSON document, and the paths of its repeated keys. With ``yaml_too``, the body may also be YAML.

    Raises ValueError, in Go's words. Raises RequestEntityTooLarge for more than MOST_VALUES values.
    """
    _require_few(_separators(body) if len(body) > MOST_VALUES else 0)
    seen = False

    def pairs(items: list[tuple[str, Any]]) -> Object:
        nonlocal seen
        made = dict(items)
        if len(made) == len(items):
            return made
        seen = True
        keys = [key for key, _ in items]
        twice = _Repeated(made)
        twice.keys_twice = tuple(key for key, times in Counter(keys).items() if times > 1)
        return twice

    try:
        text = body.decode()
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=_no_constant)
        repeated = _repeated(value, "") if seen else []
        return whole_characters(value) if "\\u" in text else value, repeated
    except json.JSONDecodeError as error:
        if yaml_too:
            return _yaml(body), []
        raise ValueError(_go_json_error(error)) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"invalid character '\\x{body[error.start]:02x}' looking for beginning of value") from error
    except RecursionError as error:
        raise ValueError("exceeded max depth") from error


def _require_few(values: int) -> None:
    if values > MOST_VALUES:
        message = f"Request entity too large: the lab reads at most {MOST_VALUES} values"
        raise ApiError(413, "RequestEntityTooLarge", message, {})


def _separators(body: bytes) -> int:
    """Estimate the number of values in a JSON text by its commas and closing brackets."""
    strings = body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"', 4 * MOST_VALUES)
    if len(strings) > 4 * MOST_VALUES:
        return len(strings) // 4 + 1
    outside = b"".join(strings[::2])
    return sum(outside.count(mark) for mark in (b",", b"]", b"}"))


def _count(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_count, inner))


def _yaml(body: bytes) -> Any:
    if len(body) > LONGEST_YAML:
        raise too_large(LONGEST_YAML)
    try:
        return json.loads(json.dumps(yaml_value(body), default=str))
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())
        raise ValueError(f"error converting YAML to JSON: yaml: {problem}") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"invalid character '{name[0]}' looking for beginning of value")


def _repeated(value: Any, path: str) -> list[str]:
    paths = []
    if isinstance(value, _Repeated):
        paths += [f"{path}.{key}" if path else key for key in value.keys_twice]
    if isinstance(value, dict):
        for key, inner in value.items():
            paths += _repeated(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            paths += _repeated(inner, f"{path}[{i}]")
    return paths


def _go_json_error(error: json.JSONDecodeError) -> str:
    if error.pos >= len(error.doc.rstrip()) or "Unterminated" in error.msg:
        return "unexpected end of JSON input"
    where = {
        "Expecting value": "looking for beginning of value",
        "Expecting property name": "looking for beginning of object key string",
        "Expecting ',' delimiter": "after object key:value pair",
        "Expecting ':' delimiter": "after object key",
        "Extra data": "after top-level value",
    }
    text = next((text for start, text in where.items() if error.msg.startswith(start)), "in string literal")
    return f"invalid character '{error.doc[error.pos]}' {text}"


def _summary(body: bytes) -> str:
    if not body:
        return "<empty>"
    if body[:1] == b"{":
        text = body.decode("utf-8", "replace")
        return text if len(text) <= 30 else f"{text[:30]} ..."
    return body.hex() if len(body) <= 30 else f"{body[:30].hex()} ..."
