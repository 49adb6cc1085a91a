"""`labkit certificate`: look at a certificate of the examination."""

import time
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Certificates of the examination, notebook 98.")


@app.callback()
def _certificate() -> None:
    """Keep `verify` a command of its own."""


# What the certificate doesn't prove, by who signed it.
WHAT_NOT = {
    "learner": "It doesn't prove who took the examination, or that nobody helped: the lab's owner holds the key.",
    "demonstration": "It proves nothing about anybody.",
    "class": "The page says that the key is a class's. `labkit workshop status` prints a class's key: ask the leader\n"
    "whether it's this one. If it is, the class's board kept the tasks, the tries, the times and the points. The\n"
    "participant's lab judged the repairs. Only those who were in the room can say that nobody helped.",
}


@app.command()
def verify(file: Annotated[Path, typer.Argument(metavar="FILE", help="The certificate, an SVG file.")]) -> None:
    """Check, offline, that nobody changed a certificate after it was signed. Say what it proves."""
    from labkit.course import examination

    read = examination.verify(file)
    claims, day = read.claims, time.strftime("%Y-%m-%d", time.gmtime(read.claims.at))
    typer.echo(
        f"Unchanged: {claims.name}, {claims.points} of {claims.most} points, examination {claims.number}, {day}\n"
        f"code:  {read.code}\n"
        f"key:   {read.fingerprint}\n"
        f"{claims.note}\n"
        f"This proves that nobody changed the page after the holder of this key signed it.\n{WHAT_NOT[claims.signer]}"
    )
