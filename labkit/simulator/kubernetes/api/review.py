"""A write that admission checks."""

from dataclasses import dataclass, field

from labkit.simulator.kubernetes.access.authentication import User
from labkit.simulator.kubernetes.objects.kinds import Kind, Object


@dataclass
class Review:
    """One write to check. ``obj`` is empty for a delete, and ``old`` is empty for a create.

    The API server sends the ``warnings`` with its answer.
    """

    kind: Kind
    operation: str
    name: str
    namespace: str
    user: User
    obj: Object = field(default_factory=dict)
    old: Object = field(default_factory=dict)
    subresource: str = ""
    dry_run: bool = False
    warnings: list[str] = field(default_factory=list)
