"""Step 1: register the cluster's issuer in IAM as an OIDC provider."""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from shlex import quote
from typing import TYPE_CHECKING

from labkit import documents
from labkit.documents import AUDIENCE
from labkit.policy.arn import Arn
from labkit.steps.ownership import OwnedResource, Owner, in_words, of_role, of_tags, roles_trusting, run_of

if TYPE_CHECKING:
    from types_boto3_iam.type_defs import TagTypeDef

    from labkit.workspace import Workspace

TITLE = "the OIDC provider"
build = documents.provider


def ensure(lab: "Workspace") -> None:
    """Register the issuer as an OIDC provider, or add the audience to an existing provider.

    All runs in a cluster share the provider.
    """
    iam = lab.aws.client("iam")
    wanted = build(lab.parameters, lab.issuer)
    try:
        audiences = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=lab.provider_arn)["ClientIDList"]
    except iam.exceptions.NoSuchEntityException:
        # Another run of the cluster may have registered it a moment ago.
        with suppress(iam.exceptions.EntityAlreadyExistsException):
            iam.create_open_id_connect_provider(**wanted, Tags=lab.tags)
        return
    if AUDIENCE not in audiences:
        iam.add_client_id_to_open_id_connect_provider(OpenIDConnectProviderArn=lab.provider_arn, ClientID=AUDIENCE)


def resources(lab: "Workspace") -> Iterator[OwnedResource]:
    """Yield the account's OIDC providers, each with its owner.

    The owner is `TRUSTED` if roles outside this run trust the run's provider. Then the provider isn't removed.
    """
    iam = lab.aws.client("iam")
    for arn, tags in _registered(lab):
        owner, others = _kept(lab, arn, tags, of_tags(lab, tags, same_name=arn == lab.provider_arn))
        delete = partial(iam.delete_open_id_connect_provider, OpenIDConnectProviderArn=arn)
        yield OwnedResource(f"OIDC provider {Arn.parse(arn).issuer}", owner, delete, others)


def runs(lab: "Workspace") -> Iterator[str]:
    """Yield the run in the tag of each of the account's OIDC providers."""
    yield from (run for _, tags in _registered(lab) if (run := run_of(tags)))


def hand_over(lab: "Workspace", heir: "Workspace") -> None:
    """Delete this run's providers. One that roles outside this run trust isn't deleted, but gets the tag of `heir`."""
    iam = lab.aws.client("iam")
    for arn in [arn for arn, tags in _registered(lab) if run_of(tags) == lab.run]:
        if _others_roles(lab, arn):
            iam.tag_open_id_connect_provider(OpenIDConnectProviderArn=arn, Tags=heir.tags)
        else:
            iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=arn)


def _registered(lab: "Workspace") -> "Iterator[tuple[str, list[TagTypeDef]]]":
    """Yield the ARN and the tags of each of the account's OIDC providers."""
    iam = lab.aws.client("iam")
    for listed in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]:
        # Another run may have removed it a moment ago.
        with suppress(iam.exceptions.NoSuchEntityException):
            yield listed["Arn"], iam.list_open_id_connect_provider_tags(OpenIDConnectProviderArn=listed["Arn"])["Tags"]


def _kept(lab: "Workspace", arn: str, tags: "list[TagTypeDef]", owner: Owner) -> tuple[Owner, str]:
    """Return the provider's owner, and the text for `OwnedResource.others`.

    If roles outside this run trust this run's provider, the text names those roles, and ends with the command that
    removes this run. If the provider belongs to another run, the text names that run, and ends with the command that
    removes that run. Otherwise, the text is empty.
    """
    run = run_of(tags)
    if owner.goes and (roles := _others_roles(lab, arn)):
        trust = in_words(roles, "trusts it", "trust it")
        then = f"once no role outside this run trusts the provider, run: {_removal(lab, lab.run)}"
        return Owner.TRUSTED, f"{trust}; {then}"
    # If the cluster is gone, only the run's own role still shows which provider belonged to the cluster.
    if owner is Owner.STRANGER and run and lab.connection.kubernetes is None:
        is_trusted = any(run_of(tags) == lab.run for _, tags in roles_trusting(lab, f'"{arn}"'))
        owner = Owner.ANOTHER_RUN if is_trusted else owner
    if owner is Owner.ANOTHER_RUN and run:
        return owner, f", {run}. To remove that run: {_removal(lab, run)}"
    return owner, ""


def _others_roles(lab: "Workspace", arn: str) -> list[str]:
    """Return the names of the roles that trust the provider and don't belong to this run."""
    trusting = [(role["RoleName"], role, tags) for role, tags in roles_trusting(lab, f'"{arn}"')]
    own = lab.parameters.role_name
    return sorted(name for name, role, tags in trusting if not of_role(lab, role, tags, same_name=name == own).goes)


def _removal(lab: "Workspace", run: str) -> str:
    """Return the `labkit remove` command for a run in this account."""
    names, parts = ("cluster", "namespace", "service_account", "role_name"), run.split("/")
    if len(parts) != len(names):
        return "labkit remove -p …, with that run's parameters"
    given = {name: getattr(lab.parameters, name) for name in ("target", "region", "kubeconfig", "context")}
    if lab.connection.shows_removal:
        given["account_id"] = lab.account_id
    given |= dict(zip(names, parts, strict=True))
    usual = type(lab.parameters).model_fields
    named = {name: value for name, value in given.items() if name == "region" or value != usual[name].default}
    return " ".join(["labkit remove", *(f"-p {name}={quote(value)}" for name, value in named.items())])
