"""The API's description of itself: its groups, resources, version and OpenAPI documents.

https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api
"""

import hashlib
import json
import platform
from functools import cache

from labkit.simulator.kubernetes.objects import schema
from labkit.simulator.kubernetes.objects.kinds import (
    GROUPS,
    KINDS,
    STORAGE_HASHES,
    SUBRESOURCES,
    Kind,
    Object,
    Subresource,
)

VERSION = "1.36"
DELETE_OPTIONS = "meta.DeleteOptions"
INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
PATCHES = ("apply-patch+yaml", "json-patch+json", "merge-patch+json", "strategic-merge-patch+json")
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def version() -> Object:
    """Return the answer to `GET /version`."""
    major, minor = VERSION.split(".")
    earlier = str(int(minor) - 1)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return {
        **{"major": major, "minor": minor, "emulationMajor": major, "emulationMinor": minor},
        **{"minCompatibilityMajor": major, "minCompatibilityMinor": earlier},
        **{"gitVersion": f"v{VERSION}.0-labkit", "gitCommit": "", "gitTreeState": "clean"},
        **{"buildDate": "2026-01-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": f"linux/{machine}"},
    }


def versions(address: str) -> Object:
    """Return the answer to `GET /api`."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def groups() -> Object:
    """Return the answer to `GET /apis`."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in GROUPS if name]}


def group(name: str) -> Object | None:
    """Return the answer to `GET /apis/GROUP`; None for an unknown group."""
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name)} if name in GROUPS and name else None


def resources(name: str) -> Object | None:
    """Return the answer to `GET /api/v1` (for the group "") or `GET /apis/GROUP/v1`; None for an unknown group."""
    if name not in GROUPS:
        return None
    return {
        "kind": "APIResourceList",
        **({"apiVersion": "v1"} if name else {}),
        "groupVersion": f"{name}/v1" if name else "v1",
        "resources": _rows(name),
    }


def aggregated(core: bool) -> Object:
    """Return the aggregated answer to `GET /apis`, or to `GET /api` if ``core`` is true.

    The answer to `GET /api` lists only the core group. The answer to `GET /apis` lists all other groups. Each group
    has its resources in the answer.
    """
    items = [
        {
            "metadata": {"name": name} if name else {},
            "versions": [{"version": "v1", "resources": _aggregated_resources(name), "freshness": "Current"}],
        }
        for name in GROUPS
        if bool(name) is not core
    ]
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


@cache
def openapi(name: str) -> bytes:
    """Return a group's OpenAPI document: the operations on the group's objects, and the objects' types."""
    document = {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": {
            path: operations for kind in KINDS if kind.group == name for path, operations in _paths(kind).items()
        },
        "components": {"schemas": _schemas(name)},
    }
    return json.dumps(document, separators=(",", ":")).encode()


@cache
def openapi_index() -> Object:
    """Return the answer to `GET /openapi/v3`."""
    paths = {}
    for name in GROUPS:
        path = f"apis/{name}/v1" if name else "api/v1"
        digest = hashlib.sha512(openapi(name)).hexdigest().upper()
        paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
    return {"paths": paths}


def _group(name: str) -> Object:
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [version], "preferredVersion": version}


def _resource(kind: Kind) -> Object:
    return {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
        **({"shortNames": [kind.short_name]} if kind.short_name else {}),
        **({"categories": list(kind.categories)} if kind.categories else {}),
        **({"storageVersionHash": STORAGE_HASHES[kind.kind]} if kind.kind in STORAGE_HASHES else {}),
    }


def _subresource(sub: Subresource) -> Object:
    return {
        "name": sub.name,
        "singularName": "" if "/" in sub.name else sub.kind.lower(),
        "namespaced": sub.namespaced,
        **({"group": sub.kind_group, "version": "v1"} if sub.kind_group else {}),
        "kind": sub.kind,
        "verbs": list(sub.verbs),
    }


def _aggregated_resources(name: str) -> list[Object]:
    """Return a group's resources, each with its subresources."""
    made: dict[str, Object] = {}
    for row in _rows(name):
        parent, _, below = row["name"].partition("/")
        kind = {"group": row.get("group", name), "version": "v1", "kind": row["kind"]}
        if below:
            subresource = {"subresource": below, "responseKind": kind, "verbs": row["verbs"]}
            made[parent].setdefault("subresources", []).append(subresource)
        else:
            scope: Object = {
                "scope": "Namespaced" if row["namespaced"] else "Cluster",
                "singularResource": row["singularName"],
            }
            listed: Object = {key: row[key] for key in ("verbs", "shortNames", "categories") if key in row}
            made[parent] = {"resource": parent, "responseKind": kind, **scope, **listed}
    return list(made.values())


def _rows(name: str) -> list[Object]:
    rows = [_resource(kind) for kind in KINDS if kind.group == name]
    rows += [_subresource(sub) for sub in SUBRESOURCES if sub.group == name]
    return sorted(rows, key=lambda row: row["name"])


def _schemas(name: str) -> Object:
    """Return the OpenAPI schemas for a group's types and for all types inside them."""
    groups = {kind.type: name for kind in KINDS if kind.group == name}
    groups |= {sub.type: sub.kind_group or name for sub in SUBRESOURCES if sub.group == name and sub.type}
    schemas: Object = dict(_UNIONS)
    todo = [*groups, DELETE_OPTIONS]
    while todo:
        type_name = todo.pop()
        if _reference(type_name) in schemas:
            continue
        fields = schema.struct(type_name).fields
        todo += [field.element for field in fields.values() if "." in field.element]
        properties = {label: _property(field) for label, field in fields.items()}
        body: Object = {"type": "object", "properties": properties}
        if type_name in groups:
            properties |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
            gvk = {"group": groups[type_name], "version": "v1", "kind": type_name.partition(".")[2]}
            body["x-kubernetes-group-version-kind"] = [gvk]
        schemas[_reference(type_name)] = body
    return schemas


def _schema(type_name: str) -> Object:
    return {"$ref": f"#/components/schemas/{_reference(type_name)}"}


def _reference(type_name: str) -> str:
    package, _, name = type_name.partition(".")
    return f"io.k8s.apimachinery.pkg.apis.meta.v1.{name}" if package == "meta" else f"io.k8s.api.{package}.v1.{name}"


def _property(field: schema.Field) -> Object:
    inner: Object = dict(_SIMPLE.get(field.element, {"type": "string"}))
    if "." in field.element:
        inner = {"allOf": [_schema(field.element)]}
    if field.wrapped and field.shape == "{}":
        inner = {"type": "array", "items": inner}
    # kubectl merges lists by these fields.
    merged = {"x-kubernetes-patch-strategy": field.patch, "x-kubernetes-patch-merge-key": field.merge_key}
    merged = {name: value for name, value in merged.items() if value}
    match field.shape:
        case "[]":
            return {"type": "array", "items": inner, **merged}
        case "{}":
            return {"type": "object", "additionalProperties": inner}
    return {**inner, **merged}


_SIMPLE: dict[str, Object] = {
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "bool": {"type": "boolean"},
    "float64": {"type": "number"},
    "raw": {"type": "object"},
    "fields": {"type": "object"},
    "bytes": {"type": "string", "format": "byte"},
    "time": {"type": "string", "format": "date-time"},
    "microtime": {"type": "string", "format": "date-time"},
    "intstr": {"allOf": [{"$ref": f"#/components/schemas/{INT_OR_STRING}"}]},
    "quantity": {"allOf": [{"$ref": f"#/components/schemas/{QUANTITY}"}]},
}
_UNIONS = {
    INT_OR_STRING: {"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"},
    QUANTITY: {"oneOf": [{"type": "string"}, {"type": "number"}]},
}


# The operations on a collection and on an object, by HTTP method: the action, and the parameters that kubectl reads.
_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_DELETION = ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")
_OPERATIONS: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
    "": {"get": ("list", ()), "post": ("post", _WRITE)},
    "/{name}": {
        "get": ("get", ()),
        "put": ("put", _WRITE),
        "delete": ("delete", _DELETION),
        "patch": ("patch", (*_WRITE, "force")),
    },
}


def _paths(kind: Kind) -> Object:
    """Return the OpenAPI operations on a kind's objects, by path."""
    whole = {"*/*": {"schema": _schema(kind.type)}}
    bodies = {
        "post": whole,
        "put": whole,
        "delete": {"*/*": {"schema": _schema(DELETE_OPTIONS)}},
        "patch": {f"application/{name}": {"schema": {"type": "object"}} for name in PATCHES},
    }
    answer = {"description": "OK", "content": {"application/json": {"schema": _schema(kind.type)}}}
    # A list has a type of its own, and the answer to a delete is an object or a Status.
    untyped = {"200": {"description": "OK"}, "401": {"description": "Unauthorized"}}
    made = {**untyped, "200": answer, "201": {**answer, "description": "Created"}}
    responses = {"list": untyped, "get": {**untyped, "200": answer}, "delete": untyped}

    def operation(action: str, names: tuple[str, ...]) -> Object:
        schema = {"type": "string", "uniqueItems": True}
        body = {"content": bodies.get(action), "required": action != "delete"}
        return {
            "operationId": f"{action}_{kind.group or 'core'}_{kind.kind}",
            "parameters": [{"name": name, "in": "query", "schema": schema} for name in names],
            **({"requestBody": body} if action in bodies else {}),
            "responses": responses.get(action, made),
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": kind.group, "kind": kind.kind, "version": kind.version},
        }

    collection = f"{kind.path}{'/namespaces/{namespace}' if kind.namespaced else ''}/{kind.plural}"
    return {
        collection + below: {
            **{method: operation(*called) for method, called in methods.items()},
            "parameters": [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in ("namespace", "name")
                if f"{{{name}}}" in collection + below
            ],
        }
        for below, methods in _OPERATIONS.items()
    }
