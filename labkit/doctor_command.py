"""`labkit doctor`: the diagnosis in a terminal, or as JSON."""

import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from labkit.errors import LabError

if TYPE_CHECKING:
    from rich.console import Console

    from labkit.diagnosis import Diagnosis
    from labkit.findings import Finding
    from labkit.parameters import Parameters
    from labkit.survey import Survey
    from labkit.targets import Connection

COULD_NOT_LOOK = 2
COLOURS = {"error": "red", "warning": "yellow", "note": "cyan", "right": "green", "not looked at": "dim"}
MARKS = {"error": "✗", "warning": "!", "note": "i", "right": "✓", "not looked at": "·"}

app = typer.Typer()


@app.command()
def doctor(
    *,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="The namespace; `default` without one.")] = "",
    service_account: Annotated[
        str, typer.Option("--service-account", "-s", help="The service account; the lab's own without one.")
    ] = "",
    pod: Annotated[str, typer.Option(help="The pod; else the newest of each owner that runs as the account.")] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Every service account that is to have a role, of the cluster or of -n.")
    ] = False,
    role: Annotated[str, typer.Option(help="The role's name, where it is known.")] = "",
    action: Annotated[str, typer.Option(help="What the pod wants to do, such as s3:ListBucket.")] = "",
    resource: Annotated[str, typer.Option(help="The ARN on which it wants to do it.")] = "",
    probe: Annotated[
        bool, typer.Option("--probe", help="Also read the token in the pod, try it with STS, and ask who the pod is.")
    ] = False,
    explain: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Explain this error, offline; `-` reads it from stdin."),
    ] = None,
    cluster: Annotated[str, typer.Option(help="The EKS cluster.")] = "blue",
    target: Annotated[str, typer.Option(help="Where it runs: moto, kind or eks.")] = "moto",
    region: Annotated[str, typer.Option(help="The AWS region; on eks AWS_REGION, else us-east-1.")] = "",
    account_id: Annotated[str, typer.Option(help="The AWS account that it has to be.")] = "",
    kubeconfig: Annotated[str, typer.Option(help="The kubeconfig of a cluster that exists (kind).")] = "",
    context: Annotated[str, typer.Option(help="The context in that kubeconfig.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; with --all one object a line.")] = False,
) -> None:
    """Find out why the pods of a service account do not get their role, and print the commands that repair it.

    It only reads. Exit code 0: nothing found; 1: findings; 2: it could not look.
    """
    # A client that tries again says so by itself; the doctor says once what did not answer.
    logging.getLogger("urllib3").addHandler(logging.NullHandler())
    try:
        if explain is not None:
            raise typer.Exit(_explain(explain, as_json))
        _refuse_nonsense(everything, service_account or pod or role or action, pod, action, resource)
        names = {
            "target": target,
            "cluster": cluster,
            "region": region or (os.environ.get("AWS_REGION", "") if target == "eks" else ""),
            "namespace": namespace,
            "service_account": service_account,
            "role_name": role,
            "account_id": account_id,
            "kubeconfig": kubeconfig,
            "context": context,
        }
        parameters, connection = _connect({name: value for name, value in names.items() if value})
        if everything:
            code = _all(parameters, connection, namespace, probe, as_json)
        else:
            code = _one(
                parameters, connection, as_json, pod=pod, role=role, action=action, resource=resource, probe=probe
            )
    except LabError as error:
        _could_not_look(error, as_json)
        code = COULD_NOT_LOOK
    raise typer.Exit(code)


def _refuse_nonsense(everything: bool, of_one: str, pod: str, action: str, resource: str) -> None:
    if everything and of_one:
        raise LabError("--all looks at every service account; the other options name one.", next="labkit doctor --all")
    if resource and not action:
        raise LabError("--resource says on what; --action has to say what.", next="--action s3:ListBucket")
    if action and not re.fullmatch(r"[a-z0-9-]+:[A-Za-z0-9]+", action):
        raise LabError(f"{action!r} is no action: SERVICE:NAME.", next="--action s3:ListBucket")
    if resource and not (resource == "*" or resource.startswith("arn:")):
        raise LabError(f"{resource!r} is no ARN.", next="--resource arn:aws:s3:::BUCKET")
    if pod and not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", pod):
        raise LabError(
            f"{pod!r} is no pod's name: lower-case letters, digits, hyphens and dots.",
            next="kubectl get pods -n NAMESPACE",
        )


def _connect(names: dict[str, str]) -> "tuple[Parameters, Connection]":
    from labkit import targets
    from labkit.parameters import Parameters

    parameters = Parameters.checked(**names)
    return parameters, targets.connect(parameters)


def _one(parameters: "Parameters", connection: "Connection", as_json: bool, **options: Any) -> int:
    from labkit.doctor import diagnose

    found = diagnose(
        namespace=parameters.namespace,
        service_account=parameters.service_account,
        connection=connection,
        cluster=parameters.cluster,
        **options,
    )
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        console = _console()
        _show_stages(console, found)
        _show_findings(console, found.findings, parameters.target)
        for line in found.account():
            console.print(line, style="dim", markup=False)
    return found.exit_code


def _all(parameters: "Parameters", connection: "Connection", namespace: str, probe: bool, as_json: bool) -> int:
    from labkit.survey import Survey

    survey = Survey(connection, parameters, namespace, probe=probe)
    found = []
    for diagnosis in _with_progress(survey):
        found.append(diagnosis)
        if as_json:
            typer.echo(json.dumps(diagnosis.as_json()))
    if not as_json:
        _show_survey(_console(), survey, found, namespace, parameters.target)
    codes = {diagnosis.exit_code for diagnosis in found}
    return max(codes, default=0)


def _with_progress(survey: "Survey") -> "Iterator[Diagnosis]":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("service accounts"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as progress:
        yield from progress.track(survey, total=len(survey))


def _console() -> "Console":
    from rich.console import Console

    # Lines of commands are copied: nothing may break them but the terminal itself.
    return Console(soft_wrap=True, highlight=False, emoji=False)


def _show_stages(console: "Console", found: "Diagnosis") -> None:
    console.print(found.headline, style=f"bold {_colour(found)}", markup=False)
    console.print(f"role: {found.role_arn or 'nothing says which'}", markup=False)
    console.print(f"pods: {', '.join(found.pods) or 'none'}\n", markup=False)
    stages = found.stages()
    width = max(len(stage.title) for stage, _, _ in stages)
    for number, (stage, result, findings) in enumerate(stages, 1):
        said = ", ".join(finding.id for finding in findings) or ("" if result == "right" else result)
        line = f"  {MARKS[result]} {number}  {stage.title:{width}}  {said}"
        console.print(line.rstrip(), style=COLOURS[result], markup=False)
    console.print()


def _show_findings(console: "Console", findings: "list[Finding]", target: str) -> None:
    for finding in findings:
        console.print(f"{MARKS[finding.severity]} {finding.severity}: {finding.id}", style=_bold(finding), markup=False)
        console.print(f"  {finding.summary}", markup=False)
        console.print("    expected  ", finding.expected, style="green", sep="", markup=False)
        console.print("    found     ", finding.found, style=COLOURS[finding.severity], sep="", markup=False)
        console.print(f"    seen in   {finding.source}\n    learn     notebooks/{finding.learn}", markup=False)
        console.print("  repair:", markup=False)
        for line in finding.repair.splitlines():
            console.print(f"    {line}", style="bold", markup=False)
        console.print()
    if findings and target != "eks":
        console.print('The repairs are for a shell after:  eval "$(labkit env)"', markup=False)


def _show_survey(console: "Console", survey: "Survey", found: "list[Diagnosis]", namespace: str, target: str) -> None:
    where = f"namespace {namespace}" if namespace else "the cluster"
    if not found:
        console.print(f"No service account of {where} is to have a role.", markup=False)
        return
    width = max(len(_short(diagnosis)) for diagnosis in found)
    for diagnosis in found:
        worst = _worst(diagnosis)
        said = ", ".join(finding.id for finding in diagnosis.findings)
        said = said or ("nothing found" if worst == "right" else "it could not be looked at in full")
        role = diagnosis.role_arn.rpartition("role/")[2] or "-"
        line = f"{MARKS[worst]} {_short(diagnosis):{width}}  {role}  {said}"
        console.print(line, style=COLOURS[worst], markup=False)
    console.print()
    for diagnosis in found:
        if diagnosis.findings:
            console.print(diagnosis.headline, style=f"bold {_colour(diagnosis)}", markup=False)
            _show_findings(console, diagnosis.findings, "eks")
    wrong = sum(bool(diagnosis.findings) for diagnosis in found)
    console.print(
        f"{len(found)} service accounts of {where}: {wrong} with findings. "
        f"{len(survey.reads.answers)} answers read, each once.",
        markup=False,
    )
    for line in _unread_of(found):
        console.print(line, style="dim", markup=False)
    if wrong and target != "eks":
        console.print('The repairs are for a shell after:  eval "$(labkit env)"', markup=False)


def _unread_of(found: "list[Diagnosis]") -> list[str]:
    """What some could not be looked at for: each reason once, however many it concerns."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for diagnosis in found:
        for error in diagnosis.unread:
            reasons.setdefault((error.why, error.needs), []).append(error.call)
    return [
        f"not looked at: {calls[0]}{f' and {len(calls) - 1} more' if len(calls) > 1 else ''}: {why}"
        + (f"; needed: {needs}" if needs else "")
        for (why, needs), calls in reasons.items()
    ]


def _worst(diagnosis: "Diagnosis") -> str:
    severities = {finding.severity for finding in diagnosis.findings}
    for severity in ("error", "warning", "note"):
        if severity in severities:
            return severity
    return "not looked at" if diagnosis.exit_code else "right"


def _short(diagnosis: "Diagnosis") -> str:
    return "/".join(diagnosis.subject.split(":")[2:])


def _colour(diagnosis: "Diagnosis") -> str:
    return {"not looked at": "yellow"}.get(_worst(diagnosis), COLOURS[_worst(diagnosis)])


def _bold(finding: "Finding") -> str:
    return f"bold {COLOURS[finding.severity]}"


def _could_not_look(error: LabError, as_json: bool) -> None:
    if as_json:
        said = {"what": error.what, "where": error.where, "next": error.next}
        typer.echo(json.dumps({"ok": False, "exit_code": COULD_NOT_LOOK, "could_not_look": said}))
    typer.secho(f"labkit doctor: {error}", fg="red" if sys.stderr.isatty() else None, err=True)


def _explain(text: str, as_json: bool) -> int:
    from labkit import explanations

    if text == "-":
        text = sys.stdin.read()
    found = explanations.explain(text)
    if as_json:
        typer.echo(json.dumps([each.as_json() for each in found], indent=2))
    elif found:
        typer.echo("\n\n".join(str(each) for each in found))
    if not found:
        raise LabError(
            "This text is none that the doctor knows.",
            where="--explain",
            next="labkit doctor -n NAMESPACE -s SERVICE_ACCOUNT, which looks at the thing itself",
        )
    return 0
