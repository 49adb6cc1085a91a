"""The API server of one cluster: an ASGI application that answers like kube-apiserver 1.36.

https://kubernetes.io/docs/concepts/overview/kubernetes-api/
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from starlette.types import Receive, Scope, Send

from labkit.simulator.certificates import Authority, Certificate
from labkit.simulator.clock import Clock
from labkit.simulator.database import NotWritten
from labkit.simulator.identifiers import Identifiers
from labkit.simulator.kubernetes.access import roles
from labkit.simulator.kubernetes.access.authentication import Authenticator, User
from labkit.simulator.kubernetes.access.authorization import Authorizer
from labkit.simulator.kubernetes.access.impersonation import impersonated
from labkit.simulator.kubernetes.access.tokens import Tokens
from labkit.simulator.kubernetes.api.access_reviews import Reviews
from labkit.simulator.kubernetes.api.admission import Admission
from labkit.simulator.kubernetes.api.paths import Paths
from labkit.simulator.kubernetes.api.requests import JSON, LIMIT, KubeRequest, KubeResponse, in_media_type, respond
from labkit.simulator.kubernetes.api.resources import Resources
from labkit.simulator.kubernetes.api.routes import Routes
from labkit.simulator.kubernetes.api.streams import STREAMED, Kubelets
from labkit.simulator.kubernetes.controllers.controllers import Controllers
from labkit.simulator.kubernetes.controllers.token_secrets import TokenSecrets
from labkit.simulator.kubernetes.objects.defaults import with_defaults
from labkit.simulator.kubernetes.objects.kinds import BY_NAME, NAMESPACE, POD, SERVICE, Object
from labkit.simulator.kubernetes.objects.status import ApiError, bad_request, forbidden, too_large
from labkit.simulator.kubernetes.objects.storage import Storage, dump
from labkit.webhook.body import ClientDisconnect, TooLong, whole

# If all warnings together have more characters than the first number, each is cut to the second number.
# https://github.com/kubernetes/kubernetes/blob/v1.36.0/staging/src/k8s.io/apiserver/pkg/endpoints/filters/warning.go
TOTAL_OF_WARNINGS, LONGEST_WARNING = 4 * 1024, 256
CONTROL = re.compile("[\0-\x1f\x7f-\x9f]")
NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")

log = logging.getLogger(__name__)


class ApiServer:
    """One cluster's API server: an ASGI application (http and websocket). Create it in the event loop.

    - ``authority`` signed the certificates of clients, of this server, and of kubelets.
    - ``signing_key_pem`` is the RSA key that signs service account tokens.
    - ``issuer`` is the `iss` of these tokens, and the audience for the API server itself.
    - ``kubelet_certificate`` is the client certificate with which this server calls kubelets.
    - ``address`` is this server's `HOST:PORT` for clients.
    - ``file`` stores the objects. With None, they exist only in memory.

    The web server puts a client's verified certificate into ``scope["state"]["peer"]``. Its ``common_name`` is the
    user, and its ``organizations`` are the user's groups. Raises `LabError` if ``file`` can't be used.
    """

    def __init__(
        self,
        *,
        authority: Authority,
        signing_key_pem: bytes,
        issuer: str,
        clock: Clock,
        identifiers: Identifiers,
        kubelet_certificate: Certificate,
        address: str = "127.0.0.1:443",
        file: Path | None = None,
    ):
        self.storage = Storage(clock, identifiers, file)
        self.tokens = Tokens(signing_key_pem, issuer, clock, identifiers, self.storage)
        self.authentication = Authenticator(self.tokens)
        self.authorization = Authorizer(self.storage)
        self.admission = Admission(self.storage, self.authorization)
        self.kubelets = Kubelets(self.storage, authority, kubelet_certificate)
        self.resources = Resources(self.storage, self.admission)
        self.paths = Paths(self.tokens, self.admission.counters, address)
        self.routes = Routes(self.resources, self.kubelets, Reviews(self.authentication, self.authorization))
        self.controllers = Controllers(self.resources, authority.certificate_pem, _soon)
        TokenSecrets(self.storage, self.tokens, authority.certificate_pem, _soon)
        self.storage.announce()
        _ensure_first_objects(self.storage, address)

    async def close(self) -> None:
        """Stop the controllers, close the connections to webhooks and kubelets, and close the file."""
        self.controllers.close()
        await self.admission.close()
        await self.kubelets.close()
        self.storage.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = KubeRequest.of_scope(scope)
        try:
            request.user = await self._user(scope, request)
            self.authorization.require(request.user, request.attributes)
            request.body = await whole(receive, LIMIT)
            response = await (self.routes if request.resource else self.paths).answer(request)
            if request.resource and response.content_type == JSON and response.stream is None:
                response = await in_media_type(response, request)
        except ClientDisconnect:
            return  # the client left before it sent the whole request
        except (ApiError, TooLong) as error:
            refused = error if isinstance(error, ApiError) else too_large(LIMIT)
            response = respond(refused.status(), refused.code)
        except NotWritten as error:
            response = respond(ApiError(500, "InternalError", str(error)).status(), 500)
        except Exception as error:
            log.exception("%s %s", request.method, request.path)
            message = f"{type(error).__name__} while answering {request.method} {request.path}"
            response = respond(ApiError(500, "InternalError", message).status(), 500)
        response.headers += [
            (b"warning", b"299 - " + dump(text)) for text in _warnings(dict.fromkeys(request.warnings))
        ]
        await _send(response, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = KubeRequest.of_scope({**scope, "method": "GET"})
        await receive()  # websocket.connect

        async def refuse(error: ApiError) -> None:
            if "websocket.http.response" not in (scope.get("extensions") or {}):
                await send({"type": "websocket.close", "code": 1008, "reason": error.message[:120]})
                return
            headers = [(b"content-type", b"application/json")]
            await send({"type": "websocket.http.response.start", "status": error.code, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": dump(error.status())})

        try:
            request.user = await self._user(scope, request)
            if request.group or request.resource != "pods" or request.subresource not in STREAMED:
                raise bad_request("only exec and attach of pods take a WebSocket")
            self._authorize_stream(request, scope)
        except ApiError as error:
            await refuse(error)
            return
        await self.kubelets.join(request, scope, receive, send, refuse)

    def _authorize_stream(self, request: KubeRequest, scope: Scope) -> None:
        """Raise Forbidden if the caller may not open the pod's exec or attach.

        https://kubernetes.io/docs/reference/access-authn-authz/authorization/#request-verb-resource
        """
        # kubectl offers only v5. If a real server refuses kubectl's WebSocket for lack of `get`, kubectl sends a POST,
        # which needs only `create`.
        if scope.get("subprotocols") != ["v5.channel.k8s.io"]:
            self.authorization.require(request.user, request.attributes)
        if not self.authorization.authorize(request.user, replace(request.attributes, verb="create")).allowed:
            raise forbidden(POD, request.name, "")

    async def _user(self, scope: Scope, request: KubeRequest) -> User:
        user = await self.authentication.user(scope, request.headers)
        return impersonated(scope["headers"], user, self.authorization)


def _ensure_first_objects(storage: Storage, address: str) -> None:
    """Create a new cluster's namespaces, RBAC's default roles, and the API server's own service, at ``address``.

    In a restored cluster, change nothing except the address of this service.
    https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/#initial-namespaces
    """
    if storage.is_new:
        for namespace in NAMESPACES:
            storage.create(NAMESPACE, with_defaults(NAMESPACE.kind, {"metadata": {"name": namespace}}))
        for role in roles.CLUSTER_ROLES:
            storage.create(BY_NAME["ClusterRole"], roles.cluster_role(role))
        for role in roles.CLUSTER_BINDINGS:
            storage.create(BY_NAME["ClusterRoleBinding"], roles.cluster_binding(role))
        storage.create(SERVICE, _service(address))
    elif service := storage.find(SERVICE, "default", "kubernetes"):
        spec = service.object["spec"] | _service(address)["spec"]
        storage.replace(SERVICE, service, {**service.object, "spec": spec}, service.managers)


def _service(address: str) -> Object:
    """Return the service by which pods find the API server.

    https://kubernetes.io/docs/tasks/access-application-cluster/access-cluster/#directly-accessing-the-rest-api
    """
    host, _, port = address.rpartition(":")
    labels = {"component": "apiserver", "provider": "kubernetes"}
    metadata = {"name": "kubernetes", "namespace": "default", "labels": labels}
    ports = [{"name": "https", "port": int(port)}]
    # The service has the address at which the API server really listens.
    spec = {"ports": ports, "clusterIP": host, "clusterIPs": [host]}
    return with_defaults("Service", {"metadata": metadata, "spec": spec})


def _warnings(texts: Iterable[str]) -> Iterator[str]:
    """Yield the warnings that a real server would send for these texts.

    Texts with control characters are left out. If all other texts together are longer than `TOTAL_OF_WARNINGS`, each
    is cut to `LONGEST_WARNING` characters. As soon as the cut texts together reach `TOTAL_OF_WARNINGS` characters, the
    remaining texts are left out.
    """
    allowed = [text for text in texts if not CONTROL.search(text)]
    too_long, length = sum(map(len, allowed)) > TOTAL_OF_WARNINGS, 0
    for text in allowed:
        if length >= TOTAL_OF_WARNINGS:
            return
        yield text[:LONGEST_WARNING] if too_long else text
        length += len(text[:LONGEST_WARNING])


def _soon(task: Callable[[], object]) -> None:
    def run() -> None:
        try:
            task()
        except NotWritten as error:
            log.warning("%s", error)
        except ApiError as error:
            # Another client changed the object first. Its change makes the controllers look again.
            log.debug("%s", error)

    try:
        asyncio.get_running_loop().call_soon(run)
    except RuntimeError:
        run()


async def _send(response: KubeResponse, receive: Receive, send: Send) -> None:
    headers = [(b"content-type", response.content_type.encode()), *response.headers]
    if response.stream is None:
        headers.append((b"content-length", str(len(response.body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if response.stream is None:
        await send({"type": "http.response.body", "body": response.body})
        return
    # The client has to see at once that the stream has begun.
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    sending = asyncio.create_task(_stream(response.stream, send))
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


async def _stream(parts: AsyncGenerator[bytes], send: Send) -> None:
    async for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
