"""`labkit up`: start the lab. Create a cluster, or join an existing cluster to the lab. Print the next command."""

import importlib
import json
import shlex
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from labkit import simulator
from labkit.cli.commands import command
from labkit.cli.lab import running
from labkit.errors import LabError, UnknownName
from labkit.simulator import Folder, JoinedFolder
from labkit.simulator import kubeconfig as kubeconfig_of_the_lab

# An answer with a token of the metadata service may pass so many networks. A pod is two away.
HOP_LIMITS = {"open": 2, "closed": 1}


def up(
    *,
    cluster: Annotated[str, typer.Option(help="The EKS cluster. If it doesn't exist, it is created.")] = "blue",
    region: Annotated[str, typer.Option(help="The cluster's AWS region.")] = "us-east-1",
    bare: Annotated[
        bool,
        typer.Option("--bare", help="Start only an API server, separate from the lab, without webhook and node."),
    ] = False,
    target: Annotated[
        str,
        typer.Option(help="moto: everything on this machine; kind: a kind cluster, or the cluster of --kubeconfig."),
    ] = "moto",
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Only for the target kind: the kubeconfig of an existing cluster.")
    ] = None,
    context: Annotated[str, typer.Option(help="Only for the target kind: the context in the kubeconfig.")] = "",
    aws_host: Annotated[
        str, typer.Option(help="Only for the target kind: the IPv4 address at which containers reach this machine.")
    ] = "",
    image: Annotated[
        str, typer.Option(help="Only for the target kind: the pods' image. Without it: amazon/aws-cli.")
    ] = "",
    imds: Annotated[
        str,
        typer.Option(help="open or closed: whether pods reach their node's metadata service (IMDS), and so its role."),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Start the lab and a cluster. Anything already running is left alone."""
    from labkit.run_parameters import Parameters

    if imds not in ("", *HOP_LIMITS):
        raise UnknownName("value of --imds", imds, HOP_LIMITS)
    if imds and (bare or target != "moto"):
        message = "--imds can be used only for the lab's own nodes, so without --bare and --target."
        raise LabError(message, where="labkit up; nothing was changed", next="labkit up --imds open")
    if target == "kind":
        if bare:
            raise LabError(
                "--bare starts only an API server, so it can't be combined with --target kind.",
                next="labkit up --bare",
            )
        join(
            cluster=cluster,
            region=region,
            kubeconfig=kubeconfig,
            context=context,
            aws_host=aws_host,
            image=image,
            as_json=as_json,
        )
        return
    if target != "moto":
        next_ = "labkit plan -p target=eks …" if target == "eks" else "labkit up"
        raise UnknownName("target that labkit up starts", target, ("moto", "kind"), next=next_)
    refuse_options(kubeconfig=kubeconfig, context=context, aws_host=aws_host, image=image)
    Parameters.checked(cluster=cluster, region=region)
    state, issuer, note = start(cluster, region, bare=bare)
    if imds:
        set_hop_limits(HOP_LIMITS[imds], state)
    if as_json:
        typer.echo(json.dumps(_described("moto", state, cluster, region, issuer), indent=2))
        return
    if note:
        typer.echo(note)
    if bare:
        typer.echo(
            f"Only an API server is up: {state.clusters[state.context(cluster, region)]['endpoint']}\n"
            f"Next:  kubectl --kubeconfig {shlex.quote(str(state.kubeconfig))} get namespaces\n"
            f"End:   {command()} down --bare"
        )
        return
    typer.echo(
        f"The lab is up: cluster {cluster}, account {state.account_id}, {region}.\n"
        f"  issuer   {issuer}\n"
        f"  AWS      {state.endpoint_url}\n"
        "Pods are processes of your user, not sandboxes. Run only programs in them that you would run yourself.\n"
        f'Next:  eval "$({command()} env)"'
    )


def start(cluster: str, region: str, *, bare: bool = False) -> tuple[simulator.State, str, str | None]:
    """Start the lab and the cluster, and make kubectl use the cluster.

    Return the lab's state, the cluster's issuer, and the lab's note for the user, if it has one. Raises `LabError`.
    """
    folder = Folder.find().bare if bare else Folder.find()
    # boto3 and its client take as long to load as the server takes to start, so do both at once.
    loading = threading.Thread(target=_load_clients)
    loading.start()
    try:
        state = simulator.start(folder, bare=bare)
    finally:
        loading.join()
    from labkit.targets import moto

    note = state.note
    made = moto.ensure_cluster(simulator.session(state, region), cluster, state.account_id)
    state = simulator.State.read(folder) or state
    _put_kubectl_on(folder, state, cluster, region)
    return state, made["identity"]["oidc"]["issuer"], note


def set_hop_limits(limit: int, state: simulator.State) -> None:
    """Set the hop limit of the lab's nodes, and of those that it will create."""
    Folder.find().write_json(simulator.IMDS, {"hop_limit": limit})
    for region in {name.partition("@")[2] or state.region for name in state.clusters}:
        simulator.set_hop_limit(simulator.session(state, region), limit)


def _load_clients() -> None:
    importlib.import_module("labkit.targets.moto")
    simulator.load_client("eks")


def _put_kubectl_on(folder: Folder, state: simulator.State, cluster: str, region: str) -> None:
    before = state.kubeconfig.read_text()
    arn = f"arn:aws:eks:{region}:{state.account_id}:cluster/{cluster}"
    after = kubeconfig_of_the_lab.leading_to(before, state.context(cluster, region), arn)
    if after != before:
        folder.write_private(state.kubeconfig, after.encode())


def join(
    *,
    cluster: str,
    region: str = "us-east-1",
    kubeconfig: Path | None = None,
    context: str = "",
    aws_host: str = "",
    image: str = "",
    as_json: bool = False,
) -> None:
    """Join a cluster to the lab, and print the result. Raises `LabError`.

    With a kubeconfig, join the cluster of its context `context`. Without a kubeconfig, join the cluster that joined
    before under the name `cluster`. If there's no such cluster, create it with kind.
    """
    from labkit.run_parameters import Parameters
    from labkit.targets import kind
    from labkit.targets.kind.kubeconfig import Way, facts_of

    if kubeconfig:
        with suppress(RuntimeError):  # ~NAME of an unknown user
            kubeconfig = kubeconfig.expanduser()  # a shell doesn't expand --kubeconfig=~/…
        kubeconfig = kubeconfig.absolute()
        Way.of_kubeconfig(kubeconfig, context)
    parameters = Parameters.checked(
        target="kind",
        cluster=cluster,
        region=region,
        kubeconfig=str(kubeconfig or ""),
        context=context,
        image=image,
    )
    connection = kind.up(parameters, aws_host=aws_host)
    folder, state = running()
    _put_kubectl_on(folder, state, cluster, region)
    kept = JoinedFolder(folder, cluster, region)
    facts = facts_of(kept)
    if image and image != facts.image:
        # The cluster had joined before, with another image. From now on, notebooks use this one.
        kept.keep_facts(facts := replace(facts, image=image))
    if as_json:
        typer.echo(json.dumps(_described("kind", state, cluster, region, connection.issuer), indent=2))
        return
    if connection.note:
        typer.echo(connection.note)
    typer.echo(
        f"The lab is up: cluster {cluster}, account {state.account_id}, {region}.\n"
        f"  cluster  {facts.source}, {state.clusters[state.context(cluster, region)]['endpoint']}\n"
        f"  issuer   {connection.issuer}\n"
        f"  AWS      {state.endpoint_url}; pods reach it at {facts.aws_host}\n"
        f"  image    {image or connection.image}\n"
        "While the lab is up, new pods outside the kube-… namespaces reach the lab's AWS instead of the real AWS.\n"
        f'Next:  eval "$({command()} env)"\n'
        '       In a notebook:  target = "kind"\n'
        f"End:   {command()} down"
    )


def refuse_options(**given: object) -> None:
    """Raise `LabError` if an option in `given` has a value. These options can be used only with `--target kind`."""
    named = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if named:
        raise LabError(
            f"{' and '.join(named)} can be used only with --target kind.",
            where="labkit up; nothing was changed",
            next="labkit up --target kind " + " ".join(f"{name} …" for name in named),
        )


def _described(target: str, state: simulator.State, cluster: str, region: str, issuer: str) -> dict[str, Any]:
    """Return the lab's addresses and keys for other programs. Later versions of labkit only add fields."""
    return {
        "target": target,
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
