"""`labkit plan`, `labkit remove` and `labkit policy`: a run's resources, and the permissions that a run needs."""

import json
import shlex
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

from labkit.cli.commands import command
from labkit.cli.given import Given, named
from labkit.errors import LabError, answering

if TYPE_CHECKING:
    from labkit.lab import Lab
    from labkit.run_parameters import Parameters

app = typer.Typer()

NEED_MORE = (
    "These permissions are enough for irsa.ipynb and its clean-up. Other notebooks need more, for example\n"
    "  02   iam:UpdateAssumeRolePolicy, and in the cluster: create serviceaccounts/token\n"
    "  07   iam:CreateRole and iam:PutRolePolicy for roles with other names"
)


@app.command()
def plan(parameter: Given = None) -> None:
    """Show what a run would find and create. Changes nothing."""
    from labkit import targets
    from labkit.run_parameters import Parameters

    parameters = Parameters.checked(**named(parameter))
    typer.echo(targets.target(parameters.target).plan(parameters))


@app.command()
def remove(
    parameter: Given = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete the resources. Without it: only list them.")] = False,
) -> None:
    """List a run's resources. With --yes, delete them."""
    from labkit import steps, targets
    from labkit.lab import Lab
    from labkit.run_parameters import Parameters

    parameters = Parameters.checked(**named(parameter))
    with Lab(parameters, targets.to_remove(parameters)) as lab, answering(parameters.namespace):
        if lab.connection.kubernetes is None:
            typer.echo(lab.connection.note)
        if yes:
            _require_account(lab)
            lab.remove()
            return
        resources = [*steps.resources(lab)]
    going = [each.listed for each in resources if each.goes]
    for line in [*(f"  {thing}" for thing in going), *(each.line for each in resources if each.line and not each.goes)]:
        typer.echo(line)
    typer.echo("Nothing was deleted. To delete these resources, add --yes." if going else "nothing to remove")


@app.command()
def policy(
    parameter: Given = None,
    kubernetes: Annotated[
        bool,
        typer.Option(
            "--kubernetes", help="Instead, print the permissions that you need in the cluster, for kubectl apply."
        ),
    ] = False,
) -> None:
    """Print the IAM policy that you need to run irsa.ipynb in an account and to clean up after it.

    Some notebooks need more permissions. Notebook 02 requests tokens from the cluster and changes trust policies.

    Notebook 07 creates roles with other names.
    """
    import botocore.session

    from labkit.run_parameters import Parameters
    from labkit.targets.eks import operator_policy

    parameters = Parameters.checked(**named(parameter))
    if kubernetes:
        typer.echo(yaml.safe_dump_all(operator_policy.in_the_cluster(parameters), sort_keys=False))
        typer.echo(NEED_MORE, err=True)
        return
    if not parameters.account_id:
        raise LabError(
            "The policy needs the account's id, because it names resources in that account.",
            where="parameter account_id",
            next="labkit policy -p account_id=123456789012 -p cluster=… -p region=…",
        )
    partition = botocore.session.get_session().get_partition_for_region(parameters.region)
    document = operator_policy.build(parameters, parameters.account_id, partition)
    typer.echo(json.dumps(document, indent=2))
    typer.echo(
        # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
        "The policy is too long for a user's inline policy. "
        "The account's administrator creates a managed policy from it, with\n"
        f"  {command()} policy{_again(parameters)} > {operator_policy.GROUP}.json\n"
        f"  aws iam create-policy --policy-name {operator_policy.GROUP} "
        f"--policy-document file://{operator_policy.GROUP}.json\n"
        f"  aws iam attach-user-policy --user-name NAME "
        f"--policy-arn arn:{partition}:iam::{parameters.account_id}:policy/{operator_policy.GROUP}\n"
        "The user NAME also needs access to the cluster. The cluster's administrator grants it with\n"
        f"  {command()} policy --kubernetes{_again(parameters)} | kubectl apply -f -\n"
        f"  aws eks create-access-entry --cluster-name {parameters.cluster} --region {parameters.region} "
        f"--principal-arn ARN --kubernetes-groups {operator_policy.GROUP}\n{NEED_MORE}",
        err=True,
    )


def _again(parameters: "Parameters") -> str:
    return "".join(f" -p {shlex.quote(f'{name}={value}')}" for name, value in parameters.given.items())


def _require_account(lab: "Lab") -> None:
    if lab.connection.shows_removal and lab.parameters.account_id != lab.account_id:
        raise LabError(
            f"You did not name the account. Your credentials belong to the account {lab.account_id}.",
            where="parameter account_id; nothing was deleted",
            next=f"if you mean that account, add  -p account_id={lab.account_id}",
        )
