"""Requests that are spoilt in one member, for every operation of the services that the lab emulates.

Each required member is missing, of the wrong type, too long or unprintable. botocore writes the request, and then one
member is spoilt. The request goes to the gate without a connection.
"""

import asyncio
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.model import OperationModel, Shape
from botocore.serialize import create_serializer

from labkit.simulator.aws.call import Call, Response
from tests.simulator.aws.conftest import ADMINISTRATOR, REGION, Aws
from tests.simulator.aws.test_actions_of_every_operation import example

SERVICES = (
    "iam", "sts", "s3", "eks", "sqs", "sns", "dynamodb", "kms", "ssm", "secretsmanager", "cloudtrail", "organizations",
)  # fmt: skip
LONG = 70_000
CONTROL = "a\x01\x1b\x0bname"
CREDENTIALS = Credentials(ADMINISTRATOR.access_key_id, ADMINISTRATOR.secret_access_key)
# The token in the request takes the place of a signature.
UNSIGNED = {"AssumeRoleWithWebIdentity", "AssumeRoleWithSAML"}


# Without the parameter, the request means another operation.
OTHERWISE = {"AbortMultipartUpload", "CopyObject", "ListParts"}


@dataclass(frozen=True, eq=False)
class Case:
    """One spoilt request. ``bounded``: the service's model itself forbids it."""

    service: str
    operation: str
    member: str
    fault: str
    right: dict[str, Any]
    """The request before the fault."""
    written: dict[str, Any]
    bounded: bool

    def __str__(self) -> str:
        return f"{self.service}:{self.operation} {self.member} {self.fault}"


def cases(service: str, model: Any) -> Iterator[Case]:
    """Yield all cases of a service, by operation and member."""
    serializer = create_serializer(model.protocol, include_validation=False)
    for name in model.operation_names:
        operation = model.operation_model(name)
        shape = operation.input_shape
        for member in shape.required_members if shape else ():
            for fault, bounded in faults(shape.members[member]):
                right, written = (serializer.serialize_to_request(example(shape), operation) for _ in range(2))
                if spoil(written, operation, member, fault, model.protocol):
                    yield Case(service, name, member, fault, right, written, bounded)


def faults(shape: Shape) -> Iterator[tuple[str, bool]]:
    """Yield each fault that a member can have, and whether the model forbids it."""
    yield "missing", True
    yield "mistyped", True
    if shape.type_name == "string":
        yield "too long", shape.metadata.get("max", LONG) < LONG or bool(shape.enum)
        pattern = shape.metadata.get("pattern")
        yield "unprintable", bool(shape.enum) or bool(pattern and not re.search(r"\\u0009|\\s|\[\\S|\.\*|^\.", pattern))


def spoil(written: dict[str, Any], operation: OperationModel, member: str, fault: str, protocol: str) -> bool:
    """Put the fault into the request; return whether the request can have it."""
    shape = operation.input_shape.members[member]
    wire = shape.serialization.get("name", member)
    value = {"too long": "a" * LONG, "unprintable": CONTROL}.get(fault)
    match shape.serialization.get("location"):
        case "uri":
            return spoil_path(written, operation, wire, value)
        case "header" | "querystring" as place:
            held = written["headers" if place == "header" else "query_string"]
            held.pop(wire, None)
            if fault == "missing" and operation.name in OTHERWISE:
                return False
            if fault == "mistyped" and shape.type_name in ("string", "list", "map"):
                return False
            if fault != "missing":
                held[wire] = value or "no such value"
                # No client can send an unprintable header.
                return place != "header" or fault != "unprintable"
            return True
    if protocol in ("query", "ec2"):
        form = {k: v for k, v in written["body"].items() if k != wire and not k.startswith(f"{wire}.")}
        if value is not None:
            form[wire] = value
        elif fault == "mistyped" and shape.type_name == "string":
            form[f"{wire}.member.1"] = "x"
        elif fault == "mistyped":
            form[wire] = "no such value"
        written["body"] = form
    elif protocol == "rest-xml":
        if operation.input_shape.serialization.get("payload") != member:
            return False
        if value is not None or shape.type_name == "blob":
            return False
        written["body"] = b"" if fault == "missing" else b"<Wrong><a/></Wrong>"
    else:
        body = json.loads(written["body"] or "{}")
        body.pop(wire, None)
        if fault != "missing":
            wrong: Any = ["x", {"y": 1}] if shape.type_name in ("string", "structure", "map") else {"x": 1}
            body[wire] = wrong if value is None else value
        written["body"] = json.dumps(body).encode()
    return True


def spoil_path(written: dict[str, Any], operation: OperationModel, wire: str, value: str | None) -> bool:
    if value is None:
        # Without this part of the path, the request means another operation, or none.
        return False
    template = operation.http["requestUri"].partition("?")[0]
    parts = [re.escape(part) for part in re.split(r"\{[\w+]+\}", template)]
    names = re.findall(r"\{([\w]+)\+?\}", template)
    path, question, query = written["url_path"].partition("?")
    match = re.fullmatch("(.+)".join(parts), path)
    if match is None:
        return False
    values = [quote(value) if name == wire else text for name, text in zip(names, match.groups(), strict=True)]
    filled = iter(values)
    written["url_path"] = re.sub(r"\{[\w+]+\}", lambda _: next(filled), template) + question + query
    return True


def send(aws: Aws, case: Case) -> Response:
    """The gate's answer to the request, signed by the administrator."""
    return respond(aws, case.service, case.written, signed=case.operation not in UNSIGNED)


def respond(aws: Aws, service: str, written: dict[str, Any], *, signed: bool = True) -> Response:
    """The gate's answer to a request as botocore writes it."""
    path, _, query = written["url_path"].partition("?")
    query = "&".join(filter(None, [query, urlencode(written["query_string"], doseq=True, quote_via=quote)]))
    body, headers = written["body"], dict(written["headers"])
    if isinstance(body, dict):
        body = urlencode(body, doseq=True).encode()
        headers["Content-Type"] = "application/x-www-form-urlencoded; charset=utf-8"
    elif isinstance(body, io.IOBase):
        body = body.read()
    body = body.encode() if isinstance(body, str) else body
    request = AWSRequest(written["method"], f"{aws.endpoint}{path}{'?' if query else ''}{query}", headers, body)
    if signed:
        signer = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
        signer(CREDENTIALS, service, REGION).add_auth(request)
    sent = [(name.lower(), str(value)) for name, value in request.headers.items()]
    sent.append(("host", aws.endpoint.removeprefix("http://")))
    call = Call(written["method"], path, query, sent, body)
    return asyncio.run_coroutine_threadsafe(aws.gate.respond(call), aws.loop).result(60).response


def is_emulated(aws: Aws, case: Case) -> bool:
    """Whether the lab has the operation at all."""
    return respond(aws, case.service, case.right, signed=case.operation not in UNSIGNED).status != 501


def complaint(case: Case, response: Response) -> str:
    """Return the problem with the answer. Return an empty text for a refusal in the service's own format."""
    if response.status >= 500 or (case.bounded and not 400 <= response.status < 500):
        return f"{response.status} {response.body[:300]!r}"
    kind = next((value for name, value in response.headers if name.lower() == "content-type"), "")
    if case.written["method"] == "HEAD":
        return ""
    if response.status < 400:
        return (
            ""
            if "xml" not in kind or not response.body or well_formed(response.body)
            else f"no XML: {response.body[:300]!r}"
        )
    if case.service in ("iam", "sts", "s3", "sns"):
        root = well_formed(response.body)
        if root is None or "xml" not in kind:
            return f"no XML: {kind} {response.body[:300]!r}"
        codes = [each.text for each in root.iter() if each.tag.rpartition("}")[2] == "Code"]
        return "" if codes and codes[0] else f"no code: {response.body[:300]!r}"
    try:
        content = json.loads(response.body)
    except ValueError:
        return f"no JSON: {response.body[:300]!r}"
    return "" if response.error_code and ("message" in content or "Message" in content) else f"no error: {content}"


def well_formed(body: bytes) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(body) if body else None
    except ElementTree.ParseError:
        return None
