"""`labkit webhook`: the pod identity webhook for an API server that isn't the lab's."""

import logging
import sys
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from labkit.cli.commands import command
from labkit.errors import LabError
from labkit.simulator import Folder

if TYPE_CHECKING:
    from labkit.webhook import serving

app = typer.Typer(
    no_args_is_help=True, help="The pod identity webhook without the lab: for kind, or any other Kubernetes cluster."
)

Listen = Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the webhook listens.")]
Host = Annotated[
    str,
    typer.Option(
        help="The name or address at which the API server reaches the webhook. Without it: the host of --listen."
    ),
]
Certificate = Annotated[
    Path | None,
    typer.Option(
        help="The PEM file with the webhook's certificate, then the CA's certificate. Without --certificate: labkit "
        "makes a certificate and keeps it."
    ),
]
Key = Annotated[Path | None, typer.Option(help="The certificate's key (PEM, without a password).")]


@app.command()
def serve(
    *,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            help="The kubeconfig for reading service accounts. Without --kubeconfig: in a pod, the pod's own service "
            "account; elsewhere, the file in KUBECONFIG or ~/.kube/config."
        ),
    ] = None,
    context: Annotated[str | None, typer.Option(help="The kubeconfig's context. Without it: the current one.")] = None,
    listen: Listen = "127.0.0.1:8443",
    host: Host = "",
    certificate: Certificate = None,
    key: Key = None,
    region: Annotated[
        str, typer.Option(help="The region for containers that set none. Without --region, the webhook sets no region.")
    ] = "",
    audience: Annotated[str, typer.Option(help="The tokens' audience.")] = "sts.amazonaws.com",
    token_expiration: Annotated[int, typer.Option(min=600, help="The tokens' lifetime in seconds.")] = 86400,
    sts_regional_endpoints: Annotated[
        bool, typer.Option(help="Let a pod's SDK call STS in the pod's region, not the global STS.")
    ] = True,
    annotation_prefix: Annotated[str, typer.Option(help="The prefix of the annotations' names.")] = "eks.amazonaws.com",
    mount_path: Annotated[
        str, typer.Option(help="The token's folder in the containers.")
    ] = "/var/run/secrets/eks.amazonaws.com/serviceaccount",
) -> None:
    """Print the manifest that registers the webhook. Then answer admission reviews until Ctrl-C."""
    import asyncio

    from labkit.webhook import AccountSettings, ServiceAccounts, WebhookServer, serving
    from labkit.webhook.connection import connect

    if not mount_path.startswith("/"):
        raise LabError(f"{mount_path!r} is not an absolute path.", next="--mount-path /var/run/secrets/aws")
    prefix = annotation_prefix.rstrip("/")
    if not prefix:
        raise LabError("The prefix of the annotations' names is empty.", next="--annotation-prefix eks.amazonaws.com")
    address, identity = _address_and_identity(listen, host, certificate, key)
    client = connect(kubeconfig, context)
    bound = serving.bind(address)
    address = replace(address, port=bound.getsockname()[1])
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logging.getLogger("labkit.webhook").setLevel(logging.INFO)
    defaults = AccountSettings(
        audience=audience, token_expiration=token_expiration, sts_regional_endpoints=sts_regional_endpoints
    )
    accounts = ServiceAccounts(client, defaults=defaults, prefix=prefix)

    def ready() -> None:
        typer.echo(serving.manifest(address, identity), nl=False)
        sys.stdout.flush()
        if not address.is_loopback:
            typer.echo(
                f"Warning: {address.listen} is not loopback. Whoever reaches the port can learn which service account"
                " has which role.",
                err=True,
            )
        more = f" --host {host}" if host else ""
        more += f" --certificate {quote(str(certificate))} --key {quote(str(key))}" if certificate else ""
        typer.echo(
            f"Ready: {address.url}, for the service accounts of {client.base_url}. Ctrl-C ends the webhook.\n"
            "Next, in another terminal, as an administrator of the cluster:\n"
            f"  {command()} webhook manifest --listen {address.socket}{more} | kubectl apply -f -",
            err=True,
        )

    webhook = WebhookServer(accounts, region=region, prefix=prefix, mount_path=mount_path)
    asyncio.run(serving.serve(webhook, client, bound, identity, ready))
    typer.echo(
        "The webhook has ended. New pods now get no role, because the API server skips a webhook that is down.",
        err=True,
    )


@app.command()
def manifest(
    listen: Listen = "127.0.0.1:8443",
    host: Host = "",
    certificate: Certificate = None,
    key: Key = None,
) -> None:
    """Print the manifest that registers the webhook: a ClusterRole and a MutatingWebhookConfiguration."""
    from labkit.webhook import serving

    address, identity = _address_and_identity(listen, host, certificate, key)
    if not address.port:
        raise LabError(
            "The manifest needs the webhook's port. With port 0, the webhook chooses its port when it starts.",
            next="name a port in --listen, or run labkit webhook serve, which also prints the manifest",
        )
    typer.echo(serving.manifest(address, identity), nl=False)


def _address_and_identity(
    listen: str, host: str, certificate: Path | None, key: Path | None
) -> "tuple[serving.Address, serving.ServingCertificate]":
    from labkit.webhook import serving

    address = serving.Address.of(listen, host)
    return address, serving.ServingCertificate.of(address, Folder.find().path / "webhook", certificate, key)
