"""A pod as its spec says it: its containers' variables, mounts and AWS configs, its owner, and its manifest as applied.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
"""

import configparser
import copy
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labkit.diagnosis.evidence.cluster import Cluster

ROLE = "AWS_ROLE_ARN"
TOKEN_FILE = "AWS_WEB_IDENTITY_TOKEN_FILE"  # noqa: S105 - a variable's name
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
STS_ENDPOINTS = "AWS_STS_REGIONAL_ENDPOINTS"
CONFIG_FILES = ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")
# What EKS's webhook adds where there is a Pod Identity association.
POD_IDENTITY = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
POD_IDENTITY_VOLUME = "eks-pod-identity-token"
TOKEN_VOLUME = "aws-iam-token"  # noqa: S105 - a volume's name
MOUNT_PATH = "/var/run/secrets/eks.amazonaws.com/serviceaccount"
API_MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
API_VOLUME = "kube-api-access-"

Document = dict[str, Any]


@dataclass(frozen=True)
class Variable:
    """A variable of a container; `value` is None where it stands in a Secret, or is known only as the pod runs."""

    name: str
    value: str | None
    source: str
    """Where it comes from: `env`, `ConfigMap NAME`, `Secret NAME`, `field PATH`."""
    config_map: str = ""
    """The ConfigMap that `envFrom` takes it from, and its key there; empty elsewhere."""
    key: str = ""


@dataclass(frozen=True)
class AwsConfig:
    """A file of AWS's settings that a container mounts from a ConfigMap.

    https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html
    """

    container: str
    path: str
    config_map: str
    key: str
    profiles: dict[str, dict[str, str]] = field(default_factory=dict)
    """The settings by profile; the `default` one is called so."""


class Container:
    """One container of a pod. What lies in a ConfigMap is read when it is asked for."""

    def __init__(self, pod: "PodSpec", document: Document, *, is_init: bool):
        self.name: str = document["name"]
        self.document = document
        self.is_init = is_init
        self._pod = pod

    def variable(self, name: str) -> Variable | None:
        """A variable as the container gets it: `env` goes before `envFrom`. Raises `NotRead`."""
        for entry in reversed(self.document.get("env") or []):
            if entry["name"] == name:
                return self._of_env(entry)
        return next((variable for variable in self._of_sources() if variable.name == name), None)

    def value(self, name: str) -> str:
        """The variable's value; empty where it is not set, or not known. Raises `NotRead`."""
        variable = self.variable(name)
        return (variable.value or "") if variable else ""

    @property
    def own_names(self) -> set[str]:
        """The names in `env`: what the webhook heeds, which does not look into `envFrom`."""
        return {entry["name"] for entry in self.document.get("env") or []}

    @property
    def secrets(self) -> list[str]:
        """The Secrets all of whose keys are variables; which ones is not read."""
        sources = self.document.get("envFrom") or []
        return [source["secretRef"].get("name", "") for source in sources if source.get("secretRef")]

    @property
    def mounts(self) -> list[Document]:
        """The volume mounts."""
        return self.document.get("volumeMounts") or []

    @property
    def has_role(self) -> bool:
        """Whether it has the pair of variables that make the SDK exchange a token."""
        return bool(self.value(ROLE) and self.value(TOKEN_FILE))

    def mount_of(self, path: str) -> Document | None:
        """The mount below which a path lies."""
        path = _normal(path)
        above = [mount for mount in self.mounts if _is_below(path, _normal(mount["mountPath"]))]
        return max(above, key=lambda mount: len(_normal(mount["mountPath"])), default=None)

    def token_at(self, path: str) -> Document | None:
        """The projected token (`audience`, `expirationSeconds`, `path`) that the container finds at a path."""
        mount = self.mount_of(path)
        volume = self._pod.volumes.get(mount["name"]) if mount else None
        if volume is None:
            return None
        inside = _normal(path)[len(_normal(mount["mountPath"])) :].lstrip("/")
        inside = posixpath.normpath(posixpath.join(mount.get("subPath") or "", inside))
        for source in (volume.get("projected") or {}).get("sources") or []:
            token = source.get("serviceAccountToken")
            if token and posixpath.normpath(token.get("path", "")) == inside:
                return token
        return None

    @cached_property
    def aws_configs(self) -> list[AwsConfig]:
        """The AWS configs that it mounts from ConfigMaps. Raises `NotRead`."""
        return list(self._found_configs())

    @property
    def profiles(self) -> dict[str, dict[str, str]]:
        """The profiles of all its AWS configs."""
        return {name: settings for config in self.aws_configs for name, settings in config.profiles.items()}

    @property
    def hidden_config(self) -> str:
        """The Secret from which it mounts an AWS config, which is not read; empty where there is none."""
        for mount in self.mounts:
            volume = self._pod.volumes.get(mount["name"]) or {}
            sources = [volume, *((volume.get("projected") or {}).get("sources") or [])]
            names = [
                each["secret"].get("secretName") or each["secret"].get("name") for each in sources if "secret" in each
            ]
            if names and self._may_hold_config(mount):
                return names[0] or ""
        return ""

    def _of_env(self, entry: Document) -> Variable:
        name, source = entry["name"], entry.get("valueFrom") or {}
        if reference := source.get("configMapKeyRef"):
            data = self._pod.config_map(reference.get("name", ""))
            return Variable(name, data.get(reference["key"]), f"ConfigMap {reference.get('name', '')}")
        if reference := source.get("secretKeyRef"):
            return Variable(name, None, f"Secret {reference.get('name', '')}")
        if reference := source.get("fieldRef"):
            path = reference.get("fieldPath", "")
            return Variable(name, self._pod.field(path), f"field {path}")
        return Variable(name, None, "resources") if source else Variable(name, entry.get("value") or "", "env")

    def _of_sources(self) -> Iterator[Variable]:
        """The variables of `envFrom`; of two of one name, the last wins, and is given first."""
        for source in reversed(self.document.get("envFrom") or []):
            if reference := source.get("configMapRef"):
                name, prefix = reference.get("name", ""), source.get("prefix") or ""
                for key, value in self._pod.config_map(name).items():
                    yield Variable(prefix + key, value, f"ConfigMap {name}", name, key)

    def _found_configs(self) -> Iterator[AwsConfig]:
        for mount in self.mounts:
            if not self._may_hold_config(mount):
                continue
            for name, items in _config_maps(self._pod.volumes.get(mount["name"]) or {}):
                for key, text in self._pod.config_map(name).items():
                    path = _path_in(mount, items.get(key, "" if items else key))
                    if path and self._is_config(path):
                        yield AwsConfig(self.name, path, name, key, _profiles(text))

    def _may_hold_config(self, mount: Document) -> bool:
        """Whether an SDK could look there: before anything is read."""
        path = _normal(mount["mountPath"])
        told = [value for name in CONFIG_FILES if (value := self._plain(name))]
        return "/.aws" in path or any(_is_below(_normal(value), path) for value in told)

    def _is_config(self, path: str) -> bool:
        told = [_normal(value) for name in CONFIG_FILES if (value := self._plain(name))]
        return path in told or path.endswith(("/.aws/config", "/.aws/credentials"))

    def _plain(self, name: str) -> str:
        """A variable of `env` alone, since no ConfigMap is to be read for it."""
        entries = [entry for entry in self.document.get("env") or [] if entry["name"] == name]
        return (entries[-1].get("value") or "") if entries else ""


class PodSpec:
    """A pod, read through the cluster where it refers to something else."""

    def __init__(self, pod: Document, cluster: "Cluster"):
        self.document = pod
        self._cluster = cluster

    @property
    def name(self) -> str:
        return self.document["metadata"]["name"]

    @property
    def namespace(self) -> str:
        return self.document["metadata"]["namespace"]

    @property
    def labels(self) -> dict[str, str]:
        return self.document["metadata"].get("labels") or {}

    @property
    def annotations(self) -> dict[str, str]:
        return self.document["metadata"].get("annotations") or {}

    @property
    def spec(self) -> Document:
        return self.document["spec"]

    @cached_property
    def containers(self) -> list[Container]:
        """The containers and, behind them, the init containers: native sidecars are among these."""
        kinds = (("containers", False), ("initContainers", True))
        return [
            Container(self, document, is_init=is_init)
            for kind, is_init in kinds
            for document in self.spec.get(kind) or []
        ]

    @property
    def volumes(self) -> dict[str, Document]:
        """The volumes by name."""
        return {volume["name"]: volume for volume in self.spec.get("volumes") or []}

    @property
    def is_mutated(self) -> bool:
        """Whether the webhook has changed it: the token volume, and in some container the variables."""
        return is_token_volume(self.volumes.get(TOKEN_VOLUME)) and any(
            {ROLE, TOKEN_FILE} <= container.own_names for container in self.containers
        )

    def config_map(self, name: str) -> dict[str, str]:
        """The entries of a ConfigMap of its namespace; empty where there is none. Raises `NotRead`."""
        found = self._cluster.config_map(self.namespace, name) or {}
        return found.get("data") or {}

    def field(self, path: str) -> str | None:
        """What the downward API gives for a path; None for one that is known only as the pod runs."""
        metadata = self.document["metadata"]
        known = {
            "metadata.name": metadata.get("name"),
            "metadata.namespace": metadata.get("namespace"),
            "metadata.uid": metadata.get("uid"),
            "spec.serviceAccountName": self.spec.get("serviceAccountName"),
            "spec.nodeName": self.spec.get("nodeName"),
        }
        return known.get(path)

    @cached_property
    def owner(self) -> Document | None:
        """The object that makes such pods: a Deployment, StatefulSet, DaemonSet or ReplicaSet, else its reference.

        None for a pod that nobody owns. Raises `NotRead`.
        """
        reference = _controller(self.document)
        return workload(self._cluster, self.namespace, reference) if reference else None


def workload(cluster: "Cluster", namespace: str, reference: Document) -> Document | None:
    """What makes the pods of the object that a reference names: the Deployment of a ReplicaSet, else it itself.

    Of another kind than the cluster knows, the reference's kind and name. Raises `NotRead`.
    """
    found = cluster.workload(namespace, reference["kind"], reference["name"]) or {}
    if above := _controller(found):
        return workload(cluster, namespace, above)
    metadata = {"name": reference["name"], **(found.get("metadata") or {})}
    return {**found, "kind": reference["kind"], "metadata": metadata}


def is_token_volume(volume: Document | None) -> bool:
    """Whether a volume is what the webhook adds: a token of the service account in the file `token`."""
    sources = ((volume or {}).get("projected") or {}).get("sources") or []
    return any((source.get("serviceAccountToken") or {}).get("path") == "token" for source in sources)


def restored_manifest(pod: Document, region: str) -> Document:
    """The manifest from which a live pod was made.

    Taken off: status, defaults, and what admission and the webhook added, which both add again. `region` is the one
    that the webhook gives.
    """
    pod = copy.deepcopy(pod)
    metadata = {key: pod["metadata"][key] for key in ("name", "namespace", "labels") if pod["metadata"].get(key)}
    if annotations := _annotations(pod["metadata"]):
        metadata["annotations"] = annotations
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": _restored_spec(pod["spec"], region)}


def without_additions(spec: Document, region: str) -> Document:
    """A spec without the webhook's variables, mounts and volume; what somebody else wrote stays."""
    spec = copy.deepcopy(spec)
    added = is_token_volume(next((v for v in spec.get("volumes") or [] if v["name"] == TOKEN_VOLUME), None))
    for kind in ("containers", "initContainers"):
        for container in spec.get(kind) or []:
            _take_off_variables(container, region)
            _take_off_mounts(container)
    gone = {POD_IDENTITY_VOLUME, *([TOKEN_VOLUME] if added and not _mounted(spec, TOKEN_VOLUME) else [])}
    _set(spec, "volumes", [volume for volume in spec.get("volumes") or [] if volume["name"] not in gone])
    return spec


# The manifest.

# What admission and the scheduler write, and what only a pod that is there has.
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


def _restored_spec(spec: Document, region: str) -> Document:
    spec = without_additions(spec, region)
    spec = {key: value for key, value in spec.items() if key not in WRITTEN and DEFAULTS.get(key, ...) != value}
    tolerations = [each for each in spec.get("tolerations") or [] if not _is_of_admission(each)]
    _set(spec, "tolerations", tolerations)
    _set(spec, "volumes", [v for v in spec.get("volumes") or [] if not v["name"].startswith(API_VOLUME)])
    for kind in ("containers", "initContainers"):
        if spec.get(kind):
            spec[kind] = [_restored_container(container) for container in spec[kind]]
    return _ordered(spec, FIRST)


def _restored_container(container: Document) -> Document:
    container = {key: value for key, value in container.items() if CONTAINER_DEFAULTS.get(key, ...) != value}
    if container.get("imagePullPolicy") == _usual_pull_policy(container.get("image", "")):
        del container["imagePullPolicy"]
    mounts = [m for m in container.get("volumeMounts") or [] if not m["name"].startswith(API_VOLUME)]
    _set(container, "volumeMounts", mounts)
    return _ordered(container, FIRST_OF_CONTAINER)


def _take_off_mounts(container: Document) -> None:
    added = ((TOKEN_VOLUME, MOUNT_PATH), (POD_IDENTITY_VOLUME, None))
    mounts = [
        mount
        for mount in container.get("volumeMounts") or []
        if not any(mount["name"] == name and path in (None, _normal(mount["mountPath"])) for name, path in added)
    ]
    _set(container, "volumeMounts", mounts)


def _take_off_variables(container: Document, region: str) -> None:
    """What the webhook gave; a variable that somebody wrote would keep it from giving its own."""
    variables = container.get("env") or []
    values = {variable["name"]: variable.get("value") for variable in variables if "valueFrom" not in variable}
    gone = set(POD_IDENTITY)
    there = [m["name"] for m in container.get("volumeMounts") or [] if _normal(m["mountPath"]) == MOUNT_PATH]
    # Who mounts but a token of their own there does without the webhook.
    if not there or TOKEN_VOLUME in there:
        file = (values.get(TOKEN_FILE) or "").replace("\\", "/").removeprefix("C:")
        if file == f"{MOUNT_PATH}/token" and values.get(ROLE):
            gone |= {ROLE, TOKEN_FILE}
        if all(values.get(name) == region for name in REGIONS):
            gone |= set(REGIONS)
        if values.get(STS_ENDPOINTS) == "regional":
            gone |= {STS_ENDPOINTS}
    _set(container, "env", [variable for variable in variables if variable["name"] not in gone])


def _mounted(spec: Document, volume: str) -> bool:
    containers = [each for kind in ("containers", "initContainers") for each in spec.get(kind) or []]
    return any(mount["name"] == volume for each in containers for mount in each.get("volumeMounts") or [])


def _annotations(metadata: Document) -> dict[str, str]:
    return {key: value for key, value in (metadata.get("annotations") or {}).items() if key not in NOTED}


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


def _set(document: Document, key: str, value: list[Any]) -> None:
    if value:
        document[key] = value
    elif document.get(key):
        del document[key]


# Paths and files.


def _controller(document: Document) -> Document | None:
    references = (document.get("metadata") or {}).get("ownerReferences") or []
    return next((reference for reference in references if reference.get("controller")), None)


def _normal(path: str) -> str:
    return posixpath.normpath(path.replace("\\", "/").removeprefix("C:"))


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _path_in(mount: Document, file: str) -> str:
    """Where a volume's file is in the container; empty where it is not mounted."""
    if not file:
        return ""
    inside = mount.get("subPath") or ""
    if not inside:
        return _normal(posixpath.join(mount["mountPath"], file))
    if not _is_below(_normal(file), _normal(inside)):
        return ""
    return _normal(posixpath.join(mount["mountPath"], _normal(file)[len(_normal(inside)) :].lstrip("/")))


def _config_maps(volume: Document) -> Iterator[tuple[str, dict[str, str]]]:
    """The ConfigMaps of a volume, and under which path each key lies where that is said."""
    sources = [volume, *((volume.get("projected") or {}).get("sources") or [])]
    for source in sources:
        if reference := source.get("configMap"):
            yield reference.get("name", ""), {item["key"]: item["path"] for item in reference.get("items") or []}


def _profiles(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=False, default_section="")
    try:
        parser.read_string(text)
    except configparser.Error:
        return {}
    return {
        section.removeprefix("profile ").strip(): {key: value or "" for key, value in parser.items(section)}
        for section in parser.sections()
    }
