"""The `labkit` command: a thin layer over the lab. Each group of commands has its own module."""

import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from labkit.cli import account, certificate, doctor, faults, lab, learning, webhook, workshop
from labkit.cli.commands import PAGES, command, typed
from labkit.cli.fleet import fleet
from labkit.cli.run import diff, run
from labkit.cli.terminal import protected
from labkit.cli.up import up
from labkit.course import MANUAL, NOTEBOOKS
from labkit.errors import LabError, by_the_cluster

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="A lab for IAM Roles for Service Accounts (IRSA): real tokens, an STS that verifies them, no AWS account.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"labkit {version('labkit')}")
        raise typer.Exit


@app.callback()
def _labkit(
    _: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version."),
    ] = False,
) -> None:
    """Refuse to run any command if the current folder was deleted."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise LabError(
            "The current folder of this terminal was deleted.", next="cd, then run the command again"
        ) from error


taken: Callable[..., None]
for taken in (up, lab.env, run, fleet, diff, lab.status, lab.trail):
    app.command()(taken)
app.command(context_settings={"ignore_unknown_options": True})(lab.clock)  # -30m is a value
for taken in (lab.fetch, lab.snapshot, lab.restore, lab.reset, lab.down):
    app.command()(taken)
app.command(context_settings={"ignore_unknown_options": True})(learning.lab)  # they are JupyterLab's
app.command()(learning.progress)
app.command()(learning.checklist)
app.command("break")(faults.break_)
app.command()(faults.mend)
app.add_typer(doctor.app)
app.add_typer(account.app)
app.add_typer(certificate.app, name="certificate")
app.add_typer(webhook.app, name="webhook")
app.add_typer(workshop.app, name="workshop")


def _name_pages(group: typer.Typer, page: str, name_of_group: str = "") -> None:
    """End the help of a group, and of each command in it, with the path of a page of the manual."""
    pages = {command: page for page, commands in PAGES.items() for command in commands}
    group.info.epilog, group.info.cls = _manual(page), _Group
    for each in group.registered_commands:
        each.cls = _Command
        # A group that has a page has its commands there, apart from those that PAGES names with the group.
        name = str(each.name or getattr(each.callback, "__name__", ""))
        each.epilog = _manual(pages[name] if page == "index" else pages.get(f"{name_of_group} {name}", page))
    for added in group.registered_groups:
        if added.typer_instance:
            _name_pages(added.typer_instance, pages.get(str(added.name), page), str(added.name))


def _manual(page: str) -> str:
    path = NOTEBOOKS / MANUAL / f"{page}.md"
    with suppress(OSError, ValueError):  # the current folder was deleted, or isn't above the manual
        path = path.relative_to(Path.cwd())
    return f"Manual: {path}"


class _Command(TyperCommand):
    def format_help(self, *given: Any) -> None:
        _end_with_epilog(self, super().format_help, given)


class _Group(TyperGroup):
    def format_help(self, *given: Any) -> None:
        _end_with_epilog(self, super().format_help, given)


def _end_with_epilog(command: TyperCommand | TyperGroup, format_help: Callable[..., None], given: Any) -> None:
    """Print the help and then the epilog, because Rich would break a long path at the edge of the terminal."""
    epilog, command.epilog = command.epilog, None
    format_help(*given)
    typer.echo(f"\n {epilog}")


_name_pages(app, "index")


def main() -> None:
    """Run the command. For an error that the user can correct, print only its text, and exit with its `exit_code`."""
    # Loading libraries makes hardly any garbage, but collecting it takes a fifth of the time of `labkit doctor`.
    gc.set_threshold(100_000, 50, 50)
    try:
        with protected():
            _run()
    finally:
        _leave_closed_streams()
        # At its end, Python would search all loaded libraries for garbage, for 0.1 s. It leaves frozen objects alone.
        gc.freeze()


def _run() -> None:
    try:
        app(prog_name=command())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        shown = error if isinstance(error, LabError) else by_the_cluster(error)
        if shown is None:
            raise
        typer.secho(f"labkit: {typed(shown)}", fg="red" if sys.stderr.isatty() else None, err=True)
        raise SystemExit(shown.exit_code) from None


def _leave_closed_streams() -> None:
    """Drop output for a closed terminal or pipe, because Python would otherwise exit with code 120.

    https://docs.python.org/3/library/signal.html#note-on-sigpipe
    """
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except OSError:
            setattr(sys, name, None)
