"""`labkit snapshot` and `labkit restore`: save a lab's state in a file, and start a lab with it."""

from shlex import quote
from typing import Annotated

import typer

from labkit.cli.lab import command
from labkit.simulator.folder import Folder

GIVEN = "The snapshot's name (its file is kept beside the lab's folder), or the path of the file to write."


def snapshot(name: Annotated[str, typer.Argument(help=GIVEN)]) -> None:
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
) -> None:
    """Start the lab with a snapshot's state. The lab's own keys and certificates are new, so older tokens fail.

    The pods in a snapshot run as processes of your user. Restore a snapshot only if you trust its author.
    """
    from labkit.simulator import snapshots

    state = snapshots.restore(Folder.find(), name, force=force)
    clusters = ", ".join(sorted(state.clusters))
    typer.echo(
        f"The lab is up with the state of {name}: {f'cluster {clusters}' if clusters else 'no cluster'}, account "
        f"{state.account_id}.\n"
        "The lab's keys and certificates are new, so it refuses older tokens and sessions. In notebooks, open the lab "
        "again.\n"
        f'Next:  eval "$({command()} env)"'
    )
