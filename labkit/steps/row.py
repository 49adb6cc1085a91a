"""A row of a step's check: what was compared, expected beside found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One thing that was compared. Pass `ok` if right doesn't mean equal."""

    what: str
    expected: str
    found: str
    ok: bool | None = None

    @property
    def right(self) -> bool:
        """Whether the found value is right."""
        return self.expected == self.found if self.ok is None else self.ok
