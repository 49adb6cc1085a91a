"""What a pod's document says of its life.

https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase
"""

from labkit.emulator.kubernetes.objects.kinds import Object

ENDED = ("Succeeded", "Failed")


def has_ended(pod: Object) -> bool:
    """Whether no container of the pod runs, or will run again."""
    return (pod.get("status") or {}).get("phase") in ENDED
