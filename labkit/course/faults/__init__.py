"""Common mistakes with IRSA, as faults that you put into a running lab and take out again.

`catalogue.toml` describes the faults. A fault only edits the documents that describe a run (`situation`). `live`
changes the lab to match the edited documents. `breaking` keeps the documents from before the first fault, and restores
the lab from them.
"""

import random
from difflib import get_close_matches
from pathlib import Path

from labkit.course.faults import fault, pod, provider, role, sdk, webhook
from labkit.course.faults.fault import Fault, expected
from labkit.course.faults.situation import Situation
from labkit.errors import LabError

__all__ = ["CATALOGUE", "Fault", "Situation", "chosen", "drawn", "expected", "named"]

CATALOGUE = fault.read(Path(__file__).with_name("catalogue.toml"), (provider, role, pod, webhook, sdk))
"""The faults by id, in the order of `catalogue.toml`."""


def named(name: str) -> Fault:
    """Return the fault with this id. Raises `LabError` if no fault has it. The error suggests a similar id."""
    if name not in CATALOGUE:
        near = get_close_matches(name, CATALOGUE, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise LabError(f"{name!r} is not a fault.{hint}", next="labkit break --list")
    return CATALOGUE[name]


def chosen(name: str, seed: int | None = None) -> Fault:
    """Return the fault with this name; without a name, a random one. Raises `LabError` for a name and a seed."""
    if name and seed is not None:
        raise LabError(
            "Pass either a fault or a seed. A seed chooses a random fault.",
            where="lab.break_",
            next=f'lab.break_("{name}")',
        )
    return named(name) if name else drawn(seed)


def drawn(seed: int | None = None) -> Fault:
    """Return a random fault that takes away the pod's role or its access to the bucket.

    The same seed gives the same fault.
    """
    breaking = [each for each in CATALOGUE.values() if not each.works]
    return random.Random(seed).choice(breaking)  # noqa: S311 - nothing is kept secret by it
