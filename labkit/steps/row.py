"""A row of a step's check: what was compared, expected beside found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One thing that was compared. `ok` is given where being right is not being equal."""

    what: str
    expected: str
    found: str
    ok: bool | None = None

    @property
    def right(self) -> bool:
        """Whether what was found is as it should be."""
        return self.expected == self.found if self.ok is None else self.ok
