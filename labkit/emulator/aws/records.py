"""What the trail keeps of a call: CloudTrail's record, and under "lab" the decision and its reason.

https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-user-identity.html
"""

from datetime import UTC, datetime
from typing import Any

from labkit.emulator.aws.actions.s3 import split
from labkit.emulator.aws.call import Call, Response
from labkit.emulator.aws.errors import Refusal
from labkit.emulator.aws.sessions import Administrator, Caller, Session
from labkit.emulator.aws.sts import WEB_IDENTITY
from labkit.emulator.aws.web_identity import WebIdentity
from labkit.emulator.identifiers import Identifiers

# Parameters of the query services that may be read by whoever reads the trail; of any other only the name is kept.
PLAIN = {
    "AssumeRolePolicyDocument",
    "Description",
    "DurationSeconds",
    "GroupName",
    "InstanceProfileName",
    "MaxSessionDuration",
    "OpenIDConnectProviderArn",
    "Path",
    "PermissionsBoundary",
    "PolicyArn",
    "PolicyDocument",
    "PolicyName",
    "RoleArn",
    "RoleName",
    "RoleSessionName",
    "Url",
    "UserName",
    "VersionId",
}
# Of S3's query: what signs the request, or says nothing.
NOT_KEPT = ("x-amz-", "x-id", "signature", "awsaccesskeyid")
PLAIN_LISTS = ("ClientIDList.member.", "PolicyArns.member.", "Tags.member.", "ThumbprintList.member.")


def record(
    call: Call, response: Response, refusal: Refusal | None, *, now: float, identifiers: Identifiers
) -> dict[str, Any]:
    """The record of an answered call; ``now`` is lab time in seconds."""
    code = refusal.code if refusal else response.error_code
    entry: dict[str, Any] = {
        "eventVersion": "1.11",
        "userIdentity": _identity(call),
        "eventTime": _time(now),
        "eventSource": f"{call.service or 's3'}.amazonaws.com",
        "eventName": call.operation,
        "awsRegion": call.region,
        "sourceIPAddress": call.source_ip,
        "userAgent": call.headers.get("user-agent", ""),
        "requestParameters": _parameters(call),
        "responseElements": _elements(call),
        "eventID": identifiers.uuid("event", str(identifiers.serial("event", "trail"))),
        "eventType": "AwsApiCall",
        "recipientAccountId": _account(call),
    }
    if code:
        entry["errorCode"] = code
        entry["errorMessage"] = refusal.message if refusal else response.error_message
    reason = refusal.reason if refusal else call.notes.get("reason", "the administrator may do everything")
    entry["lab"] = {"decision": "refused" if refusal else "allowed", "reason": reason} | call.notes.get("lab", {})
    return entry


def _identity(call: Call) -> dict[str, Any]:
    if call.operation == WEB_IDENTITY and call.service == "sts":
        return _web_identity(call.notes.get("web identity"))
    caller: Caller | None = call.notes.get("caller")
    if isinstance(caller, Administrator):
        return {
            "type": "IAMUser",
            "principalId": caller.principal_id,
            "arn": caller.arn,
            "accountId": caller.account_id,
            "accessKeyId": caller.keys.access_key_id,
            "userName": caller.arn.rpartition("/")[2],
        }
    if isinstance(caller, Session):
        return _session(caller)
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
        "attributes": {"creationDate": _time(session.issued_at), "mfaAuthenticated": "false"},
    }
    if session.federation:
        context["webIdFederationData"] = {"federatedProvider": session.federation["provider"], "attributes": {}}
    return {
        "type": "AssumedRole",
        "principalId": session.principal_id,
        "arn": session.arn,
        "accountId": session.account_id,
        "accessKeyId": session.credentials.access_key_id,
        "sessionContext": context,
    }


def _web_identity(identity: WebIdentity | None) -> dict[str, Any]:
    if identity is None:
        return {"type": "WebIdentityUser"}
    return {
        "type": "WebIdentityUser",
        "principalId": f"{identity.provider_arn}:{identity.audience}:{identity.subject}",
        "userName": identity.subject,
        "identityProvider": identity.provider_arn,
    }


def _parameters(call: Call) -> dict[str, Any] | None:
    if call.family in ("query", "ec2"):
        kept = {
            name[0].lower() + name[1:]: value
            for name, value in call.form.items()
            if name in PLAIN or name.startswith(PLAIN_LISTS)
        }
        return kept or None
    if call.family == "s3":
        bucket, key = split(call.path)
        named = {"bucketName": bucket, "key": key}
        query = {name: value for name, value in call.query_pairs if not name.lower().startswith(NOT_KEPT)}
        return {name: value for name, value in named.items() if value} | query or None
    if call.service == "eks":
        content = call.json()
        kept = {name: content[name] for name in ("name", "roleArn", "version", "tags") if name in content}
        if call.path.startswith("/clusters/"):
            kept["name"] = call.path.split("/")[2]
        return kept or None
    return None


def _elements(call: Call) -> dict[str, Any] | None:
    session: Session | None = call.notes.get("session")
    if session is None:
        return None
    return {
        "credentials": {
            "accessKeyId": session.credentials.access_key_id,
            "expiration": _time(session.credentials.expiration),
        },
        "assumedRoleUser": {"assumedRoleId": session.principal_id, "arn": session.arn},
    }


def _account(call: Call) -> str | None:
    caller = call.notes.get("caller") or call.notes.get("session")
    return caller.account_id if caller else None


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
