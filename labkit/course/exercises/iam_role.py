"""Notebook 02: the trust policy decides who may become the role."""

from contextlib import suppress

from labkit import documents
from labkit.course.exercises.asking import admits, for_others, newcomers, only_cart, refuses
from labkit.course.exercises.exercise import Exercise, ensure_account, make_account, make_role
from labkit.doctor import Comparison
from labkit.workspace import Workspace

ANOTHER_AUDIENCE = "vault"  # the provider lists it while an exercise is open


def _role_for_the_wrong_namespace(place: Workspace) -> None:
    _accounts(place, "till")
    elsewhere = place.parameters.model_copy(update={"namespace": "default"})
    policy = documents.trust_policy(elsewhere, place.provider_arn)
    make_role(place, policy)


def _role_for_cart_alone(place: Workspace) -> None:
    _accounts(place, "till", "guest")
    make_role(place)


def _accounts(place: Workspace, *others: str) -> None:
    ensure_account(place)
    # A trust policy without :aud then admits a token that isn't meant for AWS.
    place.aws.client("iam").add_client_id_to_open_id_connect_provider(
        OpenIDConnectProviderArn=place.provider_arn, ClientID=ANOTHER_AUDIENCE
    )
    for name in others:
        make_account(place, name)


def _cart_and_till(place: Workspace) -> list[Comparison]:
    both = ("cart", "till")
    others = [row for name in both for row in for_others(place, name)]
    return [*(admits(place, name) for name in both), refuses(place, "guest"), *newcomers(place, *both), *others]


def _list_sts_alone(place: Workspace) -> None:
    iam = place.aws.client("iam")
    with suppress(iam.exceptions.NoSuchEntityException):
        iam.remove_client_id_from_open_id_connect_provider(
            OpenIDConnectProviderArn=place.provider_arn, ClientID=ANOTHER_AUDIENCE
        )


EXERCISES = (
    Exercise("02-a", _role_for_the_wrong_namespace, only_cart, restore=_list_sts_alone),
    Exercise("02-b", _role_for_cart_alone, _cart_and_till, restore=_list_sts_alone),
)
