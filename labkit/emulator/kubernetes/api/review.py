"""A write that admission judges."""

from dataclasses import dataclass, field

from labkit.emulator.kubernetes.access.authentication import User
from labkit.emulator.kubernetes.objects.kinds import Kind, Object


@dataclass
class Review:
    """One write to admit. ``obj`` is empty for a delete, ``old`` for a create.

    The API server's answer carries the ``warnings``.
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
