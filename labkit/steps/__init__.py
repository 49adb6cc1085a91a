"""The steps of IRSA, one module for each. `order` runs them in turn, and `ownership` tells who owns a resource.

Each step has `TITLE`, `build(parameters, …)`, `ensure(lab)`, `check(evidence)`, `rows(evidence)` and `remove(lab)`.
Nobody builds the last one, the credentials, so it only has `TITLE`, `check` and `rows`. The pod reads from `bucket`.
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
