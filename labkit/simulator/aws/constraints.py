"""Check an operation's parameters against the service's model: required parameters, lengths and patterns.

The models come from botocore. For S3, see :mod:`~labkit.simulator.aws.s3_requests`.

https://smithy.io/2.0/spec/constraint-traits.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-entity-length
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from labkit.simulator.aws.answers import (
    Refusal,
    constraint_violation,
    missing_required,
    out_of_range,
    validation_message,
)
from labkit.simulator.aws.backend import Shape, get_service_model
from labkit.simulator.aws.call import Api, AwsRequest, ParsedRequest

# The lab answers these without moto, and checks them itself.
OWN = {"LookupEvents", "SimulateCustomPolicy", "SimulatePrincipalPolicy"}
CONTROL = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def check(request: AwsRequest) -> None:
    """Raise ``Refusal`` if the call's parameters don't fit the operation, or could not be read."""
    if not request.api.is_checked or request.operation in OWN:
        return
    if request.parsed is None:
        if isinstance(request.unread, Refusal) and request.unread.status == 400:
            raise request.unread
        return
    model = get_service_model(request.service).operation_model(request.parsed.operation)
    shape = model.input_shape
    if shape is not None and (faults := [*_faults(shape, request.parsed.parameters, "")]):
        raise invalid_parameters(request.api, faults)
    if request.api.reserved_tag and (reserved := _reserved_tags(request.parsed)):
        # EKS has an error of its own for TagResource.
        own = "BadRequestException" in {error.name for error in model.error_shapes}
        code = "BadRequestException" if own else request.api.reserved_tag
        raise Refusal(400, code, request.api.reserved_tag_said.format(reserved[0]))


def invalid_parameters(api: Api, faults: list[str]) -> Refusal:
    """Return the service's refusal of a call with these faults."""
    code, message = api.reworded(faults[0]) or (api.invalid, validation_message(faults))
    return Refusal(400, code, message)


def _reserved_tags(request: ParsedRequest) -> list[str]:
    """Return the keys of the tags in the request that only AWS may set."""
    # A map, or a list of tags. KMS's tags have a TagKey.
    tags = [request.parameters.get(name) or () for name in ("tags", "Tags")]
    keys = [tag if isinstance(tag, str) else tag.get("Key") or tag.get("TagKey", "") for each in tags for tag in each]
    return [key for key in keys if key.lower().startswith("aws:")]


def _faults(shape: Shape, value: Any, where: str) -> Iterator[str]:
    """Yield a sentence for each constraint that ``value`` breaks. ``where`` is its place, such as `tags.1.member`."""
    match shape.type_name:
        case "structure" if isinstance(value, dict) and not shape.is_document_type:
            for name in shape.required_members:
                if value.get(name) is None:
                    yield from missing_required([_below(where, name)])
            for name, part in value.items():
                if name in shape.members and part is not None:
                    yield from _faults(shape.members[name], part, _below(where, name))
        case "list" if isinstance(value, list):
            yield from _of_size(shape, len(value), where)
            for number, part in enumerate(value, 1):
                yield from _faults(shape.member, part, f"{where}.{number}.member")
        case "map" if isinstance(value, dict):
            yield from _of_size(shape, len(value), where)
            for key, part in value.items():
                yield from _faults(shape.key, key, f"{where}.key")
                yield from _faults(shape.value, part, f"{where}.{key}.member")
        case _:
            yield from _of_scalar(shape, value, where)


def _of_scalar(shape: Shape, value: Any, where: str) -> Iterator[str]:
    if shape.type_name == "string" and isinstance(value, str):
        yield from _of_text(shape, value, where)
    elif shape.type_name == "blob" and isinstance(value, bytes | str):
        yield from _of_size(shape, len(value), where)
    elif isinstance(value, int | float):
        for must in out_of_range(value, shape.metadata.get("min", value), shape.metadata.get("max", value), "value"):
            yield constraint_violation(f"'{where}'", must, f"'{value}'")


def _of_size(shape: Shape, size: int, where: str) -> Iterator[str]:
    for must in out_of_range(size, shape.metadata.get("min", 0), shape.metadata.get("max", size)):
        yield constraint_violation(f"'{where}'", must)


def _of_text(shape: Shape, text: str, where: str) -> Iterator[str]:
    shown = "***" if shape.metadata.get("sensitive") else text
    musts = out_of_range(len(text), shape.metadata.get("min", 0), shape.metadata.get("max", len(text)))
    if shape.enum and text not in shape.enum:
        musts = [f"satisfy enum value set: [{', '.join(shape.enum)}]"]
    pattern = shape.metadata.get("pattern")
    # A pattern is only tried on a text of limited length.
    if pattern and not musts and not _fits(pattern, text):
        musts = [f"satisfy regular expression pattern: {pattern}"]
    for must in musts:
        yield constraint_violation(f"'{where}'", must, f"'{shown}'")


def _fits(pattern: str, text: str) -> bool:
    compiled = _compiled(pattern)
    # Python cannot read some patterns (\\p{L}). These only allow characters that can be printed, so check just that.
    return not CONTROL.search(text) if compiled is None else compiled.fullmatch(text) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern, re.ASCII)
    except re.error:
        return None


def _below(where: str, name: str) -> str:
    name = name[0].lower() + name[1:]
    return f"{where}.{name}" if where else name
