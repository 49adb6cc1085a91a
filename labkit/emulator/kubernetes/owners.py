"""Who owns what, found without looking at everything.

https://kubernetes.io/docs/concepts/overview/working-with-objects/owners-dependents/
"""

from labkit.emulator.kubernetes.kinds import POD, REPLICA_SET, Kind
from labkit.emulator.kubernetes.selectors import object_selector
from labkit.emulator.kubernetes.storage import Change, Storage, Stored

CONTROLLED = (POD, REPLICA_SET)  # the kinds that have controllers here


def controller_of(stored: Stored | None) -> dict:
    """The reference to the one owner that controls the object; empty where there is none."""
    references = stored.metadata.get("ownerReferences") or () if stored else ()
    return next((reference for reference in references if reference.get("controller")), {})


def controller_reference(kind: Kind, owner: Stored) -> dict:
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


class Owners:
    """``observe`` has to be told of every change, before others ask."""

    def __init__(self, storage: Storage):
        self.storage = storage
        # Dicts keep the order: the same lab does the same things in the same order.
        self._dependents: dict[str, dict[tuple[Kind, str, str], None]] = {}
        self._free: dict[tuple[Kind, str], dict[str, None]] = {}

    def observe(self, change: Change) -> None:
        before = change.before if change.before is not None else None
        after = change.stored if change.type != "DELETED" else None
        old = before.metadata.get("ownerReferences") or [] if before else []
        new = after.metadata.get("ownerReferences") or [] if after else []
        stored = change.stored
        if old != new:
            key = (change.kind, stored.namespace, stored.name)
            for reference in old:
                owned = self._dependents.get(reference["uid"], {})
                owned.pop(key, None)
                if not owned:
                    self._dependents.pop(reference["uid"], None)
            for reference in new:
                self._dependents.setdefault(reference["uid"], {})[key] = None
        if change.kind in CONTROLLED and (old != new or before is None or after is None):
            free = self._free.setdefault((change.kind, stored.namespace), {})
            if after is not None and not controller_of(after):
                free[stored.name] = None
            else:
                free.pop(stored.name, None)

    def dependents(self, uid: str) -> list[tuple[Kind, Stored]]:
        """What names the owner of this uid among its owners."""
        found = [(kind, self.storage.find(kind, *name)) for kind, *name in self._dependents.get(uid, ())]
        return [(kind, stored) for kind, stored in found if stored is not None]

    def controlled(self, kind: Kind, uid: str) -> list[Stored]:
        """The objects of a kind that the owner of this uid controls."""
        return [stored for of, stored in self.dependents(uid) if of is kind and controller_of(stored).get("uid") == uid]

    def claim(self, kind: Kind, owner_kind: Kind, owner: Stored) -> list[Stored]:
        """What a controller takes for its own: it lets go what its selector does not match, and adopts what it does.

        https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#how-a-replicaset-works
        """
        matches = object_selector(owner.object["spec"]["selector"])
        keeps_only = "deletionTimestamp" in owner.metadata
        claimed = []
        for stored in self.controlled(kind, owner.uid):
            if matches(stored.metadata.get("labels") or {}):
                claimed.append(stored)
            elif not keeps_only:
                self.release(kind, stored, owner.uid)
        if keeps_only:
            return claimed
        reference = controller_reference(owner_kind, owner)
        for name in list(self._free.get((kind, owner.namespace), ())):
            stored = self.storage.get(kind, owner.namespace, name)
            if matches(stored.metadata.get("labels") or {}) and _may_be_adopted(stored):
                references = [*(stored.metadata.get("ownerReferences") or ()), reference]
                claimed.append(self._owned_by(kind, stored, references))
        return claimed

    def release(self, kind: Kind, stored: Stored, uid: str) -> None:
        """Takes an owner away from the object."""
        references = stored.metadata["ownerReferences"]
        self._owned_by(kind, stored, [reference for reference in references if reference["uid"] != uid])

    def _owned_by(self, kind: Kind, stored: Stored, references: list[dict]) -> Stored:
        metadata = {key: value for key, value in stored.metadata.items() if key != "ownerReferences"}
        metadata |= {"ownerReferences": references} if references else {}
        return self.storage.replace(kind, stored, {**stored.object, "metadata": metadata}, stored.managers)


def _may_be_adopted(stored: Stored) -> bool:
    phase = (stored.object.get("status") or {}).get("phase")
    return "deletionTimestamp" not in stored.metadata and phase not in ("Succeeded", "Failed")
