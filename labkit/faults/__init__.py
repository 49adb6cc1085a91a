"""What people get wrong with IRSA, each of which can be put into a running lab and taken out of it again.

A fault edits the documents of a run (`situation`), and nothing else; `live` makes the lab as they say; `breaking` keeps
what was there before, so that all of it comes back.
"""

import random
from difflib import get_close_matches
from itertools import chain

from labkit.errors import LabError
from labkit.faults import permissions, pod, provider, role, sdk, service_account, webhook
from labkit.faults.fault import Fault, expected
from labkit.faults.situation import Situation

__all__ = ["CATALOGUE", "Fault", "Situation", "drawn", "drawn_in_a_row", "expected", "named"]

FAMILIES = (provider, role, permissions, service_account, pod, webhook, sdk)
CATALOGUE: dict[str, Fault] = {
    fault.id: fault
    for fault in chain.from_iterable(vars(family).values() for family in FAMILIES)
    if isinstance(fault, Fault)
}


def named(name: str) -> Fault:
    """The fault of this id. Raises `LabError`, which names the nearest one."""
    if name not in CATALOGUE:
        near = get_close_matches(name, CATALOGUE, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise LabError(f"{name!r} is not a fault.{hint}", next="labkit break --list")
    return CATALOGUE[name]


def drawn(seed: int | None = None) -> Fault:
    """One of the faults by which the pod loses its role or its bucket; the same for the same seed."""
    return random.Random(seed).choice(_breaking())  # noqa: S311 - nothing is kept secret by it


def drawn_in_a_row(seed: int, count: int) -> list[Fault]:
    """So many different faults by which the pod loses its role or its bucket; the same for the same seed."""
    return random.Random(seed).sample(_breaking(), count)  # noqa: S311 - nothing is kept secret by it


def _breaking() -> list[Fault]:
    return [fault for fault in CATALOGUE.values() if not fault.works]
