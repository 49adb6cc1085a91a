"""The token of ``aws eks get-token``: a presigned URL of GetCallerIdentity. It tells an API server who the caller is.

What differs from AWS:

- The ConfigMap `aws-auth`: never read. Only access entries let a principal in.

https://docs.aws.amazon.com/eks/latest/userguide/cluster-auth.html
https://github.com/kubernetes-sigs/aws-iam-authenticator#how-does-it-work
"""

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import urlsplit

from labkit.policy.arn import Arn
from labkit.simulator.aws.call import Call
from labkit.simulator.aws.gate import Gate

PREFIX = "k8s-aws-v1."
CLUSTER_HEADER = "x-k8s-aws-id"
LONGEST = 4096
LONGEST_EXPIRY = 900
PARAMETERS = {
    "Action", "Version", "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-Security-Token",
    "X-Amz-Signature", "X-Amz-SignedHeaders",
}  # fmt: skip


class RejectedToken(Exception):
    """The token is malformed, or STS doesn't accept it. The message is for the lab's log, never for the caller."""


@dataclass(frozen=True)
class IamIdentity:
    """The IAM principal that a token represents."""

    arn: str
    """The ARN in the answer of ``sts:GetCallerIdentity``."""
    principal_arn: str
    """The ARN of the IAM role or user itself, with its path."""
    account_id: str
    principal_id: str
    session_name: str
    access_key_id: str

    @property
    def canonical_arn(self) -> str:
        """The principal's ARN as aws-iam-authenticator writes it: for a role session, the role's ARN without a path."""
        named = Arn.parse(self.arn)
        return f"arn:{named.partition}:iam::{named.account}:role/{role}" if (role := named.session_role) else self.arn


async def verify(token: str, *, cluster: str, gate: Gate, endpoint_url: str) -> IamIdentity:
    """Return the principal that the token represents. Raises :class:`RejectedToken`.

    The token must be for the cluster named ``cluster``. The URL in the token must be on the lab's ``endpoint_url``.
    """
    call = _call(token, cluster, endpoint_url)
    outcome = await gate.respond(call)
    caller, request = outcome.signer, outcome.request
    if (
        outcome.response.status != 200
        or (request.service, request.operation) != ("sts", "GetCallerIdentity")
        or not caller
    ):
        raise RejectedToken(f"sts getCallerIdentity failed: {outcome.response.error_code}")
    principal_id, _, session_name = caller.principal_id.partition(":")
    return IamIdentity(
        arn=caller.arn,
        principal_arn=getattr(caller, "role_arn", caller.arn),
        account_id=caller.account_id,
        principal_id=principal_id,
        session_name=session_name,
        access_key_id=call.query["X-Amz-Credential"].partition("/")[0],
    )


def _call(token: str, cluster: str, endpoint_url: str) -> Call:
    """Return the call that the authenticator would send to STS for this token."""
    if len(token) > LONGEST:
        raise RejectedToken("the token is too large")
    encoded = token.removeprefix(PREFIX)
    try:
        url = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True).decode("ascii")
        parts, own = urlsplit(url), urlsplit(endpoint_url)
    except (binascii.Error, ValueError) as error:
        raise RejectedToken(str(error)) from error
    if (parts.scheme, parts.netloc) != (own.scheme, own.netloc):
        raise RejectedToken(f"unexpected host {parts.scheme}://{parts.netloc} in the presigned URL")
    if parts.path != "/" or parts.fragment:
        raise RejectedToken("unexpected path in the presigned URL")
    headers = [("host", own.netloc), (CLUSTER_HEADER, cluster), ("accept", "application/json")]
    call = Call("GET", "/", parts.query, headers, b"")
    if others := {name for name, _ in call.query_pairs} - PARAMETERS:
        raise RejectedToken(f"unexpected query parameters {sorted(others)}")
    if len(call.query_pairs) != len(call.query):
        raise RejectedToken("a query parameter with several values")
    if call.query.get("Action") != "GetCallerIdentity":
        raise RejectedToken("unexpected action in the presigned URL")
    # The authenticator doesn't send other signed headers, so STS would see another request than the signed one.
    if sorted(call.query.get("X-Amz-SignedHeaders", "").lower().split(";")) != ["host", CLUSTER_HEADER]:
        raise RejectedToken(f"the signed headers must be exactly host and {CLUSTER_HEADER}")
    expires = call.query.get("X-Amz-Expires", "")
    if not (expires.isdecimal() and len(expires) < 10 and int(expires) <= LONGEST_EXPIRY):
        raise RejectedToken("invalid X-Amz-Expires in the presigned URL")
    return call
