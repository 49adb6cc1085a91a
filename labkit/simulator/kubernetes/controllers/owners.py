"""An index of owners and dependents.

https://kubernetes.io/docs/concepts/overview/working-with-objects/owners-dependents/
"""

from typing import Any

from labkit.simulator.kubernetes.objects.kinds import POD, REPLICA_SET, Kind, Object
from labkit.simulator.kubernetes.objects.pods import has_ended
from labkit.simulator.kubernetes.objects.selectors import object_selector
from labkit.simulator.kubernetes.objects.storage import Change, Storage, Stored

CONTROLLED = (POD, REPLICA_SET)  # objects of these kinds can be controlled by an owner


def controller_of(stored: Stored | None) -> Object:
    """Return the object's reference to its controlling owner; {} without such an owner."""
    references = stored.metadata.get("ownerReferences") or () if stored else ()
    return next((reference for reference in references if reference.get("controller")), {})


def is_active(stored: Stored) -> bool:
    """Whether the object counts as active: it isn't being deleted, and it isn't a pod that has ended."""
    return "deletionTimestamp" not in stored.metadata and not has_ended(stored.object)


def controller_reference(kind: Kind, owner: Stored) -> Object:
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


class Owners:
    """An index of all objects by their owners. Call ``observe`` with every change of the storage."""

    def __init__(self, storage: Storage):
        self.storage = storage
        # Dicts keep the order, so the same lab does the same things in the same order.
        self._dependents: dict[str, dict[tuple[Kind, str, str], None]] = {}
        # The key is the kind, the namespace, and the uid of the controlling owner ("" without such an owner).
        self._controlled: dict[tuple[Kind, str, str], dict[str, Stored]] = {}

    def observe(self, change: Change) -> None:
        stored, before = change.stored, change.before
        after = stored if change.type != "DELETED" else None
        old = before.metadata.get("ownerReferences") or [] if before else []
        new = after.metadata.get("ownerReferences") or [] if after else []
        if old != new:
            key = (change.kind, stored.namespace, stored.name)
            for reference in old:
                _drop(self._dependents, reference["uid"], key)
            for reference in new:
                self._dependents.setdefault(reference["uid"], {})[key] = None
        if change.kind in CONTROLLED:
            group = (change.kind, stored.namespace)
            if before and (after is None or old != new):
                _drop(self._controlled, (*group, controller_of(before).get("uid", "")), stored.name)
            if after:
                self._controlled.setdefault((*group, controller_of(after).get("uid", "")), {})[stored.name] = after

    def dependents(self, uid: str) -> list[tuple[Kind, Stored]]:
        """Return the objects that have an owner with this uid."""
        return [(kind, self.storage.get(kind, *name)) for kind, *name in self._dependents.get(uid, ())]

    def controlled(self, kind: Kind, owner: Stored) -> list[Stored]:
        """Return the objects of a kind that the owner controls."""
        return list(self._controlled.get((kind, owner.namespace, owner.uid), {}).values())

    def claim(self, kind: Kind, owner_kind: Kind, owner: Stored) -> list[Stored]:
        """Return the objects of ``kind`` that ``owner`` controls and that its selector matches.

        Before that, let ``owner`` adopt each active object that its selector matches and that has no controller.
        Release each object that ``owner`` controls and that its selector doesn't match.
        If ``owner`` is being deleted, adopt and release nothing.
        https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#how-a-replicaset-works
        """
        matches = object_selector(owner.object["spec"]["selector"])
        keeps_only = "deletionTimestamp" in owner.metadata
        claimed = []
        for stored in self.controlled(kind, owner):
            if matches(stored.metadata.get("labels") or {}):
                claimed.append(stored)
            elif not keeps_only:
                self.release(kind, stored, owner.uid)
        if keeps_only:
            return claimed
        reference = controller_reference(owner_kind, owner)
        for stored in list(self._controlled.get((kind, owner.namespace, ""), {}).values()):
            if matches(stored.metadata.get("labels") or {}) and is_active(stored):
                references = [*(stored.metadata.get("ownerReferences") or ()), reference]
                claimed.append(self._owned_by(kind, stored, references))
        return claimed

    def release(self, kind: Kind, stored: Stored, uid: str) -> None:
        """Remove the owner with this uid from the object."""
        references = stored.metadata["ownerReferences"]
        self._owned_by(kind, stored, [reference for reference in references if reference["uid"] != uid])

    def _owned_by(self, kind: Kind, stored: Stored, references: list[Object]) -> Stored:
        metadata = {key: value for key, value in stored.metadata.items() if key != "ownerReferences"}
        metadata |= {"ownerReferences": references} if references else {}
        return self.storage.replace(kind, stored, {**stored.object, "metadata": metadata}, stored.managers)


def _drop(index: dict[Any, Any], group: object, key: object) -> None:
    if (keys := index.get(group)) is not None:
        keys.pop(key, None)
        if not keys:
            del index[group]
