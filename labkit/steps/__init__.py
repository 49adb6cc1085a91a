"""The steps of IRSA, one module for each step. `ownership` says who owns a resource.

The module `order` builds the steps' resources in order, and removes the resources of a run.

Each step has `TITLE`, `build(parameters, …)`, `ensure(lab)` and `remove(lab)`; `labkit.doctor.checks` compares it with
the live lab. The last step, `credentials`, builds nothing, so it only has `TITLE`. The module `bucket` creates the
bucket that the pod reads.
"""

from labkit.steps.order import (
    IN_AWS,
    MADE,
    NAMED,
    ORDER,
    before,
    empty,
    ready_before,
    ready_through,
    remove,
    resources,
    step,
    through,
)

__all__ = [
    "IN_AWS",
    "MADE",
    "NAMED",
    "ORDER",
    "before",
    "empty",
    "ready_before",
    "ready_through",
    "remove",
    "resources",
    "step",
    "through",
]
