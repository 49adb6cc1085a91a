"""A fault: a common mistake, made by editing the documents that describe a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from labkit.course.faults.situation import Situation

Apply = Callable[[Situation], None]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Fault:
    """A common mistake, the edit that makes it, and the finding that reports it."""

    id: str
    description: str
    """A line about the event that led to the fault. It doesn't say what is wrong now."""
    finding: str
    """The id of the doctor's finding about the fault."""
    apply: Apply
    """The function that edits the documents, and changes nothing else."""
    hides: tuple[str, ...] = ()
    """The ids of the findings and faults that this fault hides from the doctor, as patterns of `fnmatch`."""
    seen_as: tuple[str, ...] = ()
    """The ids of the findings that the doctor reports in place of `finding` if another fault hides `finding`."""
    changes: tuple[str, ...] = ()
    """Names for the things that the fault changes. If two faults change the same thing, the later fault stays."""
    needs_probe: bool = False
    """Whether the doctor has to run a command in the pod to see the fault."""
    works: bool = False
    """Whether the pod keeps its role and its access to the bucket in spite of the fault."""

    def is_hidden_by(self, other: "Fault") -> bool:
        """Return whether the other fault hides this fault, or its finding, from the doctor."""
        names = (self.id, self.finding)
        return other is not self and any(fnmatchcase(name, pattern) for name in names for pattern in other.hides)

    def takes_the_place_of(self, earlier: "Fault") -> bool:
        """Return whether this fault replaces the earlier fault, because both change the same thing."""
        return bool(set(self.changes) & set(earlier.changes))

    def put_into(self, situation: Situation) -> Situation:
        """Return a copy of the situation with the fault."""
        changed = situation.model_copy(deep=True)
        self.apply(changed)
        return changed.settled()


def expected(faults: Sequence[Fault]) -> set[str]:
    """Return the ids of the findings that the doctor should report for these faults.

    `faults` is in the order in which the faults were put in.
    """
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
    description: str,
    *,
    finding: str,
    hides: tuple[str, ...] = (),
    seen_as: tuple[str, ...] = (),
    changes: tuple[str, ...] = (),
    **settings: bool,
) -> Callable[[Apply], Fault]:
    """Return a decorator that turns a function into a fault. The function edits a `Situation`.

    The parameters set the fields of `Fault`. The fault's id is the function's name with hyphens.
    """

    def made(apply: Apply) -> Fault:
        name = apply.__name__.replace("_", "-")
        return Fault(name, description, finding, apply, hides, seen_as, changes, **settings)

    return made


def faults(
    edit: Callable[[Situation, Value], None],
    *rows: tuple[str, str, str, Callable[[Situation], Value], *tuple[str, ...]],
    hides: tuple[str, ...] = (),
    changes: tuple[str, ...] = (),
) -> tuple[Fault, ...]:
    """Return a fault for each row. The faults differ in the value that `edit` puts into the situation.

    A row is the fault's id, its description, its finding, a function from the situation to the value, and what the
    fault hides besides `hides`.
    """

    def apply(value: Callable[[Situation], Value]) -> Apply:
        return lambda situation: edit(situation, value(situation))

    return tuple(
        Fault(id, description, finding, apply(value), (*hides, *more), changes=changes)
        for id, description, finding, value, *more in rows
    )
