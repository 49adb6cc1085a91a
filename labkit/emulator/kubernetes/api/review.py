"""What admission is asked about one write."""

from dataclasses import dataclass, field

from labkit.emulator.kubernetes.access.authentication import User
from labkit.emulator.kubernetes.objects.kinds import Kind, Object


@dataclass
class Review:
    """One write that is to be admitted; ``warnings`` is what the answer will carry."""

    kind: Kind
    operation: str
    name: str
    namespace: str
    user: User
    obj: Object | None
    old: Object | None = None
    subresource: str = ""
    dry_run: bool = False
    warnings: list[str] = field(default_factory=list)
