"""Decide whether a caller may make a call, from the policies of the caller, the resource and the organization.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_plus

from labkit.connection import ENTRANCE
from labkit.policy import NO_CONTROL, Control, Decision, Kind, Policy, Principal, Request, evaluate, within
from labkit.policy.document import Statement
from labkit.policy.matching import covers
from labkit.policy.reference import key_name, unlisted_keys
from labkit.simulator.aws import managed_policies
from labkit.simulator.aws.answers import Refusal, fault
from labkit.simulator.aws.backend import Backend, Role
from labkit.simulator.aws.call import AwsRequest, Call, Context, Permission
from labkit.simulator.aws.organizations import Organization
from labkit.simulator.aws.session_tags import SessionTags
from labkit.simulator.aws.sessions import Administrator, Caller, IamUser, Session
from labkit.simulator.clock import Clock, rfc3339

ADMINISTRATOR_ACCESS = "arn:aws:iam::aws:policy/AdministratorAccess"


@dataclass(frozen=True)
class Grant:
    """An authorized call, and the reason why it is allowed."""

    request: AwsRequest
    """The call that moto gets. If the lab derived permissions, it derived them from exactly this call."""
    reason: str = "the administrator may do everything"
    refused: tuple[tuple[str, str], ...] = ()
    """The keys that a DeleteObjects call may not delete, each with the error message for the caller."""
    role: Role | None = None
    """The role for which the call opens a session; None if the call doesn't open a session."""
    tags: SessionTags = field(default_factory=SessionTags)
    """The tags of that session."""
    source_identity: str = ""
    """The source identity of that session."""


@dataclass(frozen=True)
class Authorization:
    """Decide whether callers have permissions. A policy that can't be evaluated never allows anything."""

    backend: Backend
    clock: Clock
    organization: Organization

    def decide(
        self,
        caller: Caller,
        request: AwsRequest,
        permission: Permission,
        *,
        resource_policy: Policy | None = None,
        owner: str = "",
    ) -> Decision:
        """Decide whether the caller has this permission.

        ``resource_policy`` is the resource's own policy. ``owner`` is the resource's account; empty means the caller's
        account. If the two accounts differ, policies of both accounts must allow the call.
        """
        owner = owner or caller.account_id
        same_account = owner == caller.account_id
        resource = [resource_policy] if resource_policy else []
        if permission.resource_policy:
            resource.append(stored_policy(permission.resource_policy, "resource", f"policy of {permission.resource}"))
        control = self.organization.control(caller, owner, permission.action)
        about = {"aws:userid": caller.principal_id} | self._accounts(caller, owner) | permission.context
        if isinstance(caller, Administrator):
            principal, context = Principal.aws(caller.arn), self.context(request) | about
            policy_request = Request(principal, permission.action, permission.resource, context)
            control = _certain_control(control, policy_request, permission)
            return evaluate(
                policy_request, identity=[_EVERYTHING], resource=resource, same_account=same_account, control=control
            )
        holder, *groups = self._holders(caller)
        if holder is None:
            raise fault(request, "unknown key", f"the user or role of {caller.arn} was deleted during the call")
        identity: list[Policy] = []
        for each in (holder, *groups):
            identity += [stored_policy(document, "identity", name) for name, document in list(each.policies.items())]
            identity += [self._managed(arn, "identity") for arn in list(each.managed_policies)]
        bound = getattr(holder, "permissions_boundary_arn", None)
        boundary = self._managed(bound, "boundary") if bound else None
        if isinstance(caller, Session):
            principal = Principal.role_session(caller.arn, caller.role_arn)
            # The lab has no sessions with multi-factor authentication.
            opened = {"aws:TokenIssueTime": rfc3339(caller.issued_at), "aws:MultiFactorAuthPresent": "false"}
            about = caller.context | opened | about
            session = [stored_policy(document, "session", "session policy") for document in caller.policies]
        else:
            principal, session = Principal.aws(caller.arn), []
        context = self.context(request) | principal_tags(holder.tags) | about
        policy_request = Request(principal, permission.action, permission.resource, context)
        return evaluate(
            policy_request,
            identity=_certain(identity, policy_request, permission),
            boundary=_certain([boundary], policy_request, permission)[0] if boundary else None,
            session=_certain(session, policy_request, permission),
            resource=_certain(resource, policy_request, permission),
            same_account=same_account,
            control=_certain_control(control, policy_request, permission),
        )

    def _accounts(self, caller: Caller, owner: str) -> Context:
        member = self.organization.member
        return {"aws:ResourceAccount": owner, **member(caller.account_id).of_principal, **member(owner).of_resource}

    def _holders(self, caller: IamUser | Session) -> list[Any]:
        """Return the holders of the caller's policies.

        For a session, return a list with the session's role. For a user, return a list with the user first, then the
        user's groups. In place of a deleted role or user, the list has None.
        """
        if isinstance(caller, Session):
            return [self.backend.role_by_id(caller.account_id, caller.role_id)]
        return self.backend.user_and_groups(caller.account_id, caller.principal_id)

    def _managed(self, arn: str, kind: str) -> Policy:
        # If a policy was deleted, its Deny must not be skipped.
        return stored_policy(managed_policies.document(self.backend, arn) or "", kind, arn)

    def require(self, caller: Caller, request: AwsRequest, permission: Permission) -> str:
        """Return the reason why the caller has this permission. Raises AWS's denial otherwise."""
        decision = self.decide(caller, request, permission)
        if not decision.allowed:
            raise denial(caller, request, permission, decision)
        return decision.reason

    def require_organization(self, caller: Administrator | Session, request: AwsRequest, what: str) -> None:
        """Raise a refusal unless the organization's policies allow the call's action on every resource.

        The lab doesn't know the call's resource, so the policies must allow the action on all resources. If the lab
        doesn't know the action either, raise `underivable`. ``what`` describes the call in the text of `underivable`.

        Raise nothing if no policy of an organization applies to the caller's account.
        """
        if not self.organization.member(caller.account_id).is_bound:
            return
        if not request.operation.isidentifier():
            raise underivable(caller, request, what)
        permission = Permission(f"{request.service}:{request.operation}", "*", known=frozenset(), shown="")
        control = self.organization.control(caller, caller.account_id, permission.action)
        context = (
            self.context(request) | {"aws:userid": caller.principal_id} | self._accounts(caller, caller.account_id)
        )
        arn = caller.arn
        principal = Principal.role_session(arn, caller.role_arn) if isinstance(caller, Session) else Principal.aws(arn)
        policy_request = Request(principal, permission.action, permission.resource, context)
        decision = within(_certain_control(_on_anything(control), policy_request, permission), policy_request)
        if not decision.allowed:
            raise denial(caller, request, permission, decision)

    def context(self, request: AwsRequest) -> Context:
        """Return the condition keys that every request has.

        https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
        """
        now = self.clock.now()
        return {
            "aws:CurrentTime": rfc3339(now),
            "aws:EpochTime": str(int(now)),
            "aws:RequestedRegion": request.region,
            # The lab's endpoint takes the place of AWS's endpoint, which uses TLS.
            "aws:SecureTransport": "true",
            "aws:SourceIp": request.call.source_ip,
            "aws:UserAgent": request.call.headers.get("user-agent", ""),
        }


def with_reference(permission: Permission) -> Permission:
    """Return the permission with only those condition keys that AWS's reference lists for the action.

    The lab knows that the service's other keys are absent.
    """
    absent = unlisted_keys(permission.action)
    context = {key: value for key, value in permission.context.items() if key_name(key) not in absent}
    known = None if permission.known is None else (permission.known | absent) - permission.doubted
    return replace(permission, context=context, known=known)


def denial(caller: Caller, request: AwsRequest, permission: Permission, decision: Decision) -> Refusal:
    """Return the denial in AWS's words. It says which kind of policy decided, but quotes nothing from the policy.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
    """
    resource = permission.resource if permission.shown is None else permission.shown
    named = f'"{resource}"' if request.family == "s3" else resource
    on = f" on resource: {named}" if resource else ""
    tail = decision.denial or f"because no identity-based policy allows the {permission.action} action"
    start = f"{request.api.denied_said}User: {caller.arn} is not authorized to perform"
    message = f"{start}: {permission.action}{on} {tail}"
    return fault(request, "denied", decision.reason, message=message)


def administers(caller: Caller, call: Call, backend: Backend) -> bool:
    """Whether the caller may make a call although the lab doesn't know which permissions the call needs.

    The account's administrator may make any call. A session of `ENTRANCE` (the role by which administrators enter an
    account) may make a call under three conditions:

    - The call names no account except the session's own.
    - The role still has only its original policy.
    - The session has no session policies.

    This function doesn't check the organization's policies.
    """
    if not isinstance(caller, Session):
        return isinstance(caller, Administrator)
    role = backend.role_by_id(caller.account_id, caller.role_id)
    if role is None or role.name != ENTRANCE or role.policies or role.permissions_boundary_arn or caller.policies:
        return False
    said = unquote_plus(f"{call.raw_path}?{call.query_string} {call.body.decode('latin-1')}")
    named = set(re.findall(r"[:/](\d{12})[:/]", said))
    return list(role.managed_policies) == [ADMINISTRATOR_ACCESS] and named <= {caller.account_id}


def underivable(caller: Caller, request: AwsRequest, what: str) -> Refusal:
    """Return the refusal of a call whose permissions the lab can't derive. ``what`` describes the call."""
    start = f"{request.api.denied_said}User: {caller.arn} is not authorized to perform"
    message = f"{start} this call: the lab cannot yet authorize {what}"
    return fault(request, "denied", f"the lab cannot derive the actions and resources of {what}", message=message)


@lru_cache(maxsize=2048)
def stored_policy(document: str, kind: Kind, name: str) -> Policy:
    """Return the parsed policy. A policy that can't be read allows nothing."""
    return Policy.read(document, kind=kind, name=name)


def _certain_control(control: Control, request: Request, permission: Permission) -> Control:
    if control is NO_CONTROL:
        return control
    resource, service = (
        [_certain([*level], request, permission) for level in levels] for levels in (control.resource, control.service)
    )
    return Control(resource, service)


def _on_anything(control: Control) -> Control:
    """Widen each Deny statement to all resources, because the call's resource is unknown."""

    def widened(policy: Policy) -> Policy:
        statements = (each if each.allow else replace(each, resources=None) for each in policy.statements)
        return replace(policy, statements=tuple(statements))

    resource, service = (
        [[widened(policy) for policy in level] for level in levels] for levels in (control.resource, control.service)
    )
    return Control(resource, service)


def _certain(policies: list[Policy], request: Request, permission: Permission) -> list[Policy]:
    """Return the policies, with a ``fault`` in each statement that the lab can't evaluate."""
    known, service = permission.known, permission.action.partition(":")[0].lower() + ":"
    if known is None:
        return policies
    unknown = {key for policy in policies for key in _keys(policy) if key.startswith(service)} - known
    return (
        [replace(policy, statements=_doubted(policy, request, unknown)) for policy in policies] if unknown else policies
    )


def _doubted(policy: Policy, request: Request, unknown: set[str]) -> tuple[Statement, ...]:
    def doubt(statement: Statement) -> Statement:
        keys = {key_name(condition.key) for condition in statement.conditions} & unknown
        if not keys or covers(statement, request) is False:
            return statement
        return replace(statement, fault=f"the lab does not know the value of {', '.join(sorted(keys))} in this call")

    return tuple(map(doubt, policy.statements))


@lru_cache(maxsize=2048)
def _keys(policy: Policy) -> frozenset[str]:
    return frozenset(key_name(condition.key) for statement in policy.statements for condition in statement.conditions)


_EVERYTHING = Policy.parse(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]},
    kind="identity",
    name="AdministratorAccess",
)


def principal_tags(tags: list[dict[str, str]] | None) -> Context:
    """Return the condition keys of a user's or a role's tags."""
    return {f"aws:PrincipalTag/{tag['Key']}": tag["Value"] for tag in tags or []}
