"""STS, which decides who gets a role session. The gate answers STS's calls without moto.

What differs from AWS:

- AssumeRoleWithSAML, AssumeRoot, GetDelegatedAccessToken, GetFederationToken, GetSessionToken and GetWebIdentityToken
  answer NotImplemented.
- DecodeAuthorizationMessage refuses every message as invalid, because the lab's denials have no encoded messages.
- Accounts: every 12-digit id is an account. The lab creates an account and its `OrganizationAccountAccessRole` when an
  administrator first assumes this role. On AWS, only administrators of the management account may. In the lab,
  administrators of the learner's own account may also enter any account, except the management account.
  https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_accounts_access-cross-account-role.html
- MFA: `SerialNumber` and `TokenCode` are ignored, and `aws:MultiFactorAuthPresent` is always false.
- Tokens of Amazon, Facebook and Google: AWS needs no OIDC provider for them (see `ProviderId`); the lab refuses them.
- Regional endpoints: the lab's one endpoint takes the place of the global endpoint and of all regional ones.

https://docs.aws.amazon.com/STS/latest/APIReference/welcome.html
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from labkit.connection import ENTRANCE
from labkit.policy import (
    Control,
    Decision,
    MalformedPolicy,
    Policy,
    Principal,
    Request,
    evaluate_trust,
    resource_tags,
    within,
)
from labkit.policy.arn import Arn
from labkit.simulator.aws import constraints, managed_policies, session_tags
from labkit.simulator.aws.answers import (
    Claimed,
    Refusal,
    constraint_violation,
    done,
    fault,
    invalid,
    missing_required,
    out_of_range,
    xml,
)
from labkit.simulator.aws.authorization import ADMINISTRATOR_ACCESS, Grant, stored_policy
from labkit.simulator.aws.backend import Role
from labkit.simulator.aws.call import Api, AwsRequest, Context, Permission, Response, as_dict
from labkit.simulator.aws.organizations import MANAGEMENT_ID
from labkit.simulator.aws.service import Service
from labkit.simulator.aws.services.iam import Iam
from labkit.simulator.aws.session_tags import SessionTags
from labkit.simulator.aws.sessions import Caller, Session
from labkit.simulator.aws.trail_parameters import TrailParameters
from labkit.simulator.aws.web_identity import WebIdentity, parse_token, verify
from labkit.simulator.clock import rfc3339
from labkit.simulator.event_loop import in_thread_if_large

WEB_IDENTITY = "AssumeRoleWithWebIdentity"
ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+")
SESSION_NAME = r"[\w+=,.@-]*"
MOST_POLICY_ARNS = 10
LONGEST_CHAINED = 3600
NOT_EMULATED = (
    "AssumeRoleWithSAML", "AssumeRoot", "GetDelegatedAccessToken", "GetFederationToken", "GetSessionToken",
    "GetWebIdentityToken",
)  # fmt: skip
TAG_SESSION, SET_SOURCE_IDENTITY = "sts:TagSession", "sts:SetSourceIdentity"
SOURCE_IDENTITY_CLAIM = "https://aws.amazon.com/source_identity"
SECRETS = ("SAMLAssertion", "TokenCode", "WebIdentityToken")
RECORDED = (
    "DurationSeconds", "ExternalId", "Name", "Policy", "ProviderId", "RoleArn", "RoleSessionName", "SerialNumber",
    "SourceIdentity",
)  # fmt: skip
SHORTEST, USUAL, LONGEST = 900, 3600, 43200
LONGEST_POLICY = 2048
LENGTHS = {
    "RoleArn": (20, 2048),
    "RoleSessionName": (2, 64),
    "SourceIdentity": (2, 64),
    "WebIdentityToken": (4, 20000),
    "Policy": (1, LONGEST_POLICY),
}


class Sts(Service):
    """STS."""

    # STS accepts any presigned URL for 15 minutes, whatever expiry the URL has.
    api = Api(
        "sts",
        version="2011-06-15",
        namespace="https://sts.amazonaws.com/doc/2011-06-15/",
        is_checked=True,
        invalid="ValidationError",
        longest_presigned=900,
    )
    stores = ()

    async def identify(self, request: AwsRequest) -> WebIdentity:
        """Verify the web identity token of an unsigned call, and return the token's content. Raises ``Refusal``."""
        form = request.call.form
        _validate(request, ("RoleArn", "RoleSessionName", "WebIdentityToken"))
        account_id, token = Arn.parse(form["RoleArn"]).account, parse_token(form["WebIdentityToken"])
        try:
            if "ProviderId" in form:
                raise Refusal(400, "InvalidIdentityToken", "Provided Token is not a Login With Amazon token")
            return await verify(
                token,
                find_provider=lambda issuer: self.backend.provider(account_id, issuer),
                issuers=self.parts.issuers,
                now=self.parts.clock.now(),
            )
        except Refusal as refusal:
            refusal.claimed = Claimed(role_session_name=form["RoleSessionName"], claims=token.claims)
            raise

    def admit(self, request: AwsRequest, identity: WebIdentity) -> Grant:
        """Grant a session of a role, if the role's trust policy admits the web identity. Raises ``Refusal``.

        https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
        """
        given, tags = _parameters(request), session_tags.of_token(identity.claims)
        role = self.backend.role(given["RoleArn"])
        if role is None:
            raise _not_authorized(f"the role {given['RoleArn']} does not exist")
        trust = stored_policy(role.assume_role_policy_document, "trust", role.name)
        context = {
            **self.authorization.context(request),
            "sts:RoleSessionName": given["RoleSessionName"],
            **identity.context,
            **tags.of_request(),
            **_role_tags(role),
            "aws:ResourceAccount": role.account_id,
            **self.authorization.organization.member(role.account_id).of_resource,
        }
        source_identity = _claimed_source_identity(identity)
        if source_identity:
            context["sts:SourceIdentity"] = source_identity
        actions = [f"sts:{WEB_IDENTITY}", *([TAG_SESSION] if tags else [])]
        actions += [SET_SOURCE_IDENTITY] if source_identity else []
        decisions = [self._trusted(role, trust, identity, action, context) for action in actions]
        ends = f"the session ends after {_duration(given, role)} s"
        return Grant(request, f"{decisions[0].reason}; {ends}", role=role, tags=tags, source_identity=source_identity)

    def open_admitted(self, grant: Grant, identity: WebIdentity) -> tuple[Response, Session]:
        """Return the answer to an admitted web identity, and the session that the call opened."""
        subject, arn = identity.subject, identity.provider_arn
        about = {"SubjectFromWebIdentityToken": subject, "Audience": identity.audience, "Provider": arn}
        return self._open(grant, about, identity.context, {"provider": arn, "subject": subject})

    def _trusted(self, role: Role, trust: Policy, identity: WebIdentity, action: str, context: Context) -> Decision:
        """Decide whether a web identity may take an action on the role.

        Service control policies don't apply, because a web identity isn't in an account.
        """
        message = {TAG_SESSION: "the token has session tags; "}.get(action, "")
        if levels := self.authorization.organization.resource_control(role.account_id, action):
            request = Request(Principal.federated(identity.provider_arn), action, role.arn, context)
            let_through = within(Control(resource=levels), request)
            if not let_through.allowed:
                raise _not_authorized(f"{message}{let_through.reason}", action, let_through.denial)
        decision = evaluate_trust(trust, provider_arn=identity.provider_arn, action=action, context=context)
        if not decision.allowed:
            raise _not_authorized(f"{message}{decision.reason}", action)
        return decision

    async def authorize(self, request: AwsRequest, caller: Caller) -> Grant:
        """Grant a signed call if the caller may make it. Raises ``Refusal`` if the caller may not."""
        self.parts.regions.check(request, caller)
        await in_thread_if_large(len(request.call.body), constraints.check, request)
        async with self.parts.keeping(request):
            return await self._granted(request, caller)

    async def _granted(self, request: AwsRequest, caller: Caller) -> Grant:
        match request.operation:
            case "GetCallerIdentity":
                return Grant(request, "sts:GetCallerIdentity needs no permission")
            case "AssumeRole":
                return await self._may_assume(request, caller)
            case "GetAccessKeyInfo" | "DecodeAuthorizationMessage":
                needed = Permission(f"sts:{request.operation}", "*", shown="")
                return Grant(request, self.authorization.require(caller, request, needed))
            case "GetSessionToken" | "GetFederationToken" if isinstance(caller, Session):
                raise fault(
                    request,
                    "denied",
                    "a role session cannot open another session with this call",
                    message=f"Cannot call {request.operation} with session credentials",
                )
            case operation if operation in NOT_EMULATED:
                raise Refusal(501, "NotImplemented", f"The lab does not emulate sts:{operation}.")
        version = request.call.form.get("Version")
        raise Refusal(400, "InvalidAction", f"Could not find operation {request.operation} for version {version}")

    async def respond(self, grant: Grant, caller: Caller) -> tuple[Response, Session | None]:
        """Return the answer to a granted, signed call, and the session that the call opened."""
        request = grant.request
        match request.operation:
            case "AssumeRole":
                duration = _parameters(request).get("DurationSeconds", USUAL)
                if isinstance(caller, Session) and duration > LONGEST_CHAINED:
                    message = "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by"
                    raise Refusal(400, "ValidationError", f"{message} role chaining.")
                return self._open(grant)
            case "GetCallerIdentity":
                content = {"UserId": caller.principal_id, "Account": caller.account_id, "Arn": caller.arn}
            case "GetAccessKeyInfo":
                # https://docs.aws.amazon.com/STS/latest/APIReference/API_GetAccessKeyInfo.html
                key = _parameters(request)["AccessKeyId"]
                owner = self.parts.sessions.find(key) or (self.backend.user_of_key(key) or (None,))[0]
                content = {"Account": owner.account_id if owner else self.backend.account_id}
            case _:
                # No denial in the lab has an encoded message.
                raise Refusal(400, "InvalidAuthorizationMessageException", "Message is not valid")
        return done(request, xml(content)), None

    @classmethod
    def trail_parameters(cls, request: AwsRequest) -> TrailParameters:
        """Return the parameters in the form. The lab records them even for a call that it can't read."""
        form = request.call.form
        return TrailParameters(_recorded(form), [form[name] for name in SECRETS if name in form])

    def _open(
        self,
        grant: Grant,
        about: dict[str, Any] | None = None,
        context: Context | None = None,
        federation: dict[str, str] | None = None,
    ) -> tuple[Response, Session]:
        """Open a session of the granted role, and return the answer and the session."""
        given, role, tags = _parameters(grant.request), grant.role, grant.tags
        if role is None:
            raise _not_authorized("no role was granted")
        duration = _duration(given, role)
        arns = [each["arn"] for each in given.get("PolicyArns", [])]
        policies = self._session_policies(given.get("Policy"), arns, role)
        packed = _packed([*([given["Policy"]] if "Policy" in given else []), *arns], tags)
        source = {"SourceIdentity": grant.source_identity} if grant.source_identity else {}
        session = self.parts.sessions.open(
            role,
            given["RoleSessionName"],
            duration,
            policies=policies,
            context={
                **(context or {}),
                **tags.of_session(),
                **{f"aws:{name}": value for name, value in source.items()},
            },
            federation=federation,
            transitive_tags=tags.transitive,
        )
        return done(grant.request, xml({**(about or {}), **_assumed(session), **packed, **source})), session

    async def _may_assume(self, request: AwsRequest, caller: Caller) -> Grant:
        _validate(request, ("RoleArn", "RoleSessionName"))
        given = _parameters(request)
        role_arn = given["RoleArn"]
        inherited = caller.transitive_tags if isinstance(caller, Session) else {}
        tags = session_tags.of_call(given, inherited)
        await self._open_account(caller, role_arn)
        role = self.backend.role(role_arn)
        if role is None:
            raise _denied(request, caller, role_arn, "sts:AssumeRole", f"the role {role_arn} does not exist")
        context = tags.of_request() | _role_tags(role)
        kept = str(caller.context.get("aws:SourceIdentity", "")) if isinstance(caller, Session) else ""
        source_identity = given.get("SourceIdentity", kept)
        if kept not in ("", source_identity):
            reason = f"the session has the source identity {kept}, which a chain of sessions can't change"
            raise _denied(request, caller, role_arn, SET_SOURCE_IDENTITY, reason)
        if source_identity:
            context["sts:SourceIdentity"] = source_identity
        reason = self._admitted(request, caller, role, "sts:AssumeRole", context)
        if tags:
            self._admitted(request, caller, role, TAG_SESSION, context)
        if source_identity:
            self._admitted(request, caller, role, SET_SOURCE_IDENTITY, context)
        return Grant(request, reason, role=role, tags=tags, source_identity=source_identity)

    async def _open_account(self, caller: Caller, role_arn: str) -> None:
        """Create an account and its role when an administrator first assumes this role.

        Do nothing if ``role_arn`` isn't the role `ENTRANCE`, or if the caller may not enter the account.
        """
        account_id = Arn.parse(role_arn).account
        admitted = [each for each in (self.backend.account_id, MANAGEMENT_ID) if each != account_id]
        if account_id == MANAGEMENT_ID or caller.account_id not in admitted:
            return
        if role_arn != f"arn:aws:iam::{account_id}:role/{ENTRANCE}":
            return
        statements = [
            {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{each}:root"}, "Action": "sts:AssumeRole"}
            for each in admitted
        ]
        trust = {"Version": "2012-10-17", "Statement": statements}

        def create() -> None:
            Iam(self.parts).ensure_role(ENTRANCE, trust, [ADMINISTRATOR_ACCESS], account_id)
            self.authorization.organization.enroll(account_id)

        await self.backend.run(create)

    def _admitted(self, request: AwsRequest, caller: Caller, role: Role, action: str, context: Context) -> str:
        """Return the reason to let the caller take this action on the role."""
        given = _parameters(request)
        keys: Context = {f"sts:{name}": given[name] for name in ("RoleSessionName", "ExternalId") if name in given}
        decision = self.authorization.decide(
            caller,
            request,
            Permission(action, role.arn, keys | context),
            resource_policy=stored_policy(role.assume_role_policy_document, "trust", role.name),
            owner=role.account_id,
        )
        if not decision.allowed:
            raise _denied(request, caller, role.arn, action, decision.reason, denial=decision.denial)
        return decision.reason

    def _session_policies(self, document: str | None, arns: list[str], role: Role) -> tuple[str, ...]:
        documents = [] if document is None else [document]
        for must in out_of_range(len(arns), 0, MOST_POLICY_ARNS):
            raise invalid(constraint_violation("'policyArns'", must))
        for arn in arns:
            named = Arn.find(arn)
            stored = managed_policies.document(self.backend, arn)
            if stored is None or not named or named.account not in ("aws", role.account_id):
                raise Refusal(400, "MalformedPolicyDocument", f"The session policy {arn} does not exist")
            documents.append(stored)
        try:
            # A managed policy was checked when it was created, and it may be longer than an inline session policy.
            if document is not None:
                Policy.parse(document, kind="session", name="session policy")
        except MalformedPolicy as malformed:
            raise Refusal(400, "MalformedPolicyDocument", malformed.message) from malformed
        return tuple(documents)


def _recorded(form: Mapping[str, str]) -> dict[str, Any]:
    kept: dict[str, Any] = {name[0].lower() + name[1:]: form[name] for name in RECORDED if name in form}
    if re.fullmatch(r"\d{1,9}", kept.get("durationSeconds", ""), re.ASCII):
        kept["durationSeconds"] = int(kept["durationSeconds"])
    for name, value in form.items():
        if name.startswith("PolicyArns.member."):
            kept.setdefault("policyArns", []).append({"arn": value})
        elif name.startswith("TransitiveTagKeys.member."):
            kept.setdefault("transitiveTagKeys", []).append(value)
        elif name.startswith("Tags.member.") and name.endswith(".Key"):
            tag = {"key": value, "value": form.get(f"{name.removesuffix('Key')}Value", "")}
            kept.setdefault("tags", []).append(tag)
    return kept


def _parameters(request: AwsRequest) -> Mapping[str, Any]:
    if request.parsed is None:
        raise Refusal(400, "ValidationError", "The request could not be read", str(request.unread))
    return request.parsed.parameters


def _validate(request: AwsRequest, required: tuple[str, ...]) -> None:
    form, parameters = request.call.form, request.parsed.parameters if request.parsed else {}
    missing = missing_required(name for name in required if name not in form)
    if faults := [*missing, *_constraints(form), *session_tags.faults(parameters)]:
        raise invalid(*faults)
    if not ROLE_ARN.fullmatch(form["RoleArn"]):
        raise Refusal(400, "ValidationError", "Request ARN is invalid")


def _constraints(form: Mapping[str, str]) -> list[str]:
    faults = []
    for name, (shortest, longest) in LENGTHS.items():
        if name not in form:
            continue
        musts = out_of_range(len(form[name]), shortest, longest)
        if name in ("RoleSessionName", "SourceIdentity") and not re.fullmatch(SESSION_NAME, form[name], re.ASCII):
            musts.insert(0, f"satisfy regular expression pattern: {SESSION_NAME}")
        shown = "***" if name == "WebIdentityToken" else form[name]
        faults += [constraint_violation(f"'{name[0].lower()}{name[1:]}'", must, f"'{shown}'") for must in musts]
    if duration := form.get("DurationSeconds"):
        number = re.fullmatch(r"-?\d{1,9}", duration, re.ASCII)
        musts = out_of_range(int(duration), SHORTEST, LONGEST, "value") if number else ["be a number"]
        faults += [constraint_violation("'durationSeconds'", must, f"'{duration}'") for must in musts]
    return faults


def _duration(given: Mapping[str, Any], role: Role) -> int:
    duration: int = given.get("DurationSeconds", USUAL)
    if duration > int(role.max_session_duration or USUAL):
        message = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
        raise Refusal(400, "ValidationError", message)
    return duration


def _not_authorized(reason: str, action: str = f"sts:{WEB_IDENTITY}", denial: str | None = None) -> Refusal:
    # STS does not say whether the role exists.
    message = f"Not authorized to perform {action}{f' {denial}' if denial else ''}"
    return Refusal(403, "AccessDenied", message, reason)


def _denied(
    request: AwsRequest, caller: Caller, role_arn: str, action: str, reason: str, *, denial: str | None = None
) -> Refusal:
    message = f"User: {caller.arn} is not authorized to perform: {action} on resource: {role_arn}"
    # STS only names a policy if it is the organization's.
    message += f" {denial}" if denial and "control policy" in denial else ""
    return fault(request, "denied", reason, message=message)


def _claimed_source_identity(identity: WebIdentity) -> str:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_control-access_monitor.html"""
    claimed = identity.claims.get(SOURCE_IDENTITY_CLAIM, "")
    if not isinstance(claimed, str) or not re.fullmatch(f"|(?=.{{2,64}}$){SESSION_NAME}", claimed, re.ASCII):
        message = "Unable to validate source identity"
        raise Refusal(400, "ValidationError", message, f"{message}: {SOURCE_IDENTITY_CLAIM} needs 2 to 64 characters")
    return claimed


def _role_tags(role: Role) -> Context:
    """https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssecuritytokenservice.html"""
    return resource_tags(as_dict(role.tags) or {}, "iam")


def _assumed(session: Session) -> dict[str, Any]:
    credentials = session.credentials
    return {
        "AssumedRoleUser": {"AssumedRoleId": session.principal_id, "Arn": session.arn},
        "Credentials": {
            "AccessKeyId": credentials.access_key_id,
            "SecretAccessKey": credentials.secret_access_key,
            "SessionToken": credentials.session_token,
            "Expiration": rfc3339(credentials.expiration),
        },
    }


def _packed(policies: list[str], tags: SessionTags) -> dict[str, int]:
    if not policies and not tags:
        return {}
    # AWS doesn't publish how it computes the size. This computation fits examples in public threads.
    percent = math.ceil((sum(map(len, policies)) / LONGEST_POLICY + tags.size) * 100)
    if percent > 100:
        message = f"Packed size of session tags consumes {percent}% of allotted space."
        if policies:
            message = f"Packed policy consumes {percent}% of allotted space, please use smaller policy."
        raise Refusal(400, "PackedPolicyTooLarge", message)
    return {"PackedPolicySize": percent}
