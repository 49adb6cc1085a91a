"""Where a lab runs: modules with `plan`, `up`, `connect`, `down` and `environment`, as tests/targets holds them to."""

import importlib
from types import ModuleType

from labkit.connection import Connection
from labkit.errors import UnknownName
from labkit.parameters import Parameters

NAMES = ("moto", "kind", "eks")


def target(name: str) -> ModuleType:
    """The module of a target. Raises `UnknownName`."""
    if name not in NAMES:
        raise UnknownName("target", name, NAMES)
    return importlib.import_module(f"labkit.targets.{name}")


def own_region(name: str) -> str:
    """The region that the machine's own setup names, where that counts on this target; else empty."""
    module = target(name)
    return module.own_region() if hasattr(module, "own_region") else ""


def connect(parameters: Parameters) -> Connection:
    """The connection to look with, where nothing is to be made: on eks it needs neither the plan nor its confirmation.

    Raises `LabError`.
    """
    return target(parameters.target).connect(parameters)


def to_remove(parameters: Parameters) -> Connection:
    """As `connect`, for who removes what a run made: on eks also where the cluster is gone. Raises `LabError`."""
    module = target(parameters.target)
    return module.to_remove(parameters) if hasattr(module, "to_remove") else module.connect(parameters)


def look(parameters: Parameters, *, start: bool = False) -> Connection:
    """As `connect`, asking for no more than it takes to look; with `start`, the embedded lab is started if need be.

    Raises `LabError`.
    """
    module = target(parameters.target)
    return module.look(parameters, start=start) if hasattr(module, "look") else module.connect(parameters)
