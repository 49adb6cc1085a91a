"""`labkit break` and `labkit mend`: put a fault into a run of the lab, and take all faults out again."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from labkit import simulator
from labkit.cli.commands import typed
from labkit.errors import LabError, UnknownName
from labkit.simulator import Folder

if TYPE_CHECKING:
    from labkit.lab import Lab

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The run's namespace.")]
ServiceAccount = Annotated[str, typer.Option("--service-account", "-s", help="The run's service account.")]
Role = Annotated[str, typer.Option("--role", help="The run's role.")]
ClusterName = Annotated[str, typer.Option("--cluster", help="The run's cluster.")]


def break_(
    fault: Annotated[str, typer.Argument(help="The fault's name, as --list shows it.", show_default=False)] = "",
    *,
    listed: Annotated[bool, typer.Option("--list", help="List the faults.")] = False,
    drawn: Annotated[bool, typer.Option("--random", help="Choose a random fault, and don't name it.")] = False,
    seed: Annotated[
        int | None, typer.Option(help="With --random: a number. The same number chooses the same fault.")
    ] = None,
    namespace: Namespace = "default",
    service_account: ServiceAccount = "my-service-account",
    role: Role = "my-role",
    cluster: ClusterName = "blue",
) -> None:
    """Put a fault into a run of the lab. If the run's resources don't exist, create them first."""
    from labkit.course import breaking, examination, faults

    if listed:
        _list()
        return
    if bool(fault) == drawn or (seed is not None and not drawn):
        raise LabError("Name one fault, or pass --random (with --seed N, if you like).", next="labkit break --list")
    chosen = faults.drawn(seed) if drawn else faults.named(fault)
    with _opened(namespace, service_account, role, cluster) as lab:
        examination.note_the_lab(lab)
        inside = breaking.break_lab(lab, chosen)
        typer.echo(f"What happened: {chosen.description}" if drawn else f"{chosen.id}: {chosen.description}")
        if len(inside) > 1:
            typer.echo(f"The run {lab.run} has {len(inside)} faults now.")
        for command, answer in breaking.what_aws_says(lab):
            typer.echo(f"In the pod, {command} now says:  {answer}")
        there = f" --cluster {cluster}" if cluster != "blue" else ""
        # What the pod's second command, `aws s3 ls`, needs.
        there += f" --action s3:ListBucket --resource arn:{lab.connection.partition}:s3:::{lab.parameters.bucket}"
        there += " --probe" if chosen.needs_probe and not drawn else ""
        typer.echo(typed(f"Next:  labkit doctor -n {namespace} -s {service_account}{there}"))
        typer.echo(typed(f"Undo:  labkit mend{_different(namespace, service_account, role, cluster)}"))


def mend(
    *,
    namespace: Namespace = "default",
    service_account: ServiceAccount = "my-service-account",
    role: Role = "my-role",
    cluster: ClusterName = "blue",
) -> None:
    """Take all faults out of a run of the lab. The run is then exactly as before the first fault."""
    from labkit.course import breaking, examination

    with _opened(namespace, service_account, role, cluster) as lab:
        examination.note_the_lab(lab)
        typer.echo(str(breaking.mend(lab)))


def _list() -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from labkit.course import faults

    table = Table("fault", "what happened", box=None, header_style="bold")
    for fault in faults.CATALOGUE.values():
        table.add_row(fault.id, escape(fault.description))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _opened(namespace: str, service_account: str, role: str, cluster: str) -> "Lab":
    from labkit.run_parameters import Parameters

    names = {"namespace": namespace, "service_account": service_account, "role_name": role, "cluster": cluster}
    parameters = Parameters.checked(**names)
    folder = Folder.find()
    state = simulator.State.read(folder)
    if state is None or not folder.is_running():
        raise LabError(f"No lab runs in {folder.path}.", next=parameters.up_command)
    context = state.context(parameters.cluster, parameters.region)
    if context not in state.clusters:
        raise UnknownName("cluster of the lab", context, state.clusters, next=parameters.up_command)

    from labkit.lab import Lab

    return Lab.open(**names)


def _different(namespace: str, service_account: str, role: str, cluster: str) -> str:
    """Return this run's options that differ from their defaults."""
    given = {"-n": namespace, "-s": service_account, "--role": role, "--cluster": cluster}
    usual = {"-n": "default", "-s": "my-service-account", "--role": "my-role", "--cluster": "blue"}
    return "".join(f" {option} {value}" for option, value in given.items() if value != usual[option])
