"""STS, answered by the gate itself: it decides who gets a role session.

What AWS does and this module does not:

- AssumeRoleWithSAML, GetSessionToken and GetFederationToken answer NotImplemented; AssumeRoot and GetWebIdentityToken
  are unknown.
- DecodeAuthorizationMessage finds every message invalid: no denial in the lab carries an encoded one.
- MFA: `SerialNumber` and `TokenCode` are ignored, and `aws:MultiFactorAuthPresent` is always false.
- Source identities: a call or a token with one is denied.
- Login with Amazon, Facebook and Google without an OIDC provider (`ProviderId`): refused.
- Regional endpoints: one endpoint stands for the global one and for all regions.

https://docs.aws.amazon.com/STS/latest/APIReference/welcome.html
"""

import math
import re
from typing import Any
from xml.sax.saxutils import escape

from labkit.emulator.aws import session_tags
from labkit.emulator.aws.accounts import Accounts
from labkit.emulator.aws.actions.permission import Context, Permission, as_dict, resource_tags
from labkit.emulator.aws.answers import done
from labkit.emulator.aws.authorization import Authorization, stored_policy
from labkit.emulator.aws.backend import Backend
from labkit.emulator.aws.call import Call, Response
from labkit.emulator.aws.errors import Refusal, fault
from labkit.emulator.aws.issuers import Issuers
from labkit.emulator.aws.session_tags import SessionTags
from labkit.emulator.aws.sessions import Administrator, Caller, Session, Sessions
from labkit.emulator.aws.web_identity import WebIdentity, read, verify
from labkit.emulator.clock import Clock, rfc3339
from labkit.policy import MalformedPolicy, Policy, evaluate_trust

WEB_IDENTITY = "AssumeRoleWithWebIdentity"
ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+")
SESSION_NAME = r"[\w+=,.@-]*"
MOST_POLICY_ARNS = 10
LONGEST_CHAINED = 3600
TAG_SESSION, SET_SOURCE_IDENTITY = "sts:TagSession", "sts:SetSourceIdentity"
SOURCE_IDENTITY_CLAIM = "https://aws.amazon.com/source_identity"
NO_SOURCE_IDENTITY = "the lab cannot evaluate source identities"
SHORTEST, USUAL, LONGEST = 900, 3600, 43200
LONGEST_POLICY = 2048
LENGTHS = {
    "RoleArn": (20, 2048),
    "RoleSessionName": (2, 64),
    "WebIdentityToken": (4, 20000),
    "Policy": (1, LONGEST_POLICY),
}


class Sts:
    """The operations of STS."""

    def __init__(
        self,
        *,
        backend: Backend,
        sessions: Sessions,
        issuers: Issuers,
        clock: Clock,
        authorization: Authorization,
        accounts: Accounts,
    ):
        self._backend = backend
        self._sessions = sessions
        self._issuers = issuers
        self._clock = clock
        self._authorization = authorization
        self._accounts = accounts

    async def answer(self, call: Call, caller: Caller) -> Response:
        """The answer to a signed call."""
        match call.operation:
            case "GetCallerIdentity":
                call.notes["reason"] = "sts:GetCallerIdentity is allowed to everybody who is somebody"
                return _result(call, {"UserId": caller.principal_id, "Account": caller.account_id, "Arn": caller.arn})
            case "AssumeRole":
                return await self._assume_role(call, caller)
            case "GetAccessKeyInfo" | "DecodeAuthorizationMessage":
                return self._inform(call, caller)
            case "GetSessionToken" | "GetFederationToken" if isinstance(caller, Session):
                raise fault(
                    call,
                    "denied",
                    "a role session cannot make another session by this call",
                    message=f"Cannot call {call.operation} with session credentials",
                )
            case "GetSessionToken" | "AssumeRoleWithSAML" | "GetFederationToken":
                raise Refusal(501, "NotImplemented", f"The lab has no sts:{call.operation}")
        raise Refusal(
            400, "InvalidAction", f"Could not find operation {call.operation} for version {call.form.get('Version')}"
        )

    def _inform(self, call: Call, caller: Caller) -> Response:
        """The account of an access key; the lab encodes no message that could be decoded.

        https://docs.aws.amazon.com/STS/latest/APIReference/API_GetAccessKeyInfo.html
        """
        if not isinstance(caller, Administrator):
            needed = Permission(f"sts:{call.operation}", "*", shown="")
            call.notes["reason"] = self._authorization.require(caller, call, needed).reason
        if call.operation == "DecodeAuthorizationMessage":
            raise Refusal(400, "InvalidAuthorizationMessageException", "Message is not valid")
        key = call.form.get("AccessKeyId", "")
        owner = self._sessions.find(key) or (self._backend.user_of_key(key) or (None,))[0]
        return _result(call, {"Account": owner.account_id if owner else self._backend.account_id})

    async def assume_role_with_web_identity(self, call: Call) -> Response:
        """Credentials for a role, for a token of an OIDC provider in the role's account.

        https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
        """
        form = call.form
        _validate(form, ("RoleArn", "RoleSessionName", "WebIdentityToken"))
        role_arn, name, token = form["RoleArn"], form["RoleSessionName"], form["WebIdentityToken"]
        account_id = role_arn.split(":")[4]
        claimed = read(token)
        call.notes["lab"] = {"roleSessionName": name, "token": _told(claimed.claims)}
        if "ProviderId" in form:
            raise Refusal(400, "InvalidIdentityToken", "Provided Token is not a Login With Amazon token")
        identity = await verify(
            token,
            find_provider=lambda issuer: self._backend.provider(account_id, issuer),
            issuers=self._issuers,
            now=self._clock.now(),
        )
        call.notes["web identity"] = identity
        tags = session_tags.of_token(identity.claims)
        role = self._admitting_role(call, role_arn, name, identity, tags)
        duration = _duration(form, role.max_session_duration)
        policies = self._session_policies(form, role)
        packed = _packed(form, tags)
        call.notes["reason"] += f"; the session ends after {duration} s"
        session = self._sessions.open(
            role,
            name,
            duration,
            policies=policies,
            context={"aws:FederatedProvider": identity.provider_arn, **identity.context(), **tags.of_session()},
            federation={"provider": identity.provider_arn, "subject": identity.subject},
            transitive_tags=tags.transitive,
        )
        call.notes["session"] = session
        result: dict[str, Any] = {
            "SubjectFromWebIdentityToken": identity.subject,
            "Audience": identity.audience,
            "Provider": identity.provider_arn,
        }
        return _result(call, result | _assumed(session) | packed)

    def _admitting_role(self, call: Call, role_arn: str, name: str, identity: WebIdentity, tags: SessionTags) -> Any:
        role = self._backend.role(role_arn)
        if role is None:
            raise _not_authorized(f"the role {role_arn} does not exist")
        trust = stored_policy(role.assume_role_policy_document, "trust", role.name)
        context = {
            **self._authorization.context(call),
            "aws:FederatedProvider": identity.provider_arn,
            "sts:RoleSessionName": name,
            **identity.context(),
            **tags.of_request(),
            **_role_tags(role),
        }
        decision = evaluate_trust(trust, provider_arn=identity.provider_arn, context=context)
        if not decision.allowed:
            raise _not_authorized(decision.reason)
        if tags:
            tagging = evaluate_trust(trust, provider_arn=identity.provider_arn, action=TAG_SESSION, context=context)
            if not tagging.allowed:
                raise _not_authorized(f"the token has session tags; {tagging.reason}", TAG_SESSION)
        if SOURCE_IDENTITY_CLAIM in identity.claims:
            raise _not_authorized(NO_SOURCE_IDENTITY, SET_SOURCE_IDENTITY)
        call.notes["reason"] = decision.reason
        return role

    async def _assume_role(self, call: Call, caller: Caller) -> Response:
        form = call.form
        _validate(form, ("RoleArn", "RoleSessionName"))
        role_arn, name = form["RoleArn"], form["RoleSessionName"]
        inherited = caller.transitive_tags if isinstance(caller, Session) else {}
        tags = session_tags.of_call(form, inherited)
        await self._accounts.open(caller, role_arn)
        role = self._backend.role(role_arn)
        if role is None:
            raise _denied(call, caller, role_arn, "sts:AssumeRole", f"the role {role_arn} does not exist")
        reason = self._admitted(call, caller, role, "sts:AssumeRole", tags)
        if tags:
            self._admitted(call, caller, role, TAG_SESSION, tags)
        if "SourceIdentity" in form:
            raise _denied(call, caller, role_arn, SET_SOURCE_IDENTITY, NO_SOURCE_IDENTITY)
        chained = isinstance(caller, Session)
        if chained and "DurationSeconds" in form and int(form["DurationSeconds"]) > LONGEST_CHAINED:
            raise Refusal(
                400,
                "ValidationError",
                "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.",
            )
        duration = _duration(form, role.max_session_duration)
        policies = self._session_policies(form, role)
        packed = _packed(form, tags)
        session = self._sessions.open(
            role, name, duration, policies=policies, context=tags.of_session(), transitive_tags=tags.transitive
        )
        call.notes |= {"reason": reason, "session": session}
        return _result(call, _assumed(session) | packed)

    def _admitted(self, call: Call, caller: Caller, role: Any, action: str, tags: SessionTags) -> str:
        """Why the caller may do this to the role, by its own policies and the role's trust policy; or the denial."""
        decision = self._authorization.decide(
            caller,
            call,
            Permission(action, role.arn, _condition_keys(call.form) | tags.of_request() | _role_tags(role)),
            resource_policy=stored_policy(role.assume_role_policy_document, "trust", role.name),
            owner=role.account_id,
        )
        if not decision.allowed:
            raise _denied(call, caller, role.arn, action, decision.reason)
        return decision.reason

    def _session_policies(self, form: dict[str, str], role: Any) -> tuple[str, ...]:
        documents = [form["Policy"]] if "Policy" in form else []
        arns = [value for name, value in form.items() if re.fullmatch(r"PolicyArns\.member\.\d+\.arn", name)]
        if len(arns) > MOST_POLICY_ARNS:
            said = "1 validation error detected: Value at 'policyArns' failed to satisfy constraint: Member must have"
            raise Refusal(400, "ValidationError", f"{said} length less than or equal to {MOST_POLICY_ARNS}")
        for arn in arns:
            of_role = arn.startswith(("arn:aws:iam::aws:", f"arn:aws:iam::{role.account_id}:"))
            if not of_role or (document := self._backend.managed_policy(arn)) is None:
                raise Refusal(400, "MalformedPolicyDocument", f"The session policy {arn} does not exist")
            documents.append(document)
        try:
            for document in documents:
                Policy.parse(document, kind="session", name="session policy")
        except MalformedPolicy as malformed:
            raise Refusal(400, "MalformedPolicyDocument", malformed.message) from malformed
        return tuple(documents)


def _validate(form: dict[str, str], required: tuple[str, ...]) -> None:
    """Raises STS's ValidationError, which names every constraint that is not met."""
    faults = [
        f"Value null at '{_member(name)}' failed to satisfy constraint: Member must not be null"
        for name in required
        if name not in form
    ]
    for name, (shortest, longest) in LENGTHS.items():
        if name not in form:
            continue
        shown = "***" if name == "WebIdentityToken" else form[name]
        said = f"Value '{shown}' at '{_member(name)}' failed to satisfy constraint: Member must"
        if name == "RoleSessionName" and not re.fullmatch(SESSION_NAME, form[name], re.ASCII):
            faults.append(f"{said} satisfy regular expression pattern: {SESSION_NAME}")
        if len(form[name]) < shortest:
            faults.append(f"{said} have length greater than or equal to {shortest}")
        if len(form[name]) > longest:
            faults.append(f"{said} have length less than or equal to {longest}")
    if duration := form.get("DurationSeconds"):
        said = f"Value '{duration}' at 'durationSeconds' failed to satisfy constraint: Member must"
        if not re.fullmatch(r"-?\d{1,9}", duration, re.ASCII):
            faults.append(f"{said} be a number")
        elif int(duration) < SHORTEST:
            faults.append(f"{said} have value greater than or equal to {SHORTEST}")
        elif int(duration) > LONGEST:
            faults.append(f"{said} have value less than or equal to {LONGEST}")
    faults += session_tags.faults(form)
    if faults:
        raise Refusal(400, "ValidationError", session_tags.told(faults))
    if not ROLE_ARN.fullmatch(form["RoleArn"]):
        raise Refusal(400, "ValidationError", "Request ARN is invalid")


def _member(name: str) -> str:
    return name[0].lower() + name[1:]


def _duration(form: dict[str, str], longest: str | int | None) -> int:
    duration = int(form.get("DurationSeconds") or USUAL)
    if duration > int(longest or USUAL):
        raise Refusal(
            400, "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
        )
    return duration


def _not_authorized(reason: str, action: str = f"sts:{WEB_IDENTITY}") -> Refusal:
    # STS does not say whether there is such a role.
    return Refusal(403, "AccessDenied", f"Not authorized to perform {action}", reason)


def _denied(call: Call, caller: Caller, role_arn: str, action: str, reason: str) -> Refusal:
    message = f"User: {caller.arn} is not authorized to perform: {action} on resource: {role_arn}"
    return fault(call, "denied", reason, message=message)


def _condition_keys(form: dict[str, str]) -> dict[str, str | list[str]]:
    keys: dict[str, str | list[str]] = {"sts:RoleSessionName": form["RoleSessionName"]}
    if "ExternalId" in form:
        keys["sts:ExternalId"] = form["ExternalId"]
    return keys


def _role_tags(role: Any) -> Context:
    """The condition keys of the tags of the role that is asked for.

    https://docs.aws.amazon.com/service-authorization/latest/reference/list_awssecuritytokenservice.html
    """
    return resource_tags(as_dict(role.tags) or {}, "iam")


def _told(claims: dict[str, Any]) -> dict[str, Any]:
    """What the trail keeps of a token: whom it names and how fresh it is."""
    names = {"issuer": "iss", "subject": "sub", "audience": "aud", "issuedAt": "iat", "expires": "exp"}
    return {name: claims[claim] for name, claim in names.items() if claim in claims}


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


def _packed(form: dict[str, str], tags: SessionTags) -> dict[str, int]:
    """``PackedPolicySize`` in percent, where there is something to pack. Raises ``Refusal`` beyond 100.

    AWS does not say how it packs; this follows what public threads show.
    """
    policies = [value for name, value in form.items() if name == "Policy" or name.startswith("PolicyArns.member.")]
    if not policies and not tags:
        return {}
    percent = math.ceil((sum(map(len, policies)) / LONGEST_POLICY + tags.size) * 100)
    if percent > 100:
        told = f"Packed size of session tags consumes {percent}% of allotted space."
        if policies:
            told = f"Packed policy consumes {percent}% of allotted space, please use smaller policy."
        raise Refusal(400, "PackedPolicyTooLarge", told)
    return {"PackedPolicySize": percent}


def _result(call: Call, content: dict[str, Any]) -> Response:
    return done(call, _xml(content))


def _xml(content: dict[str, Any]) -> str:
    return "".join(
        f"<{name}>{_xml(value) if isinstance(value, dict) else escape(str(value))}</{name}>"
        for name, value in content.items()
    )
