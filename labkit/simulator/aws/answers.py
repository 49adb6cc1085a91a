"""Build answers and refusals as AWS does: with the code, the words and the format of the called service."""

import json
import re
import secrets
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

from labkit.simulator.aws.call import AwsRequest, Response
from labkit.simulator.aws.moto_guard import closed

PROLOG = '<?xml version="1.0" encoding="UTF-8"?>\n'

# https://www.w3.org/TR/xml/#charsets
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

UNKNOWN = "The security token included in the request is invalid."
MISMATCH = "The request signature we calculated does not match the signature you provided."
EXPIRED = "The security token included in the request is expired"
UNCONFORMING = "The request signature does not conform to AWS standards."
UNSCOPED = "Credential should be scoped to a valid region."

# The faults of authentication as S3 names them: status, code, message.
S3_FAULTS = {
    "unknown key": (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
    "no token": (400, "InvalidToken", "The provided token is malformed or otherwise invalid."),
    "expired": (400, "ExpiredToken", "The provided token has expired."),
    "signature": (403, "SignatureDoesNotMatch", f"{MISMATCH} Check your key and signing method."),
    "skewed": (
        403,
        "RequestTimeTooSkewed",
        "The difference between the request time and the current time is too large.",
    ),
    "scope": (400, "AuthorizationHeaderMalformed", "The authorization header is malformed."),
    "malformed": (400, "AuthorizationHeaderMalformed", "The authorization header is malformed."),
    "unsupported": (400, "InvalidRequest", "The authorization mechanism you have provided is not supported."),
    "anonymous": (403, "AccessDenied", "Access Denied"),
    "denied": (403, "AccessDenied", "Access Denied"),
}
# The same faults in all other services: the code of query services, the code of JSON services, and the message.
FAULTS = {
    "unknown key": ("InvalidClientTokenId", "UnrecognizedClientException", UNKNOWN),
    "no token": ("InvalidClientTokenId", "UnrecognizedClientException", UNKNOWN),
    "expired": ("ExpiredToken", "ExpiredTokenException", EXPIRED),
    "signature": (
        "SignatureDoesNotMatch",
        "InvalidSignatureException",
        f"{MISMATCH} Check your AWS Secret Access Key and signing method. "
        "Consult the service documentation for details.",
    ),
    "skewed": ("SignatureDoesNotMatch", "InvalidSignatureException", "Signature expired."),
    "scope": ("SignatureDoesNotMatch", "InvalidSignatureException", UNSCOPED),
    "malformed": ("IncompleteSignature", "IncompleteSignatureException", UNCONFORMING),
    "unsupported": ("IncompleteSignature", "IncompleteSignatureException", UNCONFORMING),
    "anonymous": (
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "Request is missing Authentication Token",
    ),
    "denied": ("AccessDenied", "AccessDeniedException", "Access Denied"),
}


def respond(content: dict[str, Any] | None, content_type: str = "application/json") -> Response:
    """Return a JSON service's answer with this content. Without ``content``, the body is empty."""
    headers = [("content-type", content_type), ("x-amzn-requestid", str(uuid.uuid4()))]
    return Response(200, headers, b"" if content is None else json.dumps(content).encode())


def done(request: AwsRequest, result: str = "") -> Response:
    """Return the answer to a successful call of the query protocol. ``result`` is XML; it may be empty."""
    name, request_id = request.operation, str(uuid.uuid4())
    element = f"<{name}Result>{result}</{name}Result>" if result else ""
    body = (
        f'<{name}Response xmlns="{request.api.namespace}">{element}'
        f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{name}Response>"
    )
    return Response(200, [("content-type", "text/xml"), ("x-amzn-requestid", request_id)], body.encode())


def ec2_answer(request: AwsRequest, content: str) -> Response:
    """Return the answer to a successful call of EC2. ``content`` is XML."""
    name = f"{request.operation}Response"
    body = (
        f'{PROLOG}<{name} xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
        f"<requestId>{uuid.uuid4()}</requestId>{content}</{name}>"
    )
    return Response(200, [("content-type", "text/xml;charset=UTF-8")], body.encode())


def xml(content: object) -> str:
    """Return the content as the query protocol's XML. A dict becomes one element for each key, named like the key.

    The dict under the key `EvalDecisionDetails` is an exception. Each key of this dict becomes an element `entry`,
    which contains the key and the value.
    """
    if isinstance(content, dict):
        entries: Any = content.get("EvalDecisionDetails", {})
        rows = "".join(xml({"entry": {"key": key, "value": value}}) for key, value in entries.items())
        return "".join(
            f"<{name}>{rows if name == 'EvalDecisionDetails' else xml(part)}</{name}>" for name, part in content.items()
        )
    if isinstance(content, list):
        return "".join(f"<member>{xml(part)}</member>" for part in content)
    return str(content).lower() if isinstance(content, bool) else escape(NOT_XML.sub("?", str(content)))


@dataclass(frozen=True)
class Claimed:
    """The identity that a refused caller claimed. It isn't verified, and only the trail shows it."""

    key_of: str = ""
    """The ARN of the access key's owner, if the call was signed."""
    role_session_name: str = ""
    claims: dict[str, object] = field(default_factory=dict)
    """The claims of a rejected web identity token."""


@dataclass
class Refusal(Exception):
    """A refusal. The caller gets the code and the message; only the trail shows the ``reason``."""

    status: int
    code: str
    message: str
    reason: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    """The fields that S3 adds to its error document."""
    claimed: Claimed | None = None
    """The identity that the refused call claimed, if it claimed one."""

    def __post_init__(self) -> None:
        super().__init__(self.message)
        self.reason = self.reason or self.message


def fault(request: AwsRequest, name: str, reason: str, *, message: str = "", **fields: str) -> Refusal:
    """Return the refusal for the fault ``name`` of `S3_FAULTS` or `FAULTS`. ``message`` replaces the usual message.

    https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
    https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html
    """
    if request.family == "s3":
        status, code, usual = S3_FAULTS[name]
        return Refusal(status, code, message or usual, reason, fields)
    query_code, json_code, usual = FAULTS[name]
    by_query = request.api.is_query_compatible or request.family in ("query", "ec2", "rest-xml")
    forbidden = request.family == "rest-json" or (by_query and query_code != "IncompleteSignature")
    code = (request.api.denied if name == "denied" else "") or (query_code if by_query else json_code)
    return Refusal(403 if forbidden else 400, code, message or usual, reason)


def invalid_parameter(message: str) -> Refusal:
    """Return EKS's error for an invalid parameter."""
    return Refusal(400, "InvalidParameterException", message)


def resource_not_found(message: str, reason: str = "") -> Refusal:
    """Return EKS's error for a missing cluster, or for a missing part of a cluster."""
    return Refusal(404, "ResourceNotFoundException", message, reason)


def resource_in_use(message: str) -> Refusal:
    """Return EKS's error for a name that is in use, or for a cluster that is being changed."""
    return Refusal(409, "ResourceInUseException", message)


def invalid(*faults: str) -> Refusal:
    """Return a ``ValidationError`` that lists these texts from `constraint_violation` and `missing_required`."""
    return Refusal(400, "ValidationError", validation_message(faults))


def validation_message(faults: Sequence[str]) -> str:
    """Return one sentence with all faults: `2 validation errors detected: FAULT; FAULT`."""
    return f"{len(faults)} validation error{'s' if len(faults) > 1 else ''} detected: {'; '.join(faults)}"


def constraint_violation(where: str, must: str, value: str = "") -> str:
    """Return a fault's text: the value at ``where`` breaks the constraint ``must``.

    The text contains ``where`` and ``value`` unchanged. This function adds no quotes.
    """
    return f"Value {value + ' ' if value else ''}at {where} failed to satisfy constraint: Member must {must}"


def missing_required(names: Iterable[str]) -> list[str]:
    """Return one fault for each missing parameter."""
    return [constraint_violation(f"'{name[0].lower()}{name[1:]}'", "not be null", "null") for name in names]


def out_of_range(size: float, least: float, most: float, what: str = "length") -> list[str]:
    """Return a list with one text about the limit that ``size`` breaks; an empty list if no limit is broken.

    The text is for `constraint_violation`'s ``must``. An example: "have length less than or equal to 64".
    """
    if size < least:
        return [f"have {what} greater than or equal to {least}"]
    return [f"have {what} less than or equal to {most}"] if size > most else []


def not_emulated(request: AwsRequest, reason: str, error: Exception | None = None) -> Refusal:
    """Return the refusal of a call that the lab can't answer. ``error`` is moto's error, if moto raised one."""
    # 501 is the one server error that no SDK tries again.
    operation = request.parsed.operation if request.parsed else request.operation
    what = f"{request.service}:{operation}" if operation.isidentifier() else f"{operation} of {request.service}"
    message = f"The lab does not emulate {what}, or not with these parameters."
    if left := closed(error):
        message += f" {left.strerror}."
    return Refusal(501, "NotImplemented", message, f"{message} {reason}")


def render(request: AwsRequest, refusal: Refusal) -> Response:
    """Return the answer to a refused call, in the error format of the call's service."""
    if request.family == "s3":
        return _s3(request, refusal)
    request_id = str(uuid.uuid4())
    about = {"Code": refusal.code, "Message": refusal.message}
    if request.family == "ec2":
        body = PROLOG + xml({"Response": {"Errors": {"Error": about}, "RequestID": request_id}})
        return Response(refusal.status, [("content-type", "text/xml;charset=UTF-8")], body.encode())
    if request.family in ("query", "rest-xml"):
        namespace = request.api.namespace or f"http://{request.service}.amazonaws.com/doc/"
        content = xml({"Error": {"Type": "Sender", **about}, "RequestId": request_id})
        body = f'<ErrorResponse xmlns="{namespace}">{content}</ErrorResponse>'
        headers = [("content-type", "text/xml"), ("x-amzn-requestid", request_id)]
        return Response(refusal.status, headers, body.encode())
    headers = [("content-type", "application/json"), ("x-amzn-requestid", request_id)]
    headers.append(("x-amzn-errortype", refusal.code))
    if request.api.is_query_compatible:
        headers.append(("x-amzn-query-error", f"{refusal.code};Sender"))
    body = json.dumps({"__type": refusal.code, "message": refusal.message})
    return Response(refusal.status, headers, body.encode())


def _s3(request: AwsRequest, refusal: Refusal) -> Response:
    request_id = secrets.token_hex(8).upper()
    host_id = secrets.token_urlsafe(42)
    headers = [("x-amz-request-id", request_id), ("x-amz-id-2", host_id), ("content-type", "application/xml")]
    if region := refusal.fields.get("Region"):
        headers.append(("x-amz-bucket-region", region))
    if request.call.method == "HEAD":
        return Response(refusal.status, headers, b"")
    fields = {"Code": refusal.code, "Message": refusal.message, **refusal.fields}
    fields |= {"RequestId": request_id, "HostId": host_id}
    return Response(refusal.status, headers, (PROLOG + xml({"Error": fields})).encode())
