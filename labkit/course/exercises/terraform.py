"""Notebook 08: the role that a Terraform module makes."""

from typing import Any
from uuid import uuid4

from labkit import terraform
from labkit.connection import core_api
from labkit.course.exercises.asking import (
    ADMITTED,
    admits,
    elsewhere,
    exchange,
    first_admitted,
    injected,
    named_by,
    newcomers,
    refuses,
)
from labkit.course.exercises.exercise import Exercise, ensure_account, make_account, make_role
from labkit.doctor import Comparison
from labkit.steps.ownership import existing
from labkit.workspace import Workspace

BEGINNING = "provider-aws-s3-"
RELEASES = ("provider-aws-s3-6f461b0ba11f", "provider-aws-s3-0d81c27f44ae")
NEXT_RELEASE = "provider-aws-s3-b93e5a1c7d20"
# Terraform's AWS provider adds a time and a counter like these to a name's prefix.
ADDED = "20260114093122345600000001"


def _wildcard_that_admits_nobody(place: Workspace) -> None:
    for name in RELEASES:
        make_account(place, name)
    variables = terraform.variables(place.parameters, place.provider_arn)
    variables["oidc_providers"]["this"]["namespace_service_accounts"] = [f"{place.parameters.namespace}:*"]
    _role(place, variables)


def _role_whose_name_is_a_prefix(place: Workspace) -> None:
    make_account(place, "till", {})
    variables = terraform.variables(place.parameters, place.provider_arn)
    del variables["use_name_prefix"]
    _role(place, variables, ADDED)


def _role(place: Workspace, variables: dict[str, Any], added: str = "") -> None:
    ensure_account(place)
    made = terraform.rendered(variables)
    make_role(place, made.trust_policy, name=made.name + added)


def _each_release_and_nobody_else(place: Workspace) -> list[Comparison]:
    core, namespace = core_api(place.kubernetes), place.parameters.namespace
    if existing(lambda: core.read_namespaced_service_account(NEXT_RELEASE, namespace)) is None:
        make_account(place, NEXT_RELEASE)
    admitted = [admits(place, name) for name in (*RELEASES, NEXT_RELEASE)]
    return [*admitted, refuses(place), refuses(place, "default"), *_others(place), *elsewhere(place, NEXT_RELEASE)]


def _others(place: Workspace) -> list[Comparison]:
    """Return a row, marked as wrong, if STS admits a service account of the namespace that belongs to no release."""
    namespace, tail = place.parameters.namespace, uuid4().hex[:12]
    names = [f"{beginning}{tail}" for beginning in ("p", "provider-", "provider-aws-", "provider-aws-s3")]
    named = [each for each in named_by(place) if not each[0].startswith(BEGINNING) or each[1] != namespace]
    return first_admitted(place, [*((name, namespace) for name in names), *named])


def _the_role_that_exists(place: Workspace) -> list[Comparison]:
    role = injected(place)
    arn = role if role.startswith("arn:") else ""
    answer = exchange(place, role_arn=arn) if arn else role
    return [
        Comparison("a new pod of cart takes its role", ADMITTED, answer),
        Comparison("a new pod of till", "no role", injected(place, "till")),
        refuses(place, "till", role_arn=arn),
        *(newcomers(place, role_arn=arn) if answer == ADMITTED else []),
    ]


EXERCISES = (
    Exercise("08-a", _wildcard_that_admits_nobody, _each_release_and_nobody_else),
    Exercise("08-b", _role_whose_name_is_a_prefix, _the_role_that_exists),
)
