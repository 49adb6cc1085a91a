"""The gate in front of moto. It authenticates the caller and authorizes the call. Only then does it let moto answer.

`Gate.respond` shows the steps that every call goes through.

https://docs.aws.amazon.com/IAM/latest/UserGuide/intro-structure.html
"""

import asyncio
import contextlib
import logging
import re
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.simulator.aws import signature
from labkit.simulator.aws.actions import requests
from labkit.simulator.aws.answers import Refusal, render
from labkit.simulator.aws.authentication import Body, CallAuthenticator, with_form
from labkit.simulator.aws.authorization import Authorization, Grant
from labkit.simulator.aws.backend import Backend
from labkit.simulator.aws.call import Api, AwsRequest, Call, Response, split_path
from labkit.simulator.aws.clusters import EksClusters, associated
from labkit.simulator.aws.issuers import Issuers
from labkit.simulator.aws.organizations import MANAGEMENT_ID, Organization
from labkit.simulator.aws.own_state import OwnState
from labkit.simulator.aws.records import Outcome, records
from labkit.simulator.aws.regions import Regions
from labkit.simulator.aws.service import Parts, Service
from labkit.simulator.aws.services import SERVICES, api_of, service_of
from labkit.simulator.aws.services.dynamodb import DynamoDb
from labkit.simulator.aws.services.eks import Eks
from labkit.simulator.aws.services.iam import Iam
from labkit.simulator.aws.services.s3 import S3
from labkit.simulator.aws.services.sts import WEB_IDENTITY, Sts
from labkit.simulator.aws.sessions import Administrator, Caller, Keys, Session, Sessions
from labkit.simulator.aws.signature import MalformedSignature, Signature
from labkit.simulator.aws.state.kept import MotoState, changes, unkept
from labkit.simulator.aws.trail import Trail, hidden
from labkit.simulator.aws.web_identity import WebIdentity
from labkit.simulator.clock import Clock
from labkit.simulator.database import NotWritten
from labkit.simulator.event_loop import in_thread_if_large
from labkit.simulator.identifiers import Identifiers
from labkit.webhook.body import ClientDisconnect, whole

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["Gate", "Keys"]

_log = logging.getLogger(__name__)

AUTHORITY = "the lab's CA"
LONGEST_END = 5.0  # seconds that the lab waits for moto when it ends
HEADER_NAME, UNPRINTABLE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"), re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Gate:
    """The lab's AWS: one ASGI application that serves all AWS services on the same endpoint."""

    def __init__(
        self,
        *,
        account_id: str,
        region: str,
        clock: Clock,
        identifiers: Identifiers,
        trail: Trail,
        clusters: EksClusters,
        administrator: Keys,
        management: Keys,
        state: Path | None = None,
        tell: Callable[[str], None] = _log.warning,
    ):
        self.account_id = account_id
        self.region = region
        self.backend = Backend(account_id, clusters)
        # Without a folder, the gate's state is lost when the gate ends.
        self._kept = MotoState(self.backend, state and state / "aws.db")
        self._own = OwnState(state and state / "aws-own.db")
        self._tell = tell
        self._reported_unkept: set[str] = set()
        self.sessions = Sessions(clock, identifiers, self.backend.role, self._own)
        self._clock = clock
        self._trail = trail
        # Only for the ids of records. These contain the time, so serial numbers may restart when the lab restarts.
        self._event_ids = Identifiers(identifiers.seed)
        own = _administrator(administrator, account_id, "administrator", identifiers)
        managing = _administrator(management, MANAGEMENT_ID, "management", identifiers)
        administrators = {each.keys.access_key_id: each for each in (own, managing)}
        self._authentication = CallAuthenticator(self.backend, self.sessions, clock, region, administrators)
        self.issuers = Issuers()
        self._organization = Organization(self.backend, identifiers)
        self._authorization = Authorization(self.backend, clock, self._organization)
        regions = Regions(self.backend)
        regions.put_back(self._own)
        self._parts = Parts(
            backend=self.backend,
            own=self._own,
            sessions=self.sessions,
            authorization=self._authorization,
            organization=self._organization,
            issuers=self.issuers,
            clusters=clusters,
            regions=regions,
            clock=clock,
            identifiers=identifiers,
            administrator=own,
            trail_file=trail.file,
            resource_types={name: service.resource_types for name, service in SERVICES.items()},
            keeping=self._kept.keeping,
            write=self._kept.write,
        )
        self._eks, self._iam, self._sts = Eks(self._parts), Iam(self._parts), Sts(self._parts)

    async def ensure_role(self, name: str, trust: dict[str, Any], policy_arns: list[str]) -> str:
        """Return the ARN of one of the lab's own roles, such as a node's. Create the role if it's missing."""
        async with self._kept.keeping_all():
            return await self.backend.run(self._iam.ensure_role, name, trust, policy_arns)

    async def know_cluster(self, region: str, name: str, request: dict[str, object]) -> None:
        """Tell EKS about a running cluster. ``request`` has CreateCluster's parameters."""
        async with self._kept.keeping_all():
            if facts := await self._eks.know(region, name, request):
                facts.keep(self._own)

    async def forget_lost_clusters(self) -> None:
        """Make EKS forget the clusters that no longer run."""
        if "eks" in self._kept.services:  # moto's part of EKS takes half a second to load
            async with self._kept.keeping_all():
                await self.backend.run(self._eks.forget_lost)

    async def ensure_organization(self) -> None:
        """Create the lab's organization if it is missing."""
        async with self._kept.keeping_all():
            await self.backend.run(self._organization.ensure)

    async def know_authority(self, thumbprint: str) -> None:
        """Replace the thumbprint of the lab's previous CA by this one, in all OIDC providers.

        A restored lab has a new CA, and its providers come from the lab of the snapshot. A provider that didn't list
        the previous CA's thumbprint stays unchanged.
        """
        before = self._own.part(AUTHORITY, str)
        with contextlib.suppress(NotWritten):  # a full disk; the next start tries again
            if before not in (None, thumbprint):
                async with self._kept.keeping_all():
                    await self.backend.run(self.backend.replace_thumbprint, before, thumbprint)
            self._own.keep_part(AUTHORITY, thumbprint)

    def associated(self, cluster_arn: str) -> dict[str, Any]:
        """Return a cluster's stored access entries, identity provider configs and Pod Identity associations.

        The keys are those of `ClusterFacts.associated`.
        """
        return associated(self._own, cluster_arn)

    @property
    def unkept(self) -> list[str]:
        """The services with changes that the lab doesn't store, and loses when its server ends."""
        return sorted(self._reported_unkept)

    async def close(self) -> None:
        """Close the files in the lab's folder, and end moto's thread."""
        self._own.close()
        with contextlib.suppress(TimeoutError, Refusal, NotWritten):
            await asyncio.wait_for(self._kept.close(), LONGEST_END)
        self.backend.close()

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        call = _head(scope)
        try:
            response = (await self.respond(call, partial(whole, receive))).response
        except ClientDisconnect:
            return  # the client is gone: don't run an incomplete call
        # For HEAD, keep the object's length. In any other answer, the lab may have changed the body.
        counted = call.method != "HEAD" or not any(name.lower() == "content-length" for name, _ in response.headers)
        headers = [
            (name.lower().encode("latin-1"), UNPRINTABLE.sub(" ", value).encode("latin-1", "replace"))
            for name, value in response.headers
            if HEADER_NAME.fullmatch(name) and (not counted or name.lower() != "content-length")
        ]
        if counted:
            headers.append((b"content-length", str(len(response.body)).encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if call.method == "HEAD" else response.body})

    async def respond(self, call: Call, body: Body | None = None) -> Outcome:
        """Answer and record a call. Return the outcome: answer, caller, and why the call was allowed or refused.

        ``body`` is a function that reads the call's body; None if ``call`` already contains the body. Raises
        ClientDisconnect.
        """
        request, grant, failure = AwsRequest(call), None, ""
        caller: Caller | WebIdentity | None = None
        try:
            if body and (call.is_form or _is_by_token(call)):
                request = AwsRequest(call, Sts.api)
                call, body = await with_form(request, body), None
            request, signed = self._address(call)
            if _is_by_token(call):
                caller = await self._sts.identify(request)
            else:
                request, caller = await self._authentication.authenticate(request, signed, body)
            service = service_of(request)(self._parts)
            request = await in_thread_if_large(len(request.call.body), self._parse, service, request, caller)
            grant = await self._authorize(service, request, caller)
            async with self._kept.keeping(request):
                response, session = await self._answer(service, grant, caller)
                self._keep_own(service, grant.request, response)
            outcome = Outcome(request, response, caller, grant, session)
        except Refusal as refusal:
            outcome = Outcome(request, render(request, refusal), caller, grant, refusal=refusal)
        except ClientDisconnect:
            raise
        except Exception as error:
            message = f"The lab could not store this call's changes: {error}"
            if not isinstance(error, NotWritten):
                message = f"The lab's gate failed on this call ({type(error).__name__}). The lab's log says more."
                failure = traceback.format_exc()
            failed = Refusal(500, "InternalFailure", message)
            outcome = Outcome(request, render(request, failed), caller, grant, refusal=failed)
        self._record(outcome, failure)
        return outcome

    def _address(self, call: Call) -> tuple[AwsRequest, Signature | MalformedSignature | None]:
        """Return a pair: the call with its service and region; and the call's unverified signature.

        The second value is ``MalformedSignature`` for a malformed signature, and None for an unsigned call and for
        AssumeRoleWithWebIdentity.
        """
        if _is_by_token(call):
            return _addressed(call, Sts.api, self.region), None
        try:
            signed = signature.parse_signature(call)
        except MalformedSignature as malformed:
            return _addressed(call, _guess(call), ""), malformed
        if signed is None:
            return _addressed(call, _guess(call), self.region), None
        api = api_of(signed.service)
        if signed.is_scoped and "Action" in call.form and (api.version or api.protocol):
            api = _guess(call)  # the call may be signed for another service than its form is for
        return _addressed(call, api, signed.region), signed

    def _parse(self, service: Service, request: AwsRequest, caller: Caller | WebIdentity) -> AwsRequest:
        """Return ``request`` with the call's parameters or, for S3, with the operation and the needed permissions."""
        if isinstance(caller, WebIdentity):
            return requests.with_parameters(request)
        requests.check_path(request)
        return service.read(request, caller)

    async def _authorize(self, service: Service, request: AwsRequest, caller: Caller | WebIdentity) -> Grant:
        if isinstance(caller, WebIdentity):
            return self._sts.admit(request, caller)
        return await service.authorize(request, caller)

    async def _answer(
        self, service: Service, grant: Grant, caller: Caller | WebIdentity
    ) -> tuple[Response, Session | None]:
        """Return the answer to a granted call, and the session that the call opened."""
        if isinstance(caller, WebIdentity):
            return self._sts.open_admitted(grant, caller)
        return await service.respond(grant, caller)

    def _keep_own(self, service: Service, request: AwsRequest, response: Response) -> None:
        """Store the lab's own state of the service. If that fails, undo the call's changes to it; raise `NotWritten`.

        If the call changed a service whose state the lab doesn't store, warn the user, once for each service.
        """
        if not changes(request):
            return  # a call that only reads must work on a full disk
        service.keep_own(request)
        is_lost = service.stores is None and request.operation not in service.own_operations
        if is_lost and response.status < 400 and request.service not in self._reported_unkept:
            self._reported_unkept.add(request.service)
            self._tell(unkept(request.service))

    def _record(self, outcome: Outcome, failure: str) -> None:
        now = self._clock.now()
        written, secrets = records(outcome, now=now, account_id=self.account_id, identifiers=self._event_ids)
        for record in written:
            self._trail.append(record, secrets)
        if failure:
            _log.error("the gate failed on a call to %s\n%s", outcome.request.service, hidden(failure, secrets))


def _administrator(keys: Keys, account_id: str, name: str, identifiers: Identifiers) -> Administrator:
    arn = f"arn:aws:iam::{account_id}:user/{name}"
    return Administrator(keys, account_id, arn, "AIDA" + identifiers.base32("user", name, 17))


def _head(scope: "Scope") -> Call:
    """Return the call in ``scope``, still without its body."""
    raw_path = scope.get("raw_path") or scope["path"].encode()
    return Call(
        method=scope["method"],
        raw_path=raw_path.decode("latin-1").partition("?")[0],
        query_string=scope["query_string"].decode("latin-1"),
        header_list=[(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]],
        body=b"",
        source_ip=(scope.get("client") or ("127.0.0.1", 0))[0],
    )


def _addressed(call: Call, api: Api, region: str) -> AwsRequest:
    bucket, key = split_path(call.path) if api.protocol == "s3" else ("", "")
    version = call.query.get("versionId") if api.protocol == "s3" else None
    return AwsRequest(call, api, region, requests.named(call, api), bucket=bucket, key=key, version=version)


def _is_by_token(call: Call) -> bool:
    """Whether the call is AssumeRoleWithWebIdentity, in which a token takes the place of a signature."""
    return call.method in ("GET", "POST") and call.form.get("Action") == WEB_IDENTITY


def _guess(call: Call) -> Api:
    """Return the API that a call is for, from its form, its target or its path."""
    apis, form, target = [service.api for service in SERVICES.values()], call.form, call.headers.get("x-amz-target")
    if "Action" in form:
        return next((api for api in apis if api.version and api.version == form.get("Version")), Sts.api)
    if target:
        return next((api for api in apis if api.target and target.startswith(api.target)), DynamoDb.api)
    return next((api for api in apis if api.paths and re.fullmatch(api.paths, call.raw_path)), S3.api)
