"""Step 1: an OIDC provider for the cluster's issuer is registered in IAM."""

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from labkit import findings
from labkit.checks import Row
from labkit.findings import Finding, provider
from labkit.steps.ownership import Found, Owner, of_tags, removed

if TYPE_CHECKING:
    from labkit.evidence import Evidence, NotRead
    from labkit.lab import Lab
    from labkit.parameters import Parameters

TITLE = "the OIDC provider"
AUDIENCE = "sts.amazonaws.com"
NAMED = 5  # roles that are named of those that keep a provider
CAUSES = provider.CAUSES


def build(parameters: "Parameters", issuer: str) -> dict[str, Any]:
    """What is registered: the issuer, and the audience of the tokens that it signs for AWS.

    https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateOpenIDConnectProvider.html
    """
    return {"Url": issuer, "ClientIDList": [AUDIENCE]}


def ensure(lab: "Lab") -> None:
    """Registers the issuer, and adds the audience where it lacks. Other runs of the cluster share the provider."""
    iam = lab.aws.client("iam")
    wanted = build(lab.parameters, lab.issuer)
    try:
        audiences = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=lab.provider_arn)["ClientIDList"]
    except iam.exceptions.NoSuchEntityException:
        # Another run of the cluster may be a moment earlier.
        with suppress(iam.exceptions.EntityAlreadyExistsException):
            iam.create_open_id_connect_provider(**wanted, Tags=lab.tags)
        return
    if AUDIENCE not in audiences:
        iam.add_client_id_to_open_id_connect_provider(OpenIDConnectProviderArn=lab.provider_arn, ClientID=AUDIENCE)


def check(evidence: "Evidence", unread: "list[NotRead] | None" = None) -> list[Finding]:
    """Is the issuer registered, for the audience of its tokens?"""
    return findings.found(CAUSES, evidence, unread)


def rows(evidence: "Evidence") -> list[Row]:
    """What the check compared."""
    registered = evidence.provider
    url = "https://" + registered["Url"].removeprefix("https://") if registered else "no OIDC provider"
    audiences = ", ".join(registered["ClientIDList"]) if registered else "no OIDC provider"
    wanted = evidence.audience
    return [
        Row("issuer", evidence.issuer, url),
        Row("audience", wanted, audiences, bool(registered) and wanted in registered["ClientIDList"]),
    ]


def remove(lab: "Lab") -> list[str]:
    """Takes away the providers that bear this run's tag; returns a line for each, and for what was left alone."""
    return removed(found(lab))


def found(lab: "Lab") -> Iterator[Found]:
    """The account's OIDC providers, and whose each is; one that other roles trust stays, in an account of yours."""
    iam = lab.aws.client("iam")
    for listed in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]:
        arn = listed["Arn"]
        try:
            tags = iam.list_open_id_connect_provider_tags(OpenIDConnectProviderArn=arn)["Tags"]
        except iam.exceptions.NoSuchEntityException:
            continue  # another run has just removed it
        owner, others = of_tags(lab, tags, same_name=arn == lab.provider_arn), ""
        if owner is Owner.THIS_RUN and not lab.connection.is_embedded and (roles := _others_roles(lab, iam, arn)):
            owner, others = Owner.TRUSTED, _listed(roles)
        delete = partial(iam.delete_open_id_connect_provider, OpenIDConnectProviderArn=arn)
        yield Found(f"OIDC provider {arn.partition('oidc-provider/')[2]}", owner, delete, others)


def _others_roles(lab: "Lab", iam: Any, arn: str) -> list[str]:
    """The account's roles that trust the provider, and do not go with this run.

    https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListRoles.html
    """
    trusting = [
        role["RoleName"]
        for page in iam.get_paginator("list_roles").paginate()
        for role in page["Roles"]
        if f'"{arn}"' in json.dumps(role["AssumeRolePolicyDocument"])
    ]
    return sorted(name for name in trusting if not _goes(lab, iam, name))


def _goes(lab: "Lab", iam: Any, role_name: str) -> bool:
    try:
        tags = iam.list_role_tags(RoleName=role_name)["Tags"]
    except iam.exceptions.NoSuchEntityException:
        return True  # somebody has just removed it
    owner = of_tags(lab, tags, same_name=role_name == lab.parameters.role_name)
    return owner in (Owner.THIS_RUN, Owner.NOBODY)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:NAMED])
    return f"the roles {shown}" + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
