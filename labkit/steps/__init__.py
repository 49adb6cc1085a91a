"""What IRSA is, one module a step; `order` walks them, `ownership` says who owns a resource.

Each step has `TITLE`, `build(parameters, …)`, `ensure(lab)`, `check(evidence)`, `rows(evidence)` and `remove(lab)`;
what only happens (the credentials) has no `build`, `ensure` and `remove`. `bucket` is what the pod reads.
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
