"""Read an object's status: its conditions, and whether a pod has ended.

https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase
"""

from labkit.simulator.kubernetes.objects.kinds import Object

ENDED = ("Succeeded", "Failed")


def condition(obj: Object, type_: str) -> Object:
    """Return the object's condition of this type; {} if the object has no such condition."""
    conditions: list[Object] = (obj.get("status") or {}).get("conditions") or []
    for each in conditions:
        if each.get("type") == type_:
            return each
    return {}


def has_ended(pod: Object) -> bool:
    """Whether all containers of the pod have ended for good."""
    return (pod.get("status") or {}).get("phase") in ENDED
