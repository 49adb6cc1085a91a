"""The public OIDC issuer of all clusters, `https://oidc.eks.REGION.amazonaws.com`. Anybody can read its documents.

https://openid.net/specs/openid-connect-discovery-1_0.html
"""

import json

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from labkit.simulator.kubernetes.objects.kinds import Object
from labkit.simulator.published import IssuerAnswer, Published

# Key: a path below an issuer's own path. Value: the name of the document at that path.
PATHS = {"/.well-known/openid-configuration": "openid-configuration", "/keys": "keys"}


class PublicIssuer:
    """An ASGI app that serves each cluster's discovery document and keys.

    If ``published`` has an override for a document, the app serves the override instead of the document.
    """

    def __init__(self, published: Published) -> None:
        self._published = published
        self._documents: dict[str, Object] = {}

    def publish(self, path: str, discovery: Object, jwks: Object) -> None:
        """Serve both documents below ``path``, for example ``/id/0123456789ABCDEF0123456789ABCDEF``."""
        self._documents[path] = {"openid-configuration": discovery, "keys": jwks}

    def withdraw(self, path: str) -> None:
        """Stop serving the documents below ``path``. The cluster's tokens can no longer be verified."""
        self._documents.pop(path, None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] in ("GET", "HEAD"):
            answer = self._answer(scope["path"])
        else:
            answer = IssuerAnswer(405, '{"message":"Method Not Allowed"}')
        response = Response(answer.body, answer.status, media_type=answer.content_type)
        await response(scope, receive, send)

    def _answer(self, path: str) -> IssuerAnswer:
        for below, name in PATHS.items():
            issuer = path.removesuffix(below)
            if path.endswith(below) and (documents := self._documents.get(issuer)):
                return self._published.override(issuer, name).get() or IssuerAnswer(200, json.dumps(documents[name]))
        return IssuerAnswer(404, '{"message":"Not Found"}')
