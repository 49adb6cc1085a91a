"""`labkit workshop`: a class on one machine, each participant in a lab of their own."""

from pathlib import Path
from typing import Annotated

import typer

from labkit import workshop
from labkit.cli.commands import command
from labkit.errors import LabError
from labkit.showing import counted

app = typer.Typer(no_args_is_help=True, help="A class on one Linux machine: each participant gets a lab of their own.")

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder with workshop.yaml.")]


@app.command()
def init(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to write to.")]) -> None:
    """Write workshop.yaml and jupyterhub_config.py, for you to edit."""
    for file in workshop.write_examples(folder):
        typer.echo(f"Written: {file}")
    typer.echo(f"Next:  edit workshop.yaml, then: {command()} workshop up {folder}")


@app.command()
def up(folder: Folder) -> None:
    """Check this machine, and start the workshop. If it runs, apply a changed workshop.yaml; labs go on."""
    workshop.require_extra()
    read = workshop.read(folder)
    fingerprint = workshop.running.up(read)
    typer.echo(f"The workshop is open: {' or '.join(workshop.running.urls(read))}")
    if fingerprint:
        typer.echo(f"Certificate (SHA-256): {fingerprint}")
    for sentence in workshop.running.weaker():
        typer.echo(f"Note:   {sentence}", err=True)
    typer.echo(
        f"Cards:  {command()} workshop cards {folder}\n"
        f"State:  {command()} workshop status {folder}\n"
        f"End:    {command()} workshop down {folder}"
    )


@app.command()
def guide(
    folder: Folder,
    into: Annotated[Path | None, typer.Argument(help="The folder to write to. By default, guide in FOLDER.")] = None,
) -> None:
    """Write your guide: a page with plans and advice, slides, and a form for feedback. They need no network."""
    for page in workshop.guide.write(workshop.read(folder), into or folder / "guide"):
        typer.echo(f"Written: {page}")


@app.command()
def cards(
    folder: Folder,
    name: Annotated[list[str] | None, typer.Argument(help="Further names that need a card.")] = None,
) -> None:
    """Print a card for each name, with the word that logs it in."""
    workshop.require_extra()
    read = workshop.read(folder)
    addresses = " or ".join(workshop.running.urls(read))
    for who, word in workshop.cards(read, tuple(name or ())).items():
        typer.echo(f"{'-' * 40}\n  {read.title}\n  {addresses}\n  name:  {who}\n  word:  {word}")
    typer.echo("-" * 40)


@app.command()
def status(folder: Folder) -> None:
    """Show whether the workshop is open, who is at work, and what it has on this machine."""
    workshop.require_extra()
    typer.echo(workshop.running.status(workshop.read(folder)))


@app.command()
def board(folder: Folder) -> None:
    """Print the address of the board, which shows leaders where everybody is, those who need help first."""
    typer.echo("\n".join(_boards(_running(folder))))


@app.command("break")
def break_(
    folder: Folder,
    fault: Annotated[str, typer.Argument(help="The fault's name, as labkit break --list shows it.")] = "",
    drawn: Annotated[bool, typer.Option("--draw", help="Draw a fault for each participant instead.")] = False,
) -> None:
    """Put a fault into each lab of the class. Notebooks show the symptom; the board shows who has mended it."""
    read = _running(folder)
    labs = workshop.leading.break_(read, fault, drawn=drawn)
    typer.echo(
        f"{counted(labs, 'lab')} at work will break within a minute or two, and every other lab when it starts.\n"
        f"Who has mended it:  {' or '.join(_boards(read))}\n"
        f"Undo:               {command()} workshop mend {folder}"
    )


@app.command()
def mend(folder: Folder) -> None:
    """Take the class's fault out of every lab in which it still is."""
    labs = workshop.leading.mend(_running(folder))
    typer.echo(f"{counted(labs, 'lab')} at work will be mended within a minute or two.")


@app.command()
def goto(
    folder: Folder, notebook: Annotated[str, typer.Argument(metavar="NN", help="The notebook's number, such as 05.")]
) -> None:
    """Invite everybody who is behind a notebook to go there. Whoever agrees gets a lab that is ready for it."""
    read = _running(folder)
    labs = workshop.leading.goto(read, notebook)
    typer.echo(
        f"{counted(labs, 'lab')} at work: everybody who is behind sees the invitation above the notebook.\n"
        f"Who went there:  {' or '.join(_boards(read))}"
    )


@app.command()
def export(
    folder: Folder,
    into: Annotated[Path | None, typer.Argument(help="A new folder. By default, export in FOLDER.")] = None,
) -> None:
    """Write what the class takes home: class.csv for you, and each participant's notebooks and lab in a zip file."""
    workshop.require_extra()
    into = into or folder / "export"
    missing = workshop.exporting.export(workshop.read(folder), into)
    for name, why in missing.items():
        typer.echo(f"{name}: {why}", err=True)
    typer.echo(
        f"Written: {into / workshop.exporting.TABLE}, and {counted(len(list(into.glob('*.zip'))), 'zip file')}.\n"
        "Each zip file has a participant's own work and lab: give it to nobody else."
    )


@app.command()
def down(folder: Folder) -> None:
    """End the workshop with all its servers and labs. Everybody's files stay for the next `up`."""
    workshop.require_extra()
    read = workshop.read(folder)
    if left := workshop.running.down(read):
        raise LabError(
            f"Something is left: {', '.join(f'{count} {kind}' for kind, count in left.items())}.",
            next=f"labkit workshop down {folder}, once more",
        )
    typer.echo(f"The workshop is closed; nothing runs any more. Everybody's files: {read.state}")


@app.command()
def forget(
    folder: Folder,
    yes: Annotated[bool, typer.Option("--yes", help="Confirm that everybody's files are deleted.")] = False,
) -> None:
    """Delete what a closed workshop kept: everybody's files, names and words."""
    workshop.require_extra()
    read = workshop.read(folder)
    of_all = counted(len(workshop.running.status(read).people), "home")
    if not yes:
        raise LabError(f"This deletes {of_all}, the names and the words.", where=str(read.state), next="add --yes")
    workshop.running.forget(read)
    typer.echo(f"Deleted: {read.state}")


@app.command()
def rehearse(
    folder: Folder,
    users: Annotated[int, typer.Option(min=1, metavar="NUMBER", help="The number of participants.")] = 50,
) -> None:
    """Play a class against the open workshop, and print how long everything takes. Do it the day before."""
    workshop.require_extra()
    result = workshop.rehearse(workshop.read(folder), users, lambda line: typer.echo(line, err=True))
    typer.echo(result)
    if result.failures:
        raise typer.Exit(1)


@app.command()
def values(
    folder: Folder,
    image: Annotated[str, typer.Option(metavar="NAME:TAG", help="The image of the participants' servers.")],
    user_namespaces: Annotated[
        bool, typer.Option("--user-namespaces", help="The cluster's nodes support user namespaces.")
    ] = False,
) -> None:
    """Print Helm values for this workshop on a Kubernetes cluster, with Zero to JupyterHub."""
    typer.echo(workshop.helm_values(workshop.read(folder), image, user_namespaces=user_namespaces), nl=False)


def _boards(read: workshop.Workshop) -> list[str]:
    return [f"{url}services/board/" for url in workshop.running.urls(read)]


def _running(folder: Path) -> workshop.Workshop:
    workshop.require_extra()
    read = workshop.read(folder)
    if not workshop.running.status(read).answers:
        raise LabError("The workshop is closed.", next=f"labkit workshop up {folder}")
    return read
