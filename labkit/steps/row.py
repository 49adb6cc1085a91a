"""A row of a step's check: the expected value beside the value that was found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One comparison. `ok` says whether the found value is right.

    Without `ok`, the found value is right if it equals the expected value.
    """

    what: str
    expected: str
    found: str
    ok: bool | None = None

    @property
    def right(self) -> bool:
        """Whether the found value is right."""
        return self.expected == self.found if self.ok is None else self.ok
