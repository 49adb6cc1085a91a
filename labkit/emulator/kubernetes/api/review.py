"""What admission is asked about one write."""

from dataclasses import dataclass, field

from labkit.emulator.kubernetes.access.authentication import User
from labkit.emulator.kubernetes.objects.kinds import Kind, Object


@dataclass
class Review:
    """One write that is to be admitted. A delete has no ``obj``, a create no ``old``: they are empty then.

    The answer carries the ``warnings``.
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
