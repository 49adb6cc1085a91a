"""A fault: a common mistake, as an edit of a run's documents."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from labkit.faults.situation import Situation

Apply = Callable[[Situation], None]


@dataclass(frozen=True)
class Fault:
    """A common mistake, the edit that makes it, and the finding that reports it."""

    id: str
    description: str
    """A line about an event that led to the fault. It doesn't give the fault away."""
    finding: str
    """The id of the doctor's finding about it."""
    apply: Apply
    """The function that edits the documents, and changes nothing else."""
    hides: tuple[str, ...] = ()
    """The ids of findings and faults that the doctor can't see beside this fault; `*` stands for any characters."""
    seen_as: tuple[str, ...] = ()
    """The findings that the doctor reports instead if another fault hides this one's own finding."""
    changes: tuple[str, ...] = ()
    """The things that the fault decides, in words. Of two faults with the same thing, only the later one stays."""
    needs_probe: bool = False
    """Whether the doctor sees it only if it runs a command in the pod."""
    works: bool = False
    """Whether the pod gets its role in spite of the fault."""

    def is_hidden_by(self, other: "Fault") -> bool:
        """Return whether the other fault hides this one from the doctor."""
        names = (self.id, self.finding)
        return other is not self and any(fnmatchcase(name, pattern) for name in names for pattern in other.hides)

    def takes_the_place_of(self, earlier: "Fault") -> bool:
        """Return whether this fault replaces the earlier one."""
        return bool(set(self.changes) & set(earlier.changes))

    def put_into(self, situation: Situation) -> Situation:
        """Return a copy of the situation with the fault."""
        changed = situation.model_copy(deep=True)
        self.apply(changed)
        return changed.settled()


def expected(faults: Sequence[Fault]) -> set[str]:
    """Return the ids of the findings that the doctor should report after these faults, put in one after the other."""
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
    """Return a decorator that makes a fault of a function that edits a situation.

    The function's name becomes the id, with hyphens. Its docstring becomes the description.
    """

    def made(apply: Apply) -> Fault:
        name = apply.__name__.replace("_", "-")
        return Fault(name, (apply.__doc__ or "").strip(), finding, apply, hides, seen_as, changes, **settings)

    return made
