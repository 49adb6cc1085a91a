"""`labkit snapshot` and `labkit restore`: save a lab's state in a file, and start a lab with it."""

from shlex import quote
from typing import Annotated

import typer

from labkit.cli.lab import command
from labkit.emulator.folder import Folder

GIVEN = "A name, kept beside the lab's folder; or the path of a file to hand out."


def snapshot(name: Annotated[str, typer.Argument(help=GIVEN)]) -> None:
    """Keep what the lab holds in a file, to hand out and to go back to. The lab goes on.

    Your resources and objects are in it, with users' access keys, KMS keys and Secrets. The lab's own keys, role
    sessions and pods' files are not.
    """
    from labkit.emulator import snapshots

    file = snapshots.take(Folder.find(), name)
    typer.echo(
        f"The lab's state is kept in {file} ({max(1, file.stat().st_size // 1024)} kB).\n"
        "Whoever gets this file gets what the lab's users made, with their access keys.\n"
        f"Next:  {command()} restore {quote(name)}"
    )


def restore(
    name: Annotated[str, typer.Argument(help="The name that `labkit snapshot` was given, or the path of a file.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the state that the lab holds.")] = False,
) -> None:
    """Start the lab with what a snapshot holds, and with new keys, certificates and sessions.

    Its pods run as programs of yours: restore only what comes from somebody whose programs you would run.
    """
    from labkit.emulator import snapshots

    state = snapshots.restore(Folder.find(), name, force=force)
    clusters = ", ".join(sorted(state.clusters))
    typer.echo(
        f"The lab is up with the state of {name}: {f'cluster {clusters}' if clusters else 'no cluster'}, account "
        f"{state.account_id}.\n"
        "Its keys and certificates are new: it refuses tokens and sessions from before. Open it again in notebooks.\n"
        f'Next:  eval "$({command()} env)"'
    )
