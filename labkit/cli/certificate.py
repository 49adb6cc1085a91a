"""`labkit certificate`: look at a certificate of the examination."""

import time
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Certificates of the examination, notebook 98.")


@app.callback()
def _certificate() -> None:
    """Keep `verify` a command of its own."""


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
        "This proves that nobody changed the page after the holder of this key signed it. It doesn't prove who\n"
        "took the examination, or that nobody helped: the lab ran unsupervised, and its owner holds the key."
    )
