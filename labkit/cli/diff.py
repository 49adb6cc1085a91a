"""`labkit diff`: the changes between two runs of one notebook."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def diff(
    before: Annotated[Path, typer.Argument(metavar="A.ipynb", help="An executed notebook.")],
    after: Annotated[Path, typer.Argument(metavar="B.ipynb", help="The same notebook, executed again later.")],
) -> None:
    """Show what changed between two executed notebooks: parameters, cells, outputs.

    Exit code 0: nothing changed; 1: something changed; 2: a file can't be compared.
    """
    from labkit.runs import differences

    changed = differences.parameters(before, after)
    for name, (old, new) in changed.items():
        typer.echo(f"parameter {name}: {json.dumps(old)} → {json.dumps(new)}")
    cells = differences.cells(before, after, colour=sys.stdout.isatty())
    typer.echo(cells or "No cell and no output changed.")
    if cells or changed:
        raise typer.Exit(1)
