"""What a call needs to be allowed."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Permission:
    """An action on a resource, and the condition keys that the service adds for it."""

    action: str
    resource: str
    context: dict[str, str | list[str]] = field(default_factory=dict)


class CannotDerive(Exception):
    """The lab does not know which actions this call needs; the message says of what."""
