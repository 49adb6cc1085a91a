"""The facts of a Kubernetes cluster: service accounts, pods and their owners, and the webhook's registration."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from labkit.doctor.evidence import objects
from labkit.doctor.evidence.reading import Document, NotRead, Read, Reads

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

# The API paths of the kinds outside the core group.
APPS = dict.fromkeys(("deployments", "replicasets", "statefulsets", "daemonsets"), "/apis/apps/v1")
WORKLOADS = {"deployments": "Deployment", "statefulsets": "StatefulSet", "daemonsets": "DaemonSet"}
JOBS = {"cronjobs": "CronJob", "jobs": "Job"}
BATCH = dict.fromkeys(JOBS, "/apis/batch/v1")
BINDINGS = ("rolebindings", "clusterrolebindings")
WEBHOOKS = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
GROUPS = {
    **dict.fromkeys(WEBHOOKS, "/apis/admissionregistration.k8s.io/v1"),
    **dict.fromkeys(BINDINGS, "/apis/rbac.authorization.k8s.io/v1"),
    "networkpolicies": "/apis/networking.k8s.io/v1",
    "poddisruptionbudgets": "/apis/policy/v1",
    **APPS,
    **BATCH,
}


class ClusterApi:
    """One cluster's objects, as the API server returns them. None stands for a missing object.

    Methods raise `NotRead` if the caller isn't allowed to read the object. `created_as_dry_run` and `raw` raise
    `ApiException` instead.
    """

    def __init__(self, api: "ApiClient | None", reads: Reads):
        self._api: Any = api
        self._reads = reads
        self.everywhere = False
        """Whether one call lists the objects of all namespaces. Set it to examine many namespaces."""

    def service_accounts(self, namespace: str) -> list[objects.ServiceAccountDocument]:
        return self._listed("serviceaccounts", namespace)

    def service_account(self, namespace: str, name: str) -> objects.ServiceAccountDocument | None:
        account: objects.ServiceAccountDocument | None = self._named("serviceaccounts", namespace, name)
        return account

    @property
    def all_service_accounts(self) -> list[objects.ServiceAccountDocument]:
        return self._listed_everywhere("serviceaccounts")

    def all_of(self, resource: str) -> list[Document]:
        """Return all objects of a kind such as `services`; empty if the cluster has no such kind."""
        return self._listed_everywhere(resource) or []

    @property
    def bindings(self) -> list[objects.Binding]:
        """All RoleBindings and ClusterRoleBindings."""
        return [each for resource in BINDINGS for each in self._listed_everywhere(resource) or []]

    def pods(self, namespace: str) -> list[objects.PodDocument]:
        return self._listed("pods", namespace)

    def pod(self, namespace: str, name: str) -> objects.PodDocument | None:
        pod: objects.PodDocument | None = self._named("pods", namespace, name)
        return pod

    def events(self, namespace: str) -> list[objects.Event]:
        """Return the events of a namespace, in no particular order."""
        return self._listed("events", namespace)

    def get(self, kind: str, name: str, namespace: str = "") -> Document | None:
        """Return an object. `kind` is in lower case, such as `configmap`."""
        document: Document | None = self._one(kind, name, namespace)
        return document

    def webhook(self, name: str) -> objects.WebhookConfiguration | None:
        registration: objects.WebhookConfiguration | None = self._one("mutatingwebhookconfiguration", name)
        return registration

    def workload(self, kind: str, name: str, namespace: str) -> objects.Workload | None:
        workload: objects.Workload | None = self._one(kind.lower(), name, namespace)
        return workload

    def workloads(self, namespace: str) -> list[objects.Workload]:
        """Return the namespace's Deployments, StatefulSets and DaemonSets, each with its kind."""
        return self._with_kinds(WORKLOADS, namespace)

    def jobs(self, namespace: str) -> list[objects.Workload]:
        """Return the namespace's CronJobs and Jobs, each with its kind."""
        return self._with_kinds(JOBS, namespace)

    def replica_sets(self, namespace: str) -> list[objects.Workload]:
        """Return the namespace's ReplicaSets that have no owner. Each result has the field `kind`."""
        listed = self._with_kinds({"replicasets": "ReplicaSet"}, namespace)
        return [each for each in listed if not each["metadata"].get("ownerReferences")]

    def _with_kinds(self, kinds: dict[str, str], namespace: str) -> list[Any]:
        return [
            {**each, "kind": kind}
            for resource, kind in kinds.items()
            # None: this cluster has no such kind.
            for each in self._listed(resource, namespace) or []
        ]

    def created_as_dry_run(self, namespace: str, pod: Document) -> objects.PodDocument:
        """Create the pod as a dry run, which stores nothing. Return the resulting pod. Raises `ApiException`.

        https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run
        """
        made: objects.PodDocument = json.loads(call_api(self._api, "POST", _path("pods", namespace), pod, dryRun="All"))
        return made

    def raw(self, path: str) -> str:
        """Return the text of a path such as `/metrics`, which holds no objects. Raises `ApiException`."""
        return call_api(self._api, "GET", path)

    # How the objects are read.

    def _listed(self, resource: str, namespace: str) -> list[Any]:
        if self.everywhere:
            listed = self._listed_everywhere(resource) or []
            return [item for item in listed if namespace in ("", item["metadata"]["namespace"])]
        return self._list(Read(f"list {resource}", where=f"-n {namespace}"), _path(resource, namespace))

    def _listed_everywhere(self, resource: str) -> list[Any]:
        return self._list(Read(f"list {resource}", where="--all-namespaces"), _path(resource))

    def _list(self, read: Read, path: str) -> list[Any]:
        listed: list[Any] = self._reads.once(read, lambda: self._get(path)["items"])
        return listed

    def _named(self, resource: str, namespace: str, name: str) -> Any:
        try:
            listed = self._listed(resource, namespace)
        except NotRead:
            # A caller who can't list may still be allowed to get one object by name.
            return self._one(resource.removesuffix("s"), name, namespace)
        named = (item for item in listed if item["metadata"]["name"] == name)
        return next(named, None)

    def _one(self, kind: str, name: str, namespace: str = "") -> Any:
        read = Read(f"get {kind}", name, f"-n {namespace}" if namespace else "")
        return self._reads.once(read, lambda: self._get(f"{_path(kind, namespace)}/{quote(name)}"))

    def _get(self, path: str) -> Document:
        """Return plain JSON, because the Kubernetes client's models load slowly and drop unknown fields.

        https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris
        """
        document: Document = json.loads(call_api(self._api, "GET", path))
        return document


def call_api(api: "ApiClient", method: str, path: str, body: Mapping[str, object] | None = None, **query: str) -> str:
    """Call the API server with a client, without the client's models. Return the answer's text. Raises `ApiException`.

    https://kubernetes.io/docs/reference/using-api/api-concepts/
    """
    client: Any = api  # its declared types want a model
    request = client.param_serialize(
        method,
        path,
        query_params=[*query.items()],
        header_params={"Content-Type": "application/json"} if body else {},
        body=body,
        auth_settings=["BearerToken"],
    )
    answer = client.call_api(*request)
    answer.read()
    text = str(answer.data.decode())
    if not 200 <= answer.status <= 299:
        from kubernetes.client.exceptions import ApiException

        raise ApiException.from_response(http_resp=answer, body=text, data=None)
    return text


def _path(kind: str, namespace: str = "") -> str:
    plural = kind if kind.endswith("s") else f"{kind}s"
    group = GROUPS.get(plural, "/api/v1")
    return f"{group}/namespaces/{quote(namespace)}/{plural}" if namespace else f"{group}/{plural}"
