"""The first objects of every cluster: its namespaces, RBAC's default roles, and the API server's own service.

https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/#initial-namespaces
https://kubernetes.io/docs/tasks/access-application-cluster/access-cluster/#directly-accessing-the-rest-api
"""

from labkit.simulator.kubernetes.access import roles
from labkit.simulator.kubernetes.objects.defaults import with_defaults
from labkit.simulator.kubernetes.objects.kinds import BY_NAME, NAMESPACE, Object
from labkit.simulator.kubernetes.objects.storage import Storage

NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


def ensure(storage: Storage, address: str) -> None:
    """Create the first objects in a new cluster; ``address`` is the API server's `HOST:PORT`.

    In a restored cluster, change nothing except the address of the API server's own service.
    """
    if storage.is_new:
        _create(storage, address)
    elif service := storage.find(BY_NAME["Service"], "default", "kubernetes"):
        spec = service.object["spec"] | _service(address)["spec"]
        storage.replace(BY_NAME["Service"], service, {**service.object, "spec": spec}, service.managers)


def _create(storage: Storage, address: str) -> None:
    for namespace in NAMESPACES:
        storage.create(NAMESPACE, with_defaults(NAMESPACE, {"metadata": {"name": namespace}}))
    for role in roles.CLUSTER_ROLES:
        storage.create(BY_NAME["ClusterRole"], roles.cluster_role(role))
    for role in roles.CLUSTER_BINDINGS:
        storage.create(BY_NAME["ClusterRoleBinding"], roles.cluster_binding(role))
    storage.create(BY_NAME["Service"], _service(address))


def _service(address: str) -> Object:
    """Return the service by which pods find the API server."""
    host, _, port = address.rpartition(":")
    labels = {"component": "apiserver", "provider": "kubernetes"}
    metadata = {"name": "kubernetes", "namespace": "default", "labels": labels}
    ports = [{"name": "https", "port": int(port)}]
    # The service has the address at which the API server really listens.
    return with_defaults(
        BY_NAME["Service"],
        {"metadata": metadata, "spec": {"ports": ports, "clusterIP": host, "clusterIPs": [host]}},
    )
