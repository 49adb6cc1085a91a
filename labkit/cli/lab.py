"""The running lab in a terminal: `env`, `status`, `trail`, `clock`, `fetch`, snapshots, `reset` and `down`."""

import datetime
import json
import os
import re
import sys
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from labkit import simulator
from labkit.cli.commands import command, typed
from labkit.errors import LabError
from labkit.simulator import Folder, environment

SNAPSHOT = "The snapshot's name (its file is kept beside the lab's folder), or the path of the file to write."
# Without this option, zsh rejects a comment that is typed in. Other shells skip the line.
# https://zsh.sourceforge.io/Doc/Release/Options.html#index-INTERACTIVECOMMENTS
COMMENTS = '[ -z "${ZSH_VERSION-}" ] || setopt interactive_comments'


def env() -> None:
    """Print shell commands for eval in bash or zsh. They make aws and kubectl in the terminal talk only to the lab."""
    from labkit.cli.status import on_cluster

    leading = variables()
    # On stderr, because the shell evaluates stdout.
    typer.echo(typed(on_cluster(running()[1])), err=True)
    for name in sorted(os.environ):
        if environment.is_open(name) and name not in leading:
            typer.echo(f"unset {name}")
    for name, value in leading.items():
        typer.echo(f"export {name}={quote(value)}")
    typer.echo(COMMENTS)


def variables() -> dict[str, str]:
    """Return the environment variables with which `aws`, `kubectl` and `labkit` use the running lab.

    Raises `LabError` if no lab runs.
    """
    folder, state = running()
    path = environment.with_programs(os.environ.get("PATH", ""), Path(sys.executable).parent)
    return environment.variables(folder, state.endpoint_url, state.region) | {"PATH": path}


def status(
    report: Annotated[bool, typer.Option(help="Print a report without secrets, to paste into a question.")] = False,
) -> None:
    """Show the lab's state: whether it runs, where it listens, its clusters, and the notes from its start."""
    from labkit.cli import status as status_of

    folder = Folder.find()
    typer.echo(status_of.report(folder) if report else typed(status_of.summary(folder)))


def trail(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    last: Annotated[int, typer.Option(min=0, help="The number of newest calls to show, the newest last. 0: all.")] = 20,
    event: Annotated[str, typer.Option(help="Only calls with this name, such as AssumeRoleWithWebIdentity.")] = "",
    role: Annotated[str, typer.Option(help="Only calls by this role, service account or user.")] = "",
    refused: Annotated[bool, typer.Option("--refused", help="Only calls that ended with an error.")] = False,
) -> None:
    """Show each call to AWS with its caller, decision and reason. Real AWS doesn't show the reason."""
    from labkit.course import trail as shown
    from labkit.simulator import Trail

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


def clock(
    move: Annotated[
        str, typer.Argument(help="+2h, -30m, +1d or +90s moves the clock. 0 sets it back to the machine's time.")
    ] = "",
) -> None:
    """Show or move the lab's clock. This clock decides when tokens and credentials expire."""

    folder = Folder.find()
    lab_clock = folder.clock
    if move:
        folder.create()
    if move == "0":
        lab_clock.reset()
    elif move:
        lab_clock.advance(seconds=_seconds(move))
    now = datetime.datetime.fromtimestamp(lab_clock.now(), datetime.UTC)
    ahead = datetime.timedelta(seconds=abs(lab_clock.offset))
    relation = f"{ahead} {'ahead of' if lab_clock.offset > 0 else 'behind'} " if ahead else ""
    typer.echo(f"{now:%Y-%m-%d %H:%M:%S} UTC ({relation}the machine's time)")


def fetch(url: Annotated[str, typer.Argument(help="The URL of the issuer's discovery document or keys.")]) -> None:
    """Fetch a URL of a cluster's public issuer, as STS does, and print the JSON."""
    from labkit.targets.kind import issuer as kind_issuer

    typer.echo(json.dumps(kind_issuer.fetch(*running(), url), indent=2))


def snapshot(name: Annotated[str, typer.Argument(help=SNAPSHOT)]) -> None:
    """Save the lab's state in a file. You can restore it later, or give it to others. The lab keeps running.

    The file contains AWS resources and Kubernetes objects, including Secrets, KMS keys and IAM users' access keys.

    It doesn't contain the lab's own keys, role sessions or pods' files.
    """
    from labkit.simulator import snapshots

    file = snapshots.take(Folder.find(), name)
    typer.echo(
        f"The lab's state is saved in {file} ({max(1, file.stat().st_size // 1024)} kB).\n"
        "The file contains everything that the lab's users created, including their access keys.\n"
        f"Next:  {command()} restore {quote(name)}"
    )


def restore(
    name: Annotated[str, typer.Argument(help="The name that you gave to `labkit snapshot`, or a snapshot's path.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the lab's present state.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Run the programs of the snapshot's pods without a question.")
    ] = False,
) -> None:
    """Start the lab with a snapshot's state. The lab's own keys and certificates are new, so older tokens fail.

    The command shows the programs that the snapshot's pods will run as your user, and asks before it runs them.

    Say yes only if you trust the snapshot's author.
    """
    from labkit.simulator import snapshots

    def agree(programs: list[str]) -> None:
        typer.echo("The snapshot's pods run these programs on this machine, as your user:")
        for program in programs:
            typer.echo(f"  {program}", color=True)  # click would hide a part of a program that looks like a colour
        if yes:
            return
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise LabError(
                "The snapshot's pods run programs. Without a terminal to ask in, this needs --yes.",
                where="nothing was changed",
                next=f"labkit restore {quote(name)} --yes{' --force' if force else ''}, if you trust its author",
            )
        if not typer.confirm("Run them?", default=False):
            raise LabError("The snapshot was not restored.", where="nothing was changed")

    state = snapshots.restore(Folder.find(), name, force=force, agree=agree)
    clusters = ", ".join(sorted(state.clusters))
    typer.echo(
        f"The lab is up with the state of {name}: {f'cluster {clusters}' if clusters else 'no cluster'}, account "
        f"{state.account_id}.\n"
        "The lab's keys and certificates are new, so it refuses older tokens and sessions. In notebooks, open the lab "
        "again.\n"
        f'Next:  eval "$({command()} env)"'
    )


def reset() -> None:
    """End the lab and delete everything in it. Only its port numbers stay the same."""
    from labkit.targets.kind import down as leave
    from labkit.targets.kind.leaving import LeftBehind

    folder, left = Folder.find(), None
    try:
        leave()
    except LeftBehind as error:
        left = error.forgotten(folder)
    simulator.forget(folder)
    if left:
        raise left
    typer.echo(typed(f"The lab in {folder.path} is empty. Next:  labkit up"))


def down(
    bare: Annotated[
        bool, typer.Option("--bare", help="End the API server of `labkit up --bare` instead of the lab.")
    ] = False,
) -> None:
    """End the lab and every process that it started. `labkit up` starts the lab again, with all its data."""
    from labkit.targets.kind import down as leave

    folder = Folder.find().bare if bare else Folder.find()
    ended = simulator.stop(folder) if bare else leave()
    other = (
        ""
        if bare or not folder.bare.is_running()
        else f" The API server of `labkit up --bare` does run. To end it:  {command()} down --bare"
    )
    typer.echo("The lab has ended." if ended else f"No lab runs in {folder.path}.{other}")


def running() -> tuple[Folder, simulator.State]:
    """Return the running lab's folder and its state. Raises `LabError` if no lab runs."""
    folder = Folder.find()
    if not folder.is_running():
        raise LabError(f"No lab runs in {folder.path}.", next="labkit up")
    state = simulator.State.read(folder)
    if state is None:
        raise LabError(f"The lab in {folder.path} runs, but its state cannot be read.", next="labkit up")
    return folder, state


def _seconds(move: str) -> float:
    match = re.fullmatch(r"([+-])(\d+(?:\.\d+)?)([smhd])", move)
    if not match:
        raise LabError(
            f"{move!r} doesn't move the clock. Write a sign, a number and s, m, h or d (such as +2h), or write 0.",
            next="labkit clock +2h",
        )
    sign, number, unit = match.groups()
    return float(sign + number) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
