"""The scale subresource: the actual and the wanted number of pods of a Deployment or a ReplicaSet.

https://kubernetes.io/docs/reference/kubernetes-api/autoscaling-resources/scale-v1/
"""

import json

from labkit.simulator.event_loop import in_thread_if_large
from labkit.simulator.kubernetes.api import patches
from labkit.simulator.kubernetes.api.requests import KubeRequest, KubeResponse, respond
from labkit.simulator.kubernetes.api.resources import Resources
from labkit.simulator.kubernetes.objects import schema
from labkit.simulator.kubernetes.objects.kinds import Kind, Object
from labkit.simulator.kubernetes.objects.selectors import selector_text
from labkit.simulator.kubernetes.objects.status import bad_request, invalid, invalid_value, unsupported_media_type
from labkit.simulator.kubernetes.objects.storage import dump

TYPE, API_VERSION = "autoscaling.Scale", "autoscaling/v1"


async def scale(resources: Resources, kind: Kind, request: KubeRequest) -> KubeResponse:
    """Answer GET, PUT and PATCH of a scale. A write becomes a patch of ``spec.replicas``, which passes admission."""
    stored = resources.storage.get(kind, request.namespace, request.name)
    if request.verb == "get":
        return respond(_scale(stored.object))
    document = _scale(stored.object)
    if request.verb == "update":
        wanted = await request.document(TYPE, "Scale", API_VERSION)
    else:
        wanted = await in_thread_if_large(len(request.body), _patched, request, document)
    replicas = (wanted.get("spec") or {}).get("replicas", 0)
    if replicas < 0:
        cause = invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
        raise invalid("Scale", "autoscaling", request.name, [cause])
    version = (wanted.get("metadata") or {}).get("resourceVersion")
    given = {"metadata": {"resourceVersion": version}} if version and version != _version(document, request) else {}
    request.method = "PATCH"
    request.headers[b"content-type"] = patches.MERGE.encode()
    request.body = dump({**given, "spec": {"replicas": replicas}})
    changed = await resources.patch(kind, request)
    return respond(_scale(json.loads(changed.body)))


def _version(document: Object, request: KubeRequest) -> str:
    """Return the resourceVersion for a scale in a request that sets none.

    For a PUT, that's "". For a PATCH, it's the resourceVersion of ``document``, which is the current scale.
    """
    # A PUT replaces the whole scale. A PATCH changes the current scale, which has a resourceVersion.
    return "" if request.verb == "update" else document["metadata"]["resourceVersion"]


def _patched(request: KubeRequest, document: Object) -> Object:
    if request.content_type not in patches.PATCHES:
        raise unsupported_media_type()
    changed = patches.patched(request.content_type, TYPE, document, patches.parse_patch(request))
    try:
        return schema.decode(TYPE, changed)[0]
    except schema.WrongType as error:
        raise bad_request(str(error)) from error


def _scale(obj: Object) -> Object:
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    replicas, selector = obj["spec"]["replicas"], selector_text(obj["spec"]["selector"])
    return {
        "kind": "Scale",
        "apiVersion": API_VERSION,
        "metadata": {key: obj["metadata"][key] for key in kept},
        "spec": {"replicas": replicas} if replicas else {},
        "status": {"replicas": (obj.get("status") or {}).get("replicas", 0), "selector": selector},
    }
