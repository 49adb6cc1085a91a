"""Authenticate the caller of a signed request: find the access key's owner, read the body, and verify the signature.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from labkit.simulator.aws import signature
from labkit.simulator.aws.answers import Claimed, Refusal, fault
from labkit.simulator.aws.backend import Backend
from labkit.simulator.aws.call import AwsRequest, Call
from labkit.simulator.aws.sessions import Administrator, Caller, IamUser, Keys, Session, Sessions
from labkit.simulator.aws.signature import MalformedSignature, Mismatch, Signature, Unsupported
from labkit.simulator.clock import Clock, rfc3339
from labkit.webhook.body import TooLong

SKEW = 900
LONGEST_OBJECT = 512 * 1024 * 1024
LONGEST_BODY = 16 * 1024 * 1024  # DynamoDB's limit, and enough for Lambda's code
LONGEST_CALL = 2 * 1024 * 1024  # for other services with checked parameters: SQS takes a megabyte, encoded
LONGEST_FORM, MOST_PARAMETERS = 512 * 1024, 10_000  # read before the caller is known
LONGEST_XML, MOST_TAGS = 4 * 1024 * 1024, 150_000  # for S3's XML with 10,000 parts; deeply nested XML takes minutes
HASHED_AT_ONCE = 1024 * 1024  # a longer body is hashed beside the event loop
OF_DATA = {"partNumber", "uploadId", "x-id"}
Body = Callable[[int], Awaitable[bytes]]  # reads at most this many bytes; raises TooLong or ClientDisconnect
REGION = re.compile(r"[a-z]{2}(-[a-z]+)?-(central|north|south|east|west|northeast|northwest|southeast|southwest)-\d")


@dataclass(frozen=True)
class CallAuthenticator:
    """Authenticate callers. ``administrators`` are the administrators of the lab's accounts, by access key id."""

    backend: Backend
    sessions: Sessions
    clock: Clock
    region: str
    administrators: dict[str, Administrator]

    async def authenticate(
        self, request: AwsRequest, signed: Signature | MalformedSignature | None, body: Body | None
    ) -> tuple[AwsRequest, Caller]:
        """Return the request with its body, and the authenticated caller."""
        call = request.call
        if isinstance(signed, MalformedSignature):
            name = "unsupported" if isinstance(signed, Unsupported) else "malformed"
            raise fault(request, name, str(signed), message=str(signed)) from signed
        if signed is None:
            reason = "the request is not signed: it carries no credentials"
            if call.method == "POST" and call.headers.get("content-type", "").startswith("multipart/form-data"):
                # https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html
                reason = "the lab cannot verify an upload by a form (presigned POST)"
            raise fault(request, "anonymous", reason)
        self._check_scope(request, signed)
        caller = self._caller(request, signed)
        try:
            secret = self._secret(request, signed, caller)
            # Only a caller with a known access key gets here, so a stranger can't send a gigabyte.
            call = await _with_body(request, body) if body else call
            call = await self._verify(request, call, signed, secret)
        except Refusal as refusal:
            # The caller isn't verified, so this is only a claim.
            refusal.claimed = Claimed(key_of=caller.arn)
            raise
        return replace(request, call=call, account_id=caller.account_id), caller

    def _secret(self, request: AwsRequest, signed: Signature, caller: Caller) -> str:
        """Check the request in AWS's order, and return the caller's secret key."""
        now = self.clock.now()
        if isinstance(caller, Session):
            if caller.credentials.expiration <= now:
                ended = f"the session ended {int(now - caller.credentials.expiration)} s ago"
                raise fault(request, "expired", ended)
            if self.backend.role_by_id(caller.account_id, caller.role_id) is None:
                key = signed.access_key_id
                raise fault(request, "unknown key", f"the role {caller.role_arn} was deleted", AWSAccessKeyId=key)
            secret = caller.credentials.secret_access_key
        else:
            secret = caller.keys.secret_access_key
        self._check_date(request, signed, now)
        if unsigned := _unsigned_headers(request.call, signed):
            message = "There were headers present in the request which were not signed"
            reason = f"{message}: {', '.join(unsigned)}"
            if request.family == "s3":
                raise fault(request, "denied", reason, message=message)
            message = f"'{unsigned[0].title()}' must be a 'SignedHeader' in the AWS Authorization."
            raise fault(request, "signature", reason, message=message)
        return secret

    async def _verify(self, request: AwsRequest, call: Call, signed: Signature, secret: str) -> Call:
        try:
            of_s3 = request.family == "s3"
            if len(call.body) > HASHED_AT_ONCE:
                return await asyncio.to_thread(signature.verify, call, signed, secret, of_s3=of_s3)
            return signature.verify(call, signed, secret, of_s3=of_s3)
        except Mismatch as mismatch:
            raise fault(request, "signature", str(mismatch), AWSAccessKeyId=signed.access_key_id) from mismatch

    def _check_scope(self, request: AwsRequest, signed: Signature) -> None:
        message = "The authorization header is malformed"
        if not signed.is_scoped:
            wrong = f"the scope {signed.scope} is not DATE/REGION/SERVICE/aws4_request with the date {signed.timestamp}"
            raise fault(request, "scope", wrong, message=f"{message}; {wrong}" if request.family == "s3" else "")
        if request.service != signed.service:
            said = f"Credential should be scoped to correct service: '{request.service}'."
            wrong = f"the call is for {request.service}, but the signature's scope names {signed.service}"
            raise fault(request, "scope", wrong, message=said)
        expected = self.region
        if request.family == "s3" and (bucket := self.backend.bucket(request.bucket)):
            expected = bucket.region_name
            valid = signed.region == expected
        else:
            valid = REGION.fullmatch(signed.region) is not None
        if not valid:
            wrong = f"the region '{signed.region}' is wrong; expecting '{expected}'"
            said = f"{message}; {wrong}" if request.family == "s3" else ""
            raise fault(request, "scope", wrong, message=said, Region=expected)

    def _caller(self, request: AwsRequest, signed: Signature) -> Caller:
        key, token = signed.access_key_id, signed.session_token
        if token is not None and not self.sessions.is_token(token):
            raise fault(request, "no token", "this lab didn't issue this session token")
        if administrator := self.administrators.get(key):
            if token is not None:
                reason = "the call has a session token, but the administrator's key doesn't use one"
                raise fault(request, "unknown key", reason, AWSAccessKeyId=key)
            return administrator
        session = self.sessions.find(key)
        if session is None and token is None and (user := self._user(request, key)):
            return user
        if session is None:
            raise fault(request, "unknown key", f"the lab doesn't know the access key {key}", AWSAccessKeyId=key)
        if token != session.credentials.session_token:
            reason = "the session token belongs to another session" if token else "the session token is missing"
            raise fault(request, "unknown key", f"{reason} (key {key})", AWSAccessKeyId=key)
        return session

    def _user(self, request: AwsRequest, key: str) -> IamUser | None:
        owned = self.backend.user_of_key(key)
        if owned is None:
            return None
        user, access_key = owned
        if access_key.status != "Active":
            reason = f"the access key {key} of {user.arn} is inactive"
            raise fault(request, "unknown key", reason, AWSAccessKeyId=key)
        return IamUser(Keys(key, access_key.secret_access_key), user.account_id, user.arn, user.id)

    def _check_date(self, request: AwsRequest, signed: Signature, lab: float) -> None:
        """Refuse a signature whose date fits neither the lab's clock nor the machine's clock.

        Clients outside pods sign with the machine's clock.
        """
        machine, at = time.time(), signed.signed_at
        if signed.expires_in is not None:
            expires_in = request.api.longest_presigned or signed.expires_in
            if all(not at - SKEW <= now < at + expires_in for now in (lab, machine)):
                message = "Request has expired" if lab >= at else "Request is not valid yet"
                raise fault(request, "denied", f"{message}: signed at {signed.timestamp}", message=message)
            return
        if min(abs(at - lab), abs(at - machine)) <= SKEW:
            return
        now, limit = _stamp(lab), _stamp(lab - SKEW if at < lab else lab + SKEW)
        said = f"Signature expired: {signed.timestamp} is now earlier than {limit} ({now} - 15 min.)"
        if at > lab:
            said = f"Signature not yet current: {signed.timestamp} is still later than {limit} ({now} + 15 min.)"
        raise fault(
            request,
            "skewed",
            said,
            message="" if request.family == "s3" else said,
            RequestTime=signed.timestamp,
            ServerTime=rfc3339(lab),
            MaxAllowedSkewMilliseconds=str(SKEW * 1000),
        )


async def with_form(request: AwsRequest, body: Body) -> Call:
    """Return the call with its body, which is a form (`Action=…&Version=…`)."""
    try:
        form = await body(LONGEST_FORM)
    except TooLong:
        raise _too_large(request, f"a form can have at most {LONGEST_FORM} bytes") from None
    if form.count(b"&") >= MOST_PARAMETERS:
        raise _too_large(request, f"a form can have at most {MOST_PARAMETERS} parameters")
    return replace(request.call, body=form)


async def _with_body(request: AwsRequest, body: Body) -> Call:
    """Return the call with its body, if the body isn't too long for the service.

    https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
    """
    call = request.call
    named = (name for name in call.query if not name.lower().startswith("x-amz-"))
    is_data = call.method == "PUT" and request.key and OF_DATA.issuperset(named)
    limit = request.api.longest or (LONGEST_CALL if request.api.is_checked else LONGEST_BODY)
    if request.family == "s3":
        limit = LONGEST_OBJECT if is_data else LONGEST_XML
    try:
        content = await body(limit)
    except TooLong:
        if request.family != "s3":
            raise _too_large(request, f"a call can have at most {limit} bytes") from None
        if is_data:
            message = "Your proposed upload exceeds the maximum allowed size"
            raise Refusal(400, "EntityTooLarge", message) from None
        raise Refusal(400, "MaxMessageLengthExceeded", "Your request was too big.") from None
    if limit == LONGEST_XML and content.count(b"<") > MOST_TAGS:
        raise Refusal(400, "MaxMessageLengthExceeded", "Your request was too big.")
    return replace(call, body=content)


def _too_large(request: AwsRequest, limit: str) -> Refusal:
    code = "RequestEntityTooLarge" if request.family in ("query", "ec2") else "RequestEntityTooLargeException"
    return Refusal(413, code, f"The request is too large: {limit}.")


def _unsigned_headers(call: Call, signed: Signature) -> list[str]:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html"""
    names = {name for name in call.headers if name.startswith("x-amz-")} - set(signed.signed_headers)
    # If a presigned URL has the same field in its query, that field is signed.
    if signed.expires_in is not None:
        names -= {"x-amz-content-sha256"}
    return sorted(names)


def _stamp(seconds: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))
