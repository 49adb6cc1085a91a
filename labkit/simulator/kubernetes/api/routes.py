"""Pass each request for a resource on to the module for its kind, subresource and verb.

https://kubernetes.io/docs/reference/using-api/api-concepts/#standard-api-terminology
"""

import json

from labkit.simulator.event_loop import in_thread_if_large
from labkit.simulator.kubernetes.api import patches
from labkit.simulator.kubernetes.api.access_reviews import Reviews
from labkit.simulator.kubernetes.api.requests import KubeRequest, KubeResponse, respond
from labkit.simulator.kubernetes.api.resources import Resources
from labkit.simulator.kubernetes.api.streams import Kubelets
from labkit.simulator.kubernetes.objects import schema, writes
from labkit.simulator.kubernetes.objects.kinds import (
    BY_RESOURCE,
    NAMESPACE,
    POD,
    SUBRESOURCE,
    Kind,
    Object,
    Subresource,
)
from labkit.simulator.kubernetes.objects.selectors import selector_text
from labkit.simulator.kubernetes.objects.status import (
    bad_request,
    conflict,
    invalid,
    invalid_value,
    method_not_allowed,
    unknown_path,
    unsupported_media_type,
)
from labkit.simulator.kubernetes.objects.storage import dump

SCALE, SCALE_VERSION = "autoscaling.Scale", "autoscaling/v1"


class Routes:
    def __init__(self, resources: Resources, kubelets: Kubelets, reviews: Reviews):
        self.storage = resources.storage
        self.resources, self.kubelets, self.reviews = resources, kubelets, reviews

    async def answer(self, request: KubeRequest) -> KubeResponse:
        """Answer the request. Raises ``ApiError`` for an unknown path, a wrong method or a refused request."""
        kind = BY_RESOURCE.get((request.group, request.version, request.resource))
        below = f"{request.resource}/{request.subresource}" if request.subresource else request.resource
        sub = SUBRESOURCE.get((request.group, below)) if request.version == "v1" else None
        if sub and not (kind and not request.subresource):
            return await self._below(kind, sub, request)
        if kind is None or request.subresource or (kind.namespaced and request.name and not request.namespace):
            raise unknown_path()
        if request.namespace and not kind.namespaced and kind is not NAMESPACE:
            raise unknown_path()
        if request.verb not in kind.verbs:
            raise method_not_allowed()
        request.media_type()  # a refused write stores nothing
        return await self._verb(kind, request)

    async def _verb(self, kind: Kind, request: KubeRequest) -> KubeResponse:
        match request.verb:
            case "get" if request.method in ("GET", "HEAD"):
                return self.resources.get(kind, request)
            case "list" if request.method in ("GET", "HEAD"):
                return self.resources.list(kind, request)
            case "watch" if request.method == "GET":
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

    async def _below(self, kind: Kind | None, sub: Subresource, request: KubeRequest) -> KubeResponse:
        if request.verb not in sub.verbs:
            raise method_not_allowed()
        if kind is None:
            return await self.reviews.answer(sub, request)
        match sub.name:
            case "pods/log":
                return await self.kubelets.log(request)
            case "pods/exec" | "pods/attach":
                raise self.kubelets.refuse_without_websocket(request)
            case "pods/portforward":
                raise self.kubelets.refuse_port_forward(request)
        request.media_type()
        match sub.name:
            case "pods/binding":
                return await self._bind(request)
            case "deployments/scale" | "replicasets/scale":
                return await _scale(self.resources, kind, request)
            case "serviceaccounts/token":
                return await self.reviews.request_token(sub, request)
        if request.verb == "get":
            return self.resources.get(kind, request)
        write = self.resources.update if request.verb == "update" else self.resources.patch
        return await write(kind, request)

    async def _bind(self, request: KubeRequest) -> KubeResponse:
        target = (await request.document("core.Binding", "Binding", "v1")).get("target") or {}
        pod = self.storage.get(POD, request.namespace, request.name)
        if node := pod.object["spec"].get("nodeName"):
            why = f'pod {pod.name} is already assigned to node "{node}"'
            raise conflict(POD, pod.name, why, called="pods/binding")
        writes.bind(self.storage, pod, target.get("name", ""))
        return respond({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201)


async def _scale(resources: Resources, kind: Kind, request: KubeRequest) -> KubeResponse:
    """Answer GET, PUT and PATCH of the subresource scale: the actual and the wanted number of pods.

    A write becomes a patch of ``spec.replicas``, which passes admission.
    https://kubernetes.io/docs/reference/kubernetes-api/autoscaling-resources/scale-v1/
    """
    document = _scale_of(resources.storage.get(kind, request.namespace, request.name).object)
    if request.verb == "get":
        return respond(document)
    if request.verb == "update":
        wanted = await request.document(SCALE, "Scale", SCALE_VERSION)
    else:
        wanted = await in_thread_if_large(len(request.body), _patched, request, document)
    replicas = (wanted.get("spec") or {}).get("replicas", 0)
    if replicas < 0:
        cause = invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
        raise invalid("Scale", "autoscaling", request.name, [cause])
    version = (wanted.get("metadata") or {}).get("resourceVersion")
    # A PUT replaces the whole scale. A PATCH changes the current scale, which has a resourceVersion.
    unset = "" if request.verb == "update" else document["metadata"]["resourceVersion"]
    given = {"metadata": {"resourceVersion": version}} if version and version != unset else {}
    request.method = "PATCH"
    request.headers[b"content-type"] = patches.MERGE.encode()
    request.body = dump({**given, "spec": {"replicas": replicas}})
    changed = await resources.patch(kind, request)
    return respond(_scale_of(json.loads(changed.body)))


def _patched(request: KubeRequest, document: Object) -> Object:
    if request.content_type not in patches.PATCHES:
        raise unsupported_media_type()
    changed = patches.patched(request.content_type, SCALE, document, patches.parse_patch(request))
    try:
        return schema.decode(SCALE, changed)[0]
    except schema.WrongType as error:
        raise bad_request(str(error)) from error


def _scale_of(obj: Object) -> Object:
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    replicas, selector = obj["spec"]["replicas"], selector_text(obj["spec"]["selector"])
    return {
        "kind": "Scale",
        "apiVersion": SCALE_VERSION,
        "metadata": {key: obj["metadata"][key] for key in kept},
        "spec": {"replicas": replicas} if replicas else {},
        "status": {"replicas": (obj.get("status") or {}).get("replicas", 0), "selector": selector},
    }
