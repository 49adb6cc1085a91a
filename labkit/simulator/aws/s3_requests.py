"""Refuse requests with faults that S3 finds before S3 looks for the bucket.

These faults are invalid names, parameters and bodies, and missing parameters and bodies.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html#ErrorCodeList
"""

import hashlib
import re
from base64 import b64decode, b64encode
from functools import cache
from typing import NamedTuple
from xml.etree import ElementTree

from botocore.model import OperationNotFoundError

from labkit.simulator.aws.answers import Refusal
from labkit.simulator.aws.backend import Shape, get_service_model
from labkit.simulator.aws.call import BUCKET_NAME, S3_CONTROL, AwsRequest, Call

LONGEST_KEY = 1024  # bytes
NEW_BUCKET = re.compile(r"(?!(\d+\.){3}\d+$)(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
RESERVED = ("xn--", "sthree-", "amzn-s3-demo-")
RESERVED_ENDS = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html#canned-acl
CANNED_ACLS = (
    "private", "public-read", "public-read-write", "authenticated-read", "aws-exec-read", "bucket-owner-read",
    "bucket-owner-full-control", "log-delivery-write",
)  # fmt: skip
LARGEST = 2**31 - 1
# The parameters that say how long a page is: their name in the error, and their range.
PAGES = {
    "max-buckets": ("max-buckets", 1, 10_000),
    "max-keys": ("maxKeys", 0, LARGEST),
    "max-parts": ("max-parts", 0, LARGEST),
    "max-uploads": ("max-uploads", 0, LARGEST),
}
MALFORMED = "The XML you provided was not well-formed or did not validate against our published schema"


def check_names(request: AwsRequest) -> None:
    """Refuse a bucket or a key with an invalid name. A new bucket's name must follow more rules."""
    name = request.bucket
    if request.call.path == "/" or request.call.path.startswith(S3_CONTROL):
        return
    is_new = request.call.method == "PUT" and not request.key and not request.call.query.keys() - {"x-id"}
    reserved = name.startswith(RESERVED) or name.endswith(RESERVED_ENDS)
    if not BUCKET_NAME.fullmatch(name) or (is_new and (reserved or not NEW_BUCKET.fullmatch(name))):
        raise Refusal(400, "InvalidBucketName", "The specified bucket is not valid.", fields={"BucketName": name})
    if (size := len(request.key.encode("utf-8", "replace"))) > LONGEST_KEY:
        about = {"Size": str(size), "MaxSizeAllowed": str(LONGEST_KEY)}
        raise Refusal(400, "KeyTooLongError", "Your key is too long", fields=about)


def check_complete(request: AwsRequest) -> None:
    """Refuse a request if a parameter is wrong, or if a required parameter or a required body is missing."""
    if (acl := request.call.headers.get("x-amz-acl")) and acl not in CANNED_ACLS:
        raise _invalid_argument("", "x-amz-acl", acl, "there is no canned ACL of this name")
    inputs = {"querystring": request.call.query, "header": request.call.headers}
    for member in _checked(request.operation):
        if member.location in inputs:
            _check_parameter(member, inputs[member.location].get(member.key))
        else:
            _check_document(request.call.body, member.shape)
    if request.operation == "CreateBucket" and request.call.body.strip():
        _check_new_tags(request.call.body)


def check_digest(call: Call) -> None:
    """Refuse a request if its ``Content-MD5`` header isn't the MD5 digest of its body."""
    if (given := call.headers.get("content-md5")) is None:
        return
    try:
        expected = b64decode(given, validate=True)
    except ValueError:
        expected = b""
    calculated = hashlib.md5(call.body, usedforsecurity=False).digest()
    if len(expected) != len(calculated):
        raise Refusal(400, "InvalidDigest", "The Content-MD5 you specified was invalid.", fields={"Content-MD5": given})
    if expected != calculated:
        about = {"ExpectedDigest": given, "CalculatedDigest": b64encode(calculated).decode()}
        raise Refusal(400, "BadDigest", "The Content-MD5 you specified did not match what we received.", fields=about)


class _Member(NamedTuple):
    """A parameter of an operation, or the body of its requests."""

    location: str
    """``querystring`` or ``header``; empty for the body."""
    name: str
    key: str
    required: bool
    shape: Shape


@cache
def _checked(operation: str) -> list[_Member]:
    try:
        shape = get_service_model("s3").operation_model(operation).input_shape
    except OperationNotFoundError:
        return []
    members = []
    for name, member in shape.members.items() if shape else ():
        required, location = name in shape.required_members, member.serialization.get("location", "")
        wire = member.serialization.get("name", name)
        is_body = required and name == shape.serialization.get("payload") and member.type_name == "structure"
        if is_body or (location in ("querystring", "header") and (required or member.type_name == "integer")):
            members.append(_Member(location, wire, wire.lower() if location == "header" else wire, required, member))
    return members


def _check_parameter(member: _Member, given: str | None) -> None:
    if member.required and given is None:
        raise Refusal(400, "InvalidRequest", f"Missing required parameter for this request: '{member.name}'")
    if not given or member.shape.type_name != "integer":
        return
    if not re.fullmatch(r"-?\d{1,10}", given, re.ASCII) or not -LARGEST <= int(given) <= LARGEST:
        raise _invalid_argument(f"Provided {member.name} not an integer or within integer range", member.name, given)
    name, least, most = PAGES.get(member.name, ("", -LARGEST, LARGEST))
    if not least <= int(given) <= most:
        raise _invalid_argument(f"Argument {name} must be an integer between {least} and {most}", name, given)


def _invalid_argument(message: str, name: str, given: str, reason: str = "") -> Refusal:
    about = {"ArgumentName": name, "ArgumentValue": given}
    return Refusal(400, "InvalidArgument", message, reason, fields=about)


def _check_new_tags(body: bytes) -> None:
    """Refuse invalid tags of a new bucket, because moto doesn't check these tags."""
    keys = [each.text or "" for each in _root(body).iter() if each.tag.rpartition("}")[2] == "Key"]
    if len({*keys}) < len(keys):
        raise Refusal(400, "InvalidTag", "Cannot provide multiple Tags with the same key")
    if any(key.startswith("aws:") for key in keys):
        raise Refusal(400, "InvalidTag", "System tags cannot be added/updated by requester")


def _check_document(body: bytes, shape: Shape) -> None:
    if not body.strip():
        raise Refusal(400, "MissingRequestBodyError", "Request Body is empty")
    root = _root(body)
    present = {each.tag.rpartition("}")[2] for each in root}
    needed = {shape.members[name].serialization.get("name", name) for name in shape.required_members}
    if root.tag.rpartition("}")[2] != shape.serialization["name"] or needed - present:
        raise Refusal(400, "MalformedXML", MALFORMED)


def _root(body: bytes) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(body)  # noqa: S314 - expat 2.4 and newer bound the expansion of entities
    except (ElementTree.ParseError, RecursionError) as error:
        raise Refusal(400, "MalformedXML", MALFORMED, str(error)) from error
