"""`labkit trail`: the calls to AWS, each with its decision and the reason."""

import json
import sys
from itertools import islice
from typing import Annotated

import typer

from labkit.errors import LabError
from labkit.simulator.folder import Folder


def trail(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    last: Annotated[int, typer.Option(min=0, help="The number of newest calls to show, the newest last. 0: all.")] = 20,
    event: Annotated[str, typer.Option(help="Only calls with this name, such as AssumeRoleWithWebIdentity.")] = "",
    role: Annotated[str, typer.Option(help="Only calls by this role, service account or user.")] = "",
    refused: Annotated[bool, typer.Option("--refused", help="Only calls that ended with an error.")] = False,
) -> None:
    """Show each call to AWS with its caller, decision and reason. Real AWS doesn't show the reason."""
    from labkit.course.widgets import trail as shown
    from labkit.simulator.aws.trail import Trail

    folder = Folder.find()
    if not folder.trail_file.exists() and not folder.is_running():
        raise LabError(f"No lab runs in {folder.path}, and no lab has left a trail there.", next="labkit up")
    newest = (
        record
        for record in Trail.newest(folder.trail_file, containing=role)
        if event in ("", record.get("eventName"))
        and role in ("", shown.who(record))
        and (not refused or shown.is_refused(record))
    )
    records = [*islice(newest, last or None)][::-1]
    if as_json:
        for record in records:
            typer.echo(json.dumps(record))
        return
    if not records:
        is_filtered = event or role or refused
        typer.echo("The trail has no such call." if is_filtered else "The trail is empty: nothing has called AWS yet.")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("time", "event", "who", "decision", "reason", box=None, header_style="bold")
    for record in records:
        row = (record.get("eventTime", ""), record.get("eventName", ""), shown.session_of(record))
        table.add_row(*map(escape, (*row, shown.decision(record), shown.reason(record))))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
