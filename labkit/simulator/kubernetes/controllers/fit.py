"""Decide whether a pod fits a node, as the scheduler's filters do, and say why not in the scheduler's words.

https://kubernetes.io/docs/concepts/scheduling-eviction/
"""

from decimal import Decimal

from labkit.simulator.kubernetes.objects.kinds import Object
from labkit.simulator.kubernetes.objects.quantities import quantity
from labkit.simulator.kubernetes.objects.selectors import holds

Amounts = dict[str, Decimal]

ZERO = Decimal(0)
CORDONED = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
# Every real node has these resources. A node that reports no amount of them counts as having enough.
COMMON = ("cpu", "memory", "ephemeral-storage")


def against(pod: Object, node: Object, used: Amounts) -> list[str]:
    """Return why the pod doesn't fit the node; [] if it fits. The pods on the node request the ``used`` amounts."""
    spec = node.get("spec") or {}
    if spec.get("unschedulable") and not _tolerates(pod, CORDONED):
        return ["node(s) were unschedulable"]
    taints = [taint for taint in spec.get("taints") or () if taint.get("effect") in ("NoSchedule", "NoExecute")]
    if not all(_tolerates(pod, taint) for taint in taints):
        return ["node(s) had untolerated taint(s)"]
    if not _selects(pod["spec"], node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    there, wanted = allocatable(node), requests(pod)
    short = [name for name, amount in wanted.items() if amount > 0 and amount + used.get(name, 0) > _of(there, name)]
    return [f"Insufficient {name}" for name in short]


def is_helped_by_room(pod: Object, node: Object, reasons: list[str]) -> bool:
    """Whether the pod would fit on the node if other pods left the node."""
    there = allocatable(node)
    enough = all(amount <= _of(there, name) for name, amount in requests(pod).items())
    return enough and all(reason.startswith("Insufficient ") for reason in reasons)


def requests(pod: Object) -> Amounts:
    """Return the amount of each resource, such as `cpu`, that a pod requests.

    https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/
    """
    sidecars: Amounts = {}
    most: Amounts = {}
    for container in pod["spec"].get("initContainers") or ():
        at_once = added(sidecars, _requested(container))
        most = {name: max(most.get(name, ZERO), at_once.get(name, ZERO)) for name in most | at_once}
        if container.get("restartPolicy") == "Always":
            sidecars = at_once
    at_once = sidecars
    for container in pod["spec"].get("containers") or ():
        at_once = added(at_once, _requested(container))
    return {name: max(most.get(name, ZERO), at_once.get(name, ZERO)) for name in most | at_once}


def added(some: Amounts, more: Amounts) -> Amounts:
    return some | {name: some.get(name, ZERO) + amount for name, amount in more.items()}


def allocatable(node: Object) -> Amounts:
    return _amounts((node.get("status") or {}).get("allocatable"))


def _of(there: Amounts, name: str) -> Decimal:
    return there.get(name, Decimal("Infinity") if name in COMMON else ZERO)


def _requested(container: Object) -> Amounts:
    return _amounts((container.get("resources") or {}).get("requests"))


def _amounts(given: Object | None) -> Amounts:
    return {name: quantity(amount) for name, amount in (given or {}).items()}


def _tolerates(pod: Object, taint: Object) -> bool:
    """https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/"""
    return any(_matches(toleration, taint) for toleration in pod["spec"].get("tolerations") or ())


def _matches(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    key = toleration.get("key", "")
    if toleration.get("operator") == "Exists":
        return key in ("", taint.get("key"))
    return bool(key == taint.get("key") and toleration.get("value", "") == taint.get("value", ""))


def _selects(spec: Object, node: Object) -> bool:
    """https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/"""
    labels = node["metadata"].get("labels") or {}
    if not (spec.get("nodeSelector") or {}).items() <= labels.items():
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    wanted = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if wanted is None:
        return True
    fields = {"metadata.name": node["metadata"]["name"]}
    for term in wanted.get("nodeSelectorTerms") or ():
        on_labels, on_fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
        if (on_labels or on_fields) and holds(on_labels, labels) and holds(on_fields, fields):
            return True
    return False
