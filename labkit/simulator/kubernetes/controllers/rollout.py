"""Calculate a Deployment's steps from one revision to the next. This module changes nothing.

https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable

from labkit.simulator.kubernetes.objects import schema
from labkit.simulator.kubernetes.objects.kinds import Object
from labkit.simulator.kubernetes.objects.storage import ALPHABET, Stored, seconds

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
# Annotations that a ReplicaSet doesn't copy from its Deployment.
OWN_ANNOTATIONS = {
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAXIMUM,
    "deprecated.deployment.rollback.to",
}
TIMED_OUT = "ProgressDeadlineExceeded"
ENDLESS = 2**31 - 1  # this value of progressDeadlineSeconds means no deadline


def replicas(stored: Stored) -> int:
    return int(stored.object["spec"]["replicas"])


def counted(stored: Stored | None, name: str) -> int:
    """Return the number ``name`` from the object's status; 0 if the object doesn't exist or lacks the number."""
    return (stored.object.get("status") or {}).get(name, 0) if stored else 0


def annotations(stored: Stored) -> Object:
    return stored.metadata.get("annotations") or {}


def active(sets: Iterable[Stored]) -> list[Stored]:
    return [one for one in sets if replicas(one) > 0]


def by_age(sets: Iterable[Stored]) -> list[Stored]:
    """Sort ReplicaSets, the oldest first."""
    return sorted(sets, key=lambda one: (one.metadata["creationTimestamp"], one.name))


def noted(stored: Stored, annotation: str) -> int | None:
    """Return the number in an annotation; None if the annotation is missing or isn't a number."""
    text = annotations(stored).get(annotation, "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def revision(replica_set: Stored) -> int:
    return noted(replica_set, REVISION) or 0


# The template


def template_hash(template: Object) -> str:
    """Return the pod-template-hash of a template. Equal templates have equal hashes.

    A real cluster's hash has the same form, but another value.
    """
    text = json.dumps(_plain(template), sort_keys=True).encode()
    number = int.from_bytes(hashlib.sha256(text).digest()[:4])
    return "".join(ALPHABET[ord(digit) % len(ALPHABET)] for digit in str(number))


def new_replica_set(deployment: Stored, sets: list[Stored]) -> Stored | None:
    """Return the ReplicaSet that has the Deployment's current template; None if it doesn't exist."""
    wanted = _plain(deployment.object["spec"]["template"])
    return next((one for one in by_age(sets) if _plain(one.object["spec"]["template"]) == wanted), None)


def _plain(template: Object) -> Object:
    """Return a template without the hash label and without empty fields."""
    plain, _ = schema.decode("core.PodTemplateSpec", template)
    metadata = plain.get("metadata") or {}
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != HASH_LABEL}
    return {**plain, "metadata": {key: value for key, value in metadata.items() if key != "labels"}, "labels": labels}


# Numbers of pods


def limits(deployment: Stored) -> tuple[int, int]:
    """Return `maxSurge` and `maxUnavailable` of a Deployment, as numbers of pods.

    Both numbers are 0 if the strategy isn't RollingUpdate.
    """
    wanted, strategy = replicas(deployment), deployment.object["spec"]["strategy"]
    if strategy["type"] != "RollingUpdate":
        return 0, 0
    rolling = strategy.get("rollingUpdate") or {}
    surge = _share(rolling.get("maxSurge", 0), wanted, math.ceil)
    unavailable = _share(rolling.get("maxUnavailable", 0), wanted, math.floor)
    if surge == unavailable == 0:
        unavailable = 1
    return surge, min(unavailable, wanted)


def _share(value: int | str, whole: int, rounded: Callable[[float], int]) -> int:
    return value if isinstance(value, int) else rounded(int(value.rstrip("%")) * whole / 100)


def new_replicas(deployment: Stored, sets: list[Stored], present: int) -> int:
    """Return how many pods the new ReplicaSet may have now. It already has ``present`` pods."""
    wanted = replicas(deployment)
    if deployment.object["spec"]["strategy"]["type"] == "Recreate":
        return wanted
    surge, _ = limits(deployment)
    room = wanted + surge - sum(map(replicas, sets))
    return present if room <= 0 else present + min(room, wanted - present)


def proportional(deployment: Stored, sets: list[Stored]) -> list[tuple[Stored, int]]:
    """Return the new size of each active ReplicaSet, for a Deployment that is scaled during a rollout.

    https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#proportional-scaling
    """
    wanted, chosen = replicas(deployment), active(sets)
    allowed = wanted + limits(deployment)[0] if wanted else 0
    to_add, added = allowed - sum(map(replicas, chosen)), 0
    # The largest comes first. Of two equal ones, the newer grows first and the older shrinks first.
    chosen = by_age(chosen)
    if to_add > 0:
        chosen.reverse()
    chosen.sort(key=replicas, reverse=True)
    sizes = []
    for one in chosen:
        part, left = _fraction(deployment, one, allowed), to_add - added
        part = min(part, left) if to_add > 0 else max(part, left)
        sizes.append(replicas(one) + part)
        added += part
    if sizes:
        sizes[0] = max(sizes[0] + to_add - added, 0)
    return list(zip(chosen, sizes, strict=True))


def _fraction(deployment: Stored, one: Stored, allowed: int) -> int:
    if not replicas(deployment):
        return -replicas(one)
    before = noted(one, MAXIMUM) or counted(deployment, "replicas") or replicas(one)
    return math.floor(replicas(one) * allowed / before + 0.5) - replicas(one)


# Status


def status(deployment: Stored, new: Stored | None, sets: list[Stored], now: str) -> Object:
    """Return the Deployment's new status: new counts, a new condition Available, and the other conditions unchanged."""
    before = deployment.object.get("status") or {}
    available = sum(counted(one, "availableReplicas") for one in sets)
    counts = {
        "replicas": sum(counted(one, "replicas") for one in sets),
        "updatedReplicas": counted(new, "replicas"),
        "readyReplicas": sum(counted(one, "readyReplicas") for one in sets),
        "availableReplicas": available,
        "unavailableReplicas": max(sum(map(replicas, sets)) - available, 0),
    }
    _, may_be_missing = limits(deployment)
    if available >= replicas(deployment) - may_be_missing:
        enough = condition("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now)
    else:
        text = "Deployment does not have minimum availability."
        enough = condition("Available", "False", "MinimumReplicasUnavailable", text, now)
    return {
        "observedGeneration": deployment.metadata["generation"],
        **{name: count for name, count in counts.items() if count},
        "conditions": with_condition(before.get("conditions") or [], enough),
    }


def complete(deployment: Stored, status: Object) -> bool:
    """Whether the rollout is complete: all pods have the new revision and are available."""
    wanted = replicas(deployment)
    numbers = (status.get(name, 0) for name in ("updatedReplicas", "replicas", "availableReplicas"))
    return all(number == wanted for number in numbers) and (
        status.get("observedGeneration", 0) >= deployment.metadata["generation"]
    )


def progressing(before: Object, after: Object) -> bool:
    """Whether the rollout progressed between these two statuses."""

    def old_pods(status: Object) -> int:
        return int(status.get("replicas", 0) - status.get("updatedReplicas", 0))

    return old_pods(after) < old_pods(before) or any(
        after.get(name, 0) > before.get(name, 0) for name in ("updatedReplicas", "readyReplicas", "availableReplicas")
    )


def deadline(deployment: Stored, progress: Object | None) -> float | None:
    """Return the lab time at which a stalled rollout is marked as failed; None if that never happens."""
    limit = deployment.object["spec"]["progressDeadlineSeconds"]
    if limit == ENDLESS or progress is None or progress.get("reason") in ("NewReplicaSetAvailable", TIMED_OUT):
        return None
    return seconds(progress.get("lastUpdateTime") or deployment.metadata["creationTimestamp"]) + float(limit)


def condition(type_: str, status: str, reason: str, message: str, now: str) -> Object:
    return {
        "type": type_,
        "status": status,
        "lastUpdateTime": now,
        "lastTransitionTime": now,
        "reason": reason,
        "message": message,
    }


def find_condition(conditions: list[Object], type_: str) -> Object | None:
    return next((one for one in conditions if one.get("type") == type_), None)


def with_condition(conditions: list[Object], new: Object) -> list[Object]:
    """Return the conditions, with ``new`` instead of the old condition of the same type.

    If status and reason are the same in both, the old condition stays.
    """
    old = find_condition(conditions, new["type"])
    if old and (old.get("status"), old.get("reason")) == (new["status"], new["reason"]):
        return conditions
    if old and old.get("status") == new["status"]:
        new = {**new, "lastTransitionTime": old.get("lastTransitionTime")}
    return [*without_condition(conditions, new["type"]), new]


def without_condition(conditions: list[Object], type_: str) -> list[Object]:
    return [one for one in conditions if one.get("type") != type_]
