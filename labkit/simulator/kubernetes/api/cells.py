"""The cells of `kubectl get` that aren't a field of the object. `columns.toml` names the functions in ``CELLS``."""

import math
from collections.abc import Callable
from datetime import UTC, datetime

from labkit.simulator.kubernetes.objects.kinds import Object
from labkit.simulator.kubernetes.objects.pods import condition, has_ended
from labkit.simulator.kubernetes.objects.selectors import selector_text


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


def _pod_ready(pod: Object, _now: float) -> str:
    ready = sum(bool(status.get("ready")) for status in _statuses(pod))
    return f"{ready}/{len(pod['spec'].get('containers') or ()) + len(_sidecars(pod))}"


def _pod_restarts(pod: Object, now: float) -> str:
    initializing = _initializing(pod) and not _has(pod, "Initialized")
    statuses = pod["status"]["initContainerStatuses"] if initializing else _statuses(pod)
    restarts = sum(status.get("restartCount", 0) for status in statuses)
    ended = [status.get("lastState", {}).get("terminated") or {} for status in statuses]
    last = max((run.get("finishedAt") or "" for run in ended), default="")
    return f"{restarts} ({since(last, now)} ago)" if restarts and last else str(restarts)


def _sidecars(pod: Object) -> set[str]:
    return {one["name"] for one in pod["spec"].get("initContainers") or () if one.get("restartPolicy") == "Always"}


def _statuses(pod: Object) -> list[Object]:
    """Return the statuses of the sidecars and of the containers."""
    status, sidecars = pod.get("status") or {}, _sidecars(pod)
    init = [one for one in status.get("initContainerStatuses") or () if one["name"] in sidecars]
    return init + (status.get("containerStatuses") or [])


def _pod_status(pod: Object, _now: float) -> str:
    status = pod.get("status") or {}
    deleted = pod["metadata"].get("deletionTimestamp")
    if deleted and status.get("reason") == "NodeLost":
        return "Unknown"
    if deleted and not has_ended(pod):
        return "Terminating"
    gated = condition(pod, "PodScheduled").get("reason") == "SchedulingGated"
    reason = "SchedulingGated" if gated else status.get("reason") or status.get("phase") or "Unknown"
    initializing = _initializing(pod)
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


def _initializing(pod: Object) -> str:
    sidecars = _sidecars(pod)
    for i, container in enumerate((pod.get("status") or {}).get("initContainerStatuses") or ()):
        state = container.get("state") or {}
        terminated = state.get("terminated")
        if terminated and terminated.get("exitCode") == 0:
            continue
        if container.get("name") in sidecars and container.get("started"):
            continue
        if terminated:
            return f"Init:{_why_terminated(terminated)}"
        waiting = (state.get("waiting") or {}).get("reason")
        if waiting and waiting != "PodInitializing":
            return f"Init:{waiting}"
        return f"Init:{i}/{len(pod['spec'].get('initContainers') or ())}"
    return ""


def _node_status(node: Object, _now: float) -> str:
    state = {"True": "Ready", "False": "NotReady"}.get(condition(node, "Ready").get("status", ""), "Unknown")
    return state + (",SchedulingDisabled" if (node.get("spec") or {}).get("unschedulable") else "")


def _node_roles(node: Object, _now: float) -> str:
    prefix, labels = "node-role.kubernetes.io/", node["metadata"].get("labels") or ()
    return ",".join(sorted(label.removeprefix(prefix) for label in labels if label.startswith(prefix))) or "<none>"


def _address(node: Object, type_: str) -> str:
    addresses = (node.get("status") or {}).get("addresses") or ()
    return {address["type"]: str(address["address"]) for address in addresses}.get(type_, "<none>")


def _ports(service: Object, _now: float) -> str:
    return ",".join(f"{port['port']}/{port['protocol']}" for port in service["spec"].get("ports") or ()) or "<none>"


def _subjects(binding: Object, kind: str) -> list[Object]:
    return [subject for subject in binding.get("subjects") or () if subject["kind"] == kind]


def _first_seen(event: Object, now: float) -> str:
    return since(event.get("firstTimestamp") or event.get("eventTime"), now)


def _last_seen(event: Object, now: float) -> str:
    last = (event.get("series") or {}).get("lastObservedTime") or event.get("lastTimestamp")
    return since(last, now) if last else _first_seen(event, now)


def _event_count(event: Object, _now: float) -> int:
    return int((event.get("series") or {}).get("count") or event.get("count") or 1)


def _event_object(event: Object, _now: float) -> str:
    involved = event.get("involvedObject") or {}
    return f"{involved.get('kind', '').lower()}/{involved.get('name', '')}"


def _event_source(event: Object, _now: float) -> str:
    source = event.get("source") or {}
    component = source.get("component") or event.get("reportingComponent", "")
    host = source.get("host") or event.get("reportingInstance", "")
    return f"{component}, {host}" if host else component


def _deployment_ready(deployment: Object, _now: float) -> str:
    return f"{(deployment.get('status') or {}).get('readyReplicas', 0)}/{deployment['spec']['replicas']}"


def _template(workload: Object) -> list[Object]:
    return list(workload["spec"]["template"]["spec"].get("containers") or ())


# Each function gets an object and the time in epoch seconds.
CELLS: dict[str, Callable[[Object, float], object]] = {
    "age": lambda obj, now: since(obj["metadata"].get("creationTimestamp"), now),
    "container_names": lambda workload, _: ",".join(one.get("name", "") for one in _template(workload)),
    "deployment_ready": _deployment_ready,
    "event_count": _event_count,
    "event_message": lambda event, _: event.get("message", "").strip(),
    "event_object": _event_object,
    "event_source": _event_source,
    "external_address": lambda node, _: _address(node, "ExternalIP"),
    "external_ip": lambda service, _: {
        "ExternalName": service["spec"].get("externalName", ""),
        "LoadBalancer": "<pending>",
    }.get(service["spec"]["type"], "<none>"),
    "first_seen": _first_seen,
    "groups": lambda binding, _: ", ".join(subject["name"] for subject in _subjects(binding, "Group")),
    "images": lambda workload, _: ",".join(one.get("image", "") for one in _template(workload)),
    "internal_address": lambda node, _: _address(node, "InternalIP"),
    "key_count": lambda obj, _: str(len(obj.get("data") or ()) + len(obj.get("binaryData") or ())),
    "last_seen": _last_seen,
    "node_roles": _node_roles,
    "node_status": _node_status,
    "none": lambda *_: "<none>",
    "pod_ready": _pod_ready,
    "pod_restarts": _pod_restarts,
    "pod_status": _pod_status,
    "ports": _ports,
    "role": lambda binding, _: f"{binding['roleRef']['kind']}/{binding['roleRef']['name']}",
    "service_accounts": lambda binding, _: ", ".join(
        f"{account.get('namespace', '')}/{account['name']}" for account in _subjects(binding, "ServiceAccount")
    ),
    "service_selector": lambda obj, _: selector_text({"matchLabels": obj["spec"].get("selector")}) or "<none>",
    "users": lambda binding, _: ", ".join(subject["name"] for subject in _subjects(binding, "User")),
    "webhook_count": lambda configuration, _: len(configuration.get("webhooks") or ()),
    "workload_selector": lambda workload, _: selector_text(workload["spec"]["selector"]) or "<none>",
}
