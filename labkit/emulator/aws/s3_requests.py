"""What S3 refuses before it looks for anything: invalid names, and incomplete requests.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html#ErrorCodeList
"""

import re
from xml.etree import ElementTree

from botocore.model import OperationNotFoundError

from labkit.emulator.aws.backend import Shape, get_service_model
from labkit.emulator.aws.call import Asked
from labkit.emulator.aws.errors import Refusal
from labkit.emulator.aws.s3_path import BUCKET, CONTROL

LONGEST_KEY = 1024  # bytes
NEW_BUCKET = re.compile(r"(?!(\d+\.){3}\d+$)(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
RESERVED = ("xn--", "sthree-", "amzn-s3-demo-")
RESERVED_ENDS = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
MALFORMED = "The XML you provided was not well-formed or did not validate against our published schema"


def check_names(asked: Asked) -> None:
    """Refuse a bucket or a key with an invalid name. More rules hold for the name of a new bucket."""
    name = asked.bucket
    if not name or asked.call.path.startswith(CONTROL):
        return
    is_new = asked.call.method == "PUT" and not asked.key and not asked.call.query.keys() - {"x-id"}
    reserved = name.startswith(RESERVED) or name.endswith(RESERVED_ENDS)
    if not BUCKET.fullmatch(name) or (is_new and (reserved or not NEW_BUCKET.fullmatch(name))):
        raise Refusal(400, "InvalidBucketName", "The specified bucket is not valid.", fields={"BucketName": name})
    if (size := len(asked.key.encode("utf-8", "replace"))) > LONGEST_KEY:
        about = {"Size": str(size), "MaxSizeAllowed": str(LONGEST_KEY)}
        raise Refusal(400, "KeyTooLongError", "Your key is too long", fields=about)


def check_complete(asked: Asked) -> None:
    """Refuse a request without a parameter or a body that its operation needs."""
    try:
        shape = get_service_model("s3").operation_model(asked.operation).input_shape
    except OperationNotFoundError:
        return
    for name, member in shape.members.items() if shape else ():
        required, wire = name in shape.required_members, member.serialization.get("name", name)
        match member.serialization.get("location"):
            case "querystring":
                _check_parameter(wire, asked.call.query.get(wire), member, required)
            case "header":
                _check_parameter(wire, asked.call.headers.get(wire.lower()), member, required)
        if required and name == shape.serialization.get("payload") and member.type_name == "structure":
            _check_document(asked.call.body, member)


def _check_parameter(name: str, given: str | None, shape: Shape, required: bool) -> None:
    if required and given is None:
        raise Refusal(400, "InvalidRequest", f"Missing required parameter for this request: '{name}'")
    if given and shape.type_name == "integer" and not re.fullmatch(r"-?\d{1,9}", given, re.ASCII):
        said = f"Provided {name} not an integer or within integer range"
        raise Refusal(400, "InvalidArgument", said, fields={"ArgumentName": name, "ArgumentValue": given})


def _check_document(body: bytes, shape: Shape) -> None:
    if not body.strip():
        raise Refusal(400, "MissingRequestBodyError", "Request Body is empty")
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - expat 2.4 and newer bound the expansion of entities
    except (ElementTree.ParseError, RecursionError) as error:
        raise Refusal(400, "MalformedXML", MALFORMED, str(error)) from error
    found = {each.tag.rpartition("}")[2] for each in root}
    needed = {shape.members[name].serialization.get("name", name) for name in shape.required_members}
    if root.tag.rpartition("}")[2] != shape.serialization["name"] or needed - found:
        raise Refusal(400, "MalformedXML", MALFORMED)
