"""Answer requests for paths that aren't resources: health, version, discovery, schemas, issuer keys, counters.

https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api
"""

from labkit.simulator.kubernetes.access.tokens import Tokens
from labkit.simulator.kubernetes.api import discovery
from labkit.simulator.kubernetes.api.counters import Counters
from labkit.simulator.kubernetes.api.requests import KubeRequest, KubeResponse, respond
from labkit.simulator.kubernetes.objects.kinds import GROUPS, Object
from labkit.simulator.kubernetes.objects.status import method_not_allowed, not_acceptable, unknown_path
from labkit.simulator.kubernetes.objects.storage import dump

HEALTH = ("/healthz", "/readyz", "/livez")
TEXT = "text/plain;charset=utf-8"
METRICS = "text/plain; version=0.0.4; charset=utf-8"


class Paths:
    """Answer requests for paths that aren't resources. ``address`` is the server's `HOST:PORT` for clients."""

    def __init__(self, tokens: Tokens, counters: Counters, address: str):
        self.tokens, self.counters, self.address = tokens, counters, address

    async def answer(self, request: KubeRequest) -> KubeResponse:
        """Answer the request. Raises ``ApiError`` for an unknown API path, or for any method but GET and HEAD."""
        path = request.path.rstrip("/") or "/"
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed()
        if path in (*HEALTH, "/metrics"):
            return (
                KubeResponse(200, b"ok", TEXT) if path in HEALTH else KubeResponse(200, self.counters.text(), METRICS)
            )
        if path == "/openid/v1/jwks":
            accept = request.headers.get(b"accept", b"*/*")
            if b"*/*" not in accept and b"jwk-set+json" not in accept:
                raise not_acceptable("application/jwk-set+json")
            return KubeResponse(200, dump(self.tokens.jwks()), "application/jwk-set+json")
        if path in ("/api", "/apis") and self._aggregates(request):
            return KubeResponse(200, dump(discovery.aggregated(core=path == "/api")), discovery.AGGREGATED)
        if path == "/openapi/v2" and b"protobuf" in request.headers.get(b"accept", b""):
            # kubectl requests version 2 if version 3 lacks a kind. `swagger: "2.0"` is all that kubectl needs.
            return KubeResponse(200, b"\x0a\x032.0", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf")
        document = self._document(path)
        if document is None:
            if path.startswith(("/api/", "/apis/")):
                raise unknown_path()
            return KubeResponse(404, b"404 page not found\n", TEXT)
        response = respond(document)
        if path == "/openapi/v3":
            response.content_type = TEXT
        return response

    def _document(self, path: str) -> Object | bytes | None:
        match path.strip("/").split("/"):
            case [".well-known", "openid-configuration"]:
                return self.tokens.discovery_document(f"https://{self.address}/openid/v1/jwks")
            case ["version"]:
                return discovery.version()
            case ["api"]:
                return discovery.versions(self.address)
            case ["apis"]:
                return discovery.groups()
            case ["api", "v1"]:
                return discovery.resources("")
            case ["apis", group]:
                return discovery.group(group)
            case ["apis", group, "v1"] if group:
                return discovery.resources(group)
            case ["openapi", *below]:
                return _schemas(below)
            case [""]:
                return {"paths": ["/api", "/api/v1", "/apis", *HEALTH, "/openapi/v3", "/version"]}
        return None

    @staticmethod
    def _aggregates(request: KubeRequest) -> bool:
        accept = request.headers.get(b"accept", b"").decode("latin-1").partition(",")[0]
        return "as=APIGroupDiscoveryList" in accept and "v=v2;" in accept + ";"


def _schemas(below: list[str]) -> Object | bytes | None:
    """Return the document at a path below `/openapi`."""
    match below:
        case ["v2"]:
            return {"swagger": "2.0", "info": {"title": "Kubernetes", "version": discovery.VERSION}, "paths": {}}
        case ["v3"]:
            return discovery.openapi_index()
        case ["v3", "api", "v1"]:
            return discovery.openapi("")
        case ["v3", "apis", group, "v1"] if group in GROUPS:
            return discovery.openapi(group)
    return None
