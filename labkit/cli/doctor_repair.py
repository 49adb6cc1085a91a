"""`labkit doctor --repair`: show the repairs one by one, and run those that the user confirms."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import typer

from labkit.cli import doctor_output, lab
from labkit.connection import awaited
from labkit.doctor import CHANGED
from labkit.errors import LabError
from labkit.showing import few
from labkit.simulator import environment

if TYPE_CHECKING:
    from labkit.connection import Connection
    from labkit.doctor import Diagnosis, Finding

STARTS_WITHIN = 60  # seconds until a pod that a repair created runs
STARTING = "pod-not-running"
# A value that the user has to fill in: a role's name, a bucket, a secret that isn't shown.
PLACEHOLDER = re.compile(r"<[A-Z][A-Z0-9_]*>|\bNOT-SHOWN\b")


def repair(look: Callable[[], "Diagnosis"], connection: "Connection") -> int:
    """Return the exit code of the last diagnosis.

    Diagnose with `look`. Show each repair, and run the repair if the user confirms it. Diagnose again after each
    repair that was run. Stop if a repair fails.

    Raises `LabError` if stdin or stdout isn't a terminal.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        without = shlex.join(["labkit", *(each for each in sys.argv[1:] if each != "--repair")])
        raise LabError(
            "--repair asks before each repair, so it needs a terminal.",
            next=f"{without}, which prints the commands. Run those that you want",
        )
    diagnosis, shown = look(), set[tuple[str, str]]()
    while finding := next((each for each in diagnosis.findings if _key(each) not in shown), None):
        # Show a finding only once, even if its repair doesn't help.
        shown.add(_key(finding))
        typer.secho(f"{finding.id}: {finding.summary}", bold=True)
        for line in finding.repair.splitlines():
            typer.echo(f"  {line}")
        if why := why_not_run(finding.repair):
            typer.echo(f"Not run: {why}\n")
            continue
        if not typer.confirm("Run these lines?", default=False):
            typer.echo("Left as it is.\n")
            continue
        failed = run(finding.repair, _environment(connection))
        typer.echo(f"{failed or 'Done. Looking again …'}\n")
        before, diagnosis = diagnosis, _settled(look, diagnosis)
        if also := [id for id in _ids(before) if id not in (finding.id, *_ids(diagnosis))]:
            typer.echo(f"This also mended {few(also)}.\n")
        if failed:
            break
    typer.echo("What is left:\n")
    doctor_output.show(diagnosis, connection.commands_after)
    return diagnosis.exit_code


def why_not_run(repair: str) -> str:
    """Return why a repair can't be run, as sentences; empty if it has a command and all values."""
    commands = "\n".join(line for line in repair.splitlines() if not line.lstrip().startswith("#"))
    if not commands.strip():
        return "the repair has no command. Someone has to decide first what to do."
    if lacking := PLACEHOLDER.search(commands):
        return f"the repair lacks a value. Replace {lacking[0]} with your value, and run the lines yourself."
    return ""


def run(script: str, environment: Mapping[str, str]) -> str:
    """Run a script in a shell until a line fails. Return the failure as a sentence; empty if no line failed.

    https://www.gnu.org/software/bash/manual/html_node/The-Set-Builtin.html
    """
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail"], input=script, env=environment, capture_output=True, text=True, check=False
    )
    if refused := next((line for line in done.stdout.splitlines() if line.endswith(CHANGED)), ""):
        return f"{' '.join(done.stderr.split())} {refused}".strip()
    if done.returncode == 0:
        return ""
    printed = " ".join((done.stderr.strip() or done.stdout.strip() or "nothing").split())
    return f"The repair failed with exit code {done.returncode}; it printed: {printed}"


def _key(finding: "Finding") -> tuple[str, str]:
    return finding.id, finding.repair


def _settled(look: Callable[[], "Diagnosis"], before: "Diagnosis") -> "Diagnosis":
    """Return the diagnosis after a repair.

    If the first result of `look` has the finding `STARTING`, but `before` doesn't, `look` is called again until the
    finding is gone, for at most `STARTS_WITHIN` seconds. The last result is returned.
    """
    return awaited(
        look,
        lambda after: STARTING not in _ids(after) or STARTING in _ids(before),
        within=STARTS_WITHIN,
        every=1,
    )


def _ids(diagnosis: "Diagnosis") -> list[str]:
    return [finding.id for finding in diagnosis.findings]


def _environment(connection: "Connection") -> dict[str, str]:
    # The targets moto and kind have a running lab.
    if connection.commands_after:
        return environment.closed(os.environ) | lab.variables()
    region = connection.aws.region_name
    return {**os.environ, "AWS_REGION": region, "AWS_DEFAULT_REGION": region}
