"""`labkit doctor`: print the diagnosis as text or as JSON. `labkit/doctor/report.py` decides on the exit code."""

import json
import logging
import re
import shlex
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from labkit.cli.commands import typed
from labkit.errors import LabError

if TYPE_CHECKING:
    from labkit.connection import Connection
    from labkit.run_parameters import Parameters

COULD_NOT_LOOK = 2

app = typer.Typer()


@app.command()
def doctor(
    command: typer.Context,
    *,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="The namespace. Without it: default.")] = "",
    service_account: Annotated[
        str,
        typer.Option(
            "--service-account",
            "-s",
            help="The service account. Without -s and -n: my-service-account. With -n but without -s: the only "
            "service account in that namespace that needs a role.",
        ),
    ] = "",
    pod: Annotated[
        str, typer.Option(help="The pod. Without it: the newest pod of each Deployment or other owner.")
    ] = "",
    everything: Annotated[
        bool,
        typer.Option("--all", help="Look at all service accounts that need a role. With -n: only in that namespace."),
    ] = False,
    role: Annotated[str, typer.Option(help="The name of the role that the pods should get, if you know it.")] = "",
    action: Annotated[str, typer.Option(help="The AWS action that the pod calls, such as s3:ListBucket.")] = "",
    resource: Annotated[str, typer.Option(help="With --action: the ARN of the action's resource.")] = "",
    probe: Annotated[
        bool,
        typer.Option(
            "--probe", help="Also run commands in the pod, try its token with STS, and dry-run a copy of the pod."
        ),
    ] = False,
    explain: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Explain this error message, offline. `-` reads the message from stdin. "
            "The next commands contain the names that you give with -n, -s, --pod and --role.",
        ),
    ] = None,
    cluster: Annotated[str, typer.Option(help="The EKS cluster.")] = "blue",
    target: Annotated[str, typer.Option(help="Where the cluster runs: moto, kind or eks.")] = "moto",
    region: Annotated[
        str,
        typer.Option(help="The AWS region. Without --region: on eks the region in AWS_REGION, otherwise us-east-1."),
    ] = "",
    account_id: Annotated[
        str, typer.Option(help="The AWS account that you expect. The doctor refuses any other.")
    ] = "",
    kubeconfig: Annotated[
        str, typer.Option(help="Only for the targets kind and eks: the kubeconfig of an existing cluster.")
    ] = "",
    context: Annotated[
        str, typer.Option(help="Only for the targets kind and eks: the context in the kubeconfig.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; with --all, one object a line.")] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", help="Also print each check, the changes line by line, and what was not read."),
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Show each repair, run those that you confirm, and check again.")
    ] = False,
) -> None:
    """Find out why a service account's pods don't get their role, and print the commands that repair the fault.

    Without --repair, the command only reads. With --repair, it shows each repair, and runs those that you confirm.

    Exit code 0: no findings, or only notes; 1: findings; 2: the doctor could not look, or a named object is missing.
    """
    # urllib3 logs each new attempt. The doctor itself tells once which system didn't answer.
    logging.getLogger("urllib3").addHandler(logging.NullHandler())
    names = {"namespace": namespace, "service_account": service_account, "pod": pod, "role": role}
    try:
        if explain is not None:
            _refuse_with_explain(command, {*names, "explain", "as_json"})
            _print_explanations(explain, as_json, names)
            return
        _refuse_repair_with(repair, {"--all": everything, "--json": as_json})
        _refuse_nonsense(everything, service_account or pod or role or action, pod, action, resource)
        _refuse_path(role)
        if target == "moto":
            _refuse_for_moto({"--kubeconfig": kubeconfig, "--context": context})
        parameters, connection = _connect(
            target=target,
            cluster=cluster,
            region=region,
            namespace=namespace,
            service_account=service_account,
            role_name=role,
            account_id=account_id,
            kubeconfig=kubeconfig,
            context=context,
        )
        # Import only now: these modules load slow packages.
        from labkit import doctor
        from labkit.cli import doctor_output, doctor_repair
        from labkit.doctor import diagnose

        if everything:
            subjects = doctor.Survey(connection, parameters, namespace, probe=probe)
            code = doctor_output.show_all(
                subjects, namespace, connection.commands_after, as_json=as_json, verbose=verbose
            )
        else:
            if namespace and not service_account:
                service_account = doctor.meant_account(connection, parameters, pod)
            look = partial(
                diagnose,
                namespace=parameters.namespace,
                service_account=service_account or parameters.service_account,
                connection=connection,
                cluster=parameters.cluster,
                pod=pod,
                role=role,
                action=action,
                resource=resource,
                probe=probe,
            )
            if repair:
                code = doctor_repair.repair(look, connection)
            else:
                code = doctor_output.show(look(), connection.commands_after, as_json=as_json, verbose=verbose)
    except LabError as error:
        _print_error(error, as_json)
        code = COULD_NOT_LOOK
    raise typer.Exit(code)


def _refuse_with_explain(command: typer.Context, used: set[str]) -> None:
    unused = [option for option in command.command.params if option.name not in used]
    sources = {option.opts[0]: command.get_parameter_source(str(option.name)) for option in unused}
    if given := [name for name, source in sources.items() if source and source.name == "COMMANDLINE"]:
        raise LabError(
            f"--explain only reads the message, so it can't be combined with {' and '.join(given)}.",
            next="labkit doctor --explain TEXT; without --explain, the doctor looks at the service account itself",
        )


def _refuse_repair_with(repair: bool, others: dict[str, bool]) -> None:
    for name, is_given in others.items():
        if repair and is_given:
            raise LabError(
                f"{name} can't be combined with --repair. --repair is for one service account, and asks you before "
                "each repair.",
                next="labkit doctor --namespace NAMESPACE --service-account NAME --repair",
            )


def _refuse_nonsense(everything: bool, of_one: str, pod: str, action: str, resource: str) -> None:
    if everything and of_one:
        raise LabError(
            "--all looks at every service account, so no option may name a service account, pod, role or action.",
            next="labkit doctor --all",
        )
    if resource and not action:
        raise LabError("--resource needs --action.", next="--action s3:ListBucket")
    if action and not re.fullmatch(r"[a-z0-9-]+:[A-Za-z0-9]+", action):
        raise LabError(
            f"{action!r} is not an action. An action is written SERVICE:NAME.", next="--action s3:ListBucket"
        )
    if resource and not (resource == "*" or resource.startswith("arn:")):
        raise LabError(f"{resource!r} is not an ARN.", next="--resource arn:aws:s3:::BUCKET")
    _refuse_unknown_action(action)
    _refuse_other_resource(action, resource)
    if pod and not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", pod):
        raise LabError(
            f"{pod!r} is not a pod's name. A pod's name has only lower-case letters, digits, hyphens and dots.",
            next="kubectl get pods -n NAMESPACE",
        )


def _refuse_unknown_action(action: str) -> None:
    from labkit.policy.reference import has_action, nearest_action

    if action and not has_action(action):
        nearest = nearest_action(action)
        raise LabError(
            f"IAM has no action {action}.",
            next=f"--action {nearest}"
            if nearest
            else "look for the action's name: https://docs.aws.amazon.com/"
            "service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html",
        )


def _refuse_other_resource(action: str, resource: str) -> None:
    """Raise `LabError` if no policy can allow an S3 action on the resource, because it's for buckets, or for objects.

    https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
    """
    from labkit.policy.reference import is_on

    named = re.fullmatch(r"(arn:[\w-]+:s3:::[^/*?]+)(/.+)?", resource)
    if named is None:
        return
    bucket, key = named.groups()
    on_bucket, on_object = is_on(action, "bucket"), is_on(action, "object")
    if key and on_bucket and not on_object:
        raise LabError(f"{action} is an action on a bucket, and {resource} names objects.", next=f"--resource {bucket}")
    if not key and on_object and not on_bucket:
        raise LabError(
            f"{action} is an action on an object, and {resource} names a bucket.", next=f"--resource {bucket}/KEY"
        )


def _refuse_path(role: str) -> None:
    path, _, name = role.rpartition("/")
    if path and name:
        raise LabError(
            f"--role takes a role's name without ARN and path, not {role!r}.",
            next=f"labkit doctor with --role {shlex.quote(name)}",
        )


def _refuse_for_moto(options: dict[str, str]) -> None:
    """Raise `LabError` if one of these options has a value: on moto, the lab itself knows how to reach its clusters."""
    if given := [name for name, value in options.items() if value]:
        raise LabError(
            f"{' and '.join(given)} can be used only with --target kind or --target eks.",
            next="for a cluster of the lab: labkit doctor --cluster NAME; for another cluster: add --target kind",
        )


def _connect(**names: str) -> "tuple[Parameters, Connection]":
    """Return the parameters that have a value in `names`, and a connection to AWS and to the cluster."""
    from labkit import targets
    from labkit.run_parameters import Parameters

    parameters = Parameters.checked(**{name: value for name, value in names.items() if value})
    if "region" not in parameters.given and (region := targets.target(parameters.target).own_region()):
        parameters = Parameters.checked(**parameters.given, region=region)
    connection = targets.look(parameters)
    if connection.is_embedded:
        from labkit.course import examination

        examination.note_the_doctor()
    return parameters, connection


def _print_error(error: LabError, as_json: bool) -> None:
    if as_json:
        reason = {"what": error.what, "where": error.where, "next": error.next}
        typer.echo(json.dumps({"ok": False, "exit_code": COULD_NOT_LOOK, "could_not_look": reason}))
    typer.secho(f"labkit doctor: {typed(error)}", fg="red" if sys.stderr.isatty() else None, err=True)


def _print_explanations(text: str, as_json: bool, names: dict[str, str]) -> None:
    from labkit import doctor

    if text == "-":
        text = sys.stdin.read()
    errors = doctor.explain(text, **{kind: name for kind, name in names.items() if name})
    if not errors:
        raise LabError(
            "The doctor doesn't recognise this error.",
            where="--explain",
            next=f"{_with_names(**names)}, which looks at the service account itself",
        )
    if as_json:
        typer.echo(json.dumps([each.as_json() for each in errors], indent=2))
    else:
        typer.echo("\n\n".join(str(each) for each in errors))


def _with_names(*, namespace: str, service_account: str, **more: str) -> str:
    """Return the command that looks at the service account, with the names that the user gave."""
    options = ["-n", namespace or "NAMESPACE", "-s", service_account or "SERVICE_ACCOUNT"]
    options += [part for kind, name in more.items() if name for part in (f"--{kind}", name)]
    return shlex.join(["labkit", "doctor", *options])
