"""Services. The server stores a service with an address, but nothing answers at that address.

https://kubernetes.io/docs/concepts/services-networking/service/
"""

from labkit.simulator.kubernetes.objects.kinds import BY_NAME, Object
from labkit.simulator.kubernetes.objects.status import StatusCause, duplicate, invalid_value, required, unsupported
from labkit.simulator.kubernetes.objects.storage import Storage

SERVICE = BY_NAME["Service"]
TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
PROTOCOLS = ("SCTP", "TCP", "UDP")
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


def validate(service: Object) -> list[StatusCause]:
    """Return the errors in a service."""
    spec, causes = service["spec"], []
    if spec["type"] not in TYPES:
        causes.append(unsupported("spec.type", spec["type"], TYPES))
    if spec["type"] == "ExternalName":
        return causes + ([] if spec.get("externalName") else [required("spec.externalName")])
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None":
        causes.append(required("spec.ports"))
    names: set[str] = set()
    for i, port in enumerate(ports):
        path, name, number = f"spec.ports[{i}]", port.get("name", ""), port.get("port", 0)
        if not name and len(ports) > 1:
            causes.append(required(f"{path}.name"))
        if name in names:
            causes.append(duplicate(f"{path}.name", name))
        names |= {name} if name else set()
        if not 1 <= number <= 65535:
            causes.append(invalid_value(f"{path}.port", number, "must be between 1 and 65535, inclusive"))
        if port.get("protocol", "TCP") not in PROTOCOLS:
            causes.append(unsupported(f"{path}.protocol", port["protocol"], PROTOCOLS))
    return causes


def validate_update(new: Object, old: Object) -> list[StatusCause]:
    """Return the errors in a change of a service."""
    before, after = old["spec"].get("clusterIP"), new["spec"].get("clusterIP")
    if before and after != before and new["spec"]["type"] == old["spec"]["type"]:
        return [invalid_value("spec.clusterIPs[0]", [after or ""], "may not change once set")]
    return []
