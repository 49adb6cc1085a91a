"""Restore the original manifest of a live pod, so that a repair can replace the pod."""

import copy

from labkit.doctor.evidence import pod_spec
from labkit.doctor.evidence.objects import PodDocument
from labkit.doctor.evidence.reading import Document

KINDS = ("containers", "initContainers")
# The fields that admission and the scheduler write, and those that only a live pod has.
WRITTEN = ("nodeName", "priority", "preemptionPolicy", "serviceAccount", "ephemeralContainers")
DEFAULTS = {
    "dnsPolicy": "ClusterFirst",
    "enableServiceLinks": True,
    "restartPolicy": "Always",
    "schedulerName": "default-scheduler",
    "securityContext": {},
    "terminationGracePeriodSeconds": 30,
}
CONTAINER_DEFAULTS = {
    "resources": {},
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}
NODE_TROUBLE = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
FIRST = ("serviceAccountName", "initContainers", "containers", "volumes")
FIRST_OF_CONTAINER = ("name", "image", "command", "args", "env", "envFrom", "volumeMounts")
NOTED = ("kubectl.kubernetes.io/last-applied-configuration", "kubectl.kubernetes.io/restartedAt")


def restored_manifest(pod: PodDocument, region: str) -> Document:
    """Return a manifest with which a live pod can be created again.

    It has no status, no defaults, and nothing that admission or the webhook added. `region` is the region that the
    webhook sets.
    """
    pod = copy.deepcopy(pod)
    present = dict(pod["metadata"])
    metadata = {key: present[key] for key in ("name", "namespace", "labels") if present.get(key)}
    annotations = pod["metadata"].get("annotations") or {}
    if own := {key: value for key, value in annotations.items() if key not in NOTED}:
        metadata["annotations"] = own
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": _restored_spec(dict(pod["spec"]), region)}


def without_additions(spec: Document, region: str) -> Document:
    """Return a spec without the variables, mounts and volume that the webhook added. Other authors' parts stay."""
    spec = copy.deepcopy(spec)
    added = pod_spec.is_token_volume(
        next((v for v in spec.get("volumes") or [] if v["name"] == pod_spec.TOKEN_VOLUME), None)
    )
    for container in containers_of(spec):
        _take_off_variables(container, region)
        _take_off_mounts(container)
    gone = {
        pod_spec.POD_IDENTITY_VOLUME,
        *([pod_spec.TOKEN_VOLUME] if added and not _mounted(spec, pod_spec.TOKEN_VOLUME) else []),
    }
    set_list(spec, "volumes", [volume for volume in spec.get("volumes") or [] if volume["name"] not in gone])
    return spec


def containers_of(spec: Document) -> list[Document]:
    """Return the containers and init containers of a pod's spec."""
    return [container for kind in KINDS for container in spec.get(kind) or []]


def set_list(document: Document, key: str, value: list[object]) -> None:
    """Set the list in the document, or delete it if `value` is empty."""
    if value:
        document[key] = value
    elif document.get(key):
        del document[key]


def _restored_spec(spec: Document, region: str) -> Document:
    spec = without_additions(spec, region)
    spec = {key: value for key, value in spec.items() if key not in WRITTEN and DEFAULTS.get(key, ...) != value}
    tolerations = [each for each in spec.get("tolerations") or [] if not _is_of_admission(each)]
    set_list(spec, "tolerations", tolerations)
    set_list(spec, "volumes", [v for v in spec.get("volumes") or [] if not v["name"].startswith(pod_spec.API_VOLUME)])
    for kind in KINDS:
        if spec.get(kind):
            spec[kind] = [_restored_container(container) for container in spec[kind]]
    return _ordered(spec, FIRST)


def _restored_container(container: Document) -> Document:
    container = {key: value for key, value in container.items() if CONTAINER_DEFAULTS.get(key, ...) != value}
    if container.get("imagePullPolicy") == _usual_pull_policy(container.get("image", "")):
        del container["imagePullPolicy"]
    mounts = [m for m in container.get("volumeMounts") or [] if not m["name"].startswith(pod_spec.API_VOLUME)]
    set_list(container, "volumeMounts", mounts)
    return _ordered(container, FIRST_OF_CONTAINER)


def _take_off_mounts(container: Document) -> None:
    added = ((pod_spec.TOKEN_VOLUME, pod_spec.MOUNT_PATH), (pod_spec.POD_IDENTITY_VOLUME, None))
    mounts = [
        mount
        for mount in container.get("volumeMounts") or []
        if not any(
            mount["name"] == name and path in (None, pod_spec.normal(mount["mountPath"])) for name, path in added
        )
    ]
    set_list(container, "volumeMounts", mounts)


def _take_off_variables(container: Document, region: str) -> None:
    """Remove the variables that the webhook added, because the webhook doesn't replace variables in `env`."""
    variables = container.get("env") or []
    values = {variable["name"]: variable.get("value") for variable in variables if "valueFrom" not in variable}
    gone = set(pod_spec.POD_IDENTITY)
    there = [
        m["name"] for m in container.get("volumeMounts") or [] if pod_spec.normal(m["mountPath"]) == pod_spec.MOUNT_PATH
    ]
    # A container that mounts only its own token there doesn't use the webhook.
    if not there or pod_spec.TOKEN_VOLUME in there:
        file = (values.get(pod_spec.TOKEN_FILE) or "").replace("\\", "/").removeprefix("C:")
        if file == f"{pod_spec.MOUNT_PATH}/token" and values.get(pod_spec.ROLE):
            gone |= {pod_spec.ROLE, pod_spec.TOKEN_FILE}
        if all(values.get(name) == region for name in pod_spec.REGIONS):
            gone |= set(pod_spec.REGIONS)
        if values.get(pod_spec.STS_ENDPOINTS) == "regional":
            gone |= {pod_spec.STS_ENDPOINTS}
    set_list(container, "env", [variable for variable in variables if variable["name"] not in gone])


def _mounted(spec: Document, volume: str) -> bool:
    return any(mount["name"] == volume for each in containers_of(spec) for mount in each.get("volumeMounts") or [])


def _is_of_admission(toleration: Document) -> bool:
    return toleration.get("key") in NODE_TROUBLE and toleration.get("tolerationSeconds") == 300


def _usual_pull_policy(image: str) -> str:
    last = image.rpartition("/")[2]
    has_digest = "@" in last
    tag = last.partition(":")[2]
    return "IfNotPresent" if has_digest or tag not in ("", "latest") else "Always"


def _ordered(document: Document, first: tuple[str, ...]) -> Document:
    head = {key: document[key] for key in first if key in document}
    return head | {key: value for key, value in document.items() if key not in head}
