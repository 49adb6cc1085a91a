"""What is read of a Kubernetes cluster: service accounts, pods and who owns them, the webhook's registration."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from labkit.diagnosis.evidence.reading import Answer, Document, NotRead, Read, Reads

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

WEBHOOK = "pod-identity-webhook"


class Cluster:
    """One cluster's objects, as dicts. Every method raises `NotRead` where the caller may not read them."""

    def __init__(self, api: "ApiClient | None", reads: Reads):
        self._api: Any = api
        self._reads = reads
        self.everywhere = False
        """Whether lists are asked for all namespaces at once, since many will be looked at; "" is each of them then."""

    def service_accounts(self, namespace: str) -> list[Document]:
        """The service accounts of a namespace."""
        return self._listed("serviceaccounts", namespace)

    def service_account(self, namespace: str, name: str) -> Document | None:
        """A service account; None where there is none."""
        return self._named("serviceaccounts", namespace, name)

    @property
    def all_service_accounts(self) -> list[Document]:
        """The service accounts of all namespaces."""
        return self._listed_everywhere("serviceaccounts")

    def pods(self, namespace: str) -> list[Document]:
        """The pods of a namespace."""
        return self._listed("pods", namespace)

    def pod(self, namespace: str, name: str) -> Document | None:
        """A pod; None where there is none."""
        return self._named("pods", namespace, name)

    def events(self, namespace: str) -> list[Document]:
        """The events of a namespace, in no order."""
        return self._listed("events", namespace)

    def config_map(self, namespace: str, name: str) -> Document | None:
        """A ConfigMap; None where there is none."""
        return self._got("configmap", namespace, name, self._core.read_namespaced_config_map)

    def workload(self, namespace: str, kind: str, name: str) -> Document | None:
        """A Deployment, ReplicaSet, StatefulSet or DaemonSet; None where there is none, and for another kind."""
        from kubernetes.client import AppsV1Api

        apps = AppsV1Api(self._api)
        reading: dict[str, Callable[[str, str], Any]] = {
            "Deployment": apps.read_namespaced_deployment,
            "ReplicaSet": apps.read_namespaced_replica_set,
            "StatefulSet": apps.read_namespaced_stateful_set,
            "DaemonSet": apps.read_namespaced_daemon_set,
        }
        return self._got(kind.lower(), namespace, name, reading[kind]) if kind in reading else None

    def service(self, namespace: str, name: str) -> Document | None:
        """A Service; None where there is none."""
        return self._got("service", namespace, name, self._core.read_namespaced_service)

    def endpoints(self, namespace: str, name: str) -> Document | None:
        """Who answers for a Service; None where there is no such object."""
        return self._got("endpoints", namespace, name, self._core.read_namespaced_endpoints)

    def namespace(self, name: str) -> Document | None:
        """A namespace; None where there is none."""
        found: Document | None = self._once(Read("get namespace", name), lambda: self._core.read_namespace(name))
        return found

    @property
    def webhook(self) -> Document | None:
        """The registration of the pod identity webhook; None where there is none.

        https://github.com/aws/amazon-eks-pod-identity-webhook
        """
        from kubernetes.client import AdmissionregistrationV1Api

        def look() -> Any:
            return AdmissionregistrationV1Api(self._api).read_mutating_webhook_configuration(WEBHOOK)

        found: Document | None = self._once(Read("get mutatingwebhookconfiguration", WEBHOOK), look)
        return found

    # How they are read.

    def _listed(self, resource: str, namespace: str) -> list[Document]:
        if self.everywhere:
            listed = self._listed_everywhere(resource)
            return [item for item in listed if namespace in ("", item["metadata"]["namespace"])]
        one, _ = self._lists(resource)
        return self._once(Read(f"list {resource}", where=f"-n {namespace}"), lambda: one(namespace).items)

    def _listed_everywhere(self, resource: str) -> list[Document]:
        _, every = self._lists(resource)
        return self._once(Read(f"list {resource}", where="--all-namespaces"), lambda: every().items)

    def _named(self, resource: str, namespace: str, name: str) -> Document | None:
        try:
            listed = self._listed(resource, namespace)
        except NotRead:
            # Who may not list may still get one of a name.
            get = {
                "pods": self._core.read_namespaced_pod,
                "serviceaccounts": self._core.read_namespaced_service_account,
            }[resource]
            return self._got(resource.removesuffix("s"), namespace, name, get)
        named = (item for item in listed if item["metadata"]["name"] == name)
        return next(named, None)

    def _got(self, kind: str, namespace: str, name: str, get: Callable[[str, str], Any]) -> Document | None:
        found: Document | None = self._once(Read(f"get {kind}", name, f"-n {namespace}"), lambda: get(name, namespace))
        return found

    def _lists(self, resource: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
        return {
            "pods": (self._core.list_namespaced_pod, self._core.list_pod_for_all_namespaces),
            "serviceaccounts": (
                self._core.list_namespaced_service_account,
                self._core.list_service_account_for_all_namespaces,
            ),
            "events": (self._core.list_namespaced_event, self._core.list_event_for_all_namespaces),
        }[resource]

    @cached_property
    def _core(self) -> Any:
        from kubernetes.client import CoreV1Api

        return CoreV1Api(self._api)

    def _once(self, read: Read, call: Callable[[], Answer]) -> Answer:
        def plain() -> Answer:
            answer: Answer = self._api.sanitize_for_serialization(call())
            return answer

        return self._reads.once(read, plain)
