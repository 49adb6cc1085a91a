"""A fault: a common mistake, made by editing the documents that describe a run."""

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TypeVar

from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from labkit.course.faults.situation import Situation
from labkit.errors import LabError

Edit = Callable[[Situation], None]
Value = TypeVar("Value")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Fault:
    """A common mistake, the edit that makes it, and the finding that reports it. `catalogue.toml` has the texts."""

    id: str
    description: str
    """A line about the event that led to the fault. It doesn't say what is wrong now."""
    finding: str
    """The id of the doctor's finding about the fault."""
    apply: Edit
    """The function that edits the documents, and changes nothing else."""
    hides: tuple[str, ...] = ()
    """The ids of the findings and faults that this fault hides from the doctor, as patterns of `fnmatch`."""
    seen_as: tuple[str, ...] = ()
    """The ids of the findings that the doctor reports in place of `finding` if another fault hides `finding`."""
    changes: tuple[str, ...] = ()
    """Names for the things that the fault changes. If two faults change the same thing, the later fault stays."""
    needs_probe: bool = False
    """Whether the doctor has to run a command in the pod to see the fault."""
    needs_another_user: bool = False
    """Whether a program in the pod has to become another user."""
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


def rows(
    edit: Callable[[Situation, Value], None], values: Mapping[str, Callable[[Situation], Value]]
) -> dict[str, Edit]:
    """Return the edits of faults that differ only in the value that `edit` puts into the situation, by the faults' ids.

    `values` has a function from the situation to this value for each id.
    """

    def edited(value: Callable[[Situation], Value]) -> Edit:
        return lambda situation: edit(situation, value(situation))

    return {id: edited(value) for id, value in values.items()}


def read(file: Path, families: Iterable[ModuleType]) -> dict[str, Fault]:
    """Return the faults in a catalogue, by id. Their edits are in `families`.

    A family's public functions are edits: the function `pod_deleted` belongs to the fault `pod-deleted`. Its dictionary
    `EDITS` has those that `rows` made.

    Raises `LabError` for the first mistake in the file.
    """
    content = tomllib.loads(file.read_text(encoding="utf-8"))
    edits: dict[str, Edit] = {}
    for family in families:
        own = [each for each in vars(family).values() if getattr(each, "__module__", "") == family.__name__]
        functions = [each for each in own if isinstance(each, FunctionType) and not each.__name__.startswith("_")]
        edits |= {each.__name__.replace("_", "-"): each for each in functions} | getattr(family, "EDITS", {})
    if odd := edits.keys() ^ content["faults"].keys():
        raise LabError(f"The fault {min(odd)} is not in both {file.name} and a module beside it.", where=str(file))
    faults = {}
    for id, fault in content["faults"].items():
        try:
            hides = _expanded(fault.pop("hides", ()), content["lists"])
            faults[id] = Fault(id=id, apply=edits[id], hides=hides, **fault)
        except (ValidationError, KeyError) as error:
            raise LabError(f"{_mistake(error)}.", where=f"{file}, faults.{id}", next="correct the file") from None
    return faults


def _expanded(names: Iterable[str], lists: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the names, with those of a list in place of `@LIST`."""
    return tuple(
        each for name in names for each in (_expanded(lists[name[1:]], lists) if name.startswith("@") else (name,))
    )


def _mistake(error: ValidationError | KeyError) -> str:
    if isinstance(error, KeyError):
        return f"hides: no list {error}"
    # A misspelt key is also missing. Report it as misspelt.
    first = min(error.errors(), key=lambda each: each["type"] != "unexpected_keyword_argument")
    return f"{first['loc'][0]}: {first['msg']}"
