"""A pod's spec: its containers' variables, mounts and AWS configs, and its owner.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
"""

import configparser
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from labkit.doctor.evidence import objects
from labkit.doctor.evidence.cluster_api import ClusterApi
from labkit.documents import NO_IMAGE

ROLE = "AWS_ROLE_ARN"
TOKEN_FILE = "AWS_WEB_IDENTITY_TOKEN_FILE"  # noqa: S105 - a variable's name
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
STS_ENDPOINTS = "AWS_STS_REGIONAL_ENDPOINTS"
CONFIG_FILES = ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")
# The variables that EKS's webhook adds if there is a Pod Identity association.
POD_IDENTITY = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
POD_IDENTITY_VOLUME = "eks-pod-identity-token"
TOKEN_VOLUME = "aws-iam-token"  # noqa: S105 - a volume's name
MOUNT_PATH = "/var/run/secrets/eks.amazonaws.com/serviceaccount"
API_MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
API_VOLUME = "kube-api-access-"
APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
# https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
REFERENCE = re.compile(r"\$\$|\$\(([^()]+)\)")
WORKLOADS = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet")


@dataclass(frozen=True)
class EnvVariable:
    """A container's environment variable. `value`: None if the doctor can't read it, as with a Secret's values."""

    name: str
    value: str | None
    source: str
    """The variable's origin: `env`, `ConfigMap NAME`, `Secret NAME`, `field PATH`."""
    config_map: str = ""
    """The ConfigMap from which `envFrom` takes the variable; empty for other origins."""
    key: str = ""
    """The variable's key in `config_map`; empty for other origins."""


@dataclass(frozen=True)
class AwsConfig:
    """An AWS config file that a container mounts from a ConfigMap.

    https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html
    """

    path: str
    config_map: str
    key: str
    profiles: dict[str, dict[str, str]] = field(default_factory=dict)
    """The settings by profile. `default` is the name of the default profile."""


class Container:
    """One container of a pod. A ConfigMap is read only when a property or method needs it."""

    def __init__(self, pod: "PodSpec", document: objects.ContainerDocument, *, is_init: bool):
        self.name = document["name"]
        self.document = document
        self.is_init = is_init
        self._pod = pod

    def variable(self, name: str) -> EnvVariable | None:
        """Return the variable that the container gets; None if unset. `env` wins over `envFrom`. Raises `NotRead`."""
        return self._variable(name, self.document.get("env") or [])

    def value(self, name: str) -> str:
        """Return the variable's value; empty if the variable isn't set or its value isn't known. Raises `NotRead`."""
        variable = self.variable(name)
        return (variable.value or "") if variable else ""

    @property
    def own_names(self) -> set[str]:
        """The names of the variables in `env`. The webhook looks only at these, not at `envFrom`."""
        return {entry["name"] for entry in self.document.get("env") or []}

    @property
    def is_by_hand(self) -> bool:
        """Whether a person, and not the webhook, set the container's role variable. Raises `NotRead`."""
        if ROLE not in self.own_names:
            return self.has_role  # by `envFrom`, which the webhook doesn't read
        names = [entry["name"] for entry in self.document.get("env") or []]
        before = names[: names.index(ROLE)]
        if STS_ENDPOINTS in before or before[-2:] == [*reversed(REGIONS)]:  # in the webhook's order
            return False
        declared = self._pod.declared(self.name)
        return declared is None or ROLE in declared

    @property
    def declares_role(self) -> bool:
        """Whether the container sets AWS_ROLE_ARN in the template of the pod's owner, or in the applied manifest.

        Raises `NotRead`.
        """
        return ROLE in (self._pod.declared(self.name) or ())

    @property
    def secrets(self) -> list[str]:
        """The Secrets that `envFrom` turns into variables. The doctor doesn't know the names of these variables."""
        sources = self.document.get("envFrom") or []
        return [source["secretRef"].get("name", "") for source in sources if source.get("secretRef")]

    @property
    def mounts(self) -> list[objects.VolumeMount]:
        return self.document.get("volumeMounts") or []

    @property
    def has_role(self) -> bool:
        """Whether the container's role and token variables are set and not empty. Raises `NotRead`."""
        return bool(self.value(ROLE) and self.value(TOKEN_FILE))

    def mount_of(self, path: str) -> objects.VolumeMount | None:
        """Return the innermost mount that contains a path; None if no mount contains it."""
        path = normal(path)
        above = [mount for mount in self.mounts if _is_below(path, normal(mount["mountPath"]))]
        return max(above, key=lambda mount: len(normal(mount["mountPath"])), default=None)

    def token_at(self, path: str) -> objects.TokenProjection | None:
        """Return the projected token at a path in the container; None if the path has no such token."""
        mount = self.mount_of(path)
        volume = self._pod.volumes.get(mount["name"]) if mount else None
        if mount is None or volume is None:
            return None
        inside = normal(path)[len(normal(mount["mountPath"])) :].lstrip("/")
        inside = posixpath.normpath(posixpath.join(mount.get("subPath") or "", inside))
        for source in (volume.get("projected") or {}).get("sources") or []:
            token = source.get("serviceAccountToken")
            if token and posixpath.normpath(token.get("path", "")) == inside:
                return token
        return None

    def copied_at(self, path: str) -> tuple[str, str | None] | None:
        """Return a file's source (`ConfigMap NAME` or `Secret NAME`) and text; None if the file has another source.

        The doctor doesn't read Secrets, so None stands for a Secret's text. Raises `NotRead`.
        """
        mount = self.mount_of(path)
        volume = self._pod.volumes.get(mount["name"]) if mount else None
        if mount is None or volume is None or self.token_at(path):
            return None
        for name, items in _config_maps(volume):
            for key, text in self._pod.config_map(name).items():
                if _path_in(mount, items.get(key, "" if items else key)) == normal(path):
                    return f"ConfigMap {name}", text
        secrets = _secrets(volume)
        return (f"Secret {secrets[0]}", None) if secrets else None

    @cached_property
    def aws_configs(self) -> list[AwsConfig]:
        """The AWS configs that the container mounts from ConfigMaps. Raises `NotRead`."""
        return list(self._read_configs())

    @property
    def profiles(self) -> dict[str, dict[str, str]]:
        """The profiles in the container's AWS configs, by name. Raises `NotRead`."""
        return {name: settings for config in self.aws_configs for name, settings in config.profiles.items()}

    @property
    def hidden_config(self) -> str:
        """The name of a Secret that may supply the container's AWS config; empty without such a Secret.

        The doctor doesn't read Secrets.
        """
        for mount in self.mounts:
            names = _secrets(self._pod.volumes.get(mount["name"]) or {})
            if names and self._may_hold_config(mount):
                return names[0]
        return ""

    def _variable(self, name: str, entries: list[objects.EnvVar]) -> EnvVariable | None:
        # The last entry of `env` wins, and `env` wins over `envFrom`.
        for at in reversed(range(len(entries))):
            if entries[at]["name"] == name:
                return self._of_env(entries[at], entries[:at])
        return next((variable for variable in self._of_sources() if variable.name == name), None)

    def _of_env(self, entry: objects.EnvVar, earlier: list[objects.EnvVar]) -> EnvVariable:
        name, source = entry["name"], entry.get("valueFrom") or {}
        if reference := source.get("configMapKeyRef"):
            data = self._pod.config_map(reference.get("name", ""))
            return EnvVariable(name, data.get(reference["key"]), f"ConfigMap {reference.get('name', '')}")
        if reference := source.get("secretKeyRef"):
            return EnvVariable(name, None, f"Secret {reference.get('name', '')}")
        if reference := source.get("fieldRef"):
            path = reference.get("fieldPath", "")
            return EnvVariable(name, self._pod.field(path), f"field {path}")
        return EnvVariable(name, None, "resources") if source else self._filled_in(entry, earlier)

    def _filled_in(self, entry: objects.EnvVar, earlier: list[objects.EnvVar]) -> EnvVariable:
        """Return the variable with each `$(NAME)` replaced by an earlier variable's value, as the node does."""
        name, text, known = entry["name"], entry.get("value") or "", {"": "$"}
        for other in filter(None, REFERENCE.findall(text)):
            variable = self._variable(other, earlier)
            if variable is None and self.secrets:
                return EnvVariable(name, None, f"Secret {self.secrets[0]}")
            if variable and variable.value is None:
                return EnvVariable(name, None, variable.source)
            known[other] = variable.value if variable and variable.value is not None else f"$({other})"
        return EnvVariable(name, REFERENCE.sub(lambda match: known[match[1] or ""], text), "env")

    def _of_sources(self) -> Iterator[EnvVariable]:
        # The last source wins.
        for source in reversed(self.document.get("envFrom") or []):
            if reference := source.get("configMapRef"):
                name, prefix = reference.get("name", ""), source.get("prefix") or ""
                for key, value in self._pod.config_map(name).items():
                    yield EnvVariable(prefix + key, value, f"ConfigMap {name}", name, key)

    def _read_configs(self) -> Iterator[AwsConfig]:
        for mount in self.mounts:
            if not self._may_hold_config(mount):
                continue
            for name, items in _config_maps(self._pod.volumes.get(mount["name"]) or {}):
                for key, text in self._pod.config_map(name).items():
                    path = _path_in(mount, items.get(key, "" if items else key))
                    if path and self._is_config(path):
                        yield AwsConfig(path, name, key, _profiles(text))

    def _may_hold_config(self, mount: objects.VolumeMount) -> bool:
        path = normal(mount["mountPath"])
        files = [value for name in CONFIG_FILES if (value := self._plain(name))]
        return "/.aws" in path or any(_is_below(normal(value), path) for value in files)

    def _is_config(self, path: str) -> bool:
        files = [normal(value) for name in CONFIG_FILES if (value := self._plain(name))]
        return path in files or path.endswith(("/.aws/config", "/.aws/credentials"))

    def _plain(self, name: str) -> str:
        """Return the variable's literal value in `env`, without reading a ConfigMap."""
        entries = [entry for entry in self.document.get("env") or [] if entry["name"] == name]
        return (entries[-1].get("value") or "") if entries else ""


class PodSpec:
    """A pod's spec."""

    def __init__(self, pod: objects.PodDocument, cluster: ClusterApi):
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
    def spec(self) -> objects.PodSpecDocument:
        return self.document["spec"]

    @property
    def phase(self) -> str:
        return (self.document.get("status") or {}).get("phase", "Unknown")

    @property
    def stopped(self) -> str:
        """How the first container of a pod ended or why it waits, if the pod should run and no container does.

        Empty if a container runs, or if the pod has succeeded.
        """
        statuses = (self.document.get("status") or {}).get("containerStatuses") or []
        states = [status.get("state") or {} for status in statuses]
        if self.phase == "Succeeded" or not states or any("running" in state for state in states):
            return ""
        last = [*(statuses[0].get("lastState") or {}).values(), *states[0].values()]
        codes = [f"exit code {each['exitCode']}" for each in last if "exitCode" in each]
        return ", ".join(list(dict.fromkeys([each["reason"] for each in last[::-1] if each.get("reason")] + codes)))

    @property
    def without_image(self) -> set[str]:
        """The names of the containers that can't start because the node can't pull their images."""
        status = self.document.get("status") or {}
        waiting = {
            each["name"]: ((each.get("state") or {}).get("waiting") or {}).get("reason")
            for statuses in (status.get("containerStatuses"), status.get("initContainerStatuses"))
            for each in statuses or []
        }
        return {name for name, reason in waiting.items() if reason in NO_IMAGE}

    @cached_property
    def containers(self) -> list[Container]:
        """The containers, then the init containers, which include native sidecars."""
        kinds = ((self.spec.get("containers"), False), (self.spec.get("initContainers"), True))
        return [Container(self, document, is_init=is_init) for kind, is_init in kinds for document in kind or []]

    @property
    def volumes(self) -> dict[str, objects.Volume]:
        return {volume["name"]: volume for volume in self.spec.get("volumes") or []}

    @property
    def token_readers(self) -> tuple[int | None, int | None]:
        """The user and the group who may read the pod's tokens, besides root; both None if every user may.

        https://github.com/kubernetes/kubernetes/blob/v1.36.0/pkg/volume/projected/projected.go
        """
        of_pod = self.spec.get("securityContext") or {}
        own = [each.document.get("securityContext") or {} for each in self.containers]
        users = {context.get("runAsUser", of_pod.get("runAsUser")) for context in own}
        return users.pop() if len(users) == 1 else None, of_pod.get("fsGroup")

    @property
    def is_mutated(self) -> bool:
        """Whether the pod has the webhook's token volume, and a container with the role and token variables."""
        return is_token_volume(self.volumes.get(TOKEN_VOLUME)) and any(
            {ROLE, TOKEN_FILE} <= container.own_names for container in self.containers
        )

    @property
    def has_pod_identity(self) -> bool:
        """Whether the webhook gave the pod EKS Pod Identity's token volume, and its variables in a container.

        https://docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html
        """
        return POD_IDENTITY_VOLUME in self.volumes and any(map(self.is_associated, self.containers))

    @property
    def was_changed(self) -> bool:
        """Whether the webhook changed the pod, for IRSA or for EKS Pod Identity."""
        return self.is_mutated or self.has_pod_identity

    @staticmethod
    def is_associated(container: Container) -> bool:
        """Whether the container has EKS Pod Identity's variables."""
        return container.own_names.issuperset(POD_IDENTITY)

    def declared(self, container: str) -> set[str] | None:
        """Return the names of the variables that the manifest sets in a container's `env`.

        Return None if the manifest isn't known.

        The manifest is the owner's pod template or, without an owner, the pod that kubectl applied. Raises `NotRead`.
        """
        spec = _spec_applied(self.annotations.get(APPLIED) or "")
        if self.owner:
            spec = ((self.owner.get("spec") or {}).get("template") or {}).get("spec") or {}
        if not spec:
            return None
        there = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
        return {entry["name"] for each in there if each["name"] == container for entry in each.get("env") or []}

    def config_map(self, name: str) -> dict[str, str]:
        """Return the entries of a ConfigMap in the pod's namespace; empty if it doesn't exist. Raises `NotRead`."""
        config_map = self._cluster.get("configmap", name, self.namespace) or {}
        return config_map.get("data") or {}

    def field(self, path: str) -> str | None:
        """Return the value of a `fieldPath` such as `metadata.name`; None if only the running pod knows it."""
        metadata = self.document["metadata"]
        known: dict[str, str | None] = {
            "metadata.name": metadata.get("name"),
            "metadata.namespace": metadata.get("namespace"),
            "metadata.uid": metadata.get("uid"),
            "spec.serviceAccountName": self.spec.get("serviceAccountName"),
            "spec.nodeName": self.spec.get("nodeName"),
        }
        return known.get(path)

    @cached_property
    def owner(self) -> objects.Workload | None:
        """The workload that created the pod: a Deployment, for example, not its ReplicaSet.

        None for a pod without an owner. Raises `NotRead`.
        """
        reference = _controller(self.document["metadata"])
        return workload(self._cluster, self.namespace, reference) if reference else None


def workload(cluster: ClusterApi, namespace: str, reference: Mapping[str, object]) -> objects.Workload:
    """Return the workload that `reference` names. If that workload has an owner, return the topmost owner.

    For example, return a Deployment, not its ReplicaSet. If the workload is missing, or if the doctor doesn't read
    workloads of this kind, return only the kind and the name. Raises `NotRead`.
    """
    kind, name = str(reference["kind"]), str(reference["name"])
    document = (cluster.workload(kind, name, namespace) if kind in WORKLOADS else None) or objects.Workload()
    if above := _controller(document.get("metadata") or {}):
        return workload(cluster, namespace, above)
    return {**document, "kind": kind, "metadata": {"name": name, **(document.get("metadata") or {})}}


def service_account_of(spec: objects.PodSpecDocument) -> str:
    """Return the name of the service account that a pod with this spec runs as.

    https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/
    """
    return spec.get("serviceAccountName") or "default"


def is_token_volume(volume: objects.Volume | None) -> bool:
    """Whether a volume projects a service account's token into the file `token`, like the webhook's volume."""
    sources = ((volume or {}).get("projected") or {}).get("sources") or []
    return any((source.get("serviceAccountToken") or {}).get("path") == "token" for source in sources)


def normal(path: str) -> str:
    """Return a container's path in normal form. A Windows path is changed to Linux's notation.

    In most images, `/var/run` is a link to `/run`.
    """
    return re.sub(r"^/run(?=/|$)", "/var/run", posixpath.normpath(path.replace("\\", "/").removeprefix("C:")))


# Paths and files.


def _spec_applied(note: str) -> objects.PodSpecDocument:
    """Return the pod spec in `note`, the text of kubectl's last-applied annotation."""
    try:
        manifest = json.loads(note)
    except ValueError:
        return {}
    spec: objects.PodSpecDocument = manifest.get("spec") or {} if isinstance(manifest, dict) else {}
    return spec


def _controller(metadata: objects.ObjectMeta) -> objects.OwnerReference | None:
    references = metadata.get("ownerReferences") or []
    return next((reference for reference in references if reference.get("controller")), None)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _path_in(mount: objects.VolumeMount, file: str) -> str:
    """Return the path at which the container sees the volume's file."""
    if not file:
        return ""
    inside = mount.get("subPath") or ""
    if not inside:
        return normal(posixpath.join(mount["mountPath"], file))
    if not _is_below(normal(file), normal(inside)):
        return ""
    return normal(posixpath.join(mount["mountPath"], normal(file)[len(normal(inside)) :].lstrip("/")))


def _config_maps(volume: objects.Volume) -> Iterator[tuple[str, dict[str, str]]]:
    sources = [volume, *((volume.get("projected") or {}).get("sources") or [])]
    for source in sources:
        if reference := source.get("configMap"):
            yield reference.get("name", ""), {item["key"]: item["path"] for item in reference.get("items") or []}


def _secrets(volume: objects.Volume) -> list[str]:
    sources = [volume, *((volume.get("projected") or {}).get("sources") or [])]
    secrets = [each["secret"] for each in sources if "secret" in each]
    return [secret.get("secretName") or secret.get("name") or "" for secret in secrets]


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
