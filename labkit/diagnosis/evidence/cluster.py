"""What is read of a Kubernetes cluster: service accounts, pods and who owns them, the webhook's registration."""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from labkit.diagnosis.evidence.reading import NotRead, Reads

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

WEBHOOK = "pod-identity-webhook"


class Cluster:
    """One cluster's objects, as dicts. Every method raises `NotRead` where the caller may not read them."""

    def __init__(self, api: "ApiClient", reads: Reads):
        self._api = api
        self._reads = reads
        self.everywhere = False
        """Whether lists are asked for all namespaces at once, since many will be looked at; "" is each of them then."""

    def service_accounts(self, namespace: str) -> list[dict[str, Any]]:
        """The service accounts of a namespace."""
        return self._listed("serviceaccounts", namespace)

    def service_account(self, namespace: str, name: str) -> dict[str, Any] | None:
        """A service account; None where there is none."""
        return self._named("serviceaccounts", namespace, name)

    @property
    def all_service_accounts(self) -> list[dict[str, Any]]:
        """The service accounts of all namespaces."""
        _, every = self._lists("serviceaccounts")
        return self._once("list serviceaccounts --all-namespaces", lambda: every().items)

    def pods(self, namespace: str) -> list[dict[str, Any]]:
        """The pods of a namespace."""
        return self._listed("pods", namespace)

    def pod(self, namespace: str, name: str) -> dict[str, Any] | None:
        """A pod; None where there is none."""
        return self._named("pods", namespace, name)

    def events(self, namespace: str) -> list[dict[str, Any]]:
        """The events of a namespace, in no order."""
        return self._listed("events", namespace)

    def config_map(self, namespace: str, name: str) -> dict[str, Any] | None:
        """A ConfigMap; None where there is none."""
        what = f"get configmap {name} -n {namespace}"
        return self._once(what, lambda: self._core.read_namespaced_config_map(name, namespace))

    def workload(self, namespace: str, kind: str, name: str) -> dict[str, Any] | None:
        """A Deployment, ReplicaSet, StatefulSet or DaemonSet; None where there is none, and for another kind."""
        from kubernetes.client import AppsV1Api

        apps = AppsV1Api(self._api)
        read = {
            "Deployment": apps.read_namespaced_deployment,
            "ReplicaSet": apps.read_namespaced_replica_set,
            "StatefulSet": apps.read_namespaced_stateful_set,
            "DaemonSet": apps.read_namespaced_daemon_set,
        }.get(kind)
        if read is None:
            return None
        return self._once(f"get {kind.lower()} {name} -n {namespace}", lambda: read(name, namespace))

    def service(self, namespace: str, name: str) -> dict[str, Any] | None:
        """A Service; None where there is none."""
        return self._once(
            f"get service {name} -n {namespace}", lambda: self._core.read_namespaced_service(name, namespace)
        )

    def endpoints(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Who answers for a Service; None where there is no such object."""
        what = f"get endpoints {name} -n {namespace}"
        return self._once(what, lambda: self._core.read_namespaced_endpoints(name, namespace))

    def namespace(self, name: str) -> dict[str, Any] | None:
        """A namespace; None where there is none."""
        return self._once(f"get namespace {name}", lambda: self._core.read_namespace(name))

    @property
    def webhook(self) -> dict[str, Any] | None:
        """The registration of the pod identity webhook; None where there is none.

        https://github.com/aws/amazon-eks-pod-identity-webhook
        """
        from kubernetes.client import AdmissionregistrationV1Api

        def read() -> Any:
            return AdmissionregistrationV1Api(self._api).read_mutating_webhook_configuration(WEBHOOK)

        return self._once(f"get mutatingwebhookconfiguration {WEBHOOK}", read)

    # How they are read.

    def _listed(self, resource: str, namespace: str) -> list[dict[str, Any]]:
        one, every = self._lists(resource)
        if self.everywhere:
            listed = self._once(f"list {resource} --all-namespaces", lambda: every().items)
            return [item for item in listed if namespace in ("", item["metadata"]["namespace"])]
        return self._once(f"list {resource} -n {namespace}", lambda: one(namespace).items)

    def _named(self, resource: str, namespace: str, name: str) -> dict[str, Any] | None:
        try:
            listed = self._listed(resource, namespace)
        except NotRead:
            # Who may not list may still get one of a name.
            get = {
                "pods": lambda: self._core.read_namespaced_pod(name, namespace),
                "serviceaccounts": lambda: self._core.read_namespaced_service_account(name, namespace),
            }[resource]
            return self._once(f"get {resource.removesuffix('s')} {name} -n {namespace}", get)
        return next((item for item in listed if item["metadata"]["name"] == name), None)

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

    def _once(self, what: str, call: Callable[[], Any]) -> Any:
        return self._reads.once(what, lambda: self._api.sanitize_for_serialization(call()))
