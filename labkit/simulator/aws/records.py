"""A call's record in the trail. It has CloudTrail's fields, and a field "lab" with the decision and its reason.

https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-user-identity.html
"""

import html
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from labkit.policy.arn import Arn
from labkit.simulator.aws.answers import Refusal
from labkit.simulator.aws.authorization import Grant
from labkit.simulator.aws.call import AwsRequest, Call, Response
from labkit.simulator.aws.services import service_of
from labkit.simulator.aws.services.sts import WEB_IDENTITY
from labkit.simulator.aws.sessions import Administrator, Caller, KeyHolder, Session
from labkit.simulator.aws.trail import HIDDEN, hidden
from labkit.simulator.aws.web_identity import WebIdentity, trail_claims
from labkit.simulator.clock import rfc3339
from labkit.simulator.identifiers import Identifiers

LONGEST = 1024
LONGEST_REASON = 8 * 1024
READS = re.compile(r"(AssumeRole|BatchGet|Describe|Get|Head|List|Lookup|Query|Receive|Scan|Search|Select|Simulate)")
# Their names look like reads. They create credentials or data, so CloudTrail counts them as writes.
WRITES = {"GetFederationToken", "GetSessionToken"}
# STS's only message in the record if a trust policy doesn't admit a web identity.
UNTOLD = "An unknown error occurred"
SECRET_HEADERS = ("authorization", "cookie", "x-amz-security-token")
CUSTOMER_KEY = "server-side-encryption-customer-key"
SECRET_QUERY = ("signature", "x-amz-security-token", "x-amz-signature")


@dataclass(frozen=True)
class Outcome:
    """The outcome of a call: the caller, the answer, and the reason for the decision."""

    request: AwsRequest
    response: Response
    caller: Caller | WebIdentity | None = None
    """The authenticated caller; None if the call's signature or token wasn't verified."""
    grant: Grant | None = None
    session: Session | None = None
    """The session that the call opened."""
    refusal: Refusal | None = None

    @property
    def signer(self) -> Caller | None:
        """The caller that signed the call; None if no known caller signed it."""
        return None if isinstance(self.caller, WebIdentity) else self.caller

    @property
    def identity(self) -> WebIdentity | None:
        """The web identity that made the call; None for any other caller."""
        return self.caller if isinstance(self.caller, WebIdentity) else None

    @property
    def error_code(self) -> str | None:
        """The error code that the caller gets; None for a successful call."""
        return self.refusal.code if self.refusal else self.response.error_code

    @property
    def error_message(self) -> str:
        """The error message that the caller gets; empty for a successful call."""
        return self.refusal.message if self.refusal else html.unescape(self.response.error_message or "")


def records(
    outcome: Outcome, *, now: float, account_id: str, identifiers: Identifiers
) -> tuple[list[dict[str, object]], list[str]]:
    """Return the records of an answered call, and the call's secrets. ``now`` is lab time in seconds.

    If the call used a role or a bucket of another account, that account gets a second record with the same
    ``sharedEventID``. If the caller's account is unknown, the account ``account_id`` gets the record.
    """
    request, response = outcome.request, outcome.response
    account = _account(outcome) or account_id
    # An administrator's call is shown as completed by the lab; any other call as it was sent.
    completed = outcome.grant and isinstance(outcome.caller, Administrator)
    service = service_of(request)
    shown = service.trail_parameters(outcome.grant.request if outcome.grant and completed else request)
    secrets = [*_secrets(outcome), *shown.secrets]
    name, data = service.event_names.get(request.operation, request.operation), service.is_data_event(request)
    entry: dict[str, Any] = {
        "eventVersion": "1.11",
        "userIdentity": _identity(outcome),
        "eventTime": rfc3339(now),
        "eventSource": f"{request.service}.amazonaws.com",
        "eventName": _cut(name, secrets, LONGEST),
        "awsRegion": service.event_region or request.region,
        "sourceIPAddress": request.call.source_ip,
        "userAgent": _cut(request.call.headers.get("user-agent", ""), secrets, LONGEST),
        **_error(outcome, secrets),
        "requestParameters": shown.parameters or None,
        "responseElements": _elements(outcome),
        **_additional(outcome),
        "requestID": _request_id(response),
        "eventID": _event_id(identifiers, now),
        "readOnly": bool(READS.match(name)) and name not in WRITES,
        **_resources(outcome, account, data),
        "eventType": "AwsApiCall",
        "managementEvent": not data,
        "recipientAccountId": account,
        "eventCategory": "Data" if data else "Management",
        "lab": _lab(outcome, secrets),
    }
    caller, session = outcome.signer, outcome.session
    # Only the caller's account gets a record of a refusal.
    other = session.account_id if session else "" if "errorCode" in entry else request.account_id
    if caller is None or other in ("", caller.account_id):
        return [entry], secrets
    shared = {"sharedEventID": _event_id(identifiers, now)}
    theirs = {
        "userIdentity": {"type": "AWSAccount", "principalId": caller.principal_id, "accountId": caller.account_id},
        "eventID": _event_id(identifiers, now),
        "recipientAccountId": other,
    }
    return [entry | shared, entry | shared | theirs], secrets


def _identity(outcome: Outcome) -> dict[str, Any]:
    caller, request = outcome.signer, outcome.request
    if request.operation == WEB_IDENTITY:
        if (identity := outcome.identity) is None:
            return {"type": "WebIdentityUser"}
        return {
            "type": "WebIdentityUser",
            "principalId": f"{identity.provider_arn}:{identity.audience}:{identity.subject}",
            "userName": identity.subject,
            "identityProvider": identity.provider_arn,
        }
    if isinstance(caller, KeyHolder):
        return {
            "type": "IAMUser",
            "principalId": caller.principal_id,
            "arn": caller.arn,
            "accountId": caller.account_id,
            "accessKeyId": caller.keys.access_key_id,
            "userName": caller.name,
        }
    if isinstance(caller, Session):
        return _session(caller)
    if request.family == "s3" and not _is_signed(request.call):
        return {"type": "AWSAccount", "principalId": "", "accountId": "ANONYMOUS_PRINCIPAL"}
    return {"type": "Unknown"}


def _session(session: Session) -> dict[str, Any]:
    context: dict[str, Any] = {
        "sessionIssuer": {
            "type": "Role",
            "principalId": session.role_id,
            "arn": session.role_arn,
            "accountId": session.account_id,
            "userName": session.role_name,
        },
        "attributes": {"creationDate": rfc3339(session.issued_at), "mfaAuthenticated": "false"},
    }
    if source_identity := session.context.get("aws:SourceIdentity"):
        context["sourceIdentity"] = source_identity
    if session.federation:
        # CloudTrail leaves the attributes of an OIDC provider's identities empty.
        context["webIdFederationData"] = {"federatedProvider": session.federation["provider"], "attributes": {}}
    return {
        "type": "AssumedRole",
        "principalId": session.principal_id,
        "arn": session.arn,
        "accountId": session.account_id,
        "accessKeyId": session.credentials.access_key_id,
        "sessionContext": context,
    }


def _error(outcome: Outcome, secrets: list[str]) -> dict[str, str]:
    request, code, message = outcome.request, outcome.error_code, outcome.error_message
    if not code:
        return {}
    if code == "AccessDenied" and request.operation == WEB_IDENTITY:
        message = UNTOLD
    code = service_of(request).event_code(request, "AccessDenied" if code == "AccessDeniedException" else code)
    return {"errorCode": _cut(code, secrets, LONGEST), "errorMessage": _cut(message, secrets, LONGEST)}


def _lab(outcome: Outcome, secrets: list[str]) -> dict[str, Any]:
    """Return facts that CloudTrail doesn't record, such as the decision and its reason."""
    refusal, grant, caller = outcome.refusal, outcome.grant, outcome.caller
    reason = refusal.reason if refusal else grant.reason if grant else ""
    decision = "refused" if refusal else "allowed"
    about: dict[str, Any] = {"decision": decision, "reason": _cut(reason, secrets, LONGEST_REASON)}
    if code := outcome.error_code:
        about["code"] = _cut(code, secrets, LONGEST)
        about["message"] = _cut(outcome.error_message, secrets, LONGEST)
    if isinstance(caller, Session) and caller.federation:
        about["subject"] = caller.federation["subject"]
    if isinstance(caller, WebIdentity):
        about |= _token(outcome.request.call.form["RoleSessionName"], caller.claims)
    elif refusal and (claimed := refusal.claimed):
        about |= {"keyOf": claimed.key_of} if claimed.key_of else _token(claimed.role_session_name, claimed.claims)
    if grant and grant.refused:
        about["refusedKeys"] = [key for key, _ in grant.refused]
    return about


def _token(session_name: str, claims: dict[str, object]) -> dict[str, object]:
    return {"roleSessionName": session_name, "token": trail_claims(claims)}


def _elements(outcome: Outcome) -> dict[str, Any] | None:
    """Return the record's ``responseElements`` for a call that opened a session."""
    if (session := outcome.session) is None:
        return None
    ends = datetime.fromtimestamp(session.credentials.expiration, UTC)
    hour = ends.hour % 12 or 12
    elements: dict[str, Any] = {
        "credentials": {
            "accessKeyId": session.credentials.access_key_id,
            "sessionToken": HIDDEN,
            "expiration": ends.strftime(f"%b {ends.day}, %Y, {hour}:%M:%S %p"),
        },
        "assumedRoleUser": {"assumedRoleId": session.principal_id, "arn": session.arn},
    }
    if identity := outcome.identity:
        elements |= {
            "subjectFromWebIdentityToken": identity.subject,
            "provider": identity.provider_arn,
            "audience": identity.audience,
        }
    return elements


def _additional(outcome: Outcome) -> dict[str, Any]:
    call, response, identity = outcome.request.call, outcome.response, outcome.identity
    if outcome.request.family == "s3":
        about: dict[str, Any] = {}
        if _is_signed(call):
            by_header = "authorization" in call.headers
            about["SignatureVersion"] = "SigV4"
            about["AuthenticationMethod"] = "AuthHeader" if by_header else "QueryString"
        about["bytesTransferredIn"] = len(call.body)
        about["bytesTransferredOut"] = 0 if call.method == "HEAD" else len(response.body)
        if host_id := _header(response, "x-amz-id-2"):
            about["x-amz-id-2"] = host_id
        return {"additionalEventData": about}
    # The lab's CA takes the place of the public roots, which certify EKS's issuers.
    if identity and identity.issuer.startswith("https://oidc.eks."):
        return {"additionalEventData": {"identityProviderConnectionVerificationMethod": "IAMTrustStore"}}
    return {}


def _resources(outcome: Outcome, account: str, data: bool) -> dict[str, Any]:
    resources: list[dict[str, str]] = []
    request, session = outcome.request, outcome.session
    if session is not None:
        resources = [{"accountId": session.account_id, "type": "AWS::IAM::Role", "ARN": session.role_arn}]
    elif request.bucket:
        arn = f"arn:aws:s3:::{request.bucket}"
        if data:
            resources.append({"type": "AWS::S3::Object", "ARN" if request.key else "ARNPrefix": f"{arn}/{request.key}"})
        resources.append({"accountId": request.account_id or account, "type": "AWS::S3::Bucket", "ARN": arn})
    return {"resources": resources} if resources else {}


def _is_signed(call: Call) -> bool:
    return "authorization" in call.headers or any(name.lower() in SECRET_QUERY for name in call.query)


def _account(outcome: Outcome) -> str:
    if identity := outcome.identity:
        return Arn.parse(identity.provider_arn).account
    return outcome.signer.account_id if outcome.signer else ""


def _secrets(outcome: Outcome) -> list[str]:
    call, caller, session = outcome.request.call, outcome.caller, outcome.session
    secrets = [call.headers[name] for name in SECRET_HEADERS if name in call.headers]
    keys = (name for name in call.headers if CUSTOMER_KEY in name and not name.endswith("algorithm"))
    secrets += [call.headers[name] for name in keys]
    if authorization := call.headers.get("authorization"):
        signature = re.search(r"Signature=([^,\s]+)", authorization)
        secrets.append(signature[1] if signature else authorization.partition(" ")[2])
    secrets += [value for name, value in call.query_pairs if name.lower() in SECRET_QUERY]
    if isinstance(caller, KeyHolder):
        secrets.append(caller.keys.secret_access_key)
    for one in (caller, session):
        if isinstance(one, Session):
            secrets += [one.credentials.secret_access_key, one.credentials.session_token]
    return secrets


def _request_id(response: Response) -> str:
    request_id = _header(response, "x-amzn-requestid") or _header(response, "x-amz-request-id")
    if not request_id and (match := re.search(rb"<Request(?:ID|Id)>([^<]+)<", response.body[-1024:])):
        request_id = match[1].decode("utf-8", "replace")
    return request_id or str(uuid.uuid4())


def _header(response: Response, name: str) -> str:
    return next((value for header, value in response.headers if header.lower() == name), "")


def _event_id(identifiers: Identifiers, now: float) -> str:
    # The time is part of the id: a new server starts at serial 1 again, but the trail continues.
    return identifiers.uuid("event", f"{now!r}#{identifiers.serial('event', 'trail')}")


def _cut(text: str, secrets: list[str], longest: int) -> str:
    # Hide first, then cut: a part of a secret would not be recognized.
    return text if len(text) <= longest else hidden(text, secrets)[:longest]
