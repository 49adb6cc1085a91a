"""The fields of Kubernetes' objects that the doctor reads. Any field may be missing.

A type without a link is on the page that a type above it links to.
"""

from typing import Any, TypedDict

BindingSubject = dict[str, str]
"""Its keys are `kind`, `name` and `namespace`."""
KeyReference = dict[str, str]
"""A reference to a value: a key of a ConfigMap or Secret (`name` and `key`), or a field of the pod (`fieldPath`).

With `name` only, it's a reference to all keys of the ConfigMap or Secret.
"""
VolumeMount = dict[str, str]
"""Its keys are `name`, `mountPath` and `subPath`."""
ServiceReference = dict[str, str]
"""https://kubernetes.io/docs/reference/kubernetes-api/extend-resources/mutating-webhook-configuration-v1/

Its keys are `namespace` and `name`.
"""


class OwnerReference(TypedDict, total=False):
    """https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/"""

    apiVersion: str
    kind: str
    name: str
    controller: bool


class ObjectMeta(TypedDict, total=False):
    name: str
    namespace: str
    uid: str
    generateName: str
    labels: dict[str, str] | None
    annotations: dict[str, str] | None
    creationTimestamp: str
    deletionTimestamp: str
    ownerReferences: list[OwnerReference]
    managedFields: list[dict[str, Any]]


class ServiceAccountDocument(TypedDict, total=False):
    """https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/service-account-v1/"""

    metadata: ObjectMeta


class Binding(TypedDict, total=False):
    """A RoleBinding, or a ClusterRoleBinding: its metadata has no namespace.

    https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/role-binding-v1/
    """

    metadata: ObjectMeta
    roleRef: dict[str, str]
    subjects: list[BindingSubject]


class PodStatusDocument(TypedDict, total=False):
    """https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#PodStatus"""

    phase: str
    conditions: list[dict[str, Any]]
    containerStatuses: list[dict[str, Any]]
    initContainerStatuses: list[dict[str, Any]]


class EnvVar(TypedDict, total=False):
    name: str
    value: str
    valueFrom: dict[str, KeyReference]


class EnvFromSource(TypedDict, total=False):
    prefix: str
    configMapRef: KeyReference
    secretRef: KeyReference


class ContainerDocument(TypedDict, total=False):
    name: str
    image: str
    command: list[str]
    args: list[str]
    env: list[EnvVar]
    envFrom: list[EnvFromSource]
    volumeMounts: list[VolumeMount]
    securityContext: dict[str, Any]


class Files(TypedDict, total=False):
    """A `configMap` or a `secret` in the definition of a volume.

    The name of a ConfigMap is in `name`. The name of a Secret is in `secretName`, or, in a projected volume, in `name`.
    """

    name: str
    secretName: str
    items: list[dict[str, str]]


class TokenProjection(TypedDict, total=False):
    audience: str
    expirationSeconds: int
    path: str


class VolumeProjection(TypedDict, total=False):
    serviceAccountToken: TokenProjection
    configMap: Files
    secret: Files


class Volume(TypedDict, total=False):
    name: str
    projected: dict[str, list[VolumeProjection]]
    configMap: Files
    secret: Files


class PodSpecDocument(TypedDict, total=False):
    serviceAccountName: str
    nodeName: str
    nodeSelector: dict[str, str]
    affinity: dict[str, Any]
    containers: list[ContainerDocument]
    initContainers: list[ContainerDocument]
    volumes: list[Volume]
    securityContext: dict[str, Any]


class PodDocument(TypedDict, total=False):
    metadata: ObjectMeta
    spec: PodSpecDocument
    status: PodStatusDocument


class WorkloadSpec(TypedDict, total=False):
    """The spec of a Deployment or of another workload.

    https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/deployment-v1/
    """

    replicas: int
    paused: bool
    selector: "LabelSelector"
    template: PodDocument
    jobTemplate: "dict[str, WorkloadSpec]"
    """A CronJob has this field instead of `template`."""


class Workload(TypedDict, total=False):
    """An object that makes pods: a Deployment, ReplicaSet, StatefulSet, DaemonSet, CronJob or Job."""

    kind: str
    metadata: ObjectMeta
    spec: WorkloadSpec
    status: dict[str, Any]


class LabelRequirement(TypedDict, total=False):
    """https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/label-selector/"""

    key: str
    operator: str
    values: list[str]


class LabelSelector(TypedDict, total=False):
    matchLabels: dict[str, str]
    matchExpressions: list[LabelRequirement]


class ClientConfig(TypedDict, total=False):
    url: str
    service: ServiceReference
    caBundle: str


class Rule(TypedDict, total=False):
    operations: list[str]
    apiGroups: list[str]
    apiVersions: list[str]
    resources: list[str]
    scope: str


class Webhook(TypedDict, total=False):
    name: str
    clientConfig: ClientConfig
    failurePolicy: str
    matchConditions: list[dict[str, str]]
    namespaceSelector: LabelSelector
    objectSelector: LabelSelector
    rules: list[Rule]


class WebhookConfiguration(TypedDict, total=False):
    metadata: ObjectMeta
    webhooks: list[Webhook]


class Event(TypedDict, total=False):
    """An event of the core API group.

    https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
    """

    involvedObject: dict[str, str]
    reason: str
    message: str
    count: int
    eventTime: str
    lastTimestamp: str
