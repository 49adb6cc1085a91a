"""The four ways to patch (https://kubernetes.io/docs/reference/using-api/api-concepts/#patch-and-apply)."""

from typing import Any

import jsonpatch
import jsonpointer

from labkit.emulator.kubernetes.api.requests import Request, parse
from labkit.emulator.kubernetes.objects.kinds import Object
from labkit.emulator.kubernetes.objects.schema import Field, json_type, struct
from labkit.emulator.kubernetes.objects.status import ApiError, bad_request

STRATEGIC, MERGE = "application/strategic-merge-patch+json", "application/merge-patch+json"
JSON_PATCH, APPLY = "application/json-patch+json", "application/apply-patch+yaml"
PATCHES = (STRATEGIC, MERGE, JSON_PATCH, APPLY)
LISTS = {
    "$retainKeys": "retainKeys",
    "$setElementOrder/": "setElementOrder list",
    "$deleteFromPrimitiveList/": "primitive list",
}
DIRECTIVES = ("$patch", "$retainKeys", "$setElementOrder/", "$deleteFromPrimitiveList/")
OPERATIONS = ("add", "remove", "replace", "move", "copy", "test")


def read(request: Request) -> object:
    """The patch in the body. Raises BadRequest where it cannot be read."""
    try:
        return parse(request.body, yaml_too=request.content_type == APPLY)[0]
    except ValueError as error:
        raise bad_request(f"error decoding patch: {error}") from error


def patched(content_type: str, type_name: str, document: Object, patch: object) -> Any:
    """The patched document; the content type says how to patch. Raises ``ApiError``."""
    if content_type == JSON_PATCH:
        return json_patch(document, patch)
    if not isinstance(patch, dict):
        text = f"json: cannot unmarshal {json_type(patch)} into Go value of type map[string]interface {{}}"
        raise bad_request(text if content_type == STRATEGIC else f"error decoding patch: {text}")
    if content_type == MERGE:
        return merge_patch(document, patch)
    return strategic_merge_patch(type_name, document, patch)


def json_patch(document: Object, operations: object) -> Any:
    """RFC 6902. Raises BadRequest (400) for an invalid patch, Invalid (422) for one that cannot be applied."""
    if not isinstance(operations, list):
        raise bad_request(
            f"error decoding patch: json: cannot unmarshal {json_type(operations)} into Go value of type"
            " []handlers.jsonPatchOp"
        )
    try:
        return jsonpatch.apply_patch(document, operations)
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError, KeyError) as error:
        message = "the server rejected our request due to an error in our request"
        raise ApiError(422, "Invalid", message, {}) from error


def merge_patch(document: object, patch: object) -> object:
    """RFC 7386."""
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
    """Merges lists by the key that their type names, e.g. containers by their name.

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
            result[name] = [item for item in result.get(name) or [] if item not in value]
        elif key.startswith(DIRECTIVES):
            continue
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(fields.get(key), result.get(key), value)
    orders = {key.split("/", 1)[1]: order for key, order in patch.items() if key.startswith("$setElementOrder/")}
    for name, order in orders.items():
        if isinstance(items := result.get(name), list):
            found = fields.get(name)
            result[name] = _in_order(items, order, document.get(name) or [], found.merge_key if found else "")
    return result


def _check_directives(patch: Object) -> None:
    """Raises BadRequest for a directive that has to be a list and is not."""
    for key, value in patch.items():
        called = next((name for start, name in LISTS.items() if key.startswith(start)), None)
        if called and not isinstance(value, list):
            raise bad_request(f"invalid patch format of {called}")


def _merged(found: Field | None, old: object, new: object) -> object:
    if isinstance(new, dict) and (found is None or found.shape != "[]"):
        if found is None or found.shape == "{}":
            return merge_patch(old, {key: value for key, value in new.items() if not key.startswith("$")})
        name = found.element if "." in found.element else ""
        return strategic_merge_patch(name, old if isinstance(old, dict) else {}, new)
    if not isinstance(new, list) or found is None or "merge" not in found.patch:
        return new
    old = old if isinstance(old, list) else []
    if not found.merge_key:
        return _in_order([*old, *(item for item in new if item not in old)], new, old, "")
    return _merged_list(found, old, new)


def _merged_list(found: Field, old: list[Any], new: list[Any]) -> list[Any]:
    key = found.merge_key
    if any(isinstance(item, dict) and item.get("$patch") == "replace" for item in new):
        return [item for item in new if not isinstance(item, dict) or item.get("$patch") != "replace"]
    result = list(old)
    for item in new:
        if not isinstance(item, dict) or key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {key}")
        at = next((i for i, there in enumerate(result) if there.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            result = [there for there in result if there.get(key) != item[key]]
        elif at is None:
            result.append(strategic_merge_patch(found.element, {}, item))
        else:
            result[at] = strategic_merge_patch(found.element, result[at], item)
    return _in_order(result, new, old, key)


def _in_order(items: list[Any], order: list[Any], old: list[Any], key: str) -> list[Any]:
    """The items of the patch in its order, among them the server's own where they were; new ones come first."""

    def name(item: object) -> object:
        return item.get(key) if isinstance(item, dict) and key else item

    wanted, there = [name(item) for item in order], [name(item) for item in old]
    patched = sorted((item for item in items if name(item) in wanted), key=lambda item: wanted.index(name(item)))
    own = [item for item in items if name(item) not in wanted]
    result = []
    while own and patched:
        left, right = name(own[0]), name(patched[0])
        own_first = left in there and right in there and there.index(left) < there.index(right)
        result.append((own if own_first else patched).pop(0))
    return [*result, *own, *patched]


def merged(type_name: str, old: Object, new: Object) -> Object:
    """The object after server-side apply: it joins maps, and lists by their keys, and replaces the rest."""
    fields = struct(type_name).fields
    result = dict(old)
    for key, value in new.items():
        found, there = fields.get(key), old.get(key)
        if found is None or there is None or found.atomic:
            result[key] = value
        elif found.shape == "{}":
            result[key] = {**there, **value}
        elif found.shape == "[]" and found.list_type == "set":
            result[key] = [*there, *(item for item in value if item not in there)]
        elif found.shape == "[]" and found.list_type == "map":
            result[key] = _joined(found, there, value)
        elif found.shape == "" and "." in found.element:
            result[key] = merged(found.element, there, value)
        else:
            result[key] = value
    return result


def _joined(found: Field, old: list[Object], new: list[Object]) -> list[Object]:
    def name(item: Object) -> tuple[object, ...]:
        return tuple(item.get(key, "TCP" if key == "protocol" else None) for key in found.keys)

    wanted = {name(item): item for item in new}
    result = [merged(found.element, item, wanted.pop(name(item), {})) for item in old]
    return [*result, *wanted.values()]
