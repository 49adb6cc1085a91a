"""A fault: one thing that people get wrong, as an edit of a run's documents."""

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from labkit.faults.situation import Situation

Apply = Callable[[Situation], None]


@dataclass(frozen=True)
class Fault:
    """One thing that people get wrong."""

    id: str
    description: str
    """What happened, in a line that does not say what is wrong now."""
    finding: str
    """The id of what the doctor finds of it."""
    apply: Apply
    """Edits the documents, and touches nothing else."""
    hides: tuple[str, ...] = ()
    """The findings (`*` stands for anything) that cannot be seen while it is there."""
    changes: tuple[str, ...] = ()
    """What of the lab it decides alone: of two faults that change the same, the later one is there."""
    needs_probe: bool = False
    """Whether it is only seen from within the pod."""
    works: bool = False
    """Whether the pod becomes its role all the same."""

    def is_hidden_by(self, other: "Fault") -> bool:
        """Whether the doctor cannot see it beside the other."""
        return other is not self and any(fnmatchcase(self.finding, pattern) for pattern in other.hides)

    def takes_the_place_of(self, earlier: "Fault") -> bool:
        """Whether the other is gone when this one comes after it."""
        return bool(set(self.changes) & set(earlier.changes))


def fault(
    *, finding: str, hides: tuple[str, ...] = (), changes: tuple[str, ...] = (), **settings: bool
) -> Callable[[Apply], Fault]:
    """Makes a fault of a function that edits a situation: its name is the id, its docstring the description."""

    def made(apply: Apply) -> Fault:
        name = apply.__name__.replace("_", "-")
        return Fault(name, (apply.__doc__ or "").strip(), finding, apply, hides, changes, **settings)

    return made
