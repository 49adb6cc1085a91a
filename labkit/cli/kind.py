"""`labkit up --target kind`: joins a kind cluster, or one that exists, to the lab, and says how to go on."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from labkit.errors import LabError

if TYPE_CHECKING:
    from labkit.emulator.process import State


def up(
    *,
    cluster: str,
    region: str = "us-east-1",
    kubeconfig: Path | None = None,
    context: str = "",
    aws_host: str = "",
    image: str = "",
    as_json: bool = False,
) -> None:
    """Joins the cluster that the kubeconfig's context names; without one, the cluster of the last time, or a new one.

    Raises `LabError`.
    """
    from labkit.emulator.folder import Folder
    from labkit.emulator.joined import Kept
    from labkit.emulator.process import State
    from labkit.parameters import Parameters
    from labkit.targets import kind
    from labkit.targets.kind.kubeconfig import Way

    if kubeconfig:
        with suppress(RuntimeError):  # nobody has that home
            kubeconfig = kubeconfig.expanduser()  # a shell leaves the ~ of --kubeconfig=~/…
        kubeconfig = kubeconfig.absolute()
        Way.read(kubeconfig, context)
    parameters = Parameters.checked(
        target="kind",
        cluster=cluster,
        region=region,
        kubeconfig=str(kubeconfig or ""),
        context=context,
        image=image,
    )
    connection = kind.up(parameters, aws_host=aws_host)
    folder = Folder.find()
    kept = Kept(folder, cluster, region)
    state, facts = State.read(folder), kept.facts
    if image and image != facts.image:
        # The cluster had joined before: it is the notebooks' image from now on.
        kept.keep_facts(facts := replace(facts, image=image))
    if as_json:
        typer.echo(json.dumps(_connection(state, cluster, region, connection.issuer), indent=2))
        return
    if connection.note:
        typer.echo(connection.note)
    typer.echo(
        f"The lab is up: cluster {cluster}, account {state.account_id}, {region}.\n"
        f"  cluster  {facts.source}, {state.clusters[state.context(cluster, region)]['endpoint']}\n"
        f"  issuer   {connection.issuer}\n"
        f"  AWS      {state.endpoint_url}; pods reach it at {facts.aws_host}\n"
        f"  image    {image or connection.image}\n"
        "While the lab is up, new pods outside the kube-… namespaces are led to its AWS, and to no real one.\n"
        'Next:  eval "$(labkit env)", and in a notebook target = "kind"\n'
        "End:   labkit down"
    )


def refuse_options(**given: Any) -> None:
    """Raises `LabError` where an option of this target was given for another."""
    named = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if named:
        raise LabError(
            f"{' and '.join(named)} {'is' if len(named) == 1 else 'are'} for the target kind alone.",
            where="labkit up; nothing was changed",
            next="labkit up --target kind " + " ".join(f"{name} …" for name in named),
        )


def _connection(state: "State", cluster: str, region: str, issuer: str) -> dict[str, Any]:
    """What another program needs to use the lab; the same keys as those of the target moto."""
    return {
        "target": "kind",
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
