"""Signature Version 4: read who signed a request and when, and verify the signature.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hashlib
import hmac
import posixpath
import re
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, lru_cache
from urllib.parse import quote

from labkit.simulator.aws.call import Call

ALGORITHM = "AWS4-HMAC-SHA256"
EMPTY = hashlib.sha256(b"").hexdigest()
UNSIGNED = "UNSIGNED-PAYLOAD"
LONGEST_PRESIGNED = 604800
UNFRAMED = "the framing of the aws-chunked body is wrong"
_HEADER = re.compile(r"\s*([A-Za-z]+)=([^,\s]*)\s*")


class MalformedSignature(Exception):
    """The request carries a malformed signature."""


class Unsupported(MalformedSignature):
    """The request uses an authorization method other than ``AWS4-HMAC-SHA256``. An example is Signature Version 2."""


class Mismatch(Exception):
    """The request fails the check of its signature or of its ``aws-chunked`` body."""


@dataclass(frozen=True)
class Signature:
    """The signature in a request, and the request's values that a check of the signature needs.

    The values are the access key id, the scope, the names of the signed headers, the times and the session token.
    """

    access_key_id: str
    date: str
    region: str
    service: str
    terminator: str
    signed_headers: tuple[str, ...]
    signature: str
    timestamp: str
    session_token: str | None
    expires_in: int | None
    """The seconds for which a presigned URL is valid; None for a signature in the header."""

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/{self.terminator}"

    @property
    def is_scoped(self) -> bool:
        """Whether the scope ends with ``aws4_request`` and has the date of the signature."""
        return self.terminator == "aws4_request" and self.timestamp.startswith(self.date)

    @cached_property
    def signed_at(self) -> float:
        """The time of the signature, in seconds since the epoch."""
        return datetime.fromisoformat(self.timestamp).timestamp()


def parse_signature(call: Call) -> Signature | None:
    """Return the signature in the header or the query; None for an unsigned call. Raises `MalformedSignature`."""
    if authorization := call.headers.get("authorization"):
        return _from_header(call, authorization)
    if "X-Amz-Signature" in call.query or "X-Amz-Algorithm" in call.query:
        return _from_query(call)
    if "AWSAccessKeyId" in call.query and "Signature" in call.query:
        raise Unsupported(f"The authorization mechanism you have provided is not supported. Please use {ALGORITHM}.")
    return None


def verify(call: Call, signature: Signature, secret: str, *, of_s3: bool) -> Call:
    """Verify the signature, and return the call without ``aws-chunked`` framing. Raises :class:`Mismatch`.

    ``of_s3`` says whether the call is signed in S3's way: with a path that is encoded once, and a body that need not be
    signed.
    """
    if "host" not in signature.signed_headers:
        raise Mismatch("the Host header is not signed")
    key = signing_key(secret, signature.date, signature.region, signature.service)
    payload = _payload_hash(call, signature, of_s3=of_s3)
    hashed = hashlib.sha256(_canonical_request(call, signature, payload, of_s3=of_s3).encode()).hexdigest()
    wanted = _sign(key, "\n".join((ALGORITHM, signature.timestamp, signature.scope, hashed)))
    if not hmac.compare_digest(wanted.encode(), signature.signature.encode("utf-8", "replace")):
        raise Mismatch("the secret key of this access key gives another signature for this request")
    if payload.startswith("STREAMING-"):
        return _unchunk(call, signature, key, payload)
    return call


def _canonical_request(call: Call, signature: Signature, payload: str, *, of_s3: bool) -> str:
    """Return the canonical request. S3's path is encoded once; other paths are normalized and encoded twice."""
    if of_s3:
        path = quote(call.path, safe="/-_.~") or "/"
    else:
        normal = posixpath.normpath(call.raw_path or "/").replace("//", "/")
        if call.raw_path.endswith("/") and normal != "/":
            normal += "/"
        path = quote(normal, safe="/-_.~")
    encoded = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in call.query_pairs
        if name != "X-Amz-Signature"
    )
    headers = "".join(f"{name}:{' '.join(call.headers.get(name, '').split())}\n" for name in signature.signed_headers)
    query = "&".join(f"{name}={value}" for name, value in encoded)
    return "\n".join((call.method, path, query, headers, ";".join(signature.signed_headers), payload))


@lru_cache(maxsize=1024)
def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """Return the key that signs calls to a service in a region on ``date`` (YYYYMMDD), made from ``secret``."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _from_header(call: Call, authorization: str) -> Signature:
    algorithm, _, rest = authorization.partition(" ")
    if algorithm != ALGORITHM:
        raise Unsupported(f"The authorization mechanism you have provided is not supported. Please use {ALGORITHM}.")
    parts = {match[1]: match[2] for piece in rest.split(",") if (match := _HEADER.fullmatch(piece))}
    if missing := [name for name in ("Credential", "SignedHeaders", "Signature") if not parts.get(name)]:
        names = " and ".join(map(repr, missing))
        raise MalformedSignature(f"Authorization header requires {names} parameter.")
    return _signature(
        parts,
        timestamp=call.headers.get("x-amz-date") or _http_date(call.headers.get("date", "")),
        session_token=call.headers.get("x-amz-security-token"),
        expires_in=None,
    )


def _from_query(call: Call) -> Signature:
    query = call.query
    if query.get("X-Amz-Algorithm") != ALGORITHM:
        raise MalformedSignature(f'X-Amz-Algorithm only supports "{ALGORITHM}"')
    parts = {name: query.get(f"X-Amz-{name}", "") for name in ("Credential", "SignedHeaders", "Signature", "Date")}
    if not all(parts.values()):
        raise MalformedSignature(
            "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, "
            "X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
        )
    expires = query.get("X-Amz-Expires", "900")
    if not re.fullmatch(r"\d{1,6}", expires, re.ASCII) or not 0 < int(expires) <= LONGEST_PRESIGNED:
        message = "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less"
        raise MalformedSignature(f"{message} than {LONGEST_PRESIGNED} seconds")
    return _signature(
        parts,
        timestamp=parts["Date"],
        session_token=query.get("X-Amz-Security-Token") or call.headers.get("x-amz-security-token"),
        expires_in=int(expires),
    )


def _signature(
    parts: dict[str, str], *, timestamp: str, session_token: str | None, expires_in: int | None
) -> Signature:
    scope = parts["Credential"].split("/")
    if len(scope) != 5 or not all(scope):
        form = "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request"
        raise MalformedSignature(f'the Credential is mal-formed; expecting "{form}".')
    if not re.fullmatch(r"\d{8}T\d{6}Z", timestamp, re.ASCII):
        raise MalformedSignature("AWS authentication requires a valid Date or x-amz-date header")
    access_key_id, date, region, service, terminator = scope
    made = Signature(
        access_key_id,
        date,
        region,
        service,
        terminator,
        signed_headers=tuple(parts["SignedHeaders"].lower().split(";")),
        signature=parts["Signature"],
        timestamp=timestamp,
        session_token=session_token,
        expires_in=expires_in,
    )
    try:
        _ = made.signed_at
    except ValueError:
        raise MalformedSignature("AWS authentication requires a valid Date or x-amz-date header") from None
    return made


def _http_date(text: str) -> str:
    try:
        return datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").strftime("%Y%m%dT%H%M%SZ")
    except ValueError:
        return text


def _payload_hash(call: Call, signature: Signature, *, of_s3: bool) -> str:
    if not of_s3:
        return hashlib.sha256(call.body).hexdigest()
    declared = call.headers.get("x-amz-content-sha256") or call.query.get("X-Amz-Content-Sha256")
    if signature.expires_in is not None and not declared:
        return UNSIGNED
    if declared and (declared == UNSIGNED or declared.startswith("STREAMING-")):
        return declared
    # Always hash the received body, even if a header claims another hash.
    return hashlib.sha256(call.body).hexdigest()


def _sign(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode(), "sha256").hex()


def _unchunk(call: Call, signature: Signature, key: bytes, payload: str) -> Call:
    """Verify signed chunks, and return the call without ``aws-chunked`` framing.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
    """
    signed = payload.startswith("STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
    if not signed and payload != "STREAMING-UNSIGNED-PAYLOAD-TRAILER":
        raise Mismatch(f"the lab cannot verify the payload {payload}")
    at, chunks, previous = 0, [b""], signature.signature
    while True:
        data, extension, at = _chunk(call.body, at)
        if signed:
            hashed = hashlib.sha256(data).hexdigest()
            text = "\n".join((f"{ALGORITHM}-PAYLOAD", signature.timestamp, signature.scope, previous, EMPTY, hashed))
            previous = _sign(key, text)
            if not hmac.compare_digest(f"chunk-signature={previous}".encode(), extension.strip()):
                raise Mismatch("the signature of a chunk does not match")
        if not data:
            break
        chunks.append(data)
    lines = (line.partition(":") for line in call.body[at:].decode("utf-8", "replace").splitlines() if ":" in line)
    trailers = {name.strip().lower(): value.strip() for name, _, value in lines}
    if signed and payload.endswith("-TRAILER"):
        given = trailers.pop("x-amz-trailer-signature", "")
        written = "".join(f"{name}:{value}\n" for name, value in trailers.items())
        hashed = hashlib.sha256(written.encode()).hexdigest()
        text = "\n".join((f"{ALGORITHM}-TRAILER", signature.timestamp, signature.scope, previous, hashed))
        if not hmac.compare_digest(_sign(key, text).encode(), given.encode()):
            raise Mismatch("the signature of the trailer does not match")
    body = b"".join(chunks)
    length = call.headers.get("x-amz-decoded-content-length", "")
    if length and length != str(len(body)):
        raise Mismatch("the aws-chunked body doesn't have the length in x-amz-decoded-content-length")
    return replace(call, body=body, trailers=trailers)


def _chunk(body: bytes, at: int) -> tuple[bytes, bytes, int]:
    """Return the data and the extension of the chunk at ``at``, and the position after the chunk."""
    end = body.find(b"\r\n", at)
    size, _, extension = body[at:end].partition(b";")
    if end < 0 or not re.fullmatch(rb"[0-9a-fA-F]{1,8}", size):
        raise Mismatch(UNFRAMED)
    begin, length = end + 2, int(size, 16)
    data, at = body[begin : begin + length], begin + length
    if len(data) != length:
        raise Mismatch("the aws-chunked body ends early")
    if not data:
        return data, extension, at
    if body[at : at + 2] != b"\r\n":
        raise Mismatch(UNFRAMED)
    return data, extension, at + 2
