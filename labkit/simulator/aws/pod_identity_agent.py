"""The EKS Pod Identity Agent of a node. It sends a pod's token to EKS Auth, and returns credentials to the pod.

What differs from AWS:

- The address: on EKS the agent listens on the node's address 169.254.170.23. Here it listens on a port of loopback,
  which SDKs also accept. The node writes the agent's address into each container's environment.
- The cache: EKS's agent keeps a token's credentials for three hours. The lab's agent asks EKS Auth each time.
- Missing parts: IPv6, the rate limit, the probes and the metrics.

https://docs.aws.amazon.com/eks/latest/userguide/pod-id-agent-setup.html
https://github.com/aws/eks-pod-identity-agent
"""

import json
from collections.abc import Callable, Mapping

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from labkit.policy.arn import Arn
from labkit.simulator.aws.call import Call
from labkit.simulator.aws.gate import Gate
from labkit.simulator.clock import Clock, rfc3339
from labkit.tokens import Claims, NotAToken

PATH = "/v1/credentials"
LONGEST_TOKEN = 64 * 1024


class PodIdentityAgent:
    """The agent of one node, as an ASGI application. It calls EKS Auth with the node's own credentials.

    ``node_credentials`` returns the node's credentials as a mapping. The field names, such as ``AccessKeyId``, are
    those of the instance metadata service.
    """

    def __init__(
        self, gate: Gate, clock: Clock, *, cluster: str, region: str, node_credentials: Callable[[], Mapping[str, str]]
    ) -> None:
        self._gate = gate
        self._clock = clock
        self._cluster, self._region = cluster, region
        self._node_credentials = node_credentials
        self._app = Starlette(routes=[Route(PATH, self._credentials)])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._app(scope, receive, send)

    async def _credentials(self, request: Request) -> Response:
        token = request.headers.get("authorization", "")
        if wrong := self._malformed(token):
            return PlainTextResponse(f"{wrong}\n", 400)
        answer = (await self._gate.respond(self._call(token))).response
        if answer.status != 200:
            request_id = dict(answer.headers).get("x-amzn-requestid", "")
            said = json.loads(answer.body or b"{}").get("message", "")
            fault = "client" if answer.status < 500 else "server"
            message = f"[{request_id}]: ({answer.error_code}): {said}, fault: {fault}\n"
            return PlainTextResponse(message, answer.status)
        exchanged = json.loads(answer.body)
        given = exchanged["credentials"]
        return JSONResponse(
            {
                "AccessKeyId": given["accessKeyId"],
                "SecretAccessKey": given["secretAccessKey"],
                "Token": given["sessionToken"],
                "AccountId": Arn.parse(exchanged["assumedRoleUser"]["arn"]).account,
                "Expiration": rfc3339(given["expiration"]),
            }
        )

    def _malformed(self, token: str) -> str:
        if not token:
            return "Service account token cannot be empty"
        if len(token) > LONGEST_TOKEN:
            return "Service account token cannot be parsed: token is malformed: it is too long"
        try:
            expires = Claims.parse(token).expires
        except NotAToken as error:
            reason = "Not enough segments" if token.count(".") < 2 else error
            return f"Service account token cannot be parsed: token is malformed: {reason}"
        if expires is not None and expires <= self._clock.now():
            message = "token has invalid claims: token is expired"
            return f"Service account token failed basic claim validations: {message}"
        return ""

    def _call(self, token: str) -> Call:
        host, path = f"eks-auth.{self._region}.api.aws", f"/clusters/{self._cluster}/assume-role-for-pod-identity"
        body = json.dumps({"token": token}).encode()
        headers = {"host": host, "content-type": "application/json", "user-agent": "eks-pod-identity-agent"}
        request = AWSRequest("POST", f"https://{host}{path}", headers=headers, data=body)
        held = self._node_credentials()
        keys = Credentials(held["AccessKeyId"], held["SecretAccessKey"], held["Token"])
        SigV4Auth(keys, "eks-auth", self._region).add_auth(request)
        signed = [(name.lower(), value) for name, value in request.headers.items()]
        return Call("POST", path, "", signed, body)
