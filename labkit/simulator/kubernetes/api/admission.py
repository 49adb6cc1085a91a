"""Check and complete an object before it's stored, with `admission_plugins` and admission webhooks.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

import base64
import binascii
import json
import ssl
import uuid
from functools import partial
from typing import cast

import httpx
import jsonpointer

from labkit.simulator.certificates import client_context
from labkit.simulator.kubernetes.access.authorization import Authorizer
from labkit.simulator.kubernetes.api import admission_plugins, counters, loopback, match_conditions
from labkit.simulator.kubernetes.api.admission_plugins import Review
from labkit.simulator.kubernetes.api.patches import JsonPatching, NotApplicable
from labkit.simulator.kubernetes.objects.defaults import with_defaults
from labkit.simulator.kubernetes.objects.kinds import BY_NAME, NAMESPACE, POD, Kind, Object
from labkit.simulator.kubernetes.objects.selectors import object_selector
from labkit.simulator.kubernetes.objects.status import ApiError, internal
from labkit.simulator.kubernetes.objects.storage import Storage

WEBHOOKS = BY_NAME["MutatingWebhookConfiguration"]


class Admission:
    def __init__(self, storage: Storage, authorization: Authorizer):
        self.storage, self.authorization = storage, authorization
        self.counters = counters.Counters()
        self._clients: dict[str, httpx.AsyncClient] = {}

    async def admit(self, review: Review) -> Object:
        """Return the object as plugins and webhooks changed it. Raises ``ApiError`` if one of them refuses it."""
        pod = review.kind is POD and review.operation == "CREATE" and not review.subresource
        if pod:
            review.obj = admission_plugins.with_service_account(self.storage, review.obj)
        changed = await self._webhooks(review)
        if changed and review.obj:
            review.obj = with_defaults(review.kind.kind, review.obj)
            if pod:
                # Also mount the API's token in containers that a webhook added.
                review.obj = admission_plugins.with_service_account(self.storage, review.obj)
        admission_plugins.restrict_node(self.storage, review)
        admission_plugins.prevent_escalation(self.authorization, review)
        return review.obj

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    async def _webhooks(self, review: Review) -> bool:
        if review.kind is WEBHOOKS:
            return False  # a broken webhook could otherwise never be repaired
        called: list[tuple[Object, bytes]] = []
        changed = False
        for configuration in self.storage.list(WEBHOOKS):
            for webhook in configuration.object["webhooks"]:
                conditions, policy = webhook.get("matchConditions") or [], webhook["failurePolicy"]
                if not self._matches(webhook, review) or not match_conditions.hold(
                    conditions, policy, review, _request(review)
                ):
                    continue
                before = review.obj
                await self._call(webhook, review)
                changed = changed or review.obj != before
                called.append((webhook, json.dumps(review.obj, sort_keys=True).encode()))
        for webhook, seen in called[:-1]:
            if webhook.get("reinvocationPolicy") == "IfNeeded" and (
                json.dumps(review.obj, sort_keys=True).encode() != seen
            ):
                await self._call(webhook, review)
        return changed

    def _matches(self, webhook: Object, review: Review) -> bool:
        kind = review.kind
        if not any(_applies(rule, review) for rule in webhook["rules"]):
            return False
        if kind.namespaced or kind is NAMESPACE:
            namespace = self.storage.find(NAMESPACE, "", review.namespace or review.name)
            labels = namespace.metadata.get("labels") or {} if namespace else {}
            if not object_selector(webhook.get("namespaceSelector"))(labels):
                return False
        matches = object_selector(webhook.get("objectSelector"))
        return any(matches(obj["metadata"].get("labels") or {}) for obj in (review.obj, review.old) if obj)

    async def _call(self, webhook: Object, review: Review) -> None:
        name = webhook["name"]
        count = partial(self.counters.called, name, review.operation)
        try:
            response = await self._post(webhook, _request(review))
        except _CallFailed as failure:
            is_open = webhook.get("failurePolicy") == "Ignore"
            count(failure.code, rejected=not is_open, error_type=counters.CALLING)
            if is_open:
                self.counters.failed_open(name)
                return
            raise internal(f'failed calling webhook "{name}": {failure}') from failure
        review.warnings += response.get("warnings") or ()
        if not response.get("allowed"):
            denial = _denied(name, response.get("status") or {})
            count(denial.code, rejected=True)
            raise denial
        if patch := response.get("patch"):
            document = {"kind": review.kind.kind, "apiVersion": review.kind.api_version, **review.obj}
            try:
                patched = _patched(document, patch)
            except ApiError:
                count(0, rejected=True, error_type=counters.WITHIN)
                raise
            review.obj = {key: value for key, value in patched.items() if key not in ("kind", "apiVersion")}
        count(200, rejected=False)

    async def _post(self, webhook: Object, request: Object) -> Object:
        config, seconds = webhook["clientConfig"], webhook.get("timeoutSeconds", 10)
        if "url" not in config:
            service = config.get("service") or {}
            raise _CallFailed(f'failed to call webhook: service "{service.get("name")}" not found')
        url = f"{config['url']}?timeout={seconds}s"
        try:
            why = loopback.refusal(httpx.URL(url).host)
        except httpx.InvalidURL as error:
            why = str(error)
        if why:
            raise _CallFailed(f'failed to call webhook: Post "{url}": dial tcp: {why}')
        try:
            client = self._client(config.get("caBundle", ""))
            answer = await client.post(
                url,
                json={"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request},
                timeout=seconds,
            )
        except (httpx.HTTPError, ssl.SSLError, OSError) as error:
            raise _CallFailed(f'failed to call webhook: Post "{url}": {_go_error(error, config["url"])}') from error
        if answer.status_code != 200:
            raise _CallFailed(f"failed to call webhook: {_server_error(answer)}", answer.status_code)
        try:
            response = answer.json().get("response") or {}
        except ValueError as error:
            raise _CallFailed(f"failed to call webhook: {error}") from error
        if response.get("uid") != request["uid"]:
            raise _CallFailed(
                f'received invalid webhook response: expected response.uid="{request["uid"]}",'
                f' got "{response.get("uid", "")}"'
            )
        return response

    def _client(self, bundle: str) -> httpx.AsyncClient:
        if bundle not in self._clients:
            try:
                context = client_context(base64.b64decode(bundle)) if bundle else ssl.create_default_context()
            except (binascii.Error, ValueError, ssl.SSLError) as error:
                raise _CallFailed(f"failed to call webhook: unable to load root certificates: {error}", 500) from error
            self._clients[bundle] = httpx.AsyncClient(verify=context, trust_env=False)
        return self._clients[bundle]


class _CallFailed(Exception):
    """The call to a webhook failed. The webhook's failurePolicy decides whether the write is refused."""

    def __init__(self, why: str, code: int = 503):
        super().__init__(why)
        self.code = code
        """The HTTP status code with which the call is counted."""


def _applies(rule: Object, review: Review) -> bool:
    kind, below = review.kind, review.subresource
    resources = {f"{kind.plural}/{below}", f"{kind.plural}/*", f"*/{below}"} if below else {kind.plural, "*"}
    wanted = {
        "operations": {review.operation, "*"},
        "apiGroups": {kind.group, "*"},
        "apiVersions": {kind.version, "*"},
        "resources": {*resources, "*/*"},
    }
    scopes = ("*", "Namespaced" if kind.namespaced else "Cluster")
    return rule.get("scope", "*") in scopes and all(wanted[key] & set(rule.get(key, ())) for key in wanted)


def _request(review: Review) -> Object:
    kind = review.kind
    gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    gvr = {"group": kind.group, "version": kind.version, "resource": kind.plural}
    options = f"{review.operation.capitalize()}Options"
    return {
        "uid": str(uuid.uuid4()),
        "kind": gvk,
        "resource": gvr,
        **({"subResource": review.subresource} if review.subresource else {}),
        "requestKind": gvk,
        "requestResource": gvr,
        **({"requestSubResource": review.subresource} if review.subresource else {}),
        **({"name": review.name} if review.name else {}),
        **({"namespace": review.namespace} if review.namespace else {}),
        "operation": review.operation,
        "userInfo": review.user.info(),
        "object": _sent(kind, review.obj),
        "oldObject": _sent(kind, review.old),
        "dryRun": review.dry_run,
        "options": {"kind": options, "apiVersion": "meta.k8s.io/v1"} | ({"dryRun": ["All"]} if review.dry_run else {}),
    }


def _sent(kind: Kind, obj: Object) -> Object | None:
    if not obj:
        return None
    status: Object = {"status": {}} if kind.has_status and "status" not in obj else {}
    return {"kind": kind.kind, "apiVersion": kind.api_version, **obj, **status}


def _patched(document: Object, patch: str) -> Object:
    """Apply a JSON patch, with the error texts of a real server's patch library."""
    try:
        operations = json.loads(base64.b64decode(patch))
    except ValueError as error:
        raise internal(f"unable to decode JSON patch: {error}") from error
    patching = JsonPatching(document)
    for operation in operations:
        try:
            patching.apply(operation)
        except NotApplicable as error:
            name, path = operation.get("op"), operation.get("path", "")
            what = "path" if name == "add" or _missing_parent(patching.document, path) else "key"
            raise internal(f"{name} operation does not apply: doc is missing {what}: {path}: missing value") from error
    return cast("Object", patching.document)


def _missing_parent(document: Object, path: str) -> bool:
    try:
        jsonpointer.resolve_pointer(document, path.rpartition("/")[0])
    except jsonpointer.JsonPointerException:
        return True
    return False


def _denied(name: str, status: Object) -> ApiError:
    why = status.get("message") or status.get("reason")
    message = f'admission webhook "{name}" denied the request' + (f": {why}" if why else " without explanation")
    return ApiError(status.get("code") or 400, status.get("reason", ""), message, status.get("details"))


def _server_error(answer: httpx.Response) -> str:
    if answer.status_code >= 500:
        plain = answer.headers.get("content-type", "").startswith("text/")
        text = (answer.text.strip() if plain else "") or "unknown"
        quoted = json.dumps(text, ensure_ascii=False)
        return f"an error on the server ({quoted}) has prevented the request from succeeding"
    return f"the server rejected our request: {answer.status_code} {answer.reason_phrase}"


def _go_error(error: Exception, url: str) -> str:
    """Return the error in the words of Go's HTTP client, because people search the web for these words."""
    address = httpx.URL(url)
    text = str(error).lower()
    if isinstance(error, httpx.TimeoutException):
        return "context deadline exceeded"
    if "certificate verify failed" in text:
        if "hostname mismatch" in text or "ip address mismatch" in text:
            return f"tls: failed to verify certificate: x509: certificate is not valid for {address.host}"
        return "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    if isinstance(error, httpx.ConnectError):
        if "name" in text and "known" in text:
            return f"dial tcp: lookup {address.host}: no such host"
        return f"dial tcp {address.host}:{address.port or 443}: connect: connection refused"
    return str(error) or "EOF"
