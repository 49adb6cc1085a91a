"""Change and delete objects, and assign nodes and addresses. Finalizers and grace periods are handled here.

https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination
https://kubernetes.io/docs/concepts/overview/working-with-objects/finalizers/
"""

from labkit.simulator.clock import rfc3339
from labkit.simulator.kubernetes.objects.kinds import NAMESPACE, POD, SERVICE, Kind, Object
from labkit.simulator.kubernetes.objects.pods import condition, has_ended
from labkit.simulator.kubernetes.objects.status import conflict
from labkit.simulator.kubernetes.objects.storage import Storage, Stored

CASCADES = {"Orphan": "orphan", "Foreground": "foregroundDeletion"}  # a propagation policy -> its finalizer


def store(
    storage: Storage, kind: Kind, before: Stored, obj: Object, managers: bytes = b"", *, dry_run: bool = False
) -> Stored:
    """Store a new version of the object, and return it.

    If the object is being deleted and no longer waits for a finalizer or a grace period, remove it.
    """
    metadata = obj["metadata"]
    if kind.generation and any(obj.get(part) != before.object.get(part) for part in ("spec", "webhooks")):
        obj = {**obj, "metadata": metadata | {"generation": metadata.get("generation", 0) + 1}}
    stored = storage.replace(kind, before, obj, managers, dry_run=dry_run)
    if is_over(kind, metadata) and not dry_run:
        storage.remove(kind, stored)
    return stored


def is_over(kind: Kind, metadata: Object) -> bool:
    """Whether an object that is being deleted can be removed now. False for a namespace: its contents must go first."""
    return (
        "deletionTimestamp" in metadata
        and not metadata.get("finalizers")
        and metadata.get("deletionGracePeriodSeconds", 0) == 0
        and kind is not NAMESPACE
    )


def delete(
    storage: Storage, kind: Kind, stored: Stored, options: Object, *, dry_run: bool = False
) -> tuple[Stored, bool]:
    """Delete the object, or only start its deletion. Return the object, and whether it's already gone.

    Raises Conflict if a precondition of the options isn't met.
    """
    _require(kind, stored, options.get("preconditions") or {})
    finalizers = list(stored.metadata.get("finalizers") or ())
    policy = "Orphan" if options.get("orphanDependents") is True else options.get("propagationPolicy", "")
    if (cascade := CASCADES.get(policy)) and cascade not in finalizers:
        finalizers.append(cascade)
    if kind is NAMESPACE:
        return _terminate(storage, stored, dry_run), False
    grace = _grace(kind, stored, options)
    if dry_run:
        return stored, True
    if not finalizers and grace == 0:
        if kind is not POD:
            return storage.remove(kind, stored), True
        # A pod's last version tells watchers that it was deleted, and with which grace period.
        last = _deleted(storage, stored, [], 0)
        return storage.remove(kind, storage.replace(kind, stored, last, stored.managers)), True
    already = "deletionTimestamp" in stored.metadata and finalizers == list(stored.metadata.get("finalizers") or ())
    if already and grace >= stored.metadata.get("deletionGracePeriodSeconds", 0):
        return stored, False
    return storage.replace(kind, stored, _deleted(storage, stored, finalizers, grace), stored.managers), False


def bind(storage: Storage, pod: Stored, node: str) -> Stored:
    """Assign the pod to the node, and return the pod's new version."""
    bound = {**pod.object, "spec": {**pod.object["spec"], "nodeName": node}}
    return storage.replace(POD, pod, _scheduled(storage, bound, {"status": "True"}), pod.managers)


def with_address(storage: Storage, service: Object, before: Object) -> Object:
    """Return the service with its own address, with that of ``before``, or with a free one of the form 10.100.x.x.

    A service of the type ExternalName has no address.
    https://kubernetes.io/docs/concepts/services-networking/cluster-ip-allocation/
    """
    spec, metadata = service["spec"], service["metadata"]
    if spec["type"] == "ExternalName":
        return service
    if not (address := spec.get("clusterIP") or before.get("spec", {}).get("clusterIP")):
        taken = {other.object["spec"].get("clusterIP") for other in storage.list(SERVICE)}
        number = int(storage.identifiers.hex("service", f"{metadata.get('namespace')}/{metadata.get('name')}", 4), 16)
        while (address := f"10.100.{number // 256 % 256}.{number % 256}") in taken:
            number += 1
    return {**service, "spec": {**spec, "clusterIP": address, "clusterIPs": [address]}}


def unschedulable(storage: Storage, pod: Stored, message: str) -> bool:
    """Write ``message``, the reason why no node fits the pod, into the pod's condition PodScheduled.

    Return whether that changed the condition.
    """
    if condition(pod.object, "PodScheduled").get("message") == message:
        return False
    why = {"status": "False", "reason": "Unschedulable", "message": message}
    storage.replace(POD, pod, _scheduled(storage, pod.object, why), pod.managers)
    return True


def _scheduled(storage: Storage, pod: Object, result: Object) -> Object:
    status = pod.get("status") or {}
    made = {"type": "PodScheduled", **result, "lastProbeTime": None, "lastTransitionTime": storage.now()}
    others = [each for each in status.get("conditions") or () if each.get("type") != "PodScheduled"]
    return {**pod, "status": {**status, "conditions": [*others, made]}}


def _require(kind: Kind, stored: Stored, preconditions: Object) -> None:
    for key, called, cause in (
        ("uid", "UID", "deleted and then recreated"),
        ("resourceVersion", "ResourceVersion", "modified"),
    ):
        wanted, there = preconditions.get(key), stored.metadata[key]
        if wanted is not None and wanted != there:
            why = (
                f"the {called} in the precondition ({wanted}) does not match the {called} in record ({there})."
                f" The object might have been {cause}"
            )
            raise conflict(kind, stored.name, why, called=kind.kind)


def _grace(kind: Kind, stored: Stored, options: Object) -> int:
    """Return a deletion's grace period in seconds."""
    if kind is not POD:
        return 0
    spec = stored.object["spec"]
    if not spec.get("nodeName") or has_ended(stored.object):
        return 0
    grace = options.get("gracePeriodSeconds")
    return int(spec.get("terminationGracePeriodSeconds", 30) if grace is None else max(grace, 0))


def _deleted(storage: Storage, stored: Stored, finalizers: list[str], grace: int) -> Object:
    metadata = dict(stored.metadata)
    metadata["deletionTimestamp"] = rfc3339(storage.clock.now() + grace)
    metadata["deletionGracePeriodSeconds"] = grace
    if "generation" in metadata:
        metadata["generation"] += 1
    if finalizers:
        metadata["finalizers"] = finalizers
    return {**stored.object, "metadata": metadata}


def _terminate(storage: Storage, namespace: Stored, dry_run: bool) -> Stored:
    if "deletionTimestamp" in namespace.metadata:
        return namespace
    status = {**namespace.object.get("status", {}), "phase": "Terminating"}
    metadata = {**namespace.metadata, "deletionTimestamp": storage.now()}
    changed = {**namespace.object, "metadata": metadata, "status": status}
    return storage.replace(NAMESPACE, namespace, changed, namespace.managers, dry_run=dry_run)
