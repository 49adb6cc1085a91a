"""A fault: one thing that people get wrong, as an edit of a run's documents."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from labkit.faults.situation import Situation

Apply = Callable[[Situation], None]


@dataclass(frozen=True)
class Fault:
    """One thing that people get wrong."""

    id: str
    description: str
    """What happened, in a line that doesn't give away the fault."""
    finding: str
    """The id of what the doctor finds of it."""
    apply: Apply
    """Edit the documents, and touch nothing else."""
    hides: tuple[str, ...] = ()
    """The findings (`*` stands for anything), or faults, that cannot be seen while it is there."""
    seen_as: tuple[str, ...] = ()
    """The findings that stand for it if its own can't be seen."""
    changes: tuple[str, ...] = ()
    """What of the lab it decides alone: of two faults that change the same, the later one is there."""
    needs_probe: bool = False
    """Whether it is only seen from within the pod."""
    works: bool = False
    """Whether the pod becomes its role all the same."""

    def is_hidden_by(self, other: "Fault") -> bool:
        """Whether the other fault hides this one from the doctor."""
        names = (self.id, self.finding)
        return other is not self and any(fnmatchcase(name, pattern) for name in names for pattern in other.hides)

    def takes_the_place_of(self, earlier: "Fault") -> bool:
        """Whether the other is taken out when this one comes after it."""
        return bool(set(self.changes) & set(earlier.changes))

    def put_into(self, situation: Situation) -> Situation:
        """The situation with the fault; the given one isn't changed."""
        changed = situation.model_copy(deep=True)
        self.apply(changed)
        return changed.settled()


def expected(faults: Sequence[Fault]) -> set[str]:
    """The findings that the doctor should have after these faults were put in, one after the other."""
    there = [
        fault
        for at, fault in enumerate(faults)
        if not any(later.takes_the_place_of(fault) for later in faults[at + 1 :])
    ]
    hidden = [fault for fault in there if any(fault.is_hidden_by(other) for other in there)]
    left = {finding for fault in hidden for finding in fault.seen_as}
    patterns = [pattern for fault in there for pattern in fault.hides]
    return {fault.finding for fault in there if fault not in hidden} | {
        finding for finding in left if not any(fnmatchcase(finding, pattern) for pattern in patterns)
    }


def fault(
    *,
    finding: str,
    hides: tuple[str, ...] = (),
    seen_as: tuple[str, ...] = (),
    changes: tuple[str, ...] = (),
    **settings: bool,
) -> Callable[[Apply], Fault]:
    """Make a fault of a function that edits a situation: its name is the id, its docstring the description."""

    def made(apply: Apply) -> Fault:
        name = apply.__name__.replace("_", "-")
        return Fault(name, (apply.__doc__ or "").strip(), finding, apply, hides, seen_as, changes, **settings)

    return made
