"""The ReplicaSet controller: it creates and deletes pods until there are as many as wanted.

https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/
"""

import asyncio
import math
import re

from labkit.simulator.kubernetes.controllers.client import ControllerClient
from labkit.simulator.kubernetes.controllers.owners import Owners, controller_of, controller_reference, is_active
from labkit.simulator.kubernetes.controllers.workqueue import Key, WorkQueue
from labkit.simulator.kubernetes.objects.kinds import POD, REPLICA_SET
from labkit.simulator.kubernetes.objects.pods import condition
from labkit.simulator.kubernetes.objects.selectors import object_selector
from labkit.simulator.kubernetes.objects.status import ApiError
from labkit.simulator.kubernetes.objects.storage import Change, Stored, seconds

BURST = 500  # the most pods that one look creates or deletes
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
PHASES = ("Pending", "Unknown", "Running")


class ReplicaSets:
    """The ReplicaSet controller. Call ``observe`` with every change of the storage."""

    def __init__(self, client: ControllerClient, owners: Owners):
        self.client, self.storage, self.owners = client, client.storage, owners
        self.queue = WorkQueue(self._look, self.storage.clock.now)

    def observe(self, change: Change) -> None:
        if change.kind is POD:
            self._pod(change)
        elif change.kind is REPLICA_SET and change.type != "DELETED" and _concerns(change):
            self.queue.add((change.stored.namespace, change.stored.name))

    def _pod(self, change: Change) -> None:
        pod, before = change.stored, change.before
        now, earlier = controller_of(pod), controller_of(before)
        for reference in (now, earlier if earlier != now else {}):
            if reference.get("kind") == "ReplicaSet":
                self.queue.add((pod.namespace, reference["name"]))
        if now or change.type == "DELETED":
            return
        labels = pod.metadata.get("labels") or {}
        if before is None or earlier or labels != (before.metadata.get("labels") or {}):
            for replica_set in self.storage.list(REPLICA_SET, pod.namespace):
                if object_selector(replica_set.object["spec"]["selector"])(labels):
                    self.queue.add((replica_set.namespace, replica_set.name))

    async def _look(self, key: Key) -> float | None:
        replica_set = self.storage.find(REPLICA_SET, *key)
        if replica_set is None:
            return None
        pods, failure = self._pods(replica_set), None
        missing = replica_set.object["spec"]["replicas"] - len(pods)
        if "deletionTimestamp" not in replica_set.metadata:
            if missing > 0:
                failure = await self._create(replica_set, min(missing, BURST))
            elif missing < 0:
                self._delete(replica_set, pods, min(-missing, BURST))
        if missing:
            # Another client may have changed the ReplicaSet or its pods meanwhile.
            replica_set = self.storage.find(REPLICA_SET, *key)
            if replica_set is None:
                return None
            pods = self._pods(replica_set)
        self._write_status(replica_set, pods, failure)
        if failure:
            raise failure
        return _next_available(replica_set, pods, self.storage.clock.now())

    def _pods(self, replica_set: Stored) -> list[Stored]:
        return [pod for pod in self.owners.claim(POD, REPLICA_SET, replica_set) if is_active(pod)]

    # Creating and deleting pods

    async def _create(self, replica_set: Stored, count: int) -> ApiError | None:
        """Create ``count`` pods in growing batches, and return the first refusal."""
        size = 1
        while count > 0:
            size = min(size, count)
            results = await asyncio.gather(*(self._create_one(replica_set) for _ in range(size)))
            if refusals := [refusal for refusal in results if refusal]:
                return refusals[0]
            count, size = count - size, 2 * size
        return None

    async def _create_one(self, replica_set: Stored) -> ApiError | None:
        template = replica_set.object["spec"]["template"]
        given = {key: template["metadata"][key] for key in ("labels", "annotations") if key in template["metadata"]}
        metadata = {
            **given,
            "generateName": f"{replica_set.name}-",
            "ownerReferences": [controller_reference(REPLICA_SET, replica_set)],
        }
        body = {"metadata": metadata, "spec": template["spec"]}
        record = self.client.events.record
        try:
            pod = await self.client.create(POD, replica_set.namespace, body)
        except ApiError as refusal:
            causes = (refusal.details or {}).get("causes") or ()
            if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
                return None
            record(REPLICA_SET, replica_set, "Warning", "FailedCreate", f"Error creating: {refusal.message}")
            return refusal
        record(REPLICA_SET, replica_set, "Normal", "SuccessfulCreate", f"Created pod: {pod.name}")
        return None

    def _delete(self, replica_set: Stored, pods: list[Stored], count: int) -> None:
        now = self.storage.clock.now()
        for pod in sorted(pods, key=lambda pod: _worth(pod, now))[:count]:
            self.client.delete(POD, pod)
            message = f"Deleted pod: {pod.name}"
            self.client.events.record(REPLICA_SET, replica_set, "Normal", "SuccessfulDelete", message)

    # Status

    def _write_status(self, replica_set: Stored, pods: list[Stored], failure: ApiError | None) -> None:
        spec, before = replica_set.object["spec"], replica_set.object.get("status") or {}
        wanted = (spec["template"]["metadata"].get("labels") or {}).items()
        since = [moment for moment in map(ready_since, pods) if moment is not None]
        wait = spec.get("minReadySeconds", 0)
        long_enough = self.storage.clock.now() - wait
        counts = {
            "fullyLabeledReplicas": sum(wanted <= (pod.metadata.get("labels") or {}).items() for pod in pods),
            "readyReplicas": len(since),
            "availableReplicas": sum(moment <= long_enough for moment in since) if wait else len(since),
        }
        status = {"replicas": len(pods)} | {name: count for name, count in counts.items() if count}
        status["observedGeneration"] = replica_set.metadata["generation"]
        conditions = [c for c in before.get("conditions") or () if c.get("type") != "ReplicaFailure" or failure]
        if failure and not condition(replica_set.object, "ReplicaFailure"):
            failed = {"type": "ReplicaFailure", "status": "True", "lastTransitionTime": self.storage.now()}
            conditions.append(failed | {"reason": "FailedCreate", "message": failure.message})
        if conditions:
            status["conditions"] = conditions
        self.client.update(REPLICA_SET, replica_set, {**replica_set.object, "status": status}, "status")


def ready_since(pod: Stored) -> float | None:
    """Return the lab time at which the pod became ready; None if it isn't ready."""
    ready = condition(pod.object, "Ready")
    if ready.get("status") != "True":
        return None
    return seconds(ready.get("lastTransitionTime") or pod.metadata["creationTimestamp"])


def _next_available(replica_set: Stored, pods: list[Stored], now: float) -> float | None:
    """Return the lab time at which the next ready pod becomes available."""
    if not (wait := replica_set.object["spec"].get("minReadySeconds", 0)):
        return None
    moments = [since + wait for pod in pods if (since := ready_since(pod)) is not None]
    return min((moment for moment in moments if moment > now), default=None)


def _worth(pod: Stored, now: float) -> tuple[bool | int | str, ...]:
    """Return a pod's rank for a scale-down, which deletes the lowest ranks first.

    https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#scaling-a-replicaset
    """
    status, since = pod.object.get("status") or {}, ready_since(pod)
    phase = status.get("phase", "Unknown")
    cost = (pod.metadata.get("annotations") or {}).get(DELETION_COST, "0")
    restarts = sum(container.get("restartCount", 0) for container in status.get("containerStatuses") or ())
    return (
        bool(pod.object["spec"].get("nodeName")),
        PHASES.index(phase) if phase in PHASES else 1,
        since is not None,
        int(cost) if re.fullmatch(r"-?[0-9]{1,10}", cost) else 0,
        # Ages of the same order of magnitude count as equal. So the newest pod isn't always deleted first.
        _magnitude(now - since) if since is not None else 0,
        -restarts,
        _magnitude(now - seconds(pod.metadata["creationTimestamp"])),
        pod.uid,
    )


def _magnitude(age: float) -> int:
    return int(math.log2(age)) if age >= 1 else -1


def _concerns(change: Change) -> bool:
    """Whether the controller must look at the ReplicaSet after this change."""
    if change.before is None:
        return True
    new, old = change.stored, change.before
    ignored = ("resourceVersion", "managedFields")
    # The status doesn't count, because the controller itself writes it.
    return new.object["spec"] != old.object["spec"] or any(
        new.metadata.get(key) != old.metadata.get(key) for key in {*new.metadata, *old.metadata} - {*ignored}
    )
