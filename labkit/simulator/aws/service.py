"""A service of AWS, as the gate uses it. The modules in services/ say what differs from most services.

https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from labkit.policy.reference import has_action
from labkit.simulator.aws import constraints
from labkit.simulator.aws.actions import requests
from labkit.simulator.aws.answers import missing_required
from labkit.simulator.aws.authorization import Authorization, Grant, administers, underivable, with_reference
from labkit.simulator.aws.backend import Backend
from labkit.simulator.aws.call import Api, AwsRequest, CannotDerive, ParsedRequest, Permission, Response
from labkit.simulator.aws.clusters import EksClusters
from labkit.simulator.aws.issuers import Issuers
from labkit.simulator.aws.organizations import Organization
from labkit.simulator.aws.own_state import OwnState
from labkit.simulator.aws.regions import Regions
from labkit.simulator.aws.sessions import Administrator, Caller, IamUser, Session, Sessions
from labkit.simulator.aws.trail_parameters import TrailParameters, is_short
from labkit.simulator.clock import Clock
from labkit.simulator.event_loop import in_thread_if_large
from labkit.simulator.identifiers import Identifiers


@dataclass(frozen=True)
class Parts:
    """The parts of the emulated AWS that services use."""

    backend: Backend
    own: OwnState
    sessions: Sessions
    authorization: Authorization
    organization: Organization
    issuers: Issuers
    clusters: EksClusters
    regions: Regions
    clock: Clock
    identifiers: Identifiers
    administrator: Administrator
    trail_file: Path
    resource_types: Mapping[str, Mapping[str, str]]
    """The `resource_types` of each `Service`, by the service's name."""
    keeping: Callable[[AwsRequest], AbstractAsyncContextManager[None]]
    """Write the call's changes to the lab's folder when the block ends."""
    write: Callable[[], Awaitable[None]]
    """Write moto's changes so far to the lab's folder."""


class Service:
    """A service of AWS. The gate calls `read`, `authorize`, `respond` and `keep_own`.

    A subclass sets and defines only what differs. A service without a subclass can only be used by administrators:
    moto answers, and the state is lost when the lab's server ends.
    """

    api: Api
    stores: tuple[str, ...] | None = None
    """The names of the service's state in moto. The lab writes it to its folder, unless this is None."""
    own_operations: tuple[str, ...] = ()
    """The operations that change only the lab's own state of the service, if `stores` is None."""
    resource_types: Mapping[str, str] = {}
    """CloudTrail's type of the resource that a parameter names, by the parameter."""
    event_names: Mapping[str, str] = {}
    """CloudTrail's name of an operation, if it's another one."""
    event_region = ""
    """The region in which CloudTrail records all calls; empty for the call's own region."""
    data_events = re.compile(r"(?!)")
    """The operations on data, not on resources. CloudTrail's event history leaves them out.

    https://docs.aws.amazon.com/awscloudtrail/latest/userguide/logging-data-events-with-cloudtrail.html
    """

    def __init__(self, parts: Parts):
        self.parts = parts
        self.backend = parts.backend
        self.authorization = parts.authorization

    def permissions(self, request: ParsedRequest) -> list[Permission]:
        """Return all permissions that a call needs: the actions, and the resources of each action.

        Raises `CannotDerive` if the lab doesn't know them. Then only an administrator may make the call.
        """
        raise CannotDerive(f"{request.service}:{request.operation}")

    async def answer(self, request: AwsRequest, caller: Caller) -> Response:
        """Answer an authorized call. Raises ``Refusal``."""
        return await self.backend.answer(request)

    def read(self, request: AwsRequest, caller: Caller) -> AwsRequest:
        """Return ``request`` with the call's operation and parameters."""
        if not request.api.is_checked and not is_short(request):
            return request
        parsed = requests.with_parameters(request)
        return replace(parsed, operation=parsed.parsed.operation) if parsed.parsed else parsed

    async def authorize(self, request: AwsRequest, caller: Caller) -> Grant:
        """Grant the call if the caller has all permissions that it needs. Raises ``Refusal``."""
        is_bound = (
            not isinstance(caller, Administrator) or self.authorization.organization.member(caller.account_id).is_bound
        )
        grant = await self._permitted(request, caller) if is_bound else Grant(request)
        await in_thread_if_large(len(request.call.body), constraints.check, request)
        return grant

    async def respond(self, grant: Grant, caller: Caller) -> tuple[Response, Session | None]:
        """Return the answer to a granted call, and the session that the call opened."""
        return await self.answer(grant.request, caller), None

    def keep_own(self, request: AwsRequest) -> None:
        """Store the lab's own state of the service after a call that may have changed it.

        If that fails, undo the call's changes to this state, and raise `NotWritten`.
        """

    @classmethod
    def trail_parameters(cls, request: AwsRequest) -> TrailParameters:
        """Return the parameters of the call as CloudTrail records them."""
        return TrailParameters.of(request)

    @classmethod
    def is_data_event(cls, request: AwsRequest) -> bool:
        """Whether CloudTrail counts the call as a data event, such as reading an object."""
        return cls.data_events.match(request.operation) is not None

    @classmethod
    def event_code(cls, request: AwsRequest, code: str) -> str:
        """Return CloudTrail's name for an error code."""
        return code

    async def _permitted(self, request: AwsRequest, caller: Caller) -> Grant:
        try:
            needed = await self.backend.run(self._needed, request)
        except CannotDerive as unknown:
            if not isinstance(caller, IamUser) and administers(caller, request.call, self.backend):
                self.authorization.require_organization(caller, request, str(unknown))
                return Grant(request)
            raise underivable(caller, request, str(unknown)) from unknown
        reasons = [self.authorization.require(caller, request, permission) for permission in needed]
        return Grant(replace(request, call=request.require_parsed().moto_call), reasons[-1])

    def _needed(self, request: AwsRequest) -> list[Permission]:
        if type(self).permissions is Service.permissions:
            raise CannotDerive(f"{request.service}:{request.operation}")
        parsed = request.require_parsed()
        try:
            needed = self.permissions(parsed)
        except KeyError as missing:
            name = str(missing.args[0])
            if name in requests.required(parsed):
                raise constraints.invalid_parameters(request.api, missing_required([name])) from missing
            raise CannotDerive(f"{request.service}:{parsed.operation} without {name}") from missing
        if not needed:
            raise CannotDerive(f"{request.service}:{parsed.operation} without a resource")
        if unknown := [permission.action for permission in needed if not has_action(permission.action)]:
            raise CannotDerive(unknown[0])
        return [with_reference(permission) for permission in needed]
