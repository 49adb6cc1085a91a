"""The gate in front of moto: who calls, may they, and only then moto's answer, or a refusal as AWS refuses.

https://docs.aws.amazon.com/IAM/latest/UserGuide/intro-structure.html
"""

import logging
import re
import time
import traceback
from collections.abc import Callable, MutableMapping
from typing import Any

from labkit.emulator.aws import signature
from labkit.emulator.aws.accounts import Accounts, administers
from labkit.emulator.aws.actions.derive import derive
from labkit.emulator.aws.actions.permission import CannotDerive
from labkit.emulator.aws.authorization import Authorization, underivable
from labkit.emulator.aws.backend import Backend
from labkit.emulator.aws.call import Call, Response
from labkit.emulator.aws.cloudtrail import CloudTrail
from labkit.emulator.aws.clusters import Clusters
from labkit.emulator.aws.eks import Eks
from labkit.emulator.aws.errors import Refusal, fault, render
from labkit.emulator.aws.iam import Iam
from labkit.emulator.aws.issuers import Issuers
from labkit.emulator.aws.records import records
from labkit.emulator.aws.regions import Regions
from labkit.emulator.aws.s3 import S3
from labkit.emulator.aws.sessions import Administrator, Caller, Keys, Session, Sessions, User
from labkit.emulator.aws.signature import Malformed, Mismatch, Signature, Unsupported
from labkit.emulator.aws.sqs import Sqs
from labkit.emulator.aws.sts import WEB_IDENTITY, Sts
from labkit.emulator.aws.trail import Trail, hidden
from labkit.emulator.aws.users import of_oneself
from labkit.emulator.clock import Clock, rfc3339
from labkit.emulator.identifiers import Identifiers

__all__ = ["Gate", "Keys"]

_log = logging.getLogger(__name__)

SKEW = 900
LONGEST_BODY = 512 * 1024 * 1024
REGION = re.compile(r"[a-z]{2}(-[a-z]+)?-(central|north|south|east|west|northeast|northwest|southeast|southwest)-\d")
# The APIs whose calls are told apart by their version alone, where nothing is signed.
VERSIONS = {"2011-06-15": "sts", "2010-05-08": "iam", "2016-11-15": "ec2", "2012-11-05": "sqs", "2010-03-31": "sns"}
TARGETS = {
    "AmazonSQS": "sqs",
    "AmazonSSM": "ssm",
    "com.amazonaws.cloudtrail": "cloudtrail",
    "DynamoDB": "dynamodb",
    "secretsmanager": "secretsmanager",
    "TrentService": "kms",
}


class Gate:
    """The lab's AWS, an ASGI application for every service on one endpoint.

    ``gate.sessions.issue(role_arn, session_name, duration)`` makes a role session for the lab's own parts.
    """

    def __init__(
        self,
        *,
        account_id: str,
        region: str,
        clock: Clock,
        identifiers: Identifiers,
        trail: Trail,
        clusters: Clusters,
        administrator: Keys,
    ):
        self.account_id = account_id
        self.region = region
        self.backend = Backend(account_id, clusters)
        self.sessions = Sessions(clock, identifiers, self.backend.role)
        self._clock = clock
        self._trail = trail
        self._identifiers = identifiers
        self._administrator = Administrator(
            administrator,
            account_id,
            arn=f"arn:aws:iam::{account_id}:user/administrator",
            principal_id="AIDA" + identifiers.base32("user", "administrator", 17),
        )
        self.issuers = Issuers()
        self._authorization = Authorization(self.backend, clock)
        self._iam = Iam(self.backend, self.issuers, identifiers)
        self._sts = Sts(
            backend=self.backend,
            sessions=self.sessions,
            issuers=self.issuers,
            clock=clock,
            authorization=self._authorization,
            accounts=Accounts(self.backend, self._iam),
        )
        self._s3 = S3(self.backend, self._authorization)
        self._sqs = Sqs(self.backend)
        self._regions = Regions(self.backend)
        self._eks = Eks(
            self.backend,
            clusters,
            regions=self._regions,
            clock=clock,
            identifiers=identifiers,
            administrator=self._administrator,
        )
        self._cloudtrail = CloudTrail(self.backend, trail.file, clock)

    def map_host(
        self, host: str, address: tuple[str, int], ca_pem: bytes, edition: Callable[[str], object] | None = None
    ) -> None:
        """Leads requests for ``https://host/…`` to ``address``, verified against ``ca_pem`` as a public root.

        The keys of an issuer there are fetched anew when its ``edition`` is another one.
        """
        self.issuers.map_host(host, address, ca_pem, edition)

    def forget_keys(self, issuer: str) -> None:
        """Fetches the keys of this issuer (``https://…``) anew the next time, as AWS does after a while."""
        self.issuers.forget(issuer)

    async def ensure_role(self, name: str, trust: dict, policy_arns: list[str]) -> str:
        """The ARN of a role of the lab's own, such as a node's; made, with these policies, where it is missing."""
        return await self.backend.run(self._iam.ensure_role, name, trust, policy_arns)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Callable, send: Callable) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        call = await _read(scope, receive)
        response = await self.respond(call)
        # A HEAD's length is that of the object; any other answer's is its body's, which may have been written anew.
        counted = call.method != "HEAD" or not any(name.lower() == "content-length" for name, _ in response.headers)
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
            for name, value in response.headers
            if not counted or name.lower() != "content-length"
        ]
        if counted:
            headers.append((b"content-length", str(len(response.body)).encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if call.method == "HEAD" else response.body})

    async def respond(self, call: Call) -> Response:
        """The answer to a call, which is in the trail then; ``call.notes["caller"]`` is who signed it."""
        refusal, failure = None, ""
        try:
            response = await self._answer(call)
        except Refusal as refused:
            refusal = refused
        except Exception as error:
            failure = traceback.format_exc()
            told = f"The lab's gate failed on this call ({type(error).__name__}); its log says more."
            refusal = Refusal(500, "InternalFailure", told)
        if refusal:
            response = render(call, refusal)
        now = self._clock.now()
        written, secrets = records(
            call, response, refusal, now=now, account_id=self.account_id, identifiers=self._identifiers
        )
        for record in written:
            self._trail.append(record, secrets)
        if failure:
            _log.error("the gate failed on a call of %s\n%s", call.service, hidden(failure, secrets))
        return response

    async def _answer(self, call: Call) -> Response:
        if len(call.body) > LONGEST_BODY:
            call.service = call.service or "s3"
            raise Refusal(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
        if call.method in ("GET", "POST") and call.form.get("Action") == WEB_IDENTITY:
            # The one call that nobody signs: the token says who calls. STS takes it in a URL, too.
            call.service, call.region = "sts", self.region
            return await self._sts.assume_role_with_web_identity(call)
        caller = self._authenticate(call)
        call.notes["caller"], call.account_id = caller, caller.account_id
        del call.notes["lab"]
        match call.service:
            case "sts":
                self._regions.check(call, caller)
                return await self._sts.answer(call, caller)
            case "s3":
                return await self._s3.answer(call, caller)
        if not isinstance(caller, Administrator):
            call = await self._authorized(of_oneself(call, caller), caller)
        match call.service:
            case "account":
                return await self._regions.answer(call)
            case "iam":
                return await self._iam.answer(call)
            case "ec2" if call.operation == "DescribeRegions":
                return self._regions.describe(call)
            case "eks":
                return await self._eks.answer(call)
            case "sqs":
                return await self._sqs.answer(call)
            case "cloudtrail":
                return await self._cloudtrail.answer(call)
        return await self.backend.answer(call)

    async def _authorized(self, call: Call, caller: Session | User) -> Call:
        """The call as moto is to get it, once the caller may do all that it takes."""
        try:
            needed, told = await self.backend.run(derive, call, self.backend)
        except CannotDerive as unknown:
            if administers(caller, call, self.backend):
                return call
            raise underivable(caller, call, str(unknown)) from unknown
        for permission in needed:
            call.notes["reason"] = self._authorization.require(caller, call, permission).reason
        return told

    def _authenticate(self, call: Call) -> Caller:
        """Who signed the call. In AWS's order: the scope, which key and token, the expiry, the role, the signature."""
        try:
            signed = signature.read(call)
        except Malformed as malformed:
            call.service = _guess_service(call)
            name = "unsupported" if isinstance(malformed, Unsupported) else "malformed"
            raise fault(call, name, str(malformed), message=str(malformed)) from malformed
        if signed is None:
            call.service, call.region = _guess_service(call), self.region
            told = "the request is not signed: it carries no credentials"
            if call.method == "POST" and call.headers.get("content-type", "").startswith("multipart/form-data"):
                # https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html
                told = "the lab cannot verify an upload by a form (presigned POST)"
            raise fault(call, "anonymous", told)
        call.service, call.region = signed.service, signed.region
        self._check_scope(call, signed)
        caller = self._caller(call, signed)
        # Not yet proven to be the caller.
        call.notes["lab"] = {"keyOf": caller.arn}
        if isinstance(caller, Session):
            if caller.credentials.expiration <= (now := self._clock.now()):
                ended = f"the session ended {int(now - caller.credentials.expiration)} s ago"
                raise fault(call, "expired", ended)
            if self.backend.role_by_id(caller.account_id, caller.role_id) is None:
                key = signed.access_key_id
                raise fault(call, "unknown key", f"the role {caller.role_arn} was deleted", AWSAccessKeyId=key)
            secret = caller.credentials.secret_access_key
        else:
            secret = caller.keys.secret_access_key
        self._check_date(call, signed)
        if signed.service == "s3" and (unsigned := _unsigned_headers(call, signed)):
            told = "There were headers present in the request which were not signed"
            raise fault(call, "denied", f"{told}: {unsigned}", message=told)
        try:
            call.body = signature.verify(call, signed, secret)
        except Mismatch as mismatch:
            raise fault(call, "signature", str(mismatch), AWSAccessKeyId=signed.access_key_id) from mismatch
        return caller

    def _check_scope(self, call: Call, signed: Signature) -> None:
        told = "The authorization header is malformed"
        if signed.terminator != "aws4_request" or not signed.timestamp.startswith(signed.date):
            wrong = f"the scope {signed.scope} is not DATE/REGION/SERVICE/aws4_request of {signed.timestamp}"
            raise fault(call, "scope", wrong, message=f"{told}; {wrong}" if call.family == "s3" else "")
        wanted = _guess_service(call) if "Action" in call.form else signed.service
        if wanted != signed.service and signed.service in ("sts", "iam", "s3"):
            call.service = wanted
            said = f"Credential should be scoped to correct service: '{wanted}'."
            raise fault(call, "scope", f"the call is {wanted}'s, the scope is {signed.service}'s", message=said)
        expected = self.region
        if signed.service == "s3" and (bucket := self._s3.bucket_region(call)):
            expected = bucket
            valid = signed.region == bucket
        else:
            valid = REGION.fullmatch(signed.region) is not None
        if not valid:
            wrong = f"the region '{signed.region}' is wrong; expecting '{expected}'"
            said = f"{told}; {wrong}" if call.family == "s3" else ""
            raise fault(call, "scope", wrong, message=said, Region=expected)

    def _caller(self, call: Call, signed: Signature) -> Caller:
        key, token = signed.access_key_id, signed.session_token
        if token is not None and not self.sessions.is_token(token):
            raise fault(call, "no token", "the session token is none that this lab gave out")
        if key == self._administrator.keys.access_key_id:
            if token is not None:
                told = "a session token came with the administrator's key, which has none"
                raise fault(call, "unknown key", told, AWSAccessKeyId=key)
            return self._administrator
        session = self.sessions.find(key)
        if session is None and token is None and (user := self._user(call, key)):
            return user
        if session is None:
            raise fault(call, "unknown key", f"the lab knows no access key {key}", AWSAccessKeyId=key)
        if token != session.credentials.session_token:
            told = "the session token is another session's" if token else "the session token is missing"
            raise fault(call, "unknown key", f"{told} (key {key})", AWSAccessKeyId=key)
        return session

    def _user(self, call: Call, key: str) -> User | None:
        found = self.backend.user_of_key(key)
        if found is None:
            return None
        user, access_key = found
        if access_key.status != "Active":
            told = f"the access key {key} of {user.arn} is inactive"
            raise fault(call, "unknown key", told, AWSAccessKeyId=key)
        return User(Keys(key, access_key.secret_access_key), user.account_id, user.arn, user.id)

    def _check_date(self, call: Call, signed: Signature) -> None:
        """By lab time or by the machine's, so that clients outside pods keep working when the lab's clock is moved."""
        lab, machine, at = self._clock.now(), time.time(), signed.signed_at
        if signed.expires_in is not None:
            # STS takes any presigned URL for 15 minutes, whatever it says.
            expires_in = SKEW if signed.service == "sts" else signed.expires_in
            if all(not at - SKEW <= now < at + expires_in for now in (lab, machine)):
                told = "Request has expired" if lab >= at else "Request is not valid yet"
                raise fault(call, "denied", f"{told}: signed at {signed.timestamp}", message=told)
            return
        if min(abs(at - lab), abs(at - machine)) <= SKEW:
            return
        now, limit = _stamp(lab), _stamp(lab - SKEW if at < lab else lab + SKEW)
        said = f"Signature expired: {signed.timestamp} is now earlier than {limit} ({now} - 15 min.)"
        if at > lab:
            said = f"Signature not yet current: {signed.timestamp} is still later than {limit} ({now} + 15 min.)"
        raise fault(
            call,
            "skewed",
            said,
            message="" if call.family == "s3" else said,
            RequestTime=signed.timestamp,
            ServerTime=rfc3339(lab),
            MaxAllowedSkewMilliseconds=str(SKEW * 1000),
        )


async def _read(scope: MutableMapping[str, Any], receive: Callable) -> Call:
    pieces, length = [], 0
    while True:
        message = await receive()
        piece = message.get("body", b"")
        length += len(piece)
        # One byte over the limit is kept, so that the call is refused; the rest is read and dropped.
        if length <= LONGEST_BODY or not pieces or sum(map(len, pieces)) <= LONGEST_BODY:
            pieces.append(piece)
        if not message.get("more_body"):
            break
    raw_path = scope.get("raw_path") or scope["path"].encode()
    return Call(
        method=scope["method"],
        raw_path=raw_path.decode("latin-1").partition("?")[0],
        query_string=scope["query_string"].decode("latin-1"),
        header_list=[(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]],
        body=b"".join(pieces),
        source_ip=(scope.get("client") or ("127.0.0.1", 0))[0],
    )


def _guess_service(call: Call) -> str:
    """The service that an unsigned call means; S3 for whatever is no other's."""
    if "Action" in call.form:
        return VERSIONS.get(call.form.get("Version", ""), "sts")
    if target := call.headers.get("x-amz-target"):
        return next((service for prefix, service in TARGETS.items() if target.startswith(prefix)), "dynamodb")
    return "eks" if re.fullmatch(r"/clusters(/.*)?", call.raw_path) else "s3"


def _unsigned_headers(call: Call, signed: Signature) -> str:
    names = {name for name in call.headers if name.startswith("x-amz-")} - set(signed.signed_headers)
    # What a presigned URL's query says again is signed there.
    if signed.expires_in is not None:
        names -= {"x-amz-content-sha256"}
    return ", ".join(sorted(names))


def _stamp(seconds: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))
