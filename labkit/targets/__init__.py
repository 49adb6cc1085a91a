"""Where a lab runs: `Target` is what each of the modules `moto`, `kind` and `eks` is."""

from typing import TYPE_CHECKING, Protocol

from labkit.errors import UnknownName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labkit.connection import Connection
    from labkit.run_parameters import Parameters

NAMES = ("moto", "kind", "eks")


class Target(Protocol):
    """A module of this package. Whatever takes parameters raises `LabError`."""

    def plan(self, parameters: "Parameters") -> str:
        """What `up` makes; changes nothing."""

    def up(self, parameters: "Parameters") -> "Connection":
        """The connection. A lab of its own is started if necessary; your own account needs a confirmation."""

    def connect(self, parameters: "Parameters") -> "Connection":
        """The connection for reading: nothing is created, and eks needs neither plan nor confirmation."""

    def look(self, parameters: "Parameters") -> "Connection":
        """As `connect`, asking for no more than it takes to look."""

    def start_and_look(self, parameters: "Parameters") -> "Connection":
        """As `look`, where a lab that is this machine's own is started if need be."""

    def to_remove(self, parameters: "Parameters") -> "Connection":
        """As `connect`, for who removes what a run made: also where the cluster is gone."""

    def down(self) -> bool:
        """End what the lab started; return whether any of it ran."""

    def own_region(self) -> str:
        """Return the region of the machine's own setup, if this target uses it; otherwise, empty."""

    def environment(self, variables: "Mapping[str, str]") -> dict[str, str]:
        """What a kernel of this target may see of these variables."""


def target(name: str) -> Target:
    """The module of a target. Raises `UnknownName`."""
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
    """See `Target.connect`."""
    return target(parameters.target).connect(parameters)


def look(parameters: "Parameters") -> "Connection":
    """See `Target.look`."""
    return target(parameters.target).look(parameters)


def to_remove(parameters: "Parameters") -> "Connection":
    """See `Target.to_remove`."""
    return target(parameters.target).to_remove(parameters)
