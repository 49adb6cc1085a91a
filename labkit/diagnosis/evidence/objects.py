"""The objects of Kubernetes' that the evidence holds, as far as anything reads them; any part may be missing."""

from typing import Any, TypedDict


class OwnerReference(TypedDict, total=False):
    """https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/"""

    apiVersion: str
    kind: str
    name: str
    controller: bool


class Metadata(TypedDict, total=False):
    """https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/"""

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


class ServiceAccount(TypedDict, total=False):
    """https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/service-account-v1/"""

    metadata: Metadata


class PodStatus(TypedDict, total=False):
    """https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#PodStatus"""

    phase: str
    conditions: list[dict[str, Any]]
    containerStatuses: list[dict[str, Any]]
    initContainerStatuses: list[dict[str, Any]]


class Pod(TypedDict, total=False):
    """https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/"""

    metadata: Metadata
    spec: dict[str, Any]
    status: PodStatus


class Event(TypedDict, total=False):
    """https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/, as the core group answers it."""

    involvedObject: dict[str, str]
    reason: str
    message: str
    count: int
    eventTime: str
    lastTimestamp: str
