"""The random fault of an exercise. The learner sees only its symptom."""

import random
from collections.abc import Sequence

from labkit import documents, steps
from labkit.course import faults
from labkit.course.faults import live
from labkit.workspace import Workspace


def ready(place: Workspace) -> None:
    """Take the steps up to the service account."""
    for _ in steps.ready_through(place, "service_account"):
        pass


def broken(place: Workspace, names: Sequence[str], *pods: documents.Pod) -> None:
    """Put one of these faults into what `ready` made, and then create the pods."""
    fault = faults.named(random.choice(names))  # noqa: S311 - nothing is kept secret by it
    now = live.read(place)
    wanted = now.model_copy(deep=True)
    for pod in pods:
        wanted.add(dict(pod))
    live.make(place, now, fault.put_into(wanted))
