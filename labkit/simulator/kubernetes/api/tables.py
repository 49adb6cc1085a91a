"""The tables that `kubectl get` prints. The server chooses the columns.

https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables
"""

import json
import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import cast

from labkit.simulator.kubernetes.objects.kinds import Kind, Object
from labkit.simulator.kubernetes.objects.pods import condition, has_ended
from labkit.simulator.kubernetes.objects.selectors import selector_text
from labkit.simulator.kubernetes.objects.storage import Stored

Cells = list[object]
Row = Callable[[Object, float], Cells]  # returns an object's cells at a time in epoch seconds
Column = tuple[str, str] | tuple[str, str, int] | tuple[str, str, int, str]  # name, description, priority, type


def table(
    kind: Kind, items: Iterable[Stored], metadata: Object, now: float, include: str, *, heads: bool = True
) -> Object:
    """Return the Table of these objects. ``include`` is the query's `includeObject`: Metadata, Object or None.

    With ``heads``, the Table also defines its columns.
    """
    columns, row = _COLUMNS.get(kind.kind) or _between(lambda _obj: [])
    body: Object = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
    body["columnDefinitions"] = [_definition(*column) for column in columns] if heads else None
    body["rows"] = [{"cells": row(stored.object, now), "object": _object(kind, stored, include)} for stored in items]
    return body


def _object(kind: Kind, stored: Stored, include: str) -> Object | None:
    if include == "None":
        return None
    if include == "Object":
        return cast("Object", json.loads(stored.full(kind)))
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": stored.metadata}


def _definition(name: str, description: str, priority: int = 0, type_: str = "string") -> Object:
    form = "name" if name == "Name" else ""
    return {"name": name, "type": type_, "format": form, "description": description, "priority": priority}


def _age(obj: Object, now: float) -> str:
    return since(obj["metadata"].get("creationTimestamp"), now)


def since(moment: str | None, now: float) -> str:
    """Return the time since ``moment`` as kubectl prints it, e.g. ``5m3s``."""
    if not moment:
        return "<unknown>"
    return human_duration(now - datetime.fromisoformat(moment).astimezone(UTC).timestamp())


def human_duration(seconds: float) -> str:
    """Return a duration with at most two units, e.g. ``9s``, ``2m5s``, ``3h`` or ``2d4h``."""
    if seconds < -1:
        return "<invalid>"
    whole = max(int(seconds), 0)
    (unit, name), part = next((unit, part) for limit, unit, part in DURATIONS if whole < limit)
    rest = whole % unit // part[0] if part else 0
    return f"{whole // unit}{name}" + (f"{rest}{part[1]}" if part and rest else "")


SECOND, MINUTE, HOUR, DAY, YEAR = (1, "s"), (60, "m"), (3600, "h"), (86400, "d"), (365 * 86400, "y")
# A duration of less than this many seconds is shown in the first unit, and its rest in the second unit.
DURATIONS: tuple[tuple[float, tuple[int, str], tuple[int, str] | None], ...] = (
    (120, SECOND, None),
    (600, MINUTE, SECOND),
    (180 * 60, MINUTE, None),
    (8 * 3600, HOUR, MINUTE),
    (48 * 3600, HOUR, None),
    (8 * 86400, DAY, HOUR),
    (730 * 86400, DAY, None),
    (8 * 365 * 86400, YEAR, DAY),
    (math.inf, YEAR, None),
)


def _pod(pod: Object, now: float) -> Cells:
    spec, status, metadata = pod.get("spec") or {}, pod.get("status") or {}, pod["metadata"]
    sidecars = {one["name"] for one in spec.get("initContainers") or () if one.get("restartPolicy") == "Always"}
    init = status.get("initContainerStatuses") or []
    statuses = [one for one in init if one["name"] in sidecars] + (status.get("containerStatuses") or [])
    ready = sum(bool(container.get("ready")) for container in statuses)
    if _initializing(spec, status) and not _has(pod, "Initialized"):
        statuses = init
    restarts = sum(container.get("restartCount", 0) for container in statuses)
    ended = [container.get("lastState", {}).get("terminated") or {} for container in statuses]
    last = max((run.get("finishedAt") or "" for run in ended), default="")
    return [
        metadata["name"],
        f"{ready}/{len(spec.get('containers') or ()) + len(sidecars)}",
        _reason(pod),
        f"{restarts} ({since(last, now)} ago)" if restarts and last else str(restarts),
        _age(pod, now),
        status.get("podIP") or "<none>",
        spec.get("nodeName") or "<none>",
        status.get("nominatedNodeName") or "<none>",
        "<none>",
    ]


def _reason(pod: Object) -> str:
    """Return the text for a pod in kubectl's STATUS column."""
    status, spec = pod.get("status") or {}, pod.get("spec") or {}
    deleted = pod["metadata"].get("deletionTimestamp")
    if deleted and status.get("reason") == "NodeLost":
        return "Unknown"
    if deleted and not has_ended(pod):
        return "Terminating"
    gated = condition(pod, "PodScheduled").get("reason") == "SchedulingGated"
    reason = "SchedulingGated" if gated else status.get("reason") or status.get("phase") or "Unknown"
    initializing = _initializing(spec, status)
    if initializing and not _has(pod, "Initialized"):
        return initializing
    return _reason_of_containers(pod, initializing or reason)


def _reason_of_containers(pod: Object, reason: str) -> str:
    """Return the reason of the pod's first container that waits or has ended, or else ``reason``."""
    running = False
    for container in reversed((pod.get("status") or {}).get("containerStatuses") or []):
        state = container.get("state") or {}
        if (waiting := state.get("waiting")) and waiting.get("reason"):
            reason = waiting["reason"]
        elif terminated := state.get("terminated"):
            reason = _why_terminated(terminated)
        elif container.get("ready") and state.get("running"):
            running = True
    if reason == "Completed" and running:
        return "Running" if _has(pod, "Ready") else "NotReady"
    return reason


def _why_terminated(terminated: Object) -> str:
    signal, code = terminated.get("signal", 0), terminated.get("exitCode", 0)
    return terminated.get("reason") or (f"Signal:{signal}" if signal else f"ExitCode:{code}")


def _has(pod: Object, type_: str) -> bool:
    return bool(condition(pod, type_).get("status") == "True")


def _initializing(spec: Object, status: Object) -> str:
    declared = {container["name"]: container for container in spec.get("initContainers") or ()}
    for i, container in enumerate(status.get("initContainerStatuses") or ()):
        state = container.get("state") or {}
        sidecar = declared.get(container.get("name"), {}).get("restartPolicy") == "Always"
        terminated = state.get("terminated")
        if (terminated and terminated.get("exitCode") == 0) or (sidecar and container.get("started")):
            continue
        if terminated:
            return f"Init:{_why_terminated(terminated)}"
        waiting = (state.get("waiting") or {}).get("reason")
        if waiting and waiting != "PodInitializing":
            return f"Init:{waiting}"
        return f"Init:{i}/{len(declared)}"
    return ""


def _node(node: Object, now: float) -> Cells:
    status, labels = node.get("status") or {}, node["metadata"].get("labels") or {}
    info = status.get("nodeInfo") or {}
    state = {"True": "Ready", "False": "NotReady"}.get(condition(node, "Ready").get("status", ""), "Unknown")
    if (node.get("spec") or {}).get("unschedulable"):
        state += ",SchedulingDisabled"
    prefix = "node-role.kubernetes.io/"
    roles = ",".join(sorted(label.removeprefix(prefix) for label in labels if label.startswith(prefix))) or "<none>"
    addresses = {address["type"]: address["address"] for address in status.get("addresses") or ()}
    return [
        node["metadata"]["name"],
        state,
        roles,
        _age(node, now),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", "<none>"),
        addresses.get("ExternalIP", "<none>"),
        info.get("osImage") or "<unknown>",
        info.get("kernelVersion") or "<unknown>",
        info.get("containerRuntimeVersion") or "<unknown>",
    ]


def _service(service: Object, now: float) -> Cells:
    spec = service["spec"]
    outside = {"ExternalName": spec.get("externalName", ""), "LoadBalancer": "<pending>"}.get(spec["type"], "<none>")
    ports = ",".join(f"{port['port']}/{port['protocol']}" for port in spec.get("ports") or ()) or "<none>"
    selector = selector_text({"matchLabels": spec.get("selector")}) or "<none>"
    address = spec.get("clusterIP") or "<none>"
    return [service["metadata"]["name"], spec["type"], address, outside, ports, _age(service, now), selector]


def _binding(binding: Object, now: float) -> Cells:
    subjects: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in binding.get("subjects") or ():
        of = f"{subject.get('namespace', '')}/" if subject["kind"] == "ServiceAccount" else ""
        subjects[subject["kind"]].append(of + subject["name"])
    role = f"{binding['roleRef']['kind']}/{binding['roleRef']['name']}"
    return [binding["metadata"]["name"], role, _age(binding, now), *(", ".join(names) for names in subjects.values())]


def _event(event: Object, now: float) -> Cells:
    involved, source = event.get("involvedObject") or {}, event.get("source") or {}
    first = event.get("firstTimestamp") or event.get("eventTime")
    last = (event.get("series") or {}).get("lastObservedTime") or event.get("lastTimestamp") or first
    count = (event.get("series") or {}).get("count") or event.get("count") or 1
    component = source.get("component") or event.get("reportingComponent", "")
    host = source.get("host") or event.get("reportingInstance", "")
    return [
        since(last, now),
        event.get("type", ""),
        event.get("reason", ""),
        f"{involved.get('kind', '').lower()}/{involved.get('name', '')}",
        involved.get("fieldPath", ""),
        f"{component}, {host}" if host else component,
        event.get("message", "").strip(),
        since(first, now),
        count,
        event["metadata"]["name"],
    ]


def _deployment(deployment: Object, now: float) -> Cells:
    spec, status = deployment["spec"], deployment.get("status") or {}
    return [
        deployment["metadata"]["name"],
        f"{status.get('readyReplicas', 0)}/{spec['replicas']}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        _age(deployment, now),
        *_template(spec),
    ]


def _replica_set(replica_set: Object, now: float) -> Cells:
    spec, status = replica_set["spec"], replica_set.get("status") or {}
    return [
        replica_set["metadata"]["name"],
        spec["replicas"],
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        _age(replica_set, now),
        *_template(spec),
    ]


def _template(spec: Object) -> list[str]:
    containers = spec["template"]["spec"].get("containers") or ()
    names, images = (",".join(container.get(key, "") for container in containers) for key in ("name", "image"))
    return [names, images, selector_text(spec["selector"]) or "<none>"]


def _between(cells: Callable[[Object], Cells], *columns: Column) -> tuple[list[Column], Row]:
    """Return a kind's columns, and a function that returns an object's cells.

    The first column is Name, and the last column is Age. ``columns`` are the columns between Name and Age. ``cells``
    returns an object's cells for ``columns``.
    """
    return [*_NAME, *columns, *_AGE], lambda obj, now: [obj["metadata"]["name"], *cells(obj), _age(obj, now)]


def _keys(obj: Object) -> str:
    return str(len(obj.get("data") or ()) + len(obj.get("binaryData") or ()))


NAME = (
    "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a"
    " client to request the generation of an appropriate name automatically. Name is primarily intended for creation"
    " idempotence and configuration definition. Cannot be updated. More info:"
    " https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"
)
AGE = (
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed"
    " to be set in happens-before order across separate operations. Clients may not set this value. It is represented"
    " in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info:"
    " https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
)
_NAME, _AGE = [("Name", NAME)], [("Age", AGE)]
_OF_TEMPLATE: list[Column] = [
    ("Containers", "Names of each container in the template.", 1),
    ("Images", "Images referenced by each container in the template.", 1),
    ("Selector", "The labels of its pods.", 1),
]
_BINDING: list[Column] = [
    *_NAME,
    ("Role", "The role that is bound."),
    *_AGE,
    ("Users", "Users in the roleBinding", 1),
    ("Groups", "Groups in the roleBinding", 1),
    ("ServiceAccounts", "ServiceAccounts in the roleBinding", 1),
]
_ROLE: tuple[list[Column], Row] = (
    [*_NAME, ("Created At", AGE)],
    lambda obj, _now: [obj["metadata"]["name"], obj["metadata"]["creationTimestamp"]],
)
_COLUMNS: dict[str, tuple[list[Column], Row]] = {
    "Deployment": (
        [
            *_NAME,
            ("Ready", "The number of ready pods."),
            ("Up-to-date", "The number of pods with the current template."),
            ("Available", "The number of pods that have been ready for minReadySeconds."),
            *_AGE,
            *_OF_TEMPLATE,
        ],
        _deployment,
    ),
    "ReplicaSet": (
        [
            *_NAME,
            ("Desired", "The wanted number of pods.", 0, "integer"),
            ("Current", "The current number of pods.", 0, "integer"),
            ("Ready", "The number of ready pods.", 0, "integer"),
            *_AGE,
            *_OF_TEMPLATE,
        ],
        _replica_set,
    ),
    "Pod": (
        [
            *_NAME,
            ("Ready", "The aggregate readiness state of this pod for accepting traffic."),
            ("Status", "The aggregate status of the containers in this pod."),
            ("Restarts", "The number of restarts of the containers in this pod, and the age of the last one."),
            *_AGE,
            ("IP", "The address of the pod.", 1),
            ("Node", "The node that the pod runs on.", 1),
            ("Nominated Node", "The node on which the pod may run after other pods have left it.", 1),
            ("Readiness Gates", "More conditions that the pod must meet to be ready.", 1),
        ],
        _pod,
    ),
    "Node": (
        [
            *_NAME,
            ("Status", "The status of the node"),
            ("Roles", "The roles of the node"),
            *_AGE,
            ("Version", "The version of the kubelet on the node."),
            ("Internal-IP", "The node's address inside the cluster.", 1),
            ("External-IP", "The node's address outside the cluster.", 1),
            ("OS-Image", "The operating system of the node.", 1),
            ("Kernel-Version", "The kernel of the node.", 1),
            ("Container-Runtime", "What runs the containers on the node.", 1),
        ],
        _node,
    ),
    "Namespace": _between(lambda obj: [obj["status"]["phase"]], ("Status", "The status of the namespace")),
    "ConfigMap": _between(lambda obj: [_keys(obj)], ("Data", "The number of keys.")),
    "Secret": _between(
        lambda obj: [obj.get("type", ""), _keys(obj)],
        ("Type", "The type of the secret."),
        ("Data", "The number of keys."),
    ),
    "Event": (
        [
            ("Last Seen", "When the event was last seen."),
            ("Type", "Normal or Warning."),
            ("Reason", "The reason in one word."),
            ("Object", "The object that the event is about."),
            ("Subobject", "The part of the object.", 1),
            ("Source", "The component that reported the event.", 1),
            ("Message", "What happened."),
            ("First Seen", "When the event was first seen.", 1),
            ("Count", "How often the event was seen.", 1),
            ("Name", NAME, 1),
        ],
        _event,
    ),
    "Service": (
        [
            *_NAME,
            ("Type", "How the service is reached."),
            ("Cluster-IP", "The service's address inside the cluster."),
            ("External-IP", "The service's address outside the cluster."),
            ("Port(s)", "The service's ports."),
            *_AGE,
            ("Selector", "The labels that select the service's pods.", 1),
        ],
        _service,
    ),
    "Role": _ROLE,
    "ClusterRole": _ROLE,
    "RoleBinding": (_BINDING, _binding),
    "ClusterRoleBinding": (_BINDING, _binding),
    "MutatingWebhookConfiguration": _between(
        lambda obj: [len(obj.get("webhooks") or ())], ("Webhooks", "The number of webhooks.", 0, "integer")
    ),
    "Lease": _between(
        lambda obj: [(obj.get("spec") or {}).get("holderIdentity", "")], ("Holder", "The holder of the lease.")
    ),
}
