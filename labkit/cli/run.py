"""`labkit run`: run a notebook through papermill, and show its checks and the pod's answers.

`labkit diff`: show the changes between two runs of one notebook.
"""

import json
import os
import sys
from contextlib import redirect_stderr
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from labkit.cli.commands import command
from labkit.cli.given import FromFile, Given, named
from labkit.cli.terminal import unprotected
from labkit.course import NOTEBOOKS
from labkit.errors import LabError
from labkit.simulator import Folder

if TYPE_CHECKING:
    from labkit import runs
    from labkit.run_parameters import Parameters

WHOLE = NOTEBOOKS / "irsa.ipynb"
LONGEST_NAME = 200  # characters of a file's name; file systems allow 255 bytes


def run(
    notebook: Annotated[
        Path, typer.Argument(help="The notebook. Without it: irsa.ipynb, all steps.", show_default=False)
    ] = WHOLE,
    parameter: Given = None,
    file: FromFile = None,
    output: Annotated[
        Path | None, typer.Option(help="The file for the executed notebook. Without it: a file in runs/.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Confirm the plan. Same as -p confirm=yes.")] = False,
) -> None:
    """Run a notebook through papermill. Show each step's check and the pod's answers.

    If a cell fails, the command shows the cell, its error and the doctor's findings. The executed notebook is kept.
    """
    from labkit import runs
    from labkit.run_parameters import Parameters, label_value

    values = named(parameter, file) | ({"confirm": "yes"} if yes else {})
    parameters = Parameters.checked(**values)
    run = parameters.run
    name = run.replace("/", "-") if len(run) <= LONGEST_NAME else label_value(run)
    output = output or Path("runs") / notebook.stem / f"{name}.ipynb"
    typer.echo(f"Running {_short(notebook)} on the {parameters.target} target …")
    try:
        with redirect_stderr(unprotected(sys.stderr)):
            done = runs.run(notebook, output, parameters.given, progress=sys.stderr.isatty())
    except runs.RunFailed as failed:
        _show_run(failed.run)
        _show_failure(failed)
        raise
    _show_run(done)
    if not done.ok:
        raise LabError("A check found something wrong.", where=str(output), next=f"jupyter lab {quote(str(output))}")
    if notebook == WHOLE:
        typer.echo(f"\n{_what_happened(parameters)}")


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


def _what_happened(parameters: "Parameters") -> str:
    # https://www.gnu.org/software/make/manual/html_node/Recursion.html
    next_ = "make lab" if "MAKELEVEL" in os.environ else f"{command()} lab"
    return (
        f"The cluster {parameters.cluster} signed a token that says: this pod runs as {parameters.service_account}.\n"
        "STS fetched the cluster's public key from its issuer, and verified the token with it.\n"
        f"The trust policy of {parameters.role_name} admits this service account, so STS gave the pod credentials of "
        "the role.\n"
        "With these credentials the pod listed the buckets above. No one gave the pod a key, and the credentials "
        "expire.\n"
        f"Now do each step yourself, in notebooks:  {next_}"
    )


def _show_run(done: "runs.Run") -> None:
    for check in done.checks:
        mark = "ok" if check["ok"] else "NOT OK"
        typer.echo(f"  {mark:7} {check['title']}")
        for finding in check["findings"]:
            typer.echo(f"          {finding['summary']}\n          repair: {finding['repair']}")
    for answer in done.answers:
        typer.echo(f"\n$ {answer['command']}\n{answer['answer'].rstrip()}")
    typer.echo(f"\nThe executed notebook: {_short(done.output)}")
    if Folder.find().is_running():
        typer.echo(f"The lab keeps running. `{command()} down` ends it.")


def _show_failure(failed: "runs.RunFailed") -> None:
    from labkit import runs

    typer.echo("\nThis cell failed:")
    typer.echo("\n".join(f"    {line}" for line in failed.source.splitlines()))
    try:
        diagnosis = runs.examined(failed.run.parameters)
    except LabError as error:
        typer.echo(f"The doctor could not look: {error.what}\n")
        return
    findings = [finding.as_text(diagnosis.name) for finding in diagnosis.findings] or [diagnosis.headline]
    typer.echo("\n".join(["The doctor looked at the service account:", *findings, ""]))


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_absolute() and path.is_relative_to(Path.cwd()) else str(path)
