"""The API server of one cluster: an ASGI application that answers as a kube-apiserver 1.36 does.

https://kubernetes.io/docs/concepts/overview/kubernetes-api/
"""

import asyncio
import logging
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from typing import Any

from labkit.emulator.certificates import Authority, Certificate
from labkit.emulator.clock import Clock
from labkit.emulator.identifiers import Identifiers
from labkit.emulator.kubernetes.access.authentication import Authentication, User
from labkit.emulator.kubernetes.access.authorization import Authorization
from labkit.emulator.kubernetes.access.impersonation import impersonated
from labkit.emulator.kubernetes.access.tokens import Tokens
from labkit.emulator.kubernetes.api import discovery, first_objects, node_restriction
from labkit.emulator.kubernetes.api.admission import Admission
from labkit.emulator.kubernetes.api.requests import JSON, LIMIT, Request, Response, in_media_type, respond
from labkit.emulator.kubernetes.api.resources import Resources
from labkit.emulator.kubernetes.api.reviews import Reviews
from labkit.emulator.kubernetes.api.scale import scale
from labkit.emulator.kubernetes.api.streams import STREAMED, Kubelets
from labkit.emulator.kubernetes.controllers.aggregation import Aggregation
from labkit.emulator.kubernetes.controllers.controllers import Controllers
from labkit.emulator.kubernetes.controllers.token_secrets import TokenSecrets
from labkit.emulator.kubernetes.objects import writes
from labkit.emulator.kubernetes.objects.kinds import (
    BY_RESOURCE,
    NAMESPACE,
    POD,
    SERVICE_ACCOUNT,
    SUBRESOURCE,
    Kind,
    Subresource,
)
from labkit.emulator.kubernetes.objects.status import (
    ApiError,
    bad_request,
    conflict,
    forbidden,
    method_not_allowed,
    not_acceptable,
    too_large,
    unknown_path,
)
from labkit.emulator.kubernetes.objects.storage import Storage, dump

Scope = MutableMapping[str, Any]
log = logging.getLogger(__name__)
HEALTH = ("/healthz", "/readyz", "/livez")
TEXT = "text/plain;charset=utf-8"


class ApiServer:
    """An ASGI application (http and websocket) for one cluster.

    ``authority`` signed the certificates of clients, of this server and of kubelets; ``signing_key_pem`` (RSA) signs
    service account tokens; ``issuer`` is their `iss` and the API's own audience; ``kubelet_certificate`` is what this
    server shows to kubelets; ``address`` is `HOST:PORT` as clients reach it. A verified client certificate is read from
    ``scope["state"]["peer"]`` (``common_name`` is the user, ``organizations`` are the groups).
    """

    def __init__(
        self,
        *,
        name: str,
        authority: Authority,
        signing_key_pem: bytes,
        issuer: str,
        clock: Clock,
        identifiers: Identifiers,
        kubelet_certificate: Certificate,
        address: str = "127.0.0.1:443",
    ):
        self.name, self.issuer, self.address = name, issuer, address
        self.storage = Storage(clock, identifiers)
        self.tokens = Tokens(signing_key_pem, issuer, clock, identifiers, self.storage)
        self.authentication = Authentication(self.tokens)
        self.authorization = Authorization(self.storage)
        self.admission = Admission(self.storage, self.authorization)
        self.kubelets = Kubelets(self.storage, authority, kubelet_certificate)
        self.resources = Resources(self.storage, self.admission)
        self.reviews = Reviews(self.authentication, self.authorization)
        self.controllers = Controllers(self.resources, authority.certificate_pem, _soon)
        TokenSecrets(self.storage, self.tokens, authority.certificate_pem, _soon)
        Aggregation(self.storage, _soon)
        first_objects.create(self.storage, address)

    def discovery_document(self) -> dict:
        """What this server gives at `/.well-known/openid-configuration`."""
        return self._discovery(f"https://{self.address}/openid/v1/jwks")

    def public_discovery_document(self) -> dict:
        """The same with the keys where the public issuer has them: `ISSUER/keys`."""
        return self._discovery(f"{self.issuer}/keys")

    def jwks(self) -> dict:
        """The signing key's public half (RFC 7517)."""
        return self.tokens.jwks()

    async def close(self) -> None:
        """Ends the controllers and the connections to webhooks and kubelets."""
        self.controllers.close()
        await self.admission.close()
        await self.kubelets.close()

    async def __call__(self, scope: Scope, receive: Callable, send: Callable) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)

    async def _http(self, scope: Scope, receive: Callable, send: Callable) -> None:
        request = Request.read(scope)
        try:
            request.body = await _body(receive)
            request.user = await self._caller(scope, request)
            response = await self._answer(request)
            if request.resource and response.content_type == JSON and response.stream is None:
                response = in_media_type(response, request)
        except ApiError as error:
            response = respond(error.status(), error.code)
        except Exception as error:
            log.exception("%s %s", request.method, request.path)
            message = f"{type(error).__name__} while answering {request.method} {request.path}"
            response = respond(ApiError(500, "InternalError", message).status(), 500)
        response.headers += [
            (b"warning", f"299 - {dump(text).decode()}".encode()) for text in dict.fromkeys(request.warnings)
        ]
        await _send(response, receive, send)

    async def _websocket(self, scope: Scope, receive: Callable, send: Callable) -> None:
        request = Request.read({**scope, "method": "GET"})
        await receive()  # websocket.connect

        async def refuse(error: ApiError) -> None:
            if "websocket.http.response" not in (scope.get("extensions") or {}):
                await send({"type": "websocket.close", "code": 1008, "reason": error.message[:120]})
                return
            headers = [(b"content-type", b"application/json")]
            await send({"type": "websocket.http.response.start", "status": error.code, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": dump(error.status())})

        try:
            request.user = await self.authentication.user(scope, request.headers)
            request.user = impersonated(scope["headers"], request.user, self.authorization)
            if request.group or request.resource != "pods" or request.subresource not in STREAMED:
                raise bad_request("this resource has no WebSocket")
            self._authorize_stream(request, scope)
        except ApiError as error:
            await refuse(error)
            return
        await self.kubelets.join(request, scope, receive, send, refuse)

    def _authorize_stream(self, request: Request, scope: Scope) -> None:
        """Raises Forbidden for who may not `get` and `create` the pod's exec or attach.

        kubectl, which offers v5 alone, needs `create` alone: where `get` is refused, it asks a real server by POST.
        https://kubernetes.io/docs/reference/access-authn-authz/authorization/#request-verb-resource
        """
        if scope.get("subprotocols") != ["v5.channel.k8s.io"]:
            self.authorization.require(request.user, request.attributes)
        if not self.authorization.authorize(request.user, replace(request.attributes, verb="create")).allowed:
            raise forbidden(POD, request.name, "")

    async def _caller(self, scope: Scope, request: Request) -> User:
        """Who calls and may do what the request asks. Raises Unauthorized or Forbidden."""
        user = await self.authentication.user(scope, request.headers)
        user = impersonated(scope["headers"], user, self.authorization)
        self.authorization.require(user, request.attributes)
        return user

    async def _answer(self, request: Request) -> Response:
        if not request.resource:
            return self._path(request)
        kind = BY_RESOURCE.get((request.group, request.version, request.resource))
        below = f"{request.resource}/{request.subresource}" if request.subresource else request.resource
        sub = SUBRESOURCE.get((request.group, below)) if request.version == "v1" else None
        if sub and not (kind and not request.subresource):
            return await self._below(kind, sub, request)
        if kind is None or request.subresource or (kind.namespaced and request.name and not request.namespace):
            raise unknown_path()
        if request.namespace and not kind.namespaced and kind is not NAMESPACE:
            raise unknown_path()
        return await self._verb(kind, request)

    async def _verb(self, kind: Kind, request: Request) -> Response:
        if request.method == "GET":
            request.media_type()
        if request.verb not in kind.verbs:
            raise method_not_allowed()
        match request.verb:
            case "get" if request.method in ("GET", "HEAD"):
                return self.resources.get(kind, request)
            case "list" if request.method in ("GET", "HEAD"):
                return self.resources.list(kind, request)
            case "watch":
                return self.resources.watch(kind, request)
            case "create" if not request.name and (request.namespace or not kind.namespaced):
                return await self.resources.create(kind, request)
            case "update" if request.name:
                return await self.resources.update(kind, request)
            case "patch" if request.name:
                return await self.resources.patch(kind, request)
            case "delete":
                return await self.resources.delete(kind, request)
            case "deletecollection":
                return await self.resources.delete_collection(kind, request)
        raise method_not_allowed()

    async def _below(self, kind: Kind | None, sub: Subresource, request: Request) -> Response:
        if request.verb not in sub.verbs:
            raise method_not_allowed()
        match sub.name:
            case "pods/log":
                return await self.kubelets.log(request)
            case "pods/exec" | "pods/attach":
                raise self.kubelets.refuse_without_websocket(request)
            case "pods/portforward":
                raise self.kubelets.refuse_port_forward(request)
            case "pods/binding":
                return self._bind(request)
            case "deployments/scale" | "replicasets/scale":
                return await scale(self.resources, kind, request)
            case "serviceaccounts/token":
                account = self.storage.get(SERVICE_ACCOUNT, request.namespace, request.name)
                body = request.document(sub.type, sub.kind, "authentication.k8s.io/v1")
                spec = body.get("spec") or {}
                node_restriction.check_token(self.authorization, request.user, account, spec)
                return respond(self.tokens.request(account, spec, request.warnings), 201)
        if kind is None:
            return await self.reviews.answer(sub, request)
        match request.verb:
            case "get":
                return self.resources.get(kind, request)
            case "update":
                return await self.resources.update(kind, request)
        return await self.resources.patch(kind, request)

    def _bind(self, request: Request) -> Response:
        target = request.document("core.Binding", "Binding", "v1").get("target") or {}
        pod = self.storage.get(POD, request.namespace, request.name)
        if node := pod.object["spec"].get("nodeName"):
            error = conflict(
                POD, pod.name, f'pod {pod.name} is already assigned to node "{node}"', called="pods/binding"
            )
            raise error
        writes.bind(self.storage, pod, target.get("name", ""))
        return respond({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201)

    def _path(self, request: Request) -> Response:
        path = request.path.rstrip("/") or "/"
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed()
        if path in HEALTH:
            return Response(200, b"ok", TEXT)
        if path == "/openid/v1/jwks":
            accept = request.headers.get(b"accept", b"*/*")
            if b"*/*" not in accept and b"jwk-set+json" not in accept:
                raise not_acceptable("application/jwk-set+json")
            return Response(200, dump(self.jwks()), "application/jwk-set+json")
        if path in ("/openapi/v3", "/api", "/apis") and path != "/openapi/v3" and self._aggregates(request):
            return Response(200, dump(discovery.aggregated(core=path == "/api")), discovery.AGGREGATED)
        if path == "/openapi/v2" and b"protobuf" in request.headers.get(b"accept", b""):
            # kubectl asks for it about a kind that version 3 does not have: `swagger: "2.0"` and no more.
            return Response(200, b"\x0a\x032.0", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf")
        document = self._document(path)
        if document is None:
            if path.startswith(("/api/", "/apis/")):
                raise unknown_path()
            return Response(404, b"404 page not found\n", TEXT)
        return Response(200, document, TEXT) if path == "/openapi/v3" else respond(document)

    def _document(self, path: str) -> bytes | None:
        parts = path.strip("/").split("/")
        match parts:
            case [".well-known", "openid-configuration"]:
                return dump(self.discovery_document())
            case ["version"]:
                return dump(discovery.version())
            case ["api"]:
                return dump(discovery.versions(self.address))
            case ["apis"]:
                return dump(discovery.groups())
            case ["api", "v1"]:
                return dump(discovery.resources(""))
            case ["apis", group]:
                return _dumped(discovery.group(group))
            case ["apis", group, "v1"] if group:
                return _dumped(discovery.resources(group))
            case ["openapi", "v2"]:
                return dump(
                    {"swagger": "2.0", "info": {"title": "Kubernetes", "version": discovery.VERSION}, "paths": {}}
                )
            case ["openapi", "v3"]:
                return dump(discovery.openapi_index())
            case ["openapi", "v3", "api", "v1"]:
                return discovery.openapi("")
            case ["openapi", "v3", "apis", group, "v1"] if group in discovery.GROUPS:
                return discovery.openapi(group)
            case [""]:
                return dump({"paths": ["/api", "/api/v1", "/apis", *HEALTH, "/openapi/v3", "/version"]})
        return None

    @staticmethod
    def _aggregates(request: Request) -> bool:
        accept = request.headers.get(b"accept", b"").decode("latin-1").partition(",")[0]
        return "as=APIGroupDiscoveryList" in accept and "v=v2;" in accept + ";"

    def _discovery(self, keys: str) -> dict:
        return {
            "issuer": self.issuer,
            "jwks_uri": keys,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }


def _soon(task: Callable[[], None]) -> None:
    def run() -> None:
        try:
            task()
        except ApiError as error:
            # Somebody else was faster: the change that this was about is followed by another one.
            log.debug("%s", error)

    try:
        asyncio.get_running_loop().call_soon(run)
    except RuntimeError:
        run()


def _dumped(document: dict | None) -> bytes | None:
    return None if document is None else dump(document)


async def _body(receive: Callable) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
        part = message.get("body", b"")
        size += len(part)
        if size > LIMIT:
            raise too_large(LIMIT)
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)


async def _send(response: Response, receive: Callable, send: Callable) -> None:
    headers = [(b"content-type", response.content_type.encode()), *response.headers]
    if response.stream is None:
        headers.append((b"content-length", str(len(response.body)).encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})
        return
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    # The client has to see at once that the stream has begun.
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    sending = asyncio.create_task(_stream(response, send))
    leaving = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
            await send({"type": "http.response.body", "body": b""})
    finally:
        for task in (sending, leaving):
            task.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)
        await response.stream.aclose()


async def _stream(response: Response, send: Callable) -> None:
    async for part in response.stream:
        await send({"type": "http.response.body", "body": part, "more_body": True})


async def _gone(receive: Callable) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
