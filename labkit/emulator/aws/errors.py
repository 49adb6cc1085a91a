"""How AWS refuses: the same fault in the words and the format of the service that was called."""

import json
import secrets
import uuid
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

from labkit.emulator.aws.answers import NAMESPACES, PROLOG
from labkit.emulator.aws.call import Asked, Response

UNKNOWN_TO_THE_LAB = "The security token included in the request is invalid."
S3_SIGNATURE = (
    "The request signature we calculated does not match the signature you provided. Check your key and signing method."
)
SIGNATURE = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
)

# One fault of authentication, as S3, the query services and the JSON services name it: status, code, message.
FAULTS: dict[str, dict[str, tuple[int, str, str]]] = {
    "unknown key": {
        "s3": (403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
        "query": (403, "InvalidClientTokenId", UNKNOWN_TO_THE_LAB),
        "json": (400, "UnrecognizedClientException", UNKNOWN_TO_THE_LAB),
    },
    "no token": {
        "s3": (400, "InvalidToken", "The provided token is malformed or otherwise invalid."),
        "query": (403, "InvalidClientTokenId", UNKNOWN_TO_THE_LAB),
        "json": (400, "UnrecognizedClientException", UNKNOWN_TO_THE_LAB),
    },
    "expired": {
        "s3": (400, "ExpiredToken", "The provided token has expired."),
        "query": (403, "ExpiredToken", "The security token included in the request is expired"),
        "json": (400, "ExpiredTokenException", "The security token included in the request is expired"),
    },
    "signature": {
        "s3": (403, "SignatureDoesNotMatch", S3_SIGNATURE),
        "query": (403, "SignatureDoesNotMatch", SIGNATURE),
        "json": (400, "InvalidSignatureException", SIGNATURE),
    },
    "skewed": {
        "s3": (
            403,
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
        ),
        "query": (403, "SignatureDoesNotMatch", "Signature expired."),
        "json": (400, "InvalidSignatureException", "Signature expired."),
    },
    "scope": {
        "s3": (400, "AuthorizationHeaderMalformed", "The authorization header is malformed."),
        "query": (403, "SignatureDoesNotMatch", "Credential should be scoped to a valid region."),
        "json": (400, "InvalidSignatureException", "Credential should be scoped to a valid region."),
    },
    "malformed": {
        "s3": (400, "AuthorizationHeaderMalformed", "The authorization header is malformed."),
        "query": (400, "IncompleteSignature", "The request signature does not conform to AWS standards."),
        "json": (400, "IncompleteSignatureException", "The request signature does not conform to AWS standards."),
    },
    "unsupported": {
        "s3": (400, "InvalidRequest", "The authorization mechanism you have provided is not supported."),
        "query": (400, "IncompleteSignature", "The request signature does not conform to AWS standards."),
        "json": (400, "IncompleteSignatureException", "The request signature does not conform to AWS standards."),
    },
    "anonymous": {
        "s3": (403, "AccessDenied", "Access Denied"),
        "query": (403, "MissingAuthenticationToken", "Request is missing Authentication Token"),
        "json": (400, "MissingAuthenticationTokenException", "Request is missing Authentication Token"),
    },
    "denied": {
        "s3": (403, "AccessDenied", "Access Denied"),
        "query": (403, "AccessDenied", "Access Denied"),
        "json": (400, "AccessDeniedException", "Access Denied"),
    },
}


@dataclass
class Refusal(Exception):
    """A request that is refused: what the caller is told, and the ``reason`` that only the trail holds."""

    status: int
    code: str
    message: str
    reason: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    """What S3 adds to its error document."""
    about: dict[str, Any] = field(default_factory=dict)
    """What the trail says beside the reason."""

    def __post_init__(self) -> None:
        super().__init__(self.message)
        self.reason = self.reason or self.message


def fault(asked: Asked, name: str, reason: str, *, message: str = "", **fields: str) -> Refusal:
    """The fault ``name`` of :data:`FAULTS` as the service that is asked puts it.

    https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
    https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html
    """
    style = {"s3": "s3", "query": "query", "ec2": "query"}.get(asked.family, "json")
    if asked.service in ("sqs", "sns"):
        # They name a fault as they did before they spoke JSON.
        style = "query"
    status, code, usual = FAULTS[name][style]
    if asked.family == "rest-json":
        status = 403
    return Refusal(status, code, message or usual, reason, fields if style == "s3" else {})


def invalid_parameter(message: str) -> Refusal:
    """What EKS says of a parameter that it cannot take."""
    return Refusal(400, "InvalidParameterException", message)


def render(asked: Asked, refusal: Refusal) -> Response:
    """The answer to a refused call, in the error format of the call's service."""
    if asked.family == "s3":
        return _s3(asked, refusal)
    request_id = str(uuid.uuid4())
    if asked.family == "ec2":
        body = (
            f"{PROLOG}<Response><Errors><Error>"
            f"<Code>{escape(refusal.code)}</Code><Message>{escape(refusal.message)}</Message>"
            f"</Error></Errors><RequestID>{request_id}</RequestID></Response>"
        )
        return Response(refusal.status, [("content-type", "text/xml;charset=UTF-8")], body.encode())
    if asked.family == "query":
        namespace = NAMESPACES.get(asked.service, f"http://{asked.service}.amazonaws.com/doc/")
        body = (
            f'<ErrorResponse xmlns="{namespace}"><Error><Type>Sender</Type><Code>{escape(refusal.code)}</Code>'
            f"<Message>{escape(refusal.message)}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
        )
        headers = [("content-type", "text/xml"), ("x-amzn-requestid", request_id)]
        return Response(refusal.status, headers, body.encode())
    headers = [("content-type", "application/json"), ("x-amzn-requestid", request_id)]
    headers.append(("x-amzn-errortype", refusal.code))
    if asked.service == "sqs":
        headers.append(("x-amzn-query-error", f"{refusal.code};Sender"))
    content = {"__type": refusal.code, "message": refusal.message}
    return Response(refusal.status, headers, json.dumps(content).encode())


def _s3(asked: Asked, refusal: Refusal) -> Response:
    request_id = secrets.token_hex(8).upper()
    host_id = secrets.token_urlsafe(42)
    headers = [("x-amz-request-id", request_id), ("x-amz-id-2", host_id), ("content-type", "application/xml")]
    if region := refusal.fields.get("Region"):
        headers.append(("x-amz-bucket-region", region))
    if asked.call.method == "HEAD":
        return Response(refusal.status, headers, b"")
    fields = {"Code": refusal.code, "Message": refusal.message, **refusal.fields}
    fields |= {"RequestId": request_id, "HostId": host_id}
    content = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items())
    body = f"{PROLOG}<Error>{content}</Error>"
    return Response(refusal.status, headers, body.encode())
