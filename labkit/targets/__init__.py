"""Where a lab runs: each of the modules `moto`, `kind` and `eks` is a `Target`."""

from typing import TYPE_CHECKING, Protocol

from labkit.errors import UnknownName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labkit.connection import Connection
    from labkit.run_parameters import Parameters

NAMES = ("moto", "kind", "eks")


class Target(Protocol):
    """A module of this package. Each function that takes parameters may raise `LabError`."""

    def plan(self, parameters: "Parameters") -> str:
        """Return, in words, what `up` would make. Change nothing."""

    def up(self, parameters: "Parameters") -> "Connection":
        """Return the connection. moto and kind start the lab if necessary; eks wants a confirmed plan."""

    def connect(self, parameters: "Parameters") -> "Connection":
        """Return the connection, and create nothing. eks needs neither a plan nor a confirmation for it."""

    def look(self, parameters: "Parameters") -> "Connection":
        """Do the same as `connect`, but on eks also for a caller who may only read."""

    def start_and_look(self, parameters: "Parameters") -> "Connection":
        """Do the same as `look`, but on moto start the lab and the cluster first if they don't run."""

    def to_remove(self, parameters: "Parameters") -> "Connection":
        """Do the same as `connect`, but to remove a run: on kind and eks, also without the cluster."""

    def down(self) -> bool:
        """End the lab and its processes; return whether the lab ran."""

    def own_region(self) -> str:
        """Return the region of the machine's own setup, if this target uses it; otherwise, empty."""

    def environment(self, variables: "Mapping[str, str]") -> dict[str, str]:
        """Return those of the variables that a kernel of this target may see."""


def target(name: str) -> Target:
    """Return the module of a target. Raises `UnknownName`."""
    match name:
        case "moto":
            from labkit.targets import moto

            return moto
        case "kind":
            from labkit.targets import kind

            return kind
        case "eks":
            from labkit.targets import eks

            return eks
        case _:
            raise UnknownName("target", name, NAMES)


def connect(parameters: "Parameters") -> "Connection":
    """Do what `Target.connect` does, for the target in the parameters."""
    return target(parameters.target).connect(parameters)


def look(parameters: "Parameters") -> "Connection":
    """Do what `Target.look` does, for the target in the parameters."""
    return target(parameters.target).look(parameters)


def to_remove(parameters: "Parameters") -> "Connection":
    """Do what `Target.to_remove` does, for the target in the parameters."""
    return target(parameters.target).to_remove(parameters)
