"""Apply the four kinds of patch (https://kubernetes.io/docs/reference/using-api/api-concepts/#patch-and-apply)."""

import json
from collections import deque
from typing import Any

import jsonpatch
import jsonpointer

from labkit.simulator.kubernetes.api.requests import KubeRequest, parse
from labkit.simulator.kubernetes.objects.kinds import Object
from labkit.simulator.kubernetes.objects.schema import Field, json_type, struct
from labkit.simulator.kubernetes.objects.status import ApiError, bad_request
from labkit.simulator.kubernetes.objects.storage import dump

STRATEGIC, MERGE = "application/strategic-merge-patch+json", "application/merge-patch+json"
JSON_PATCH, APPLY = "application/json-patch+json", "application/apply-patch+yaml"
PATCHES = (STRATEGIC, MERGE, JSON_PATCH, APPLY)
LISTS = {
    "$retainKeys": "retainKeys",
    "$setElementOrder/": "setElementOrder list",
    "$deleteFromPrimitiveList/": "primitive list",
}
DIRECTIVES = ("$patch", "$retainKeys", "$setElementOrder/", "$deleteFromPrimitiveList/")
# https://github.com/kubernetes/kubernetes/blob/v1.36.0/staging/src/k8s.io/apiserver/pkg/endpoints/handlers/patch.go
MOST_OPERATIONS = 10_000
LONGEST_COPIES = 64 * 1024  # bytes. A real server accepts 3 MiB, but Python would need more than a second for that


def parse_patch(request: KubeRequest) -> object:
    """Return the patch in the request's body. Raises BadRequest if the body can't be parsed."""
    try:
        return parse(request.body, yaml_too=request.content_type == APPLY)[0]
    except ValueError as error:
        raise bad_request(f"error decoding patch: {error}") from error


def patched(content_type: str, type_name: str, document: Object, patch: object) -> Any:
    """Return the document after the patch. The content type says which kind of patch it is. Raises ``ApiError``.

    For a server-side apply, use `managers.applied` instead.
    """
    if content_type == JSON_PATCH:
        return json_patch(document, patch)
    if not isinstance(patch, dict):
        text = f"json: cannot unmarshal {json_type(patch)} into Go value of type map[string]interface {{}}"
        raise bad_request(text if content_type == STRATEGIC else f"error decoding patch: {text}")
    if content_type == MERGE:
        return merge_patch(document, patch)
    return strategic_merge_patch(type_name, document, patch)


def json_patch(document: Object, operations: object) -> object:
    """Return the document after a JSON patch (RFC 6902).

    Raises BadRequest if the patch isn't a list, RequestEntityTooLarge if it has too many operations, and Invalid if an
    operation doesn't apply.
    """
    if not isinstance(operations, list):
        raise bad_request(
            f"error decoding patch: json: cannot unmarshal {json_type(operations)} into Go value of type"
            " []handlers.jsonPatchOp"
        )
    if len(operations) > MOST_OPERATIONS:
        why = f"The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {len(operations)}"
        raise ApiError(413, "RequestEntityTooLarge", f"Request entity too large: {why}", {})
    patching = JsonPatching(document)
    for operation in json.loads(dump(operations)):  # a copy: later operations may change added values
        try:
            patching.apply(operation)
        except NotApplicable as error:
            message = "the server rejected our request due to an error in our request"
            raise ApiError(422, "Invalid", message, {}) from error
    return patching.document


class NotApplicable(Exception):
    """An operation of a JSON patch can't be applied."""


class JsonPatching:
    """Apply the operations of a JSON patch to ``document``, a copy of the original.

    Together, the operations may copy at most LONGEST_COPIES bytes.
    """

    def __init__(self, document: Object) -> None:
        self.document: Any = json.loads(dump(document))
        self._copied = 0

    def apply(self, operation: Any) -> None:
        """Apply one operation. Raises NotApplicable."""
        try:
            if isinstance(operation, dict) and operation.get("op") == "copy":
                operation = self._copying(operation)
            self.document = jsonpatch.apply_patch(self.document, [operation], in_place=True)
        except (
            *(jsonpatch.JsonPatchException, jsonpointer.JsonPointerException),
            *(KeyError, RecursionError, TypeError, ValueError),
        ) as error:
            raise NotApplicable(str(error)) from error

    def _copying(self, operation: Object) -> Object:
        """Return an `add` operation that does the same as this `copy` operation."""
        text = dump(jsonpointer.resolve_pointer(self.document, operation["from"]))
        self._copied += len(text)
        # The library itself copies any number of bytes.
        if self._copied > LONGEST_COPIES:
            why = f"the accumulated size increase of copy is {self._copied}, exceeding the limit {LONGEST_COPIES}"
            raise NotApplicable(f"Unable to complete the copy, {why}")
        return {"op": "add", "path": operation["path"], "value": json.loads(text)}


def merge_patch(document: object, patch: object) -> object:
    """Return the document after a JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def strategic_merge_patch(type_name: str, document: Object, patch: Object) -> Object:
    """Return the document after a strategic merge patch. Such a patch merges lists by a key, e.g. containers by name.

    https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md
    """
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    if patch.get("$patch") == "delete":
        return {}
    _check_directives(patch)
    fields = struct(type_name).fields if type_name else {}
    result = dict(document)
    if "$retainKeys" in patch:
        result = {key: value for key, value in result.items() if key in patch["$retainKeys"]}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.split("/", 1)[1]
            deleted = {dump(item) for item in value}
            result[name] = [item for item in result.get(name) or [] if dump(item) not in deleted]
        elif key.startswith(DIRECTIVES):
            continue
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(fields.get(key), result.get(key), value)
    orders = {key.split("/", 1)[1]: order for key, order in patch.items() if key.startswith("$setElementOrder/")}
    for name, order in orders.items():
        if isinstance(items := result.get(name), list):
            field = fields.get(name)
            result[name] = _in_order(items, order, document.get(name) or [], field.merge_key if field else "")
    return result


def _check_directives(patch: Object) -> None:
    for key, value in patch.items():
        called = next((name for start, name in LISTS.items() if key.startswith(start)), None)
        if called and not isinstance(value, list):
            raise bad_request(f"invalid patch format of {called}")


def _merged(field: Field | None, old: object, new: object) -> object:
    if isinstance(new, dict) and (field is None or field.shape != "[]"):
        if field is None or field.shape == "{}":
            return merge_patch(old, {key: value for key, value in new.items() if not key.startswith("$")})
        name = field.element if "." in field.element else ""
        return strategic_merge_patch(name, old if isinstance(old, dict) else {}, new)
    if not isinstance(new, list) or field is None or "merge" not in field.patch:
        return new
    old = old if isinstance(old, list) else []
    if not field.merge_key:
        known = {dump(item) for item in old}
        return _in_order([*old, *(item for item in new if dump(item) not in known)], new, old, "")
    return _merged_list(field, old, new)


def _merged_list(field: Field, old: list[Any], new: list[Any]) -> list[Any]:
    key = field.merge_key
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in new):
        return [item for item in new if not isinstance(item, dict) or item.get("$patch") != "replace"]
    named: dict[bytes, Object] = {}
    for item in old:
        named.setdefault(dump(item.get(key)), item)
    for item in new:
        if not isinstance(item, dict) or key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {key}")
        name = dump(item[key])
        if item.get("$patch") == "delete":
            named.pop(name, None)
        else:
            named[name] = strategic_merge_patch(field.element, named.get(name, {}), item)
    return _in_order([*named.values()], new, old, key)


def _in_order(items: list[Any], order: list[Any], old: list[Any], key: str) -> list[Any]:
    """Return ``items`` in the sequence that a patch gives them.

    The items that ``order`` names follow the sequence of ``order``. The other items keep their own sequence. The two
    groups are merged by the positions of the items in ``old``, the list before the patch. ``key`` is the field that
    names an item; if it is empty, the item itself is compared.
    """

    def name(item: object) -> bytes:
        return dump(item.get(key) if isinstance(item, dict) and key else item)

    wanted, there = _places([name(item) for item in order]), _places([name(item) for item in old])
    patched = deque(sorted((item for item in items if name(item) in wanted), key=lambda item: wanted[name(item)]))
    own = deque(item for item in items if name(item) not in wanted)
    result = []
    while own and patched:
        left, right = there.get(name(own[0])), there.get(name(patched[0]))
        own_first = left is not None and right is not None and left < right
        result.append((own if own_first else patched).popleft())
    return [*result, *own, *patched]


def _places(names: list[bytes]) -> dict[bytes, int]:
    """Return the first position of each name."""
    return {name: len(names) - 1 - i for i, name in enumerate(reversed(names))}


def merged(type_name: str, old: Object, new: Object) -> Object:
    """Return the object after a server-side apply of ``new``.

    Maps are merged, lists are merged by their keys, and other values are replaced. No field is removed.
    """
    fields = struct(type_name).fields
    result = dict(old)
    for key, value in new.items():
        field, there = fields.get(key), old.get(key)
        if field is None or there is None or field.atomic:
            result[key] = value
        elif field.shape == "{}":
            result[key] = {**there, **value}
        elif field.shape == "[]" and field.list_type == "set":
            known = {dump(item) for item in there}
            result[key] = [*there, *(item for item in value if dump(item) not in known)]
        elif field.shape == "[]" and field.list_type == "map":
            result[key] = _joined(field, there, value)
        elif field.shape == "" and "." in field.element:
            result[key] = merged(field.element, there, value)
        else:
            result[key] = value
    return result


def _joined(field: Field, old: list[Object], new: list[Object]) -> list[Object]:
    def name(item: Object) -> tuple[object, ...]:
        return tuple(item.get(key, "TCP" if key == "protocol" else None) for key in field.keys)

    wanted = {name(item): item for item in new}
    result = [merged(field.element, item, wanted.pop(name(item), {})) for item in old]
    return [*result, *wanted.values()]
