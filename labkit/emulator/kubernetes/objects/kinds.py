"""The kinds that the API serves: one row each. Everything generic (verbs, discovery, tables, RBAC) reads this table."""

from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
"""An object of the API, or a part of one, as JSON has it."""

ALL = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
NO_COLLECTION = ("create", "delete", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Kind:
    """One kind of object.

    ``type`` names it in the schema; ``fields`` are the selectable fields beside metadata.name and metadata.namespace;
    ``generation`` says that metadata.generation counts the changes of its spec; ``echo`` that a delete answers with the
    object and not with a Status.
    """

    group: str
    kind: str
    plural: str
    type: str
    namespaced: bool = True
    version: str = "v1"
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL
    has_status: bool = False
    fields: tuple[str, ...] = ()
    generation: bool = False
    echo: bool = False
    storage_hash: str = ""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """As messages name it: ``pods``, ``roles.rbac.authorization.k8s.io``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def path(self) -> str:
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


@dataclass(frozen=True)
class Subresource:
    """What lies below an object or, like a review, is only ever posted."""

    group: str
    name: str
    kind: str
    type: str
    verbs: tuple[str, ...]
    namespaced: bool = True
    kind_group: str = ""
    kind_version: str = ""


ADMISSION, APPS, RBAC = "admissionregistration.k8s.io", "apps", "rbac.authorization.k8s.io"
AUTHENTICATION, AUTHORIZATION = "authentication.k8s.io", "authorization.k8s.io"

EVENT_FIELDS = (
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
)
POD_FIELDS = (
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
)

KINDS = (
    Kind("", "ConfigMap", "configmaps", "core.ConfigMap", short_names=("cm",), storage_hash="qFsyl6wFWjQ="),
    Kind("", "Event", "events", "core.Event", short_names=("ev",), fields=EVENT_FIELDS, storage_hash="r2yiGXH7wu8="),
    Kind(
        "",
        "Namespace",
        "namespaces",
        "core.Namespace",
        namespaced=False,
        short_names=("ns",),
        verbs=NO_COLLECTION,
        has_status=True,
        fields=("status.phase",),
        echo=True,
        storage_hash="Q3oi5N2YM8M=",
    ),
    Kind(
        "",
        "Node",
        "nodes",
        "core.Node",
        namespaced=False,
        short_names=("no",),
        has_status=True,
        fields=("spec.unschedulable",),
        storage_hash="XwShjMxG9Fs=",
    ),
    Kind(
        "",
        "Pod",
        "pods",
        "core.Pod",
        short_names=("po",),
        categories=("all",),
        has_status=True,
        fields=POD_FIELDS,
        generation=True,
        echo=True,
        storage_hash="xPOwRZ+Yhw8=",
    ),
    Kind("", "Secret", "secrets", "core.Secret", fields=("type",), storage_hash="S6u1pOWzb84="),
    Kind(
        "",
        "ServiceAccount",
        "serviceaccounts",
        "core.ServiceAccount",
        short_names=("sa",),
        echo=True,
        storage_hash="pbx9ZvyFpBE=",
    ),
    Kind(
        "",
        "Service",
        "services",
        "core.Service",
        short_names=("svc",),
        categories=("all",),
        has_status=True,
        fields=("spec.clusterIP", "spec.type"),
        echo=True,
        storage_hash="0/CO1lhkEBI=",
    ),
    Kind(
        APPS,
        "Deployment",
        "deployments",
        "apps.Deployment",
        short_names=("deploy",),
        categories=("all",),
        has_status=True,
        generation=True,
        storage_hash="8aSe+NMegvE=",
    ),
    Kind(
        APPS,
        "ReplicaSet",
        "replicasets",
        "apps.ReplicaSet",
        short_names=("rs",),
        categories=("all",),
        has_status=True,
        fields=("status.replicas",),
        generation=True,
        storage_hash="P1RzHs8/mWQ=",
    ),
    Kind(
        ADMISSION,
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        "admissionregistration.MutatingWebhookConfiguration",
        namespaced=False,
        categories=("api-extensions",),
        generation=True,
    ),
    Kind("coordination.k8s.io", "Lease", "leases", "coordination.Lease"),
    Kind(RBAC, "ClusterRole", "clusterroles", "rbac.ClusterRole", namespaced=False),
    Kind(RBAC, "ClusterRoleBinding", "clusterrolebindings", "rbac.ClusterRoleBinding", namespaced=False),
    Kind(RBAC, "Role", "roles", "rbac.Role"),
    Kind(RBAC, "RoleBinding", "rolebindings", "rbac.RoleBinding"),
)

READ_AND_CHANGE = ("get", "patch", "update")


def _scale(plural: str) -> Subresource:
    name = f"{plural}/scale"
    return Subresource(
        APPS, name, "Scale", "autoscaling.Scale", READ_AND_CHANGE, kind_group="autoscaling", kind_version="v1"
    )


SUBRESOURCES = (
    Subresource("", "namespaces/finalize", "Namespace", "core.Namespace", ("update",), namespaced=False),
    Subresource("", "namespaces/status", "Namespace", "core.Namespace", READ_AND_CHANGE, namespaced=False),
    Subresource("", "nodes/status", "Node", "core.Node", READ_AND_CHANGE, namespaced=False),
    Subresource("", "pods/attach", "PodAttachOptions", "", ("create", "get")),
    Subresource("", "pods/binding", "Binding", "core.Binding", ("create",)),
    Subresource("", "pods/exec", "PodExecOptions", "", ("create", "get")),
    Subresource("", "pods/log", "Pod", "", ("get",)),
    Subresource("", "pods/portforward", "PodPortForwardOptions", "", ("create", "get")),
    Subresource("", "pods/status", "Pod", "core.Pod", READ_AND_CHANGE),
    Subresource(
        "",
        "serviceaccounts/token",
        "TokenRequest",
        "authentication.TokenRequest",
        ("create",),
        kind_group=AUTHENTICATION,
        kind_version="v1",
    ),
    _scale("deployments"),
    Subresource(APPS, "deployments/status", "Deployment", "apps.Deployment", READ_AND_CHANGE),
    _scale("replicasets"),
    Subresource(APPS, "replicasets/status", "ReplicaSet", "apps.ReplicaSet", READ_AND_CHANGE),
    Subresource(
        AUTHENTICATION,
        "selfsubjectreviews",
        "SelfSubjectReview",
        "authentication.SelfSubjectReview",
        ("create",),
        namespaced=False,
    ),
    Subresource(
        AUTHENTICATION, "tokenreviews", "TokenReview", "authentication.TokenReview", ("create",), namespaced=False
    ),
    Subresource(
        AUTHORIZATION,
        "localsubjectaccessreviews",
        "LocalSubjectAccessReview",
        "authorization.LocalSubjectAccessReview",
        ("create",),
    ),
    Subresource(
        AUTHORIZATION,
        "selfsubjectaccessreviews",
        "SelfSubjectAccessReview",
        "authorization.SelfSubjectAccessReview",
        ("create",),
        namespaced=False,
    ),
    Subresource(
        AUTHORIZATION,
        "selfsubjectrulesreviews",
        "SelfSubjectRulesReview",
        "authorization.SelfSubjectRulesReview",
        ("create",),
        namespaced=False,
    ),
    Subresource(
        AUTHORIZATION,
        "subjectaccessreviews",
        "SubjectAccessReview",
        "authorization.SubjectAccessReview",
        ("create",),
        namespaced=False,
    ),
)

BY_RESOURCE = {(kind.group, kind.version, kind.plural): kind for kind in KINDS}
BY_NAME = {kind.kind: kind for kind in KINDS}
SUBRESOURCE = {(sub.group, sub.name): sub for sub in SUBRESOURCES}
GROUPS = tuple(dict.fromkeys([kind.group for kind in KINDS] + [sub.group for sub in SUBRESOURCES]))

POD, NODE, NAMESPACE = BY_NAME["Pod"], BY_NAME["Node"], BY_NAME["Namespace"]
SERVICE_ACCOUNT, CONFIG_MAP, SECRET = BY_NAME["ServiceAccount"], BY_NAME["ConfigMap"], BY_NAME["Secret"]
EVENT, DEPLOYMENT, REPLICA_SET = BY_NAME["Event"], BY_NAME["Deployment"], BY_NAME["ReplicaSet"]
