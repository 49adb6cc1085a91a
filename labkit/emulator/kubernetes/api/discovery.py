"""What the API tells of itself: groups, resources, versions, OpenAPI.

https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api
"""

import hashlib
import json
import platform
from functools import cache

from labkit.emulator.kubernetes.objects import schema
from labkit.emulator.kubernetes.objects.kinds import GROUPS, KINDS, SUBRESOURCES, Kind, Object, Subresource

VERSION = "1.36"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def version() -> Object:
    """`GET /version`."""
    major, minor = VERSION.split(".")
    earlier = str(int(minor) - 1)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return {
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": earlier,
        "gitVersion": f"v{VERSION}.0-labkit",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": f"linux/{machine}",
    }


def versions(address: str) -> Object:
    """`GET /api`."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def groups() -> Object:
    """`GET /apis`."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in GROUPS if name]}


def group(name: str) -> Object | None:
    """`GET /apis/GROUP`."""
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name)} if name in GROUPS and name else None


def resources(name: str) -> Object | None:
    """`GET /api/v1` and `GET /apis/GROUP/VERSION`."""
    if name not in GROUPS:
        return None
    rows = [_resource(kind) for kind in KINDS if kind.group == name]
    rows += [_subresource(sub) for sub in SUBRESOURCES if sub.group == name]
    api_version = {"apiVersion": "v1"} if name else {}
    return {
        "kind": "APIResourceList",
        **api_version,
        "groupVersion": f"{name}/v1" if name else "v1",
        "resources": sorted(rows, key=lambda row: row["name"]),
    }


def aggregated(core: bool) -> Object:
    """The same in one document, which kubectl asks for first."""
    names = [name for name in GROUPS if bool(name) is not core]
    items = [
        {
            "metadata": {"name": name} if name else {},
            "versions": [{"version": "v1", "resources": _aggregated_resources(name), "freshness": "Current"}],
        }
        for name in names
    ]
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


@cache
def openapi(name: str) -> bytes:
    """The OpenAPI document of a group: enough for clients to see what the server validates itself."""
    paths: Object = {}
    for kind in KINDS:
        if kind.group == name:
            paths |= _paths(kind)
    document = {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths,
        "components": {"schemas": _schemas(name)},
    }
    return json.dumps(document, separators=(",", ":")).encode()


@cache
def openapi_index() -> Object:
    """`GET /openapi/v3`."""
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
    row = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        row["shortNames"] = list(kind.short_names)
    if kind.categories:
        row["categories"] = list(kind.categories)
    return row | ({"storageVersionHash": kind.storage_hash} if kind.storage_hash else {})


def _subresource(sub: Subresource) -> Object:
    row = {
        "name": sub.name,
        "singularName": "" if "/" in sub.name else sub.kind.lower(),
        "namespaced": sub.namespaced,
    }
    if sub.kind_group:
        row |= {"group": sub.kind_group, "version": sub.kind_version}
    return row | {"kind": sub.kind, "verbs": list(sub.verbs)}


def _aggregated_resources(name: str) -> list[Object]:
    rows: dict[str, Object] = {}
    for kind in KINDS:
        if kind.group == name:
            row = _aggregated(
                kind.plural,
                kind.kind,
                group=kind.group,
                version=kind.version,
                namespaced=kind.namespaced,
                singular=kind.singular,
                verbs=kind.verbs,
            )
            if kind.short_names:
                row["shortNames"] = list(kind.short_names)
            if kind.categories:
                row["categories"] = list(kind.categories)
            rows[kind.plural] = row
    for sub in SUBRESOURCES:
        if sub.group != name:
            continue
        parent, slash, below = sub.name.partition("/")
        group, version = (sub.kind_group, sub.kind_version) if sub.kind_group else (sub.group, "v1")
        if not slash:
            rows[sub.name] = _aggregated(
                sub.name,
                sub.kind,
                group=group,
                version=version,
                namespaced=sub.namespaced,
                singular=sub.kind.lower(),
                verbs=sub.verbs,
            )
        else:
            kind = {"group": group, "version": version, "kind": sub.kind}
            rows[parent].setdefault("subresources", []).append(
                {"subresource": below, "responseKind": kind, "verbs": list(sub.verbs)}
            )
    return [rows[key] for key in sorted(rows)]


def _aggregated(
    plural: str, kind: str, *, group: str, version: str, namespaced: bool, singular: str, verbs: tuple[str, ...]
) -> Object:
    return {
        "resource": plural,
        "responseKind": {"group": group, "version": version, "kind": kind},
        "scope": "Namespaced" if namespaced else "Cluster",
        "singularResource": singular,
        "verbs": list(verbs),
    }


def _schemas(name: str) -> Object:
    """The types of a group's kinds and all that they are made of."""
    kinds = {kind.type: kind for kind in KINDS if kind.group == name}
    kinds |= {sub.type: sub for sub in SUBRESOURCES if sub.group == name and sub.type and sub.type not in kinds}
    schemas, todo = {}, list(kinds)
    while todo:
        type_name = todo.pop()
        if _reference(type_name) in schemas:
            continue
        properties = {}
        for label, found in schema.struct(type_name).fields.items():
            properties[label] = _property(found)
            if "." in found.element:
                todo.append(found.element)
        body: Object = {"type": "object", "properties": properties}
        if kind := kinds.get(type_name):
            properties |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
            group = kind.group if isinstance(kind, Kind) else kind.kind_group or kind.group
            body["x-kubernetes-group-version-kind"] = [{"group": group, "version": "v1", "kind": kind.kind}]
        schemas[_reference(type_name)] = body
    return schemas


def _reference(type_name: str) -> str:
    package, _, name = type_name.partition(".")
    return f"io.k8s.apimachinery.pkg.apis.meta.v1.{name}" if package == "meta" else f"io.k8s.api.{package}.v1.{name}"


def _property(found: schema.Field) -> Object:
    if "." in found.element:
        inner = {"allOf": [{"$ref": f"#/components/schemas/{_reference(found.element)}"}]}
    else:
        inner = dict(_SIMPLE.get(found.element, {"type": "string"}))
    if found.wrapped and found.shape == "{}":
        inner = {"type": "array", "items": inner}
    match found.shape:
        case "[]":
            return {"type": "array", "items": inner}
        case "{}":
            return {"type": "object", "additionalProperties": inner}
    return inner


_SIMPLE = {
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "bool": {"type": "boolean"},
    "float64": {"type": "number"},
    "raw": {"type": "object"},
    "fields": {"type": "object"},
    "bytes": {"type": "string", "format": "byte"},
    "time": {"type": "string", "format": "date-time"},
    "microtime": {"type": "string", "format": "date-time"},
}


def _paths(kind: Kind) -> Object:
    gvk = {"group": kind.group, "kind": kind.kind, "version": kind.version}
    names = {
        "get": [],
        "put": ["dryRun", "fieldManager", "fieldValidation"],
        "post": ["dryRun", "fieldManager", "fieldValidation"],
        "delete": ["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"],
        "patch": ["dryRun", "fieldManager", "fieldValidation", "force"],
    }

    def operation(verb: str, action: str) -> Object:
        parameters = [
            {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}} for name in names[verb]
        ]
        responses = {"200": {"description": "OK"}, "401": {"description": "Unauthorized"}}
        return {
            "parameters": parameters,
            "responses": responses,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
        }

    collection = (
        f"{kind.path}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{kind.path}/{kind.plural}"
    )
    return {
        collection: {"get": operation("get", "list"), "post": operation("post", "post")},
        f"{collection}/{{name}}": {
            "get": operation("get", "get"),
            "put": operation("put", "put"),
            "delete": operation("delete", "delete"),
            "patch": operation("patch", "patch"),
        },
    }
