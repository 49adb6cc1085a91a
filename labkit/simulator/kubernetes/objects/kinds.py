"""A table of the kinds that the API serves. All generic code (verbs, discovery, tables, RBAC) uses this table."""

from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
"""An object of the API, or a part of one, as parsed JSON."""

ALL = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
IN_ALL = ("all",)
NO_COLLECTION = ("create", "delete", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, eq=False)
class Kind:
    """One kind of object.

    - ``fields``: field selectors may use these fields, in addition to metadata.name and metadata.namespace.
    - ``generation``: whether metadata.generation counts the changes of the spec.
    - ``echo``: whether the answer to a delete is the object instead of a Status.
    """

    group: str
    kind: str
    namespaced: bool = True
    short_name: str = ""
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL
    has_status: bool = False
    fields: tuple[str, ...] = ()
    generation: bool = False
    echo: bool = False

    version = "v1"

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def plural(self) -> str:
        return f"{self.singular}s"

    @property
    def resource(self) -> str:
        """The kind's name in messages, e.g. ``pods`` or ``roles.rbac.authorization.k8s.io``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def path(self) -> str:
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"

    @property
    def type(self) -> str:
        """The kind's name in the schema, e.g. ``core.Pod``."""
        return _type(self.group, self.kind)


@dataclass(frozen=True, eq=False)
class Subresource:
    """A subresource (`pods/log`) or a review (`tokenreviews`). Clients can create a review, but not read it.

    ``kind_group`` is the API group of ``kind``, if that group differs from ``group``.
    """

    group: str
    name: str
    kind: str
    verbs: tuple[str, ...]
    namespaced: bool = True
    kind_group: str = ""

    @property
    def type(self) -> str:
        """The name of ``kind`` in the schema, e.g. `autoscaling.Scale`; "" for query options such as PodExecOptions."""
        return "" if self.kind.endswith("Options") else _type(self.kind_group or self.group, self.kind)


def _type(group: str, kind: str) -> str:
    return f"{group.partition('.')[0] or 'core'}.{kind}"


ADMISSION, APPS, RBAC = "admissionregistration.k8s.io", "apps", "rbac.authorization.k8s.io"
AUTHENTICATION, AUTHORIZATION = "authentication.k8s.io", "authorization.k8s.io"

EVENT_FIELDS = (
    *("involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid"),
    *("involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath"),
    *("reason", "reportingComponent", "source", "type"),
)
POD_FIELDS = (
    *("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork"),
    *("status.phase", "status.podIP", "status.nominatedNodeName"),
)

KINDS = (
    Kind("", "ConfigMap", short_name="cm"),
    Kind("", "Event", short_name="ev", fields=EVENT_FIELDS),
    Kind("", "Namespace", False, "ns", verbs=NO_COLLECTION, has_status=True, fields=("status.phase",), echo=True),
    Kind("", "Node", False, "no", has_status=True, fields=("spec.unschedulable",)),
    Kind("", "Pod", True, "po", IN_ALL, has_status=True, fields=POD_FIELDS, generation=True, echo=True),
    Kind("", "Secret", fields=("type",)),
    Kind("", "ServiceAccount", short_name="sa", echo=True),
    Kind("", "Service", True, "svc", IN_ALL, has_status=True, fields=("spec.clusterIP", "spec.type"), echo=True),
    Kind(APPS, "Deployment", True, "deploy", IN_ALL, has_status=True, generation=True),
    Kind(APPS, "ReplicaSet", True, "rs", IN_ALL, has_status=True, fields=("status.replicas",), generation=True),
    Kind(ADMISSION, "MutatingWebhookConfiguration", namespaced=False, categories=("api-extensions",), generation=True),
    Kind("coordination.k8s.io", "Lease"),
    Kind(RBAC, "ClusterRole", namespaced=False),
    Kind(RBAC, "ClusterRoleBinding", namespaced=False),
    Kind(RBAC, "Role"),
    Kind(RBAC, "RoleBinding"),
)
# The hash of a kind's storage version, which discovery shows, by the kind's name.
STORAGE_HASHES = {
    **{"ConfigMap": "qFsyl6wFWjQ=", "Event": "r2yiGXH7wu8=", "Namespace": "Q3oi5N2YM8M=", "Node": "XwShjMxG9Fs="},
    **{"Pod": "xPOwRZ+Yhw8=", "Secret": "S6u1pOWzb84=", "ServiceAccount": "pbx9ZvyFpBE=", "Service": "0/CO1lhkEBI="},
    **{"Deployment": "8aSe+NMegvE=", "ReplicaSet": "P1RzHs8/mWQ="},
}

CHANGED, STREAMED, POSTED = ("get", "patch", "update"), ("create", "get"), ("create",)

SUBRESOURCES = (
    Subresource("", "namespaces/finalize", "Namespace", ("update",), namespaced=False),
    Subresource("", "namespaces/status", "Namespace", CHANGED, namespaced=False),
    Subresource("", "nodes/status", "Node", CHANGED, namespaced=False),
    Subresource("", "pods/attach", "PodAttachOptions", STREAMED),
    Subresource("", "pods/binding", "Binding", POSTED),
    Subresource("", "pods/exec", "PodExecOptions", STREAMED),
    Subresource("", "pods/log", "Pod", ("get",)),
    Subresource("", "pods/portforward", "PodPortForwardOptions", STREAMED),
    Subresource("", "pods/status", "Pod", CHANGED),
    Subresource("", "serviceaccounts/token", "TokenRequest", POSTED, kind_group=AUTHENTICATION),
    Subresource(APPS, "deployments/scale", "Scale", CHANGED, kind_group="autoscaling"),
    Subresource(APPS, "deployments/status", "Deployment", CHANGED),
    Subresource(APPS, "replicasets/scale", "Scale", CHANGED, kind_group="autoscaling"),
    Subresource(APPS, "replicasets/status", "ReplicaSet", CHANGED),
    Subresource(AUTHENTICATION, "selfsubjectreviews", "SelfSubjectReview", POSTED, namespaced=False),
    Subresource(AUTHENTICATION, "tokenreviews", "TokenReview", POSTED, namespaced=False),
    Subresource(AUTHORIZATION, "localsubjectaccessreviews", "LocalSubjectAccessReview", POSTED),
    Subresource(AUTHORIZATION, "selfsubjectaccessreviews", "SelfSubjectAccessReview", POSTED, namespaced=False),
    Subresource(AUTHORIZATION, "selfsubjectrulesreviews", "SelfSubjectRulesReview", POSTED, namespaced=False),
    Subresource(AUTHORIZATION, "subjectaccessreviews", "SubjectAccessReview", POSTED, namespaced=False),
)

BY_RESOURCE = {(kind.group, kind.version, kind.plural): kind for kind in KINDS}
BY_NAME = {kind.kind: kind for kind in KINDS}
SUBRESOURCE = {(sub.group, sub.name): sub for sub in SUBRESOURCES}
GROUPS = tuple(dict.fromkeys([kind.group for kind in KINDS] + [sub.group for sub in SUBRESOURCES]))

POD, NODE, NAMESPACE = BY_NAME["Pod"], BY_NAME["Node"], BY_NAME["Namespace"]
SERVICE_ACCOUNT, CONFIG_MAP, SECRET = BY_NAME["ServiceAccount"], BY_NAME["ConfigMap"], BY_NAME["Secret"]
EVENT, DEPLOYMENT, REPLICA_SET = BY_NAME["Event"], BY_NAME["Deployment"], BY_NAME["ReplicaSet"]
SERVICE = BY_NAME["Service"]
