"""The public OIDC issuer: what `https://oidc.eks.REGION.amazonaws.com` gives to anybody.

https://openid.net/specs/openid-connect-discovery-1_0.html
"""

import json
from collections.abc import Callable, MutableMapping
from typing import Any

DISCOVERY, KEYS = "/.well-known/openid-configuration", "/keys"


class Issuer:
    """An ASGI application that serves the discovery documents and keys of clusters."""

    def __init__(self) -> None:
        self._documents: dict[str, bytes] = {}

    def publish(self, path: str, discovery: dict, jwks: dict) -> None:
        """Serves both documents below ``path``, e.g. ``/id/0123456789ABCDEF0123456789ABCDEF``."""
        self._documents[path + DISCOVERY] = json.dumps(discovery).encode()
        self._documents[path + KEYS] = json.dumps(jwks).encode()

    def withdraw(self, path: str) -> None:
        """Serves them no longer: tokens of that cluster can be verified by nobody any more."""
        self._documents.pop(path + DISCOVERY, None)
        self._documents.pop(path + KEYS, None)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            return
        document = self._documents.get(scope["path"])
        if scope["method"] not in ("GET", "HEAD"):
            status, body = 405, b'{"message":"Method Not Allowed"}'
        elif document is None:
            status, body = 404, b'{"message":"Not Found"}'
        else:
            status, body = 200, document
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
