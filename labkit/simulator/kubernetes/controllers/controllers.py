"""The cluster's controllers. They fill and empty namespaces, aggregate roles, cascade deletions, and schedule pods.

The controllers of Deployments and ReplicaSets have their own modules.

https://kubernetes.io/docs/concepts/architecture/controller/
https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

from labkit.simulator.kubernetes.api.resources import Resources
from labkit.simulator.kubernetes.controllers.client import ControllerClient
from labkit.simulator.kubernetes.controllers.deployments import Deployments
from labkit.simulator.kubernetes.controllers.events import EventExpiry, EventRecorder
from labkit.simulator.kubernetes.controllers.fit import Amounts, added, against, is_helped_by_room, requests
from labkit.simulator.kubernetes.controllers.owners import Owners
from labkit.simulator.kubernetes.controllers.replicasets import ReplicaSets
from labkit.simulator.kubernetes.objects import writes
from labkit.simulator.kubernetes.objects.kinds import (
    BY_NAME,
    CONFIG_MAP,
    KINDS,
    NAMESPACE,
    NODE,
    POD,
    SERVICE_ACCOUNT,
    Kind,
    Object,
)
from labkit.simulator.kubernetes.objects.pods import condition, has_ended
from labkit.simulator.kubernetes.objects.selectors import object_selector
from labkit.simulator.kubernetes.objects.storage import Change, Later, Stored

CLUSTER_ROLE = BY_NAME["ClusterRole"]
NAMESPACED = [kind for kind in KINDS if kind.namespaced]


class Controllers:
    """Run the cluster's controllers. They act on every change of the storage."""

    def __init__(self, resources: Resources, certificate_pem: bytes, later: Later):
        self.storage, self.later = resources.storage, later
        self._root = {"ca.crt": certificate_pem.decode()}
        self._owners = Owners(self.storage)
        self._namespaces = ControllerClient(resources, "namespace-controller")
        self._replica_sets = ReplicaSets(ControllerClient(resources, "replicaset-controller"), self._owners)
        self._deployments = Deployments(ControllerClient(resources, "deployment-controller"), self._owners)
        self._event_expiry = EventExpiry(self.storage)
        self._scheduling = False
        self._short = False  # whether a pod waits because no node has room for it
        self._scheduler_events = EventRecorder(self.storage, "default-scheduler")
        self.storage.observers += [self._observe, self._observe_role]

    def close(self) -> None:
        """Cancel everything that the controllers are doing or will do later."""
        self._replica_sets.queue.close()
        self._deployments.queue.close()
        self._event_expiry.close()

    def _observe(self, change: Change) -> None:
        kind, stored = change.kind, change.stored
        metadata = stored.metadata
        self._owners.observe(change)
        self._replica_sets.observe(change)
        self._deployments.observe(change)
        self._event_expiry.observe(change)
        if kind is NAMESPACE:
            self._observe_namespace(change)
        elif change.type == "DELETED":
            self._gone(stored)
            if kind in (SERVICE_ACCOUNT, CONFIG_MAP):
                self.later(lambda: self._furnish(stored.namespace))
            if kind.namespaced:
                self.later(lambda: self._empty(stored.namespace))
        elif change.type == "ADDED" and writes.is_over(kind, metadata):
            # The server was killed between removing the last finalizer and removing the object.
            self.later(partial(self.storage.remove, kind, stored))
        elif "deletionTimestamp" in metadata and {*writes.CASCADES.values()} & {*(metadata.get("finalizers") or ())}:
            self.later(lambda: self._cascade(kind, stored))
        elif change.type == "ADDED" and "ownerReferences" in metadata and not self._has_owner(stored):
            self.later(lambda: self._delete(kind, stored))
        elif (kind is POD and change.type == "ADDED" and not stored.object["spec"].get("nodeName")) or (
            kind is NODE and change.type != "DELETED"
        ):
            self._schedule_soon()
        if kind is POD and self._short and (change.type == "DELETED" or has_ended(stored.object)):
            self._schedule_soon()  # there may be more room now

    # Roles

    def _observe_role(self, change: Change) -> None:
        if change.kind is CLUSTER_ROLE:
            self.later(self._aggregate_roles)

    def _aggregate_roles(self) -> None:
        """Give each aggregated ClusterRole the rules of the ClusterRoles that its label selectors match.

        https://kubernetes.io/docs/reference/access-authn-authz/rbac/#aggregated-clusterroles
        """
        for role in list(self.storage.list(CLUSTER_ROLE)):
            if aggregation := role.object.get("aggregationRule"):
                matchers = [object_selector(selector) for selector in aggregation.get("clusterRoleSelectors", ())]
                rules: list[Object] = []
                for other in self.storage.list(CLUSTER_ROLE):
                    labels = other.metadata.get("labels") or {}
                    if other.name != role.name and any(matches(labels) for matches in matchers):
                        rules += [rule for rule in other.object.get("rules") or () if rule not in rules]
                if rules != (role.object.get("rules") or []):
                    self.storage.replace(CLUSTER_ROLE, role, {**role.object, "rules": rules}, role.managers)

    # Namespaces

    def _observe_namespace(self, change: Change) -> None:
        if change.type == "DELETED":
            return
        if change.type == "ADDED":
            self._furnish(change.stored.name)
        if "deletionTimestamp" in change.stored.metadata:
            self.later(lambda: self._empty(change.stored.name))

    def _furnish(self, name: str) -> None:
        """Give the namespace its service account `default` and its ConfigMap `kube-root-ca.crt`."""
        namespace = self.storage.find(NAMESPACE, "", name)
        if namespace is None or "deletionTimestamp" in namespace.metadata:
            return
        if self.storage.find(SERVICE_ACCOUNT, name, "default") is None:
            self.storage.create(SERVICE_ACCOUNT, {"metadata": {"name": "default", "namespace": name}})
        root = self.storage.find(CONFIG_MAP, name, "kube-root-ca.crt")
        if root is None:
            note = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints."
            metadata = {
                "name": "kube-root-ca.crt",
                "namespace": name,
                "annotations": {"kubernetes.io/description": note},
            }
            self.storage.create(CONFIG_MAP, {"metadata": metadata, "data": self._root})
        elif root.object.get("data") != self._root:  # the certificate of the cluster that this one was restored from
            self.storage.replace(CONFIG_MAP, root, {**root.object, "data": self._root}, root.managers)

    def _empty(self, name: str) -> None:
        """Delete everything in a terminating namespace, the pods first.

        https://www.kubernetes.dev/resources/keps/5080/
        """
        namespace = self.storage.find(NAMESPACE, "", name)
        if namespace is None or "deletionTimestamp" not in namespace.metadata:
            return
        pods = any(True for _ in self.storage.list(POD, name))
        for kind in [POD] if pods else NAMESPACED:
            for stored in list(self.storage.list(kind, name)):
                if "deletionTimestamp" not in stored.metadata:
                    writes.delete(self.storage, kind, stored, {"propagationPolicy": "Background"})
        remaining = {kind: objects for kind in NAMESPACED if (objects := [*self.storage.list(kind, name)])}
        if remaining:
            explained = _with_conditions(namespace.object, remaining, self.storage.now())
            self._namespaces.update(NAMESPACE, namespace, explained, "status")
        elif not namespace.metadata.get("finalizers"):
            self.storage.remove(NAMESPACE, namespace)

    # Deletions that cascade

    def _gone(self, owner: Stored) -> None:
        """Garbage-collect the dependents of the removed object `owner`.

        The removed object may have owners, too. For each of them that is being deleted, continue that deletion.
        """
        if self._owners.dependents(owner.uid):
            self.later(lambda: self._orphaned(owner.uid))
        for reference in owner.metadata.get("ownerReferences") or ():
            if (existing := self._owner(reference, owner.namespace)) and "deletionTimestamp" in existing[1].metadata:
                self.later(partial(self._cascade, *existing))

    def _orphaned(self, uid: str) -> None:
        for kind, stored in self._owners.dependents(uid):
            # An object with another owner stays.
            if self._has_owner(stored):
                self._owners.release(kind, stored, uid)
            else:
                self._delete(kind, stored)

    def _delete(self, kind: Kind, stored: Stored, policy: str = "Background") -> None:
        current = self.storage.find(kind, stored.namespace, stored.name)
        if current is not None and current.uid == stored.uid and "deletionTimestamp" not in current.metadata:
            writes.delete(self.storage, kind, current, {"propagationPolicy": policy})

    def _has_owner(self, stored: Stored) -> bool:
        # An owner of a kind that isn't served here counts as existing.
        return any(
            _kind(reference) is None or self._owner(reference, stored.namespace)
            for reference in stored.metadata["ownerReferences"]
        )

    def _owner(self, reference: Object, namespace: str) -> tuple[Kind, Stored] | None:
        if (kind := _kind(reference)) is None:
            return None
        owner = self.storage.find(kind, namespace if kind.namespaced else "", reference["name"])
        return (kind, owner) if owner is not None and owner.uid == reference["uid"] else None

    def _cascade(self, kind: Kind, stored: Stored) -> None:
        """Handle the dependents of an object with the finalizer `orphan` or `foregroundDeletion`.

        For `orphan`, release the dependents. For `foregroundDeletion`, delete the dependents. Then remove the
        finalizer from the object. `foregroundDeletion` stays until no dependent blocks the object's deletion.
        """
        current = self.storage.find(kind, stored.namespace, stored.name)
        if current is None or current.uid != stored.uid:
            return
        finalizers = current.metadata.get("finalizers") or []
        dependents = self._owners.dependents(current.uid)
        if "orphan" in finalizers:
            for of, dependent in dependents:
                self._owners.release(of, dependent, current.uid)
        elif "foregroundDeletion" in finalizers:
            for of, dependent in dependents:
                self._delete(of, dependent, "Foreground" if self._owners.dependents(dependent.uid) else "Background")
            if any(_blocks(dependent, current.uid) for _, dependent in self._owners.dependents(current.uid)):
                return  # the object stays until the last of these dependents is gone
        else:
            return
        left = [name for name in finalizers if name not in writes.CASCADES.values()]
        metadata = {key: value for key, value in current.metadata.items() if key != "finalizers"}
        changed = {**current.object, "metadata": metadata | ({"finalizers": left} if left else {})}
        writes.store(self.storage, kind, current, changed, current.managers)

    # Scheduling

    def _schedule_soon(self) -> None:
        if not self._scheduling:
            self._scheduling = True
            self.later(self._schedule)

    def _schedule(self) -> None:
        """Bind each waiting pod to the suitable node with the fewest pods."""
        self._scheduling = False
        waiting = [
            pod
            for pod in self.storage.list(POD)
            if not pod.object["spec"].get("nodeName")
            and "deletionTimestamp" not in pod.metadata
            and pod.object["spec"].get("schedulerName") == "default-scheduler"
            and not pod.object["spec"].get("schedulingGates")
        ]
        if not waiting:
            return
        nodes = [node for node in self.storage.list(NODE) if condition(node.object, "Ready").get("status") == "True"]
        if not nodes:
            return
        load = {node.name: 0 for node in nodes}
        used: dict[str, Amounts] = {node.name: {} for node in nodes}
        counts = any(requests(pod.object) for pod in waiting)  # most pods request nothing, and need no sums
        for pod in self.storage.list(POD):
            if (name := pod.object["spec"].get("nodeName")) in load:
                load[name] += 1
                if counts and not has_ended(pod.object):
                    used[name] = added(used[name], requests(pod.object))
        self._short = False
        for pod in waiting:
            reasons = {node.name: against(pod.object, node.object, used[node.name]) for node in nodes}
            fitting = [name for name, reason in reasons.items() if not reason]
            if not fitting:
                self._short = True
                self._cannot_be_scheduled(pod, nodes, reasons)
                continue
            name = min(fitting, key=lambda node: (load[node], node))
            load[name] += 1
            used[name] = added(used[name], requests(pod.object))
            writes.bind(self.storage, pod, name)
            assigned = f"Successfully assigned {pod.namespace}/{pod.name} to {name}"
            self._scheduler_events.record(POD, pod, "Normal", "Scheduled", assigned)

    def _cannot_be_scheduled(self, pod: Stored, nodes: list[Stored], reasons: dict[str, list[str]]) -> None:
        """Write the nodes' reasons into the pod's condition, and into an event if the condition changes."""
        preemption = [
            "No preemption victims found for incoming pod"
            if is_helped_by_room(pod.object, node.object, reasons[node.name])
            else "Preemption is not helpful for scheduling"
            for node in nodes
        ]
        none = f"0/{len(nodes)} nodes are available:"
        on_nodes = _counted([reason for several in reasons.values() for reason in several])
        message = f"{none} {on_nodes}. no new claims to deallocate, preemption: {none} {_counted(preemption)}."
        if writes.unschedulable(self.storage, pod, message):
            self._scheduler_events.record(POD, pod, "Warning", "FailedScheduling", message)


def _counted(reasons: list[str]) -> str:
    return ", ".join(sorted(f"{count} {reason}" for reason, count in Counter(reasons).items()))


def _kind(reference: Object) -> Kind | None:
    kind = BY_NAME.get(reference["kind"])
    return kind if kind and kind.api_version == reference["apiVersion"] else None


def _blocks(dependent: Stored, uid: str) -> bool:
    references = dependent.metadata["ownerReferences"]
    return any(reference["uid"] == uid and reference.get("blockOwnerDeletion") for reference in references)


# The reason and the message of each condition of a deleted namespace if nothing is wrong.
FINE = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered"),
    "NamespaceDeletionGroupVersionParsingFailure": ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
    "NamespaceDeletionContentFailure": (
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    "NamespaceContentRemaining": ("ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
}


def _with_conditions(namespace: Object, remaining: Mapping[Kind, Sequence[Stored]], now: str) -> Object:
    """Return the namespace with conditions about its remaining objects; unchanged if it already has them.

    https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/namespace-v1/#NamespaceStatus
    https://github.com/kubernetes/kubernetes/blob/master/pkg/controller/namespace/deletion/status_condition_utils.go
    """
    status = namespace.get("status") or {}
    before = {each["type"]: each for each in status.get("conditions") or ()}
    wrong = _wrong(remaining)
    conditions = {}
    for name, (reason, message) in FINE.items():
        state = wrong.get(name) or {"status": "False", "reason": reason, "message": message}
        old = before.get(name, {})
        changed = old["lastTransitionTime"] if old.get("status") == state["status"] else now
        conditions[name] = {"type": name, **state, "lastTransitionTime": changed}
    return {**namespace, "status": {**status, "conditions": [*({**before, **conditions}).values()]}}


def _wrong(remaining: Mapping[Kind, Sequence[Stored]]) -> dict[str, Object]:
    contents = {f"{kind.plural}.{kind.group}": len(objects) for kind, objects in remaining.items() if objects}
    finalizers = Counter(
        name
        for objects in remaining.values()
        for each in objects
        for name in dict.fromkeys(each.metadata.get("finalizers") or ())
    )
    wrong = {}
    if contents:
        counted = ", ".join(sorted(f"{name} has {count} resource instances" for name, count in contents.items()))
        message = f"Some resources are remaining: {counted}"
        wrong["NamespaceContentRemaining"] = _true("SomeResourcesRemain", message)
    if finalizers:
        counted = ", ".join(sorted(f"{name} in {count} resource instances" for name, count in finalizers.items()))
        message = f"Some content in the namespace has finalizers remaining: {counted}"
        wrong["NamespaceFinalizersRemaining"] = _true("SomeFinalizersRemain", message)
    return wrong


def _true(reason: str, message: str) -> Object:
    return {"status": "True", "reason": reason, "message": message}
