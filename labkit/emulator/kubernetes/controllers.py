"""What a cluster's controllers do here: namespaces' contents, deletions that cascade, and a minimal scheduler.

https://kubernetes.io/docs/concepts/architecture/controller/
https://kubernetes.io/docs/concepts/architecture/garbage-collection/
"""

from collections.abc import Callable

from labkit.emulator.kubernetes import writes
from labkit.emulator.kubernetes.kinds import CONFIG_MAP, EVENT, KINDS, NAMESPACE, NODE, POD, SERVICE_ACCOUNT
from labkit.emulator.kubernetes.names import suffix
from labkit.emulator.kubernetes.storage import Change, Storage, Stored

NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


class Controllers:
    """Works on every change of the storage. ``later(f)`` has to call ``f`` soon, and never at once."""

    def __init__(self, storage: Storage, certificate_pem: bytes, later: Callable[[Callable[[], None]], None]):
        self.storage, self.later = storage, later
        self._root = {"ca.crt": certificate_pem.decode()}
        storage.observers.append(self._observe)

    def _observe(self, change: Change) -> None:
        kind, stored = change.kind, change.stored
        metadata = stored.metadata
        if kind is NAMESPACE:
            if change.type == "ADDED":
                self._furnish(stored.name)
            elif "deletionTimestamp" in metadata and change.type == "MODIFIED":
                self.later(lambda: self._empty(stored.name))
            return
        if change.type == "DELETED":
            self.later(lambda: self._orphaned(stored))
            if kind in (SERVICE_ACCOUNT, CONFIG_MAP):
                self.later(lambda: self._furnish(stored.namespace))
            if kind.namespaced:
                self.later(lambda: self._finish(stored.namespace))
        elif "deletionTimestamp" in metadata and set(metadata.get("finalizers") or ()) & writes.CASCADES:
            self.later(lambda: self._cascade(change))
        elif (kind is POD and change.type == "ADDED" and not stored.object["spec"].get("nodeName")) or (
            kind is NODE and change.type != "DELETED"
        ):
            self.later(self._schedule)

    # Namespaces

    def _furnish(self, name: str) -> None:
        """Every namespace has a `default` service account and the certificate that pods verify the API with."""
        namespace = self.storage.find(NAMESPACE, "", name)
        if namespace is None or "deletionTimestamp" in namespace.metadata:
            return
        if self.storage.find(SERVICE_ACCOUNT, name, "default") is None:
            self.storage.create(SERVICE_ACCOUNT, {"metadata": {"name": "default", "namespace": name}})
        if self.storage.find(CONFIG_MAP, name, "kube-root-ca.crt") is None:
            note = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints."
            metadata = {
                "name": "kube-root-ca.crt",
                "namespace": name,
                "annotations": {"kubernetes.io/description": note},
            }
            self.storage.create(CONFIG_MAP, {"metadata": metadata, "data": self._root})

    def _empty(self, name: str) -> None:
        for kind in KINDS:
            if kind.namespaced:
                for stored in list(self.storage.list(kind, name)):
                    if "deletionTimestamp" not in stored.metadata:
                        writes.delete(self.storage, kind, stored, {"propagationPolicy": "Background"})
        self._finish(name)

    def _finish(self, name: str) -> None:
        namespace = self.storage.find(NAMESPACE, "", name)
        if namespace is None or "deletionTimestamp" not in namespace.metadata:
            return
        if any(True for kind in KINDS if kind.namespaced for _ in self.storage.list(kind, name)):
            return
        if not namespace.metadata.get("finalizers"):
            self.storage.remove(NAMESPACE, namespace)

    # Deletions that cascade

    def _dependents(self, owner: Stored) -> list:
        return [
            (kind, stored)
            for kind in KINDS
            for stored in self.storage.list(kind, owner.namespace)
            if any(reference.get("uid") == owner.uid for reference in stored.metadata.get("ownerReferences") or ())
        ]

    def _orphaned(self, owner: Stored) -> None:
        for kind, stored in self._dependents(owner):
            if "deletionTimestamp" not in stored.metadata:
                writes.delete(self.storage, kind, stored, {"propagationPolicy": "Background"})

    def _cascade(self, change: Change) -> None:
        current = self.storage.find(change.kind, change.stored.namespace, change.stored.name)
        if current is None or current.uid != change.stored.uid:
            return
        finalizers = current.metadata.get("finalizers") or []
        if "orphan" in finalizers:
            for kind, stored in self._dependents(current):
                left = [r for r in stored.metadata["ownerReferences"] if r.get("uid") != current.uid]
                self.storage.replace(
                    kind,
                    stored,
                    {**stored.object, "metadata": {**stored.metadata, "ownerReferences": left}},
                    stored.managers,
                )
        else:
            self._orphaned(current)
        left = [name for name in finalizers if name not in writes.CASCADES]
        metadata = {key: value for key, value in current.metadata.items() if key != "finalizers"}
        changed = {**current.object, "metadata": metadata | ({"finalizers": left} if left else {})}
        writes.store(self.storage, change.kind, current, changed, current.managers)

    # Scheduling

    def _schedule(self) -> None:
        """Every pod that is bound to no node goes to the node with the fewest pods that it may run on."""
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
        load = {node.name: 0 for node in self.storage.list(NODE) if _accepts_pods(node)}
        if not load:
            return
        for pod in self.storage.list(POD):
            if (name := pod.object["spec"].get("nodeName")) in load:
                load[name] += 1
        for pod in waiting:
            wanted = pod.object["spec"].get("nodeSelector") or {}
            fitting = [name for name in load if wanted.items() <= self._labels(name).items()]
            if not fitting:
                continue
            name = min(fitting, key=lambda node: (load[node], node))
            load[name] += 1
            writes.bind(self.storage, pod, name)
            self._event(pod, f"Successfully assigned {pod.namespace}/{pod.name} to {name}")

    def _labels(self, node: str) -> dict:
        return self.storage.get(NODE, "", node).metadata.get("labels") or {}

    def _event(self, pod: Stored, message: str) -> None:
        now = self.storage.now()
        name = f"{pod.name}.{suffix(self.storage.identifiers, 'event', pod.name)}"
        involved = {"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid, "apiVersion": "v1"}
        event = {
            "metadata": {"name": name, "namespace": pod.namespace},
            "involvedObject": involved,
            "reason": "Scheduled",
            "message": message,
            "source": {"component": "default-scheduler"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "type": "Normal",
            "eventTime": None,
            "reportingComponent": "default-scheduler",
            "reportingInstance": "",
        }
        self.storage.create(EVENT, event)


def _accepts_pods(node: Stored) -> bool:
    conditions = (node.object.get("status") or {}).get("conditions") or ()
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    return ready and not (node.object.get("spec") or {}).get("unschedulable")
