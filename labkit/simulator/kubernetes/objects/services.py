"""Services. The server stores a service with an address, but nothing answers at that address.

https://kubernetes.io/docs/concepts/services-networking/service/
"""

from labkit.simulator.kubernetes.objects.kinds import BY_NAME, Object
from labkit.simulator.kubernetes.objects.storage import Storage

SERVICE = BY_NAME["Service"]
NO_ROUTE = (
    "this lab has no Service network: nothing answers at a Service's address; find a pod's ports at 127.0.0.1 instead"
)


def with_address(storage: Storage, service: Object) -> Object:
    """Return the service with `clusterIP` and `clusterIPs`. A missing `clusterIP` becomes a free 10.100.x.x address.

    A service of the type ExternalName is returned unchanged.
    https://kubernetes.io/docs/concepts/services-networking/cluster-ip-allocation/
    """
    spec, metadata = service["spec"], service["metadata"]
    if spec["type"] == "ExternalName":
        return service
    if not spec.get("clusterIP"):
        taken = {other.object["spec"].get("clusterIP") for other in storage.list(SERVICE)}
        number = int(storage.identifiers.hex("service", f"{metadata.get('namespace')}/{metadata.get('name')}", 4), 16)
        while (address := f"10.100.{number // 256 % 256}.{number % 256}") in taken:
            number += 1
        spec = {**spec, "clusterIP": address}
    return {**service, "spec": {**spec, "clusterIPs": [spec["clusterIP"]]}}


def with_kept_address(service: Object, before: Object) -> Object:
    """Return the changed service. If it has no address, take the address from ``before``.

    A service of the type ExternalName is returned unchanged.
    """
    kept = {key: before["spec"][key] for key in ("clusterIP", "clusterIPs") if key in before["spec"]}
    if service["spec"]["type"] == "ExternalName" or service["spec"].get("clusterIP"):
        return service
    return {**service, "spec": {**service["spec"], **kept}}
