"""Explain in a namespace's conditions why the namespace still exists while it's being deleted.

https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/namespace-v1/#NamespaceStatus
https://github.com/kubernetes/kubernetes/blob/master/pkg/controller/namespace/deletion/status_condition_utils.go
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from labkit.simulator.kubernetes.objects.kinds import Kind, Object
from labkit.simulator.kubernetes.objects.storage import Stored

# The reason and the message of each condition if nothing is wrong.
FINE = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered"),
    "NamespaceDeletionGroupVersionParsingFailure": (
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    "NamespaceDeletionContentFailure": (
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    "NamespaceContentRemaining": ("ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
}


def with_conditions(namespace: Object, remaining: Mapping[Kind, Sequence[Stored]], now: str) -> Object:
    """Return the namespace with conditions about its remaining objects; unchanged if it already has them."""
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
