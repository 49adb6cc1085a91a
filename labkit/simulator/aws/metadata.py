"""The instance metadata service of the lab's nodes. A pod without its own role gets the node's credentials here.

What differs from AWS:

- IMDSv1: a request without a token is refused.
- The hop limit: with 1, a pod's request for a token gets no answer on AWS, and an SDK waits for a second or more. The
  lab closes the pod's connection at once. Pods have a port of their own; those on the node's network have another.
- Data: the service has the ids, the type, the placement, the role's credentials and the identity document. It has no
  user data, network, tags, events or signatures.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html
"""

import json
import secrets
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from labkit.policy.arn import Arn
from labkit.simulator.aws.clusters import Instance
from labkit.simulator.aws.gate import Gate
from labkit.simulator.clock import Clock, rfc3339
from labkit.webhook.body import ClientDisconnect, TooLong, whole

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from labkit.simulator.aws.sessions import Credentials

LONGEST_TTL = 21600
KEPT_TOKENS = 10_000
LONGEST_BODY = 64 * 1024  # no request needs one
DURATION = 21600
# SDKs renew credentials 15 minutes before they expire; EC2 provides new ones before that.
RENEWED_BEFORE = 1800
CATEGORIES = {
    "": "ami-id\niam/\ninstance-id\ninstance-type\nplacement/",
    "iam": "info\nsecurity-credentials/",
    "placement": "availability-zone\nregion",
}


class InstanceMetadata:
    """The metadata service (IMDSv2) of one node, as an ASGI application. It returns credentials of the node's role.

    Each node's service has its own ports. The endpoint has no path, because the SDKs for Go 1 and JavaScript would drop
    a path.
    """

    def __init__(self, gate: Gate, clock: Clock, instance: Instance):
        role = Arn.parse(instance.role_arn)
        self.instance = instance
        self.role_name, self.account_id = role.name, role.account
        self._facts = {
            "ami-id": instance.image_id,
            "instance-id": instance.id,
            "instance-type": instance.type,
            "placement/region": instance.region,
            "placement/availability-zone": instance.zone,
            "iam/security-credentials": self.role_name,
        }
        self._gate = gate
        self._clock = clock
        self._credentials: Credentials | None = None
        self._issued_at = 0.0
        self._tokens: OrderedDict[str, float] = OrderedDict()  # each token, and the time when it ends

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] != "http":
            return
        try:
            await whole(receive, LONGEST_BODY)
        except ClientDisconnect:
            return
        except TooLong:
            await _answer(send, scope["method"], 413, "", {})
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        status, body, extra = self._answer(scope["method"], scope["path"], headers)
        await _answer(send, scope["method"], status, body, extra)

    def _answer(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str, dict[str, str]]:
        if path == "/latest/api/token":
            return self._token(method, headers)
        if method not in ("GET", "HEAD"):
            return 405, "", {}
        if self._tokens.get(headers.get("x-aws-ec2-metadata-token", ""), 0.0) <= time.monotonic():
            return 401, "", {}
        try:
            content = self._metadata(path.strip("/"))
        except LookupError as error:
            return 404, str(error), {}
        if content is None:
            return 404, "", {}
        return 200, content if isinstance(content, str) else json.dumps(content, indent=2), {}

    def _token(self, method: str, headers: dict[str, str]) -> tuple[int, str, dict[str, str]]:
        if method != "PUT":
            return 405, "", {}
        # A request with this header came through a proxy that was tricked into sending it.
        if "x-forwarded-for" in headers:
            return 403, "", {}
        ttl = headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
        if not (ttl.isascii() and ttl.isdecimal() and len(ttl) < 10 and 1 <= int(ttl) <= LONGEST_TTL):
            return 400, "", {}
        token = secrets.token_urlsafe(40)
        self._tokens[token] = time.monotonic() + int(ttl)
        while len(self._tokens) > KEPT_TOKENS:
            self._tokens.popitem(last=False)
        return 200, token, {"x-aws-ec2-metadata-token-ttl-seconds": ttl}

    def _metadata(self, path: str) -> str | dict[str, str] | None:
        if path == "latest/dynamic/instance-identity/document":
            return {
                "accountId": self.account_id,
                "architecture": "x86_64",
                "availabilityZone": self._facts["placement/availability-zone"],
                "imageId": self._facts["ami-id"],
                "instanceId": self.instance.id,
                "instanceType": self._facts["instance-type"],
                "region": self._facts["placement/region"],
                "version": "2017-09-30",
            }
        if path != "latest/meta-data" and not path.startswith("latest/meta-data/"):
            return None
        name = path.removeprefix("latest/meta-data").strip("/")
        if name == "iam/info":
            return {
                "Code": "Success",
                "LastUpdated": rfc3339(self._clock.now()),
                "InstanceProfileArn": self.instance.profile_arn,
                "InstanceProfileId": "AIPA" + self.instance.id.removeprefix("i-").upper()[:17],
            }
        if name == f"iam/security-credentials/{self.role_name}":
            return self.role_session()
        return (CATEGORIES | self._facts).get(name)

    def role_session(self) -> dict[str, str]:
        """Return the credentials of the node's role, in the metadata service's form. Renew them if necessary."""
        now = self._clock.now()
        held = self._credentials
        # If the clock was set back, the credentials are from the future. They're renewed, too.
        if held is None or not self._issued_at <= now < held.expiration - RENEWED_BEFORE:
            held = self._gate.sessions.issue(self.instance.role_arn, self.instance.id, DURATION)
            self._credentials, self._issued_at = held, now
        return {
            "Code": "Success",
            "LastUpdated": rfc3339(self._issued_at),
            "Type": "AWS-HMAC",
            "AccessKeyId": held.access_key_id,
            "SecretAccessKey": held.secret_access_key,
            "Token": held.session_token,
            "Expiration": rfc3339(held.expiration),
        }


async def _answer(send: "Send", method: str, status: int, body: str, extra: dict[str, str]) -> None:
    content = body.encode()
    kind = "application/json" if body.startswith("{") else "text/plain"
    answered = {"content-type": kind, "content-length": str(len(content)), "server": "EC2ws", **extra}
    # A pod's next request needs a new connection, so a new hop limit counts at once.
    answered["connection"] = "close"
    encoded = [(name.encode(), value.encode()) for name, value in answered.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else content})
