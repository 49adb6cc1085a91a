"""The `labkit` command: a thin layer over the lab."""

import importlib
import json
import os
import re
import shlex
import sys
import threading
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labkit.cli import account, doctor, faults, kind, webhook
from labkit.emulator import environment, process
from labkit.emulator.folder import Folder
from labkit.errors import LabError, UnknownName

if TYPE_CHECKING:
    from labkit import runs

LONGEST_NAME = 200  # of a file, in characters: file systems take 255 bytes
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="A lab for IAM Roles for Service Accounts (IRSA): real tokens, a verifying STS, no AWS account.",
)

app.add_typer(webhook.app, name="webhook")
app.add_typer(doctor.app)
app.add_typer(account.app)

ClusterOption = Annotated[str, typer.Option(help="The EKS cluster; it is made where it is missing.")]
RegionOption = Annotated[str, typer.Option(help="The cluster's AWS region.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """The entry point: an error that a user can cause is one sentence, the next command and an exit code."""
    try:
        app()
    except LabError as error:
        typer.secho(f"labkit: {error}", fg="red" if sys.stderr.isatty() else None, err=True)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


@app.command()
def up(
    *,
    cluster: ClusterOption = "blue",
    region: RegionOption = "us-east-1",
    bare: Annotated[
        bool,
        typer.Option("--bare", help="The API server alone, without webhook and node; beside the lab."),
    ] = False,
    target: Annotated[
        str, typer.Option(help="moto: all on this machine; kind: a kind cluster, or --kubeconfig's.")
    ] = "moto",
    kubeconfig: Annotated[Path | None, typer.Option(help="kind: the kubeconfig of a cluster that exists.")] = None,
    context: Annotated[str, typer.Option(help="kind: the context in it.")] = "",
    aws_host: Annotated[str, typer.Option(help="kind: this machine's IPv4 address as containers reach it.")] = "",
    image: Annotated[str, typer.Option(help="kind: the pods' image; else amazon/aws-cli.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Start the lab and a cluster. What is there already stays as it is."""
    from labkit.parameters import Parameters
    from labkit.targets import moto

    if target == "kind":
        if bare:
            raise LabError("An API server alone joins no cluster: --bare, or --target kind.", next="labkit up --bare")
        of_kind = {"kubeconfig": kubeconfig, "context": context, "aws_host": aws_host, "image": image}
        kind.up(cluster=cluster, region=region, **of_kind, as_json=as_json)
        return
    if target != "moto":
        raise UnknownName("target that labkit up starts", target, ("moto", "kind"), next="labkit plan -p target=eks …")
    kind.refuse_options(kubeconfig=kubeconfig, context=context, aws_host=aws_host, image=image)
    Parameters.checked(cluster=cluster, region=region)
    folder = Folder.find().bare if bare else Folder.find()
    # boto3 takes as long to load as the server needs to start: they do it side by side.
    loading = threading.Thread(target=importlib.import_module, args=("labkit.targets.sessions",))
    loading.start()
    try:
        state = process.start(folder, bare=bare)
    finally:
        loading.join()
    made = moto.ensure_cluster(moto.session(state, region), cluster, state.account_id)
    issuer = made["identity"]["oidc"]["issuer"]
    note = state.note
    state = process.State.read(folder) or state
    if as_json:
        typer.echo(json.dumps(_connection(state, cluster, region, issuer), indent=2))
        return
    if note:
        typer.echo(note)
    if bare:
        typer.echo(
            f"An API server alone is up: {state.clusters[state.context(cluster, region)]['endpoint']}\n"
            f"Next:  kubectl --kubeconfig {shlex.quote(str(state.kubeconfig))} get namespaces\n"
            "End:   labkit down --bare"
        )
        return
    typer.echo(
        f"The lab is up: cluster {cluster}, account {state.account_id}, {region}.\n"
        f"  issuer   {issuer}\n"
        f"  AWS      {state.endpoint_url}\n"
        f"  mounts   {state.mounts}\n"
        "Pods are processes of your user, not sandboxes: run in them what you would run yourself.\n"
        'Next:  eval "$(labkit env)"'
    )


@app.command()
def env() -> None:
    """Lines for eval: aws and kubectl in this terminal talk to the lab, and to nothing else."""
    folder, state = _running()
    variables = environment.variables(folder, state.endpoint_url, state.region)
    variables["PATH"] = environment.with_programs(os.environ.get("PATH", ""), Path(sys.executable).parent)
    for name in sorted(os.environ):
        if environment.is_open(name) and name not in variables:
            typer.echo(f"unset {name}")
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@app.command()
def run(
    notebook: Annotated[Path, typer.Argument(help="A notebook; without one, the whole lab.")] = NOTEBOOKS
    / "irsa.ipynb",
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="A parameter of the run.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Where the executed notebook goes; else below runs/.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="The plan is read: the same as -p confirm=yes.")] = False,
) -> None:
    """Run a notebook through papermill; show each step's check and what was answered in the pod."""
    from labkit import runs
    from labkit.parameters import Parameters, label_value

    values = dict(_pair(text) for text in parameter or []) | ({"confirm": "yes"} if yes else {})
    run = Parameters.checked(**values).run
    name = run.replace("/", "-") if len(run) <= LONGEST_NAME else label_value(run)
    output = output or Path("runs") / notebook.stem / f"{name}.ipynb"
    typer.echo(f"Running {_short(notebook)} on the {values.get('target', 'moto')} target …")
    try:
        done = runs.run(notebook, output, values)
    except runs.RunFailed as failed:
        _show_run(failed.run)
        raise
    _show_run(done)
    if not done.ok:
        raise LabError("a check found something", where=str(output), next=f"jupyter lab {output}")


@app.command()
def status(
    report: Annotated[bool, typer.Option(help="A report without secrets, to paste into a question.")] = False,
) -> None:
    """What runs, where it listens, and what was said at its start."""
    from labkit.cli import status as status_of

    folder = Folder.find()
    typer.echo(status_of.report(folder) if report else status_of.summary(folder))


@app.command()
def trail(
    as_json: JsonOption = False,
    last: Annotated[int, typer.Option(min=0, help="How many records, the newest last; 0 for all.")] = 20,
    event: Annotated[str, typer.Option(help="Only calls of this name, such as AssumeRoleWithWebIdentity.")] = "",
    role: Annotated[str, typer.Option(help="Only calls of this role, service account or user.")] = "",
    refused: Annotated[bool, typer.Option("--refused", help="Only calls that ended with an error.")] = False,
) -> None:
    """Who called what, what was decided, and the reason that AWS would not tell."""
    from labkit.emulator.aws.trail import Trail
    from labkit.widgets import trail as shown

    newest = (
        record
        for record in Trail.newest(Folder.find().trail_file, containing=role)
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
        is_asked = event or role or refused
        typer.echo("The trail has no such call." if is_asked else "The trail is empty: nothing has called AWS yet.")
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("time", "event", "who", "decision", "reason", box=None, header_style="bold")
    for record in records:
        row = (record.get("eventTime", ""), record.get("eventName", ""), shown.session_of(record))
        table.add_row(*map(escape, (*row, shown.decision(record), shown.reason(record))))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@app.command(context_settings={"ignore_unknown_options": True})  # -30m is no option
def clock(
    move: Annotated[str, typer.Argument(help="+2h, -30m, +1d, +90s; 0 sets it back to the machine's time.")] = "",
) -> None:
    """Show the lab's clock, or move it: tokens and credentials age by it."""
    import datetime

    lab_clock = Folder.find().clock
    if move == "0":
        lab_clock.reset()
    elif move:
        lab_clock.advance(seconds=_seconds(move))
    now = datetime.datetime.fromtimestamp(lab_clock.now(), datetime.UTC)
    ahead = datetime.timedelta(seconds=abs(lab_clock.offset))
    relation = "the machine's time" if not ahead else f"{ahead} {'ahead' if lab_clock.offset > 0 else 'behind'}"
    typer.echo(f"{now:%Y-%m-%d %H:%M:%S} UTC ({relation})")


@app.command()
def fetch(url: Annotated[str, typer.Argument(help="A URL of a cluster's public issuer.")]) -> None:
    """GET a URL of the lab's issuer by its real name, as STS does."""
    from labkit.targets.kind import issuer as kind_issuer

    typer.echo(json.dumps(kind_issuer.fetch(*_running(), url), indent=2))


@app.command()
def reset() -> None:
    """End the lab and forget all it had; the next start is a new lab. Ports stay."""
    from labkit.targets.kind import down as leave
    from labkit.targets.kind.leaving import LeftBehind

    folder, left = Folder.find(), None
    try:
        leave()
    except LeftBehind as error:
        left = error.forgotten(folder)
    process.forget(folder)
    if left:
        raise left
    typer.echo(f"The lab in {folder.path} is empty. Next:  labkit up")


@app.command()
def down(bare: Annotated[bool, typer.Option("--bare", help="End the one of `labkit up --bare`.")] = False) -> None:
    """End the lab and every process it started. The clock, ports, keys and trail are kept."""
    from labkit.targets.kind import down as leave

    folder = Folder.find().bare if bare else Folder.find()
    ended = process.stop(folder) if bare else leave()
    other = "" if bare or not folder.bare.is_running() else " An API server alone does:  labkit down --bare"
    typer.echo("The lab has ended." if ended else f"No lab runs in {folder.path}.{other}")


app.command("break")(faults.break_)
app.command()(faults.mend)


def _show_run(done: "runs.Run") -> None:
    for check in done.checks:
        mark = "ok" if check["ok"] else "NOT OK"
        typer.echo(f"  {mark:7} {check['title']}")
        for finding in check["findings"]:
            typer.echo(f"          {finding['summary']}\n          repair: {finding['repair']}")
    for answer in done.answers:
        typer.echo(f"\n$ {answer['command']}\n{answer['answer'].rstrip()}")
    typer.echo(f"\nThe executed notebook: {_short(done.output)}")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise LabError(f"{text!r} is no parameter: NAME=VALUE", next="labkit run -p role_name=reader")
    return name, value


def _short(path: Path) -> str:
    return os.path.relpath(path) if path.is_absolute() and path.is_relative_to(Path.cwd()) else str(path)


def _running() -> tuple[Folder, process.State]:
    folder = Folder.find()
    state = process.State.read(folder)
    if not folder.is_running():
        raise LabError(f"no lab runs in {folder.path}", next="labkit up")
    if state is None:
        raise LabError(f"another version of labkit started the lab in {folder.path}", next="labkit up")
    return folder, state


def _connection(state: process.State, cluster: str, region: str, issuer: str) -> dict[str, Any]:
    """What another program needs to use the lab; keys are only ever added."""
    return {
        "target": "moto",
        "cluster": cluster,
        "region": region,
        "account_id": state.account_id,
        "aws": {
            "endpoint_url": state.endpoint_url,
            "access_key_id": state.access_key_id,
            "secret_access_key": state.secret_access_key,
        },
        "kubeconfig": str(state.kubeconfig),
        "issuer": issuer,
        "ca_file": str(state.ca_file),
    }


def _seconds(move: str) -> float:
    match = re.fullmatch(r"([+-])(\d+(?:\.\d+)?)([smhd])", move)
    if not match:
        raise LabError(
            f"{move!r} is no move of the clock: a sign, a number and one of s, m, h, d, or 0",
            next="labkit clock +2h",
        )
    sign, number, unit = match.groups()
    return float(sign + number) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
