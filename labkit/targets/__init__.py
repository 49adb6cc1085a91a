"""The targets on which a lab can run: each of the modules `moto`, `kind` and `eks` is a `Target`."""

from typing import TYPE_CHECKING, Protocol

from labkit.errors import UnknownName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labkit.connection import Connection
    from labkit.run_parameters import Parameters

NAMES = ("moto", "kind", "eks")


class Target(Protocol):
    """A module of this package. Each function with an argument ``parameters`` may raise `LabError`."""

    def plan(self, parameters: "Parameters") -> str:
        """Return a text that says what `up` would make. Change nothing."""

    def up(self, parameters: "Parameters") -> "Connection":
        """Return the connection to AWS and to the cluster.

        On moto and kind, start the lab first if no lab runs.

        Raises `NotConfirmed` on eks if the plan isn't confirmed.
        """

    def connect(self, parameters: "Parameters") -> "Connection":
        """Return the connection, and create nothing. On eks, this needs no confirmed plan."""

    def look(self, parameters: "Parameters") -> "Connection":
        """Return the connection, and create nothing.

        On eks, `look` also accepts a caller who lacks permissions that a run needs in the cluster; `connect` doesn't.
        """

    def start_and_look(self, parameters: "Parameters") -> "Connection":
        """Return the same connection as `look`.

        On moto, first start the lab if no lab runs, and create the cluster if it doesn't exist.
        """

    def to_remove(self, parameters: "Parameters") -> "Connection":
        """Return a connection for removing a run. On kind and eks, this also works if the cluster is gone."""

    def down(self) -> bool:
        """End the lab and its processes; return whether the lab ran."""

    def own_region(self) -> str:
        """Return the value of the variable `AWS_REGION`; empty if it isn't set, or if this target ignores it."""

    def environment(self, variables: "Mapping[str, str]") -> dict[str, str]:
        """Return the environment variables that a notebook's kernel may see on this target."""


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
