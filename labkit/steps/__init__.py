"""What IRSA is, one module a step, in the order of building.

Each module has `TITLE`, `build(parameters, …)`, `ensure(lab)`, `check(evidence)`, `rows(evidence)` and `remove(lab)`;
what only happens (the credentials) has no `build`, `ensure` and `remove`.
"""

import importlib
from types import ModuleType

from labkit.errors import UnknownName

ORDER = ("oidc_provider", "iam_role", "service_account", "pod", "credentials")
MADE = ORDER[:-1]
IN_AWS = ORDER[:2]
# What bears a name of the parameters, which another run may have given already: these have `make_way(lab)`, too.
NAMED = MADE[1:]


def step(name: str) -> ModuleType:
    """The module of a step. Raises `UnknownName`."""
    if name not in ORDER:
        raise UnknownName("step", name, ORDER)
    return importlib.import_module(f"labkit.steps.{name}")


def before(name: str) -> tuple[str, ...]:
    """The steps before this one."""
    step(name)
    return ORDER[: ORDER.index(name)]


def through(name: str) -> tuple[str, ...]:
    """The steps up to this one, and it."""
    return (*before(name), name)
