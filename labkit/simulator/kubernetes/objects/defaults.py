"""The defaults that the API server fills in when an object is written. `defaults.toml` has the constant ones."""

import base64
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from labkit.simulator.kubernetes.objects.kinds import BY_NAME, RBAC, Kind, Object
from labkit.simulator.kubernetes.objects.schema import struct


def with_defaults(kind: str, obj: Object) -> Object:
    """Return the object with the defaults of the kind, such as Pod; `obj` itself isn't changed."""
    return _filled(BY_NAME[kind].type, obj)


def _filled(type_name: str, obj: Object) -> Object:
    constants, parts = _defaults(type_name)
    new = obj | {key: value for key, value in constants.items() if key not in obj}
    if compute := _COMPUTED.get(type_name):
        compute(new)
    for key, part in parts.items():
        if (value := new.get(key)) is not None:
            new[key] = [_filled(part, item) for item in value] if isinstance(value, list) else _filled(part, value)
    return new


@cache
def _defaults(type_name: str) -> tuple[Object, dict[str, str]]:
    """Return a type's constant defaults, and those of its fields that are objects with defaults, each with its type."""
    group, _, name = type_name.partition(".")
    types = {label: field.element for label, field in struct(type_name).fields.items() if "." in field.element}
    parts = {label: type_ for label, type_ in types.items() if type_ in _COMPUTED or any(_defaults(type_))}
    return _constants().get(group, {}).get(name, {}), parts


@cache
def _constants() -> Object:
    return tomllib.loads(Path(__file__).with_name("defaults.toml").read_text())


def first_status(kind: Kind, obj: Object) -> Object:
    """Return the object with its first status, whatever status the client sent.

    Only a Pod, a Deployment or a ReplicaSet has a first status. Other objects are returned unchanged.
    """
    match kind.kind:
        case "Pod":
            return {**obj, "status": {"phase": "Pending", "qosClass": quality_of_service(obj["spec"])}}
        case "Deployment":
            return {**obj, "status": {}}
        case "ReplicaSet":
            return {**obj, "status": {"replicas": 0}}
    return obj


def quality_of_service(spec: Object) -> str:
    """https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/"""
    containers = [*spec.get("containers", ()), *spec.get("initContainers", ())]
    resources = [container.get("resources") or {} for container in containers]
    if not any(part.get("requests") or part.get("limits") for part in resources):
        return "BestEffort"
    amounts = [(part.get("limits") or {}, part.get("requests") or part.get("limits") or {}) for part in resources]
    is_guaranteed = all(
        name in limits and requests.get(name) == limits[name]
        for limits, requests in amounts
        for name in ("cpu", "memory")
    )
    return "Guaranteed" if is_guaranteed else "Burstable"


def _pod_spec(spec: Object) -> None:
    if account := spec.get("serviceAccountName") or spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    if spec.get("hostNetwork"):
        spec["containers"] = [
            {**container, "ports": [{"hostPort": port.get("containerPort", 0), **port} for port in container["ports"]]}
            if "ports" in container
            else container
            for container in spec.get("containers", ())
        ]


def _container(container: Object) -> None:
    image, resources = container.get("image", ""), container["resources"]
    latest = "@" not in image and image.rsplit("/", 1)[-1].partition(":")[2] in ("", "latest")
    container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
    if requests := {**resources.get("limits", {}), **resources.get("requests", {})}:
        container["resources"] = {**resources, "requests": requests}


def _volume(volume: Object) -> None:
    if set(volume) == {"name"}:
        volume["emptyDir"] = {}


def _service_spec(spec: Object) -> None:
    if spec["type"] != "ExternalName":
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        spec.setdefault("internalTrafficPolicy", "Cluster")


def _service_port(port: Object) -> None:
    if port.get("port"):
        port.setdefault("targetPort", port["port"])


def _strategy(strategy: Object) -> None:
    if strategy["type"] == "RollingUpdate":
        limits = {"maxUnavailable": "25%", "maxSurge": "25%"}
        strategy["rollingUpdate"] = limits | (strategy.get("rollingUpdate") or {})


def _replica_set(replica_set: Object) -> None:
    metadata = (replica_set["spec"].get("template") or {}).get("metadata") or {}
    if metadata.get("labels") and not replica_set["metadata"].get("labels"):
        replica_set["metadata"] = {**replica_set["metadata"], "labels": metadata["labels"]}


def _namespace(namespace: Object) -> None:
    metadata = namespace["metadata"]
    if metadata.get("name"):
        labels = (metadata.get("labels") or {}) | {"kubernetes.io/metadata.name": metadata["name"]}
        namespace["metadata"] = {**metadata, "labels": labels}


def _secret(secret: Object) -> None:
    if texts := secret.pop("stringData", None):
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
        secret["data"] = (secret.get("data") or {}) | encoded


def _event(event: Object) -> None:
    for key in ("firstTimestamp", "lastTimestamp", "eventTime"):
        event.setdefault(key, None)


def _subject(subject: Object) -> None:
    if subject.get("kind") != "ServiceAccount":
        subject.setdefault("apiGroup", RBAC)


# The defaults that depend on other fields. Each function changes an object that already has its constant defaults.
_COMPUTED: dict[str, Callable[[Object], None]] = {
    "core.PodSpec": _pod_spec,
    "core.Container": _container,
    "core.Volume": _volume,
    "core.ServiceSpec": _service_spec,
    "core.ServicePort": _service_port,
    "core.Namespace": _namespace,
    "core.Secret": _secret,
    "core.Event": _event,
    "apps.DeploymentStrategy": _strategy,
    "apps.ReplicaSet": _replica_set,
    "rbac.Subject": _subject,
}
