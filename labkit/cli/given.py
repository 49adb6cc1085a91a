"""`-p NAME=VALUE`: the parameters of a run on the command line."""

from typing import Annotated

import typer

from labkit.errors import LabError

Given = Annotated[
    list[str] | None, typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="A parameter of the run.")
]


def named(pairs: list[str] | None) -> dict[str, str]:
    """The parameters by name. Raises `LabError` if one has no equals sign."""
    for pair in pairs or []:
        if "=" not in pair:
            raise LabError(f"-p takes NAME=VALUE, not {pair!r}.", next="-p role_name=reader")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs or [])}
