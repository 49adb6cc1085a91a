"""The steps of IRSA, one module for each. `order` builds and removes them. `ownership` says who owns a resource.

Each step has `TITLE`, `build(parameters, …)`, `ensure(lab)`, `check(evidence)`, `rows(evidence)` and `remove(lab)`.
The last step, `credentials`, builds nothing: it only has `TITLE`, `check` and `rows`. The module `bucket` creates the
bucket that the pod reads.
"""

from labkit.steps.order import (
    IN_AWS,
    MADE,
    NAMED,
    ORDER,
    before,
    empty,
    found,
    ready_before,
    ready_through,
    remove,
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
    "found",
    "ready_before",
    "ready_through",
    "remove",
    "step",
    "through",
]
