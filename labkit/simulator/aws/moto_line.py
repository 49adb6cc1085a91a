"""The release line of moto (major.minor) that the lab was tested with. This module doesn't import moto."""

import sys

from labkit.errors import LabError

CHECKED_WITH = "5.2"
REQUIREMENT = "moto>=5.2,<5.3"


def check(installed: str = "") -> None:
    """Raise :class:`LabError` if moto is missing, or if its release line (such as 5.2) isn't ``CHECKED_WITH``.

    ``installed`` is moto's version, if the caller already knows it.
    """
    from importlib.metadata import PackageNotFoundError, version  # 0.02 s, and only a start needs it

    try:
        installed = installed or version("moto")
    except PackageNotFoundError:
        problem = "moto is not installed"
    else:
        if installed.split(".")[:2] == CHECKED_WITH.split("."):
            return
        problem = f"moto {installed} is installed"
    raise LabError(
        f"{problem}; the lab was tested with moto {CHECKED_WITH}, and doesn't run with any other.",
        where=f"the Python environment {sys.prefix}",
        next=f'pip install "{REQUIREMENT}" in that environment; in a clone of the repository: make -B setup',
    )
