"""The instance metadata service of the lab's nodes: what a pod without a role of its own finds.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html
"""

import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from labkit.emulator.aws.gate import Gate
from labkit.emulator.aws.sessions import Credentials
from labkit.emulator.clock import Clock

LONGEST_TTL = 21600
KEPT_TOKENS = 10_000
DURATION = 21600
# SDKs renew what ends within 15 minutes; EC2 has new credentials ready before.
RENEWED_BEFORE = 1800
CATEGORIES = {
    "": "ami-id\niam/\ninstance-id\ninstance-type\nplacement/",
    "iam": "info\nsecurity-credentials/",
    "placement": "availability-zone\nregion",
}


@dataclass
class _Node:
    role_arn: str
    instance_id: str
    region: str
    availability_zone: str
    credentials: Credentials | None = None
    issued_at: float = 0.0

    @property
    def role_name(self) -> str:
        return self.role_arn.rpartition("/")[2]


class Metadata:
    """IMDSv2 for many nodes, an ASGI application: ``http://127.0.0.1:PORT/NODE_ID/latest/…``."""

    def __init__(self, gate: Gate, clock: Clock):
        self._gate = gate
        self._clock = clock
        self._nodes: dict[str, _Node] = {}
        self._tokens: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def register(self, node_id: str, role_arn: str, instance_id: str, region: str, availability_zone: str) -> None:
        """Serves this node's metadata under ``/node_id``; its credentials are sessions of ``role_arn``."""
        self._nodes[node_id] = _Node(role_arn, instance_id, region, availability_zone)

    def unregister(self, node_id: str) -> None:
        """Serves nothing under ``/node_id`` any more."""
        self._nodes.pop(node_id, None)

    def of_node(self, node_id: str) -> Callable:
        """The same for one node alone, at the root: the SDKs for Go 1 and JavaScript drop the path of an endpoint."""

        async def answer(scope: MutableMapping[str, Any], receive: Callable, send: Callable) -> None:
            await self(scope | {"path": f"/{node_id}{scope.get('path', '')}"}, receive, send)

        return answer

    async def __call__(self, scope: MutableMapping[str, Any], receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        status, body, extra = self._answer(scope["method"], scope["path"], headers)
        content = body.encode()
        kind = "application/json" if body.startswith("{") else "text/plain"
        answered = {"content-type": kind, "content-length": str(len(content)), "server": "EC2ws", **extra}
        encoded = [(name.encode(), value.encode()) for name, value in answered.items()]
        await send({"type": "http.response.start", "status": status, "headers": encoded})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})

    def _answer(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str, dict[str, str]]:
        node_id, _, rest = path.strip("/").partition("/")
        node = self._nodes.get(node_id)
        if node is None:
            return 404, "", {}
        if rest == "latest/api/token":
            return self._token(method, node_id, headers)
        if method not in ("GET", "HEAD"):
            return 405, "", {}
        belongs_to, ends = self._tokens.get(headers.get("x-aws-ec2-metadata-token", ""), ("", 0.0))
        if belongs_to != node_id or ends <= time.monotonic():
            return 401, "", {}
        try:
            found = self._metadata(node, rest)
        except LookupError as error:
            return 404, str(error), {}
        return (404, "", {}) if found is None else (200, found, {})

    def _token(self, method: str, node_id: str, headers: dict[str, str]) -> tuple[int, str, dict[str, str]]:
        if method != "PUT":
            return 405, "", {}
        # A request that came through a proxy is one that somebody tricked it into.
        if "x-forwarded-for" in headers:
            return 403, "", {}
        ttl = headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
        if not (ttl.isascii() and ttl.isdecimal() and 1 <= int(ttl) <= LONGEST_TTL):
            return 400, "", {}
        token = secrets.token_urlsafe(40)
        self._tokens[token] = (node_id, time.monotonic() + int(ttl))
        while len(self._tokens) > KEPT_TOKENS:
            self._tokens.popitem(last=False)
        return 200, token, {"x-aws-ec2-metadata-token-ttl-seconds": ttl}

    def _metadata(self, node: _Node, path: str) -> str | None:
        path = path.rstrip("/")
        if path == "latest/dynamic/instance-identity/document":
            return self._document(node)
        if path != "latest/meta-data" and not path.startswith("latest/meta-data/"):
            return None
        match path.removeprefix("latest/meta-data").strip("/"):
            case "ami-id":
                return "ami-0123456789abcdef0"
            case "instance-id":
                return node.instance_id
            case "instance-type":
                return "m5.large"
            case "placement/region":
                return node.region
            case "placement/availability-zone":
                return node.availability_zone
            case "iam/info":
                return self._profile(node)
            case "iam/security-credentials":
                return node.role_name
            case name if name == f"iam/security-credentials/{node.role_name}":
                return self._credentials(node)
            case name:
                return CATEGORIES.get(name)

    def _credentials(self, node: _Node) -> str:
        now = self._clock.now()
        held = node.credentials
        # A clock that was set back makes credentials of the future, which are renewed too.
        if held is None or not node.issued_at <= now < held.expiration - RENEWED_BEFORE:
            held = self._gate.sessions.issue(node.role_arn, node.instance_id, DURATION)
            node.credentials, node.issued_at = held, now
        return json.dumps(
            {
                "Code": "Success",
                "LastUpdated": _time(node.issued_at),
                "Type": "AWS-HMAC",
                "AccessKeyId": held.access_key_id,
                "SecretAccessKey": held.secret_access_key,
                "Token": held.session_token,
                "Expiration": _time(held.expiration),
            },
            indent=2,
        )

    def _profile(self, node: _Node) -> str:
        account_id = node.role_arn.split(":")[4]
        return json.dumps(
            {
                "Code": "Success",
                "LastUpdated": _time(self._clock.now()),
                "InstanceProfileArn": f"arn:aws:iam::{account_id}:instance-profile/{node.role_name}",
                "InstanceProfileId": "AIPA" + node.instance_id.removeprefix("i-").upper()[:17],
            },
            indent=2,
        )

    def _document(self, node: _Node) -> str:
        return json.dumps(
            {
                "accountId": node.role_arn.split(":")[4],
                "architecture": "x86_64",
                "availabilityZone": node.availability_zone,
                "imageId": "ami-0123456789abcdef0",
                "instanceId": node.instance_id,
                "instanceType": "m5.large",
                "region": node.region,
                "version": "2017-09-30",
            },
            indent=2,
        )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
